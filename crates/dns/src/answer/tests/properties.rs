use proptest::prelude::*;

use super::*;

/// Labels of which names are made that may be known, half known and unknown.
const LABELS: &[&str] = &[
    "web",
    "db",
    "WEB-1",
    "back",
    "front",
    "dev",
    "hidden",
    "secret",
    "tombolo",
    "internal",
    "host",
    "localhost",
    "invalid",
    "_tcp",
    "_udp",
    "_http",
    "_53",
    "com",
    "arpa",
    "in-addr",
    "ip6",
    "1",
    "10",
    "0",
    "11",
    "f",
    "database",
    "quiet",
    "x",
    "api",
    "example",
];

fn wire_name() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(LABELS).prop_map(|label| label.as_bytes().to_vec());
    let label = prop_oneof![12 => known, 1 => prop::collection::vec(any::<u8>(), 1..=63)];
    prop::collection::vec(label, 0..7).prop_map(|labels| {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(label.len() as u8);
            wire.extend(label);
        }
        wire.push(0);
        wire
    })
}

/// A query as clients send them: number, flags, name, type, class and perhaps an OPT record.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let kinds = [
        1, 28, 12, 33, 6, 2, 16, 255, 252, 65, 64, 41, 43, 48, 250, 0,
    ];
    let edns = prop::option::of((any::<u16>(), any::<bool>(), prop::bool::weighted(0.1)));
    let kind = prop_oneof![4 => prop::sample::select(kinds.to_vec()), 1 => any::<u16>()];
    let class = prop_oneof![9 => Just(1_u16), 1 => any::<u16>()];
    let flags = prop_oneof![Just(0x0100_u16), Just(0x0110), Just(0), Just(0x0120)];
    (any::<u16>(), flags, wire_name(), kind, class, edns).prop_map(
        |(id, flags, name, kind, class, edns)| {
            let mut bytes = Vec::new();
            let extra = u16::from(edns.is_some());
            for word in [id, flags, 1, 0, 0, extra] {
                bytes.extend(word.to_be_bytes());
            }
            bytes.extend(name);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(class.to_be_bytes());
            if let Some((size, dnssec_ok, newer)) = edns {
                bytes.extend([0, 0, 41]);
                bytes.extend(size.to_be_bytes());
                bytes.extend([0, u8::from(newer), u8::from(dnssec_ok) << 7, 0, 0, 0]);
            }
            bytes
        },
    )
}

/// Queries with single bytes changed, or cut, or with something added.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let tail = prop::collection::vec(any::<u8>(), 0..24);
    (
        valid(),
        changes,
        any::<prop::sample::Index>(),
        0..4_u8,
        tail,
    )
        .prop_map(|(mut bytes, changes, cut, what, tail)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            match what {
                0 => bytes.truncate(cut.index(bytes.len())),
                1 => bytes.extend(tail),
                _ => {}
            }
            bytes
        })
}

fn carrier() -> impl Strategy<Value = Carrier> {
    prop_oneof![Just(Carrier::Datagram), Just(Carrier::Stream)]
}

/// Checks what is true of every answer.
fn check_answer(bytes: &[u8], query: &[u8], carrier: Carrier) -> Result<Message, TestCaseError> {
    prop_assert_eq!(&bytes[..2], &query[..2]);
    let message = Message::from_vec(bytes);
    prop_assert!(message.is_ok(), "{:?} {:?}", message, bytes);
    let message = message.unwrap();
    prop_assert_eq!(message.metadata.message_type, MessageType::Response);
    prop_assert_eq!(message.metadata.recursion_desired, query[2] & 1 == 1);
    let limit = match (carrier, Message::from_vec(query).ok().and_then(|q| q.edns)) {
        (Carrier::Stream, _) => 65_535,
        (Carrier::Datagram, Some(edns)) => usize::from(edns.max_payload().clamp(512, 1232)),
        (Carrier::Datagram, None) if message.edns.is_some() => 1232,
        (Carrier::Datagram, None) => 512,
    };
    prop_assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
    Ok(message)
}

fn check(query: &[u8], view: &View, carrier: Carrier, turn: u32) -> Result<(), TestCaseError> {
    let settings = Settings::default();
    match decide(&names(), view, &settings, query, carrier, turn) {
        Decision::Ignore => prop_assert!(query.len() < 12 || query[2] & 0x80 != 0),
        Decision::Answer(bytes) => {
            let answer = check_answer(&bytes, query, carrier)?;
            if let (Some(echoed), Ok(asked)) = (answer.queries.first(), Message::from_vec(query)) {
                prop_assert!(echoed.name().eq_case(asked.queries[0].name()));
                prop_assert_eq!(echoed, &asked.queries[0]);
            }
        }
        Decision::Forward(question) => {
            prop_assert!(view.forwards && question.recursion_desired());
            prop_assert_eq!(question.class(), DNSClass::IN);
            prop_assert!(!is_no_data(question.record_type()));
            prop_assert_ne!(question.record_type(), RecordType::ANY);
            let name = question.name().to_lowercase().to_ascii();
            let ours = ["tombolo.internal.", "localhost.", "invalid."];
            for ours in ours {
                prop_assert!(
                    name != ours && !name.ends_with(&format!(".{ours}")),
                    "{name}"
                );
            }
            check_answer(&question.failed(), query, carrier)?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_bytes_do_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        carrier in carrier(),
        turn: u32,
    ) {
        check(&bytes, &view(), carrier, turn)?;
    }

    #[test]
    fn every_query_is_answered_within_its_limit(
        bytes in mutated(),
        carrier in carrier(),
        turn: u32,
        forwards: bool,
    ) {
        let view = View { forwards, ..view() };
        check(&bytes, &view, carrier, turn)?;
    }

    #[test]
    fn queries_are_read_as_by_others(bytes in mutated()) {
        let Ok(query) = query::Query::read(&bytes, Carrier::Stream) else {
            return Ok(());
        };
        let Ok(message) = Message::from_vec(&bytes) else {
            return Ok(());
        };
        let read = &message.queries[0];
        prop_assert_eq!(read.query_type(), query.record_type);
        prop_assert_eq!(read.query_class(), query.class);
        let (edns, other) = (query.asked.edns, message.edns);
        prop_assert_eq!(edns.is_some(), other.is_some());
        if let (Some(edns), Some(other)) = (edns, other) {
            prop_assert_eq!(edns.size.max(512), other.max_payload());
            prop_assert_eq!(edns.dnssec_ok, other.flags().dnssec_ok);
            prop_assert_eq!(edns.version, other.version());
        }
        let labels: Vec<String> = read.name().iter().map(|label| {
            let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
            let byte = |b: &u8| if plain(b) { b.to_ascii_lowercase() as char } else { '?' };
            label.iter().map(byte).collect()
        }).collect();
        prop_assert_eq!(query.name.as_str(), labels.join("."));
    }

    #[test]
    fn no_reply_of_another_server_does_harm(
        query in valid(),
        mut reply in mutated(),
        records in prop::collection::vec((wire_name(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..60),
        carrier in carrier(),
    ) {
        let settings = Settings { single_labels: true, ..Settings::default() };
        let Decision::Forward(question) =
            decide(&Names::default(), &view(), &settings, &query, carrier, 0)
        else {
            return Ok(());
        };
        if reply.len() > 12 {
            reply[2] |= 0x80;
            reply[7] = records.len() as u8;
            for (name, kind, data) in &records {
                reply.extend(name);
                reply.extend(kind.to_be_bytes());
                reply.extend([0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
                reply.extend(data);
            }
        }
        if let Ok(message) = Message::from_vec(&reply) {
            let bytes = question.reply(&message);
            check_answer(&bytes, &query, carrier)?;
        }
    }
}
