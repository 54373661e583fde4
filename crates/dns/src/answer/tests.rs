mod errors;
mod properties;
mod replies;
mod rules;
mod sizes;

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::name::HostName;
use crate::names::{OwnerId, Registration, Service, Transport, Zone, ZoneId};

const FRONT: ZoneId = ZoneId(1);
const BACK: ZoneId = ZoneId(2);
const PUBLIC: ZoneId = ZoneId(3);
const HIDDEN: ZoneId = ZoneId(4);

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn on(zone: ZoneId, names: &[&str], addresses: &[&str]) -> Registration {
    let port = |protocol, first, last| Service {
        protocol,
        first,
        last,
    };
    Registration {
        zone,
        canonical: host(names[0]),
        names: names[1..].iter().map(|name| host(name)).collect(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        services: vec![
            port(Transport::Tcp, 80, 80),
            port(Transport::Tcp, 8000, 8100),
            port(Transport::Udp, 53, 53),
        ],
    }
}

/// Three networks of the asker, of which `dev` is called like a domain of the world, and one that
/// is not the asker's.
fn names() -> Names {
    let mut names = Names::default();
    for (id, name, subnets) in [
        (FRONT, "Front", ["10.1.0.0/24", "fd01::/64"]),
        (BACK, "back", ["10.2.0.0/24", "fd02::/64"]),
        (PUBLIC, "dev", ["10.3.0.0/24", "fd03::/64"]),
        (HIDDEN, "hidden", ["10.4.0.0/24", "fd04::/64"]),
    ] {
        let subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
        let name = host(name);
        names.set_zone(id, Zone { name, subnets });
    }
    let web = |n: u32, name: &str| {
        let (v4, v6) = (format!("10.1.0.{n}"), format!("fd01::{n}"));
        on(FRONT, &[name, "Web", "api.example.com"], &[&v4, &v6])
    };
    names.set(OwnerId(11), vec![web(11, "web-1")]);
    names.set(OwnerId(12), vec![web(12, "web-2")]);
    names.set(OwnerId(13), vec![web(13, "web-3")]);
    names.set(
        OwnerId(20),
        vec![
            on(BACK, &["db", "0123456789ab"], &["10.2.0.20"]),
            on(HIDDEN, &["db"], &["10.4.0.20"]),
        ],
    );
    names.set(
        OwnerId(21),
        vec![on(BACK, &["web", "quiet"], &["10.2.0.21"])],
    );
    names.set(OwnerId(30), vec![on(PUBLIC, &["tool"], &["10.3.0.30"])]);
    names.set(OwnerId(40), vec![on(HIDDEN, &["secret"], &["10.4.0.40"])]);
    names.set(OwnerId(50), vec![on(FRONT, &["stopped"], &[])]);
    names
}

fn view() -> View {
    View {
        zones: vec![FRONT, BACK, PUBLIC],
        links: vec![
            (host("Database"), OwnerId(20)),
            (host("both"), OwnerId(20)),
            (host("both"), OwnerId(21)),
            (host("gone"), OwnerId(99)),
            (host("quiet"), OwnerId(40)),
        ],
        host: vec![ip("10.1.0.1"), ip("fd01::1")],
        ipv6: true,
        forwards: true,
        single_labels: false,
    }
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn with_edns(mut message: Message, size: u16, dnssec_ok: bool) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size).set_dnssec_ok(dnssec_ok);
    message.set_edns(edns);
    message
}

fn decide_as(view: &View, message: &Message, turn: u32) -> Decision {
    let bytes = message.to_vec().unwrap();
    let settings = Settings::default();
    decide(&names(), view, &settings, &bytes, Carrier::Datagram, turn)
}

fn answer_of(decision: Decision) -> Message {
    match decision {
        Decision::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("no answer but {other:?}"),
    }
}

fn question_of(decision: Decision) -> Question {
    match decision {
        Decision::Forward(question) => question,
        other => panic!("not forwarded but {other:?}"),
    }
}

/// The answer to a simple query.
fn ask(name: &str, record_type: RecordType) -> Message {
    answer_of(decide_as(&view(), &query(name, record_type), 0))
}

fn is_forwarded(name: &str, record_type: RecordType) -> bool {
    matches!(
        decide_as(&view(), &query(name, record_type), 0),
        Decision::Forward(_)
    )
}

fn shown(record: &Record) -> String {
    match &record.data {
        RData::A(a) => a.to_string(),
        RData::AAAA(aaaa) => aaaa.to_string(),
        other => format!("{} {other}", record.record_type()),
    }
}

fn answers(message: &Message) -> Vec<String> {
    message.answers.iter().map(shown).collect()
}

/// Asserts that there is such a name, but nothing of the type, and returns who says so.
fn no_data(message: &Message) -> String {
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answers(message), [""; 0]);
    authority(message)
}

/// Asserts that there is no such name, and returns who says so.
fn missing(message: &Message) -> String {
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answers(message), [""; 0]);
    authority(message)
}

fn authority(message: &Message) -> String {
    let [soa] = &message.authorities[..] else {
        panic!("{message}");
    };
    let RData::SOA(data) = &soa.data else {
        panic!("{soa}");
    };
    assert_eq!((soa.ttl, data.minimum), (10, 10));
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    soa.name.to_ascii()
}
