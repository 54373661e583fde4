use hickory_proto::rr::rdata::{A, TXT};

use super::*;
use crate::limits;

use RecordType as T;

/// Many sandboxes under one name, as far as `count` goes.
fn crowd(count: u128) -> Names {
    let mut names = names();
    for n in 0..count {
        let (v4, v6) = (format!("10.1.9.{n}"), format!("fd01::9:{n:x}"));
        let own = format!("crowd-{n}");
        let registration = on(FRONT, &[&own, "crowd"], &[&v4, &v6]);
        names.set(OwnerId(1000 + n), vec![registration]);
    }
    names
}

fn sized(names: &Names, message: &Message, carrier: Carrier) -> (usize, Message) {
    let bytes = message.to_vec().unwrap();
    let settings = Settings::default();
    match decide(names, &view(), &settings, &bytes, carrier, 0) {
        Decision::Answer(bytes) => (bytes.len(), Message::from_vec(&bytes).unwrap()),
        other => panic!("no answer but {other:?}"),
    }
}

#[test]
fn answers_are_cut_to_what_the_client_takes() {
    let names = crowd(200);
    let most = limits::ANSWER_RECORDS_MAX;
    let plain = query("crowd.", T::AAAA);
    for (message, carrier, limit) in [
        (plain.clone(), Carrier::Datagram, 512),
        (with_edns(plain.clone(), 512, false), Carrier::Datagram, 512),
        (
            with_edns(plain.clone(), 1000, false),
            Carrier::Datagram,
            1000,
        ),
        (
            with_edns(plain.clone(), 1232, true),
            Carrier::Datagram,
            1232,
        ),
        (
            with_edns(plain.clone(), 65_535, true),
            Carrier::Datagram,
            1232,
        ),
    ] {
        let (length, answer) = sized(&names, &message, carrier);
        // Another record of 28 bytes found no room.
        assert!(
            length <= limit && length + 28 + 6 > limit,
            "{length} {limit}"
        );
        assert!(answer.metadata.truncation && answer.answers.len() < most);
        assert!(answer.authorities.is_empty());
        assert_eq!(answer.edns.is_some(), message.edns.is_some());
    }
    let (_, answer) = sized(&names, &plain, Carrier::Stream);
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), most);
}

#[test]
fn an_answer_has_as_many_records_as_the_limit() {
    let most = limits::ANSWER_RECORDS_MAX as u128;
    for (count, expected) in [(most - 1, most - 1), (most, most), (most + 1, most)] {
        let names = crowd(count);
        for (name, record_type) in [
            ("crowd.", T::A),
            ("crowd.", T::AAAA),
            ("_http._tcp.crowd.", T::SRV),
        ] {
            let (_, answer) = sized(&names, &query(name, record_type), Carrier::Stream);
            assert_eq!(answer.answers.len() as u128, expected);
        }
    }
    let mut names = Names::default();
    let zone = |name| Zone {
        name: host(name),
        subnets: Vec::new(),
    };
    names.set_zone(FRONT, zone("front"));
    for n in 0..=most {
        let registration = on(FRONT, &[&format!("n{n}")], &["10.1.0.1"]);
        names.set(OwnerId(n), vec![registration]);
    }
    let (_, answer) = sized(
        &names,
        &query("1.0.1.10.in-addr.arpa.", T::PTR),
        Carrier::Stream,
    );
    assert_eq!(answer.answers.len() as u128, most);
}

#[test]
fn addresses_beside_services_are_a_courtesy() {
    let names = crowd(8);
    let message = query("_http._tcp.crowd.", T::SRV);
    let (length, answer) = sized(&names, &message, Carrier::Datagram);
    assert!(length <= 512 && !answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 8);
    assert!(answer.additionals.len() < 16);
    let (_, answer) = sized(&names, &message, Carrier::Stream);
    assert_eq!(answer.additionals.len(), 16);
}

#[test]
fn a_view_is_as_wide_as_its_limits() {
    let mut names = names();
    let decided = |names: &Names, view: &View, name: &str| {
        let bytes = query(name, T::A).to_vec().unwrap();
        let settings = Settings::default();
        decide(names, view, &settings, &bytes, Carrier::Datagram, 0)
    };
    for (nowhere, found) in [
        (limits::VIEW_ZONES_MAX - 1, true),
        (limits::VIEW_ZONES_MAX, false),
    ] {
        let mut view = view();
        view.zones = vec![ZoneId(77); nowhere];
        view.zones.push(BACK);
        let answer = answer_of(decided(&names, &view, "db."));
        assert_eq!(!answer.answers.is_empty(), found);
    }
    for (others, found) in [
        (limits::VIEW_LINKS_MAX - 1, true),
        (limits::VIEW_LINKS_MAX, false),
    ] {
        let mut view = view();
        view.links = vec![(host("x"), OwnerId(1)); others];
        view.links.push((host("alias"), OwnerId(20)));
        let answer = answer_of(decided(&names, &view, "alias."));
        assert_eq!(!answer.answers.is_empty(), found);
    }
    let mut view = view();
    view.host = (0..100).map(|n| IpAddr::from([10, 9, 9, n])).collect();
    names.remove_zone(BACK);
    let bytes = query("host.tombolo.internal.", T::A).to_vec().unwrap();
    let settings = Settings::default();
    let decision = decide(&names, &view, &settings, &bytes, Carrier::Stream, 0);
    assert_eq!(
        answer_of(decision).answers.len(),
        limits::ANSWER_RECORDS_MAX
    );
}

#[test]
fn names_that_are_too_long_together_go_without_the_network() {
    let label = "n".repeat(63);
    for (last, expected) in [(61, true), (62, false)] {
        let long = format!("{label}.{label}.{}", "m".repeat(last));
        let mut names = Names::default();
        let zone = Zone {
            name: host(&label),
            subnets: Vec::new(),
        };
        names.set_zone(FRONT, zone);
        names.set(OwnerId(1), vec![on(FRONT, &[&long], &["10.1.0.1"])]);
        let question = query("1.0.1.10.in-addr.arpa.", T::PTR);
        let (_, answer) = sized(&names, &question, Carrier::Datagram);
        let full = format!("{long}.{label}.");
        let short = format!("{long}.");
        let name = if expected { full } else { short };
        assert_eq!(answers(&answer), [format!("PTR {name}")]);
    }
}

#[test]
fn replies_are_cut_to_what_the_client_takes() {
    let message = |size| with_edns(query("big.example.", T::A), size, false);
    let name = Name::from_ascii("big.example.").unwrap();
    let mut upstream = Message::response(7, OpCode::Query);
    for n in 0..100 {
        let data = RData::A(A::new(192, 0, 2, n));
        upstream.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    let text = TXT::new(vec!["x".to_owned()]);
    upstream.add_authority(Record::from_rdata(name.clone(), 60, RData::TXT(text)));
    for (size, length) in [(512, 512), (1000, 1000), (4096, 1232)] {
        let question = question_of(decide_as(&view(), &message(size), 0));
        let bytes = question.reply(&upstream);
        assert!(bytes.len() <= length && bytes.len() + 16 + 6 > length);
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation && answer.edns.is_some());
        assert!(!answer.answers.is_empty() && answer.authorities.is_empty());
    }
    // What is beside the answer may be missing without a word.
    upstream.answers.truncate(2);
    upstream.authorities.clear();
    for n in 0..100 {
        let data = RData::A(A::new(192, 0, 2, n));
        upstream.add_additional(Record::from_rdata(name.clone(), 60, data));
    }
    let question = question_of(decide_as(&view(), &message(512), 0));
    assert_eq!(question.limit(), 512);
    let answer = Message::from_vec(&question.reply(&upstream)).unwrap();
    assert!(!answer.metadata.truncation && answer.additionals.len() < 100);
    assert_eq!(answer.answers.len(), 2);
}
