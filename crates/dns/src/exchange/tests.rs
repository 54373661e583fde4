use std::str::FromStr;

use hickory_proto::op::{Edns, MessageType, OpCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, NULL, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

const RANDOM: [u8; RANDOM_BYTES] = [0x5a; RANDOM_BYTES];
const PLAIN: Form = Form {
    mixed_case: false,
    edns: true,
};
const BARE: Form = Form {
    mixed_case: true,
    edns: false,
};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn asking(text: &str, kind: RecordType) -> Asking {
    Asking {
        query: Query::query(name(text), kind),
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        dnssec_ok: false,
    }
}

fn outgoing(text: &str) -> Outgoing {
    Outgoing::new(&asking(text, RecordType::A), Form::default(), &RANDOM)
}

/// What a server would answer, without records: the question comes back as it was sent.
fn reply(query: &Outgoing, code: ResponseCode) -> Message {
    let query = Message::from_vec(query.bytes()).unwrap();
    let mut reply = Message::error_msg(query.id, OpCode::Query, code);
    reply.add_queries(query.queries);
    reply
}

fn judge(query: &Outgoing, reply: &Message) -> Verdict {
    query.judge(&reply.to_vec().unwrap(), Carrier::Datagram)
}

fn address(owner: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, 1)))
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

fn server(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::NS(NS(name(target))))
}

fn soa(owner: &str) -> Record {
    let data = SOA::new(name("ns."), name("a."), 1, 2, 3, 4, 5);
    Record::from_rdata(name(owner), 60, RData::SOA(data))
}

fn other(owner: &str, code: RecordType) -> Record {
    let rdata = NULL::with(vec![1, 2, 3]);
    Record::from_rdata(name(owner), 60, RData::Unknown { code, rdata })
}

fn owners(records: &[Record]) -> Vec<String> {
    let owner = |record: &Record| format!("{} {}", record.name.to_ascii(), record.record_type());
    records.iter().map(owner).collect()
}

fn answer(verdict: Verdict) -> Message {
    match verdict {
        Verdict::Answer(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_says_what_was_asked() {
    let mut asking = asking("www.Example.com.", RecordType::SRV);
    asking.query.set_query_class(DNSClass::CH);
    let query = Outgoing::new(&asking, Form::default(), &RANDOM);
    let message = Message::from_vec(query.bytes()).unwrap();
    assert_eq!(message.id, 0x5a5a);
    assert_eq!(message.message_type, MessageType::Query);
    assert_eq!(message.op_code, OpCode::Query);
    assert!(message.recursion_desired);
    assert!(!message.checking_disabled && !message.authentic_data);
    assert_eq!(message.queries, [asking.query.clone()]);
    let edns = message.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (1_232, 0));
    assert!(!edns.flags().dnssec_ok && edns.options().options.is_empty());

    asking.recursion_desired = false;
    asking.checking_disabled = true;
    asking.authentic_data = true;
    asking.dnssec_ok = true;
    let query = Outgoing::new(&asking, Form::default(), &RANDOM);
    let message = Message::from_vec(query.bytes()).unwrap();
    assert!(!message.recursion_desired);
    assert!(message.checking_disabled && message.authentic_data);
    assert!(message.edns.unwrap().flags().dnssec_ok);
    let message = Message::from_vec(Outgoing::new(&asking, BARE, &RANDOM).bytes()).unwrap();
    assert_eq!(message.edns, None);
}

#[test]
fn the_case_of_a_name_is_random_unless_it_is_sent_plain() {
    let sent = |asked: &str, form, random: [u8; RANDOM_BYTES]| {
        let query = Outgoing::new(&asking(asked, RecordType::A), form, &random);
        let message = Message::from_vec(query.bytes()).unwrap();
        message.queries[0].name.to_ascii()
    };
    let form = Form::default();
    assert_eq!(sent("a1-b.Cde.", form, [0b0101; RANDOM_BYTES]), "A1-b.Cde.");
    assert_eq!(sent("a1-b.Cde.", form, [0xff; RANDOM_BYTES]), "A1-B.CDE.");
    assert_eq!(sent("a1-b.Cde.", PLAIN, RANDOM), "a1-b.Cde.");
    assert_eq!(sent(".", form, RANDOM), ".");
    // From twelve letters on, neither as asked nor in lower case.
    assert_eq!(
        sent("abcde.fghijk.", form, [0; RANDOM_BYTES]),
        "abcde.fghijk."
    );
    assert_eq!(
        sent("abcdef.ghijkl.", form, [0; RANDOM_BYTES]),
        "Abcdef.ghijkl."
    );
    assert_eq!(
        sent("Abcdef.ghijkl.", form, [0; RANDOM_BYTES]),
        "ABcdef.ghijkl."
    );
    let mut first = [0; RANDOM_BYTES];
    first[2] = 1;
    assert_eq!(sent("Abcdef.ghijkl.", form, first), "aBcdef.ghijkl.");
    let longest = format!("{0}.{0}.{0}.{1}.", "a".repeat(63), "b".repeat(61));
    assert_eq!(
        sent(&longest, form, [0xff; RANDOM_BYTES]),
        longest.to_ascii_uppercase()
    );
}

#[test]
fn an_answer_comes_out_in_the_case_that_was_asked() {
    let query = outgoing("www.Example.com.");
    let mut reply = reply(&query, ResponseCode::NoError);
    let sent = reply.queries[0].name.clone();
    assert_ne!(sent.to_ascii(), "www.Example.com.");
    reply.add_answer(Record::from_rdata(
        sent.clone(),
        60,
        RData::CNAME(CNAME(sent.base_name())),
    ));
    let message = answer(judge(&query, &reply));
    assert_eq!(message.queries[0].name.to_ascii(), "www.Example.com.");
    assert_eq!(message.answers[0].name.to_ascii(), "www.Example.com.");
    let RData::CNAME(target) = &message.answers[0].data else {
        panic!("an alias went in");
    };
    assert_eq!(
        target.0.to_ascii(),
        "Example.com.",
        "a pointer into the question"
    );
}

#[test]
fn what_does_not_match_the_query_is_foreign() {
    let query = outgoing("www.example.com.");
    let right = reply(&query, ResponseCode::NoError);
    assert!(matches!(judge(&query, &right), Verdict::Answer(_)));
    let mut wrong = vec![right.clone(); 7];
    wrong[0].metadata.id ^= 1;
    wrong[1].metadata.message_type = MessageType::Query;
    wrong[2].metadata.op_code = OpCode::Notify;
    wrong[3].queries[0].name = name("www.example.org.");
    wrong[4].queries[0].query_type = RecordType::AAAA;
    wrong[5].queries[0].query_class = DNSClass::CH;
    wrong[6].queries.push(right.queries[0].clone());
    for (nth, wrong) in wrong.iter().enumerate() {
        assert_eq!(judge(&query, wrong), Verdict::Foreign, "{nth}");
    }
    let bytes = right.to_vec().unwrap();
    for len in 0..bytes.len() {
        assert_eq!(
            query.judge(&bytes[..len], Carrier::Stream),
            Verdict::Foreign,
            "{len}"
        );
    }
    let mut without_question = right;
    without_question.queries.clear();
    assert_eq!(judge(&query, &without_question), Verdict::Foreign);
}

#[test]
fn another_case_is_believed_over_a_stream_only() {
    let query = outgoing("www.example.com.");
    let mut lower = reply(&query, ResponseCode::NoError);
    lower.queries[0].name = lower.queries[0].name.to_lowercase();
    lower.add_answer(address("www.example.com."));
    let bytes = lower.to_vec().unwrap();
    assert_eq!(query.is_case_kept(&bytes), Some(false));
    assert_eq!(query.is_case_kept(query.bytes()), Some(true));
    assert_eq!(query.is_case_kept(outgoing("example.com.").bytes()), None);
    assert_eq!(query.is_case_kept(&[]), None);
    let Verdict::OtherCase(message) = query.judge(&bytes, Carrier::Datagram) else {
        panic!("the case is another");
    };
    assert_eq!(answer(query.judge(&bytes, Carrier::Stream)), message);
    let plain = Outgoing::new(&asking("WWW.example.com.", RecordType::A), PLAIN, &RANDOM);
    assert_eq!(
        answer(plain.judge(&bytes, Carrier::Datagram)).answers.len(),
        1
    );
}

#[test]
fn a_cut_answer_is_asked_for_over_a_stream() {
    let query = outgoing("www.example.com.");
    let mut cut = reply(&query, ResponseCode::NoError);
    cut.metadata.truncation = true;
    let mut bytes = cut.to_vec().unwrap();
    // Some servers cut a record in the middle, and say that it is there.
    bytes[7] = 1;
    bytes.extend_from_slice(&[0xc0, 12, 0]);
    assert_eq!(query.judge(&bytes, Carrier::Datagram), Verdict::Truncated);
    assert_eq!(
        query.judge(&bytes, Carrier::Stream),
        Verdict::Garbled,
        "there is no more"
    );
}

#[test]
fn refusals_are_told_apart() {
    let query = outgoing("www.example.com.");
    let bare = Outgoing::new(&asking("www.example.com.", RecordType::A), BARE, &RANDOM);
    use ResponseCode as R;
    for code in [R::ServFail, R::Refused, R::NotAuth, R::Unknown(11)] {
        assert_eq!(
            judge(&query, &reply(&query, code)),
            Verdict::Unwilling(code)
        );
        assert_eq!(judge(&bare, &reply(&bare, code)), Verdict::Unwilling(code));
    }
    for code in [R::FormErr, R::NotImp] {
        assert_eq!(judge(&query, &reply(&query, code)), Verdict::NoEdns);
        assert_eq!(judge(&bare, &reply(&bare, code)), Verdict::Unwilling(code));
    }
    let with_edns = |code| {
        let mut reply = reply(&query, code);
        reply.set_edns(Edns::new());
        judge(&query, &reply)
    };
    assert_eq!(with_edns(R::BADVERS), Verdict::NoEdns);
    assert_eq!(with_edns(R::NotImp), Verdict::Unwilling(R::NotImp));
    assert_eq!(with_edns(R::BADCOOKIE), Verdict::Unwilling(R::BADCOOKIE));
    for code in [R::NoError, R::NXDomain, R::YXDomain] {
        assert_eq!(
            answer(judge(&query, &reply(&query, code))).response_code,
            code
        );
    }
}

#[test]
fn a_refusal_may_lack_the_question() {
    let query = outgoing("www.example.com.");
    let header = |code: u8| [0x5a, 0x5a, 0x80, code, 0, 0, 0, 0, 0, 0, 0, 0];
    let judge = |code| query.judge(&header(code), Carrier::Datagram);
    assert_eq!(judge(1), Verdict::NoEdns);
    assert_eq!(judge(2), Verdict::Unwilling(ResponseCode::ServFail));
    assert_eq!(judge(5), Verdict::Unwilling(ResponseCode::Refused));
    assert_eq!(judge(0), Verdict::Foreign);
    assert_eq!(judge(3), Verdict::Foreign);
}

#[test]
fn an_answer_that_cannot_be_read_is_not_waited_for() {
    let query = outgoing("www.example.com.");
    let mut bytes = reply(&query, ResponseCode::NoError).to_vec().unwrap();
    bytes[7] = 1;
    assert_eq!(query.judge(&bytes, Carrier::Datagram), Verdict::Garbled);
    bytes[3] = 2;
    let failed = Verdict::Unwilling(ResponseCode::ServFail);
    assert_eq!(query.judge(&bytes, Carrier::Datagram), failed);
}

#[test]
fn records_are_read_up_to_a_limit() {
    let query = outgoing("www.example.com.");
    let mut bytes = reply(&query, ResponseCode::NoError).to_vec().unwrap();
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    let max = limits::READ_RECORDS_MAX;
    bytes.extend_from_slice(&record.repeat(max));
    bytes[6..8].copy_from_slice(&u16::try_from(max).unwrap().to_be_bytes());
    assert_eq!(
        answer(query.judge(&bytes, Carrier::Stream)).answers.len(),
        max
    );
    bytes.extend_from_slice(&record);
    bytes[9] = 1;
    assert_eq!(query.judge(&bytes, Carrier::Stream), Verdict::Garbled);
}

#[test]
fn only_the_name_and_its_aliases_are_answers() {
    let query = outgoing("www.example.com.");
    let mut reply = reply(&query, ResponseCode::NoError);
    reply.add_answers([
        address("c.example.net."),
        address("bank.example."),
        alias("b.example.net.", "c.example.net."),
        alias("WWW.example.com.", "b.example.net."),
        alias("bank.example.", "c.example.net."),
        address("example.com."),
        other("b.example.net.", RecordType::RRSIG),
        other("bank.example.", RecordType::RRSIG),
    ]);
    let mut foreign_class = address("c.example.net.");
    foreign_class.dns_class = DNSClass::CH;
    reply.add_answer(foreign_class);
    let message = answer(judge(&query, &reply));
    assert_eq!(
        owners(&message.answers),
        [
            "c.example.net. A",
            "b.example.net. CNAME",
            "WWW.example.com. CNAME",
            "b.example.net. RRSIG"
        ]
    );
}

#[test]
fn a_renamed_tree_brings_its_record_along() {
    let query = outgoing("www.example.com.");
    let mut reply = reply(&query, ResponseCode::NoError);
    reply.add_answers([
        other("example.com.", RecordType::DNAME),
        other("example.com.", RecordType::RRSIG),
        other("example.org.", RecordType::DNAME),
        other("com.", RecordType::RRSIG),
        alias("www.example.com.", "www.example.net."),
        address("www.example.net."),
    ]);
    let message = answer(judge(&query, &reply));
    assert_eq!(
        owners(&message.answers),
        [
            "example.com. DNAME",
            "example.com. RRSIG",
            "www.example.com. CNAME",
            "www.example.net. A"
        ]
    );
}

#[test]
fn aliases_are_followed_up_to_a_limit_and_not_in_circles() {
    let query = outgoing("n0.example.");
    let chain = |links: usize| {
        let mut reply = reply(&query, ResponseCode::NoError);
        for link in 0..links {
            let (owner, target) = (
                format!("n{link}.example."),
                format!("n{}.example.", link + 1),
            );
            reply.add_answer(alias(&owner, &target));
        }
        reply.add_answer(address(&format!("n{links}.example.")));
        answer(judge(&query, &reply)).answers.len()
    };
    let max = limits::ANSWER_ALIASES_MAX;
    assert_eq!(chain(max), max + 1, "with the address");
    assert_eq!(chain(max + 1), max + 1, "without");

    let mut circle = reply(&query, ResponseCode::NoError);
    circle.add_answer(alias("n0.example.", "n1.example."));
    circle.add_answer(alias("n1.example.", "n0.example."));
    assert_eq!(answer(judge(&query, &circle)).answers.len(), 2);
}

#[test]
fn an_alias_that_is_asked_for_is_not_followed() {
    let query = Outgoing::new(&asking("a.example.", RecordType::CNAME), PLAIN, &RANDOM);
    let mut reply = reply(&query, ResponseCode::NoError);
    reply.add_answers([alias("a.example.", "b.example."), address("b.example.")]);
    assert_eq!(
        owners(&answer(judge(&query, &reply)).answers),
        ["a.example. CNAME"]
    );
}

#[test]
fn authority_says_only_how_long_nothing_lasts_or_whom_to_ask() {
    let query = outgoing("www.example.com.");
    let authorities = [
        soa("example.com."),
        soa("example.org."),
        server("example.com.", "ns.example.net."),
        server("example.org.", "ns.example.net."),
        other("aaa.example.com.", RecordType::NSEC),
        other("aaa.example.com.", RecordType::RRSIG),
        address("www.example.com."),
    ];
    let mut nothing = reply(&query, ResponseCode::NXDomain);
    nothing.add_authorities(authorities.clone());
    let message = answer(judge(&query, &nothing));
    assert_eq!(owners(&message.authorities), ["example.com. SOA"]);

    let mut referral = reply(&query, ResponseCode::NoError);
    referral.add_authorities(authorities[1..].to_vec());
    referral.add_additionals([address("ns.example.net."), address("bank.example.")]);
    let message = answer(judge(&query, &referral));
    assert_eq!(owners(&message.authorities), ["example.com. NS"]);
    assert_eq!(owners(&message.additionals), ["ns.example.net. A"]);

    referral.add_answer(address("www.example.com."));
    let message = answer(judge(&query, &referral));
    assert_eq!(
        (message.authorities.len(), message.additionals.len()),
        (0, 0)
    );

    let mut signed = asking("www.example.com.", RecordType::A);
    signed.dnssec_ok = true;
    let signed = Outgoing::new(&signed, Form::default(), &RANDOM);
    let message = answer(judge(&signed, &nothing));
    assert_eq!(
        owners(&message.authorities),
        [
            "example.com. SOA",
            "aaa.example.com. NSEC",
            "aaa.example.com. RRSIG"
        ]
    );
}

#[test]
fn addresses_come_along_for_the_hosts_that_are_named() {
    let query = Outgoing::new(&asking("example.com.", RecordType::ANY), PLAIN, &RANDOM);
    let mut reply = reply(&query, ResponseCode::NoError);
    let mx = RData::MX(MX::new(1, name("mx.example.org.")));
    let srv = RData::SRV(SRV::new(1, 1, 53, name("srv.example.org.")));
    reply.add_answers([mx, srv].map(|data| Record::from_rdata(name("example.com."), 60, data)));
    let text = RData::TXT(TXT::new(vec!["a".to_owned()]));
    reply.add_additionals([
        address("mx.example.org."),
        address("SRV.example.org."),
        address("www.example.com."),
        Record::from_rdata(name("mx.example.org."), 60, text),
        other("mx.example.org.", RecordType::RRSIG),
    ]);
    let message = answer(judge(&query, &reply));
    assert_eq!(
        owners(&message.additionals),
        ["mx.example.org. A", "SRV.example.org. A"]
    );
}

/// The query as a forwarder passes it on: with an id of its own.
fn forwarded(query: &Outgoing) -> Vec<u8> {
    let mut bytes = query.bytes().to_vec();
    bytes[0] ^= 0xff;
    bytes
}

#[test]
fn our_query_is_known_when_it_comes_back() {
    let long = outgoing("www.example.com.");
    let print = long.fingerprint().unwrap();
    assert_eq!(fingerprint(long.bytes()), Some(print));
    assert_eq!(fingerprint(&forwarded(&long)), Some(print));
    // Twelve letters are enough.
    let shortest = outgoing("abcdef.ghijkl.");
    assert_eq!(fingerprint(&forwarded(&shortest)), shortest.fingerprint());

    let short = outgoing("t.example.");
    assert_eq!(fingerprint(short.bytes()), short.fingerprint());
    assert_ne!(fingerprint(&forwarded(&short)), short.fingerprint());
}

#[test]
fn nobody_elses_query_is_taken_for_ours() {
    let ours = outgoing("www.example.com.");
    for text in ["www.example.com.", "WWW.EXAMPLE.COM.", "www.example.org."] {
        let theirs = Outgoing::new(&asking(text, RecordType::A), PLAIN, &RANDOM);
        assert_eq!(theirs.fingerprint(), None, "it may look like an asker's");
        assert_ne!(fingerprint(theirs.bytes()), ours.fingerprint(), "{text}");
    }
    let sent = Message::from_vec(ours.bytes()).unwrap().queries[0]
        .name
        .to_ascii();
    let other = Outgoing::new(&asking(&sent, RecordType::AAAA), PLAIN, &RANDOM);
    assert_ne!(fingerprint(other.bytes()), ours.fingerprint());
}

#[test]
fn only_a_whole_query_has_a_fingerprint() {
    let ours = outgoing("www.example.com.");
    let question_end = HEADER_BYTES + ours.asked_name.len() + 4;
    for len in 0..ours.bytes().len() {
        let print = fingerprint(&ours.bytes()[..len]);
        assert_eq!(print.is_some(), len >= question_end, "{len}");
    }
    for (at, byte) in [
        (2, 0x81),
        (2, 0x29),
        (4, 1),
        (5, 0),
        (5, 2),
        (12, 0xc0),
        (12, 64),
    ] {
        let mut bytes = ours.bytes().to_vec();
        bytes[at] = byte;
        assert_eq!(fingerprint(&bytes), None, "{byte:#x} at {at}");
    }
    let of_name = |labels: &[usize]| {
        let mut bytes = ours.bytes()[..HEADER_BYTES].to_vec();
        for label in labels {
            bytes.push(u8::try_from(*label).unwrap());
            bytes.extend(vec![b'a'; *label]);
        }
        bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
        fingerprint(&bytes).is_some()
    };
    assert!(of_name(&[]) && of_name(&[63, 63, 63, 61]));
    assert!(!of_name(&[63, 63, 63, 62]), "256 bytes with the root");
}

/// Answers made of a right header and question, and of records whose owners may or may not belong.
fn replies() -> impl Strategy<Value = Vec<u8>> {
    let owner = prop::sample::select(vec!["www.example.com.", "b.example.", "example.com.", "."]);
    let record = (owner.clone(), owner, 0_u8..6).prop_map(|(owner, target, kind)| match kind {
        0 => address(owner),
        1 => alias(owner, target),
        2 => server(owner, target),
        3 => soa(owner),
        4 => other(owner, RecordType::DNAME),
        _ => other(owner, RecordType::NSEC),
    });
    let section = prop::collection::vec(record, 0..6);
    (section.clone(), section.clone(), section).prop_map(|(answers, authorities, additionals)| {
        let mut reply = reply(&outgoing("www.example.com."), ResponseCode::NoError);
        reply.add_answers(answers);
        reply.add_authorities(authorities);
        reply.add_additionals(additionals);
        reply.to_vec().unwrap()
    })
}

proptest! {
    #[test]
    fn any_bytes_can_be_judged(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_header_right: bool,
    ) {
        let query = outgoing("www.example.com.");
        let mut bytes = bytes;
        if is_header_right && bytes.len() > 40 {
            bytes[..2].copy_from_slice(&query.bytes()[..2]);
            bytes[2] = 0x80;
            bytes[4..6].copy_from_slice(&[0, 1]);
            for count in [6, 8, 10] {
                bytes[count] = 0;
                bytes[count + 1] %= 4;
            }
            let question = HEADER_BYTES..HEADER_BYTES + query.asked_name.len() + 4;
            bytes[question.clone()].copy_from_slice(&query.bytes()[question]);
        }
        let _ = query.judge(&bytes, Carrier::Datagram);
        let _ = query.judge(&bytes, Carrier::Stream);
        let _ = fingerprint(&bytes);
    }

    #[test]
    fn any_damage_can_be_judged(
        bytes in replies(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut: prop::sample::Index,
    ) {
        let mut bytes = bytes;
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(2 * bytes.len()).min(bytes.len());
        let query = outgoing("www.example.com.");
        for carrier in [Carrier::Datagram, Carrier::Stream] {
            let _ = query.judge(&bytes[..cut], carrier);
        }
        let _ = fingerprint(&bytes[..cut]);
    }

    #[test]
    fn what_is_believed_stays_believable(bytes in replies()) {
        let query = outgoing("www.example.com.");
        let message = answer(query.judge(&bytes, Carrier::Datagram));
        prop_assert!(message.additionals.iter().all(|record| record.record_type() == RecordType::A));
        let mut again = message.clone();
        believe::keep_believable(&mut again, false);
        prop_assert_eq!(again, message);
    }

    #[test]
    fn the_answer_to_a_query_is_recognised(
        labels in prop::collection::vec("[a-zA-Z0-9_]{1,20}", 0..8),
        random in prop::array::uniform32(any::<u8>()),
        mixed_case: bool,
        edns: bool,
    ) {
        let asked = Name::from_str(&format!("{}.", labels.join("."))).unwrap();
        let mut all = RANDOM;
        all[2..].copy_from_slice(&random);
        let asking = Asking { query: Query::query(asked.clone(), RecordType::A), ..asking(".", RecordType::A) };
        let query = Outgoing::new(&asking, Form { mixed_case, edns }, &all);
        let letters = asked.to_ascii().bytes().filter(u8::is_ascii_alphabetic).count();
        let sent = Message::from_vec(query.bytes()).unwrap().queries[0].name.clone();
        prop_assert_eq!(&sent, &asked);
        if mixed_case && letters >= limits::FINGERPRINT_LETTERS_MIN {
            prop_assert!(!sent.eq_case(&asked) && !sent.eq_case(&asked.to_lowercase()));
            prop_assert_eq!(fingerprint(&forwarded(&query)), query.fingerprint());
        }
        let message = answer(judge(&query, &reply(&query, ResponseCode::NoError)));
        prop_assert!(message.queries[0].name.eq_case(&asked));
    }
}
