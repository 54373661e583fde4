use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use tombolo_netstate::object::port::{PortRange, Protocol};
use tombolo_netstate::plan::{Flows, Stale};

use super::record::{Record, Tuple};
use super::search::{groups, is_stale};
use crate::netlink::attribute::Attributes;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A connection from `source` to `destination` that `owner` answers.
fn record(protocol: Protocol, source: &str, destination: &str, owner: &str) -> Record {
    Record {
        protocol: protocol.number(),
        original: Tuple {
            source: at(source),
            destination: at(destination),
        },
        reply: Tuple {
            source: at(owner),
            destination: at(source),
        },
    }
}

fn flows(stale: Stale) -> Flows {
    Flows {
        protocol: Protocol::Udp,
        to: None,
        ipv6: false,
        ports: PortRange::new(53, 54).unwrap(),
        from: None,
        stale,
    }
}

#[test]
fn only_what_leads_to_the_former_owner_is_stale() {
    let client = "198.51.100.9:4000";
    let owned = record(Protocol::Udp, client, "192.0.2.1:53", "10.0.0.2:5353");
    let towards = flows(Stale::Towards(ip("10.0.0.2")));
    let stale = |flows: &Flows, record: &Record| is_stale(flows, record, &BTreeSet::new());
    assert!(stale(&towards, &owned));
    assert!(!stale(&flows(Stale::Towards(ip("10.0.0.3"))), &owned));
    for (protocol, to, owner) in [
        (Protocol::Tcp, "192.0.2.1:53", "10.0.0.2:5353"),
        (Protocol::Udp, "192.0.2.1:55", "10.0.0.2:5353"),
        (Protocol::Udp, "192.0.2.1:53", "10.0.0.3:5353"),
        // Asked directly, without translation.
        (Protocol::Udp, "10.0.0.2:53", "10.0.0.2:53"),
    ] {
        let other = record(protocol, client, to, owner);
        assert!(!stale(&towards, &other), "{other:?}");
    }
    let mut narrowed = towards.clone();
    narrowed.to = Some(ip("192.0.2.1"));
    narrowed.from = Some("198.51.100.0/24".parse().unwrap());
    assert!(stale(&narrowed, &owned));
    narrowed.to = Some(ip("192.0.2.2"));
    assert!(!stale(&narrowed, &owned));
    narrowed.to = None;
    narrowed.from = Some("198.51.101.0/24".parse().unwrap());
    assert!(!stale(&narrowed, &owned));
}

#[test]
fn what_began_unanswered_is_stale_at_the_host_and_not_on_its_way_elsewhere() {
    let local = BTreeSet::from([ip("192.0.2.1")]);
    let source = "198.51.100.9:4000";
    let began = flows(Stale::Untranslated);
    let untranslated = |to: &str| record(Protocol::Udp, source, to, to);
    for (to, stale) in [
        ("192.0.2.1:53", true),
        ("192.0.2.1:52", false),
        ("127.0.0.1:54", true),
        ("8.8.8.8:53", false),
    ] {
        assert_eq!(is_stale(&began, &untranslated(to), &local), stale, "{to}");
    }
    let translated = record(Protocol::Udp, source, "192.0.2.1:53", "10.0.0.2:53");
    assert!(!is_stale(&began, &translated, &local));
    let mut named = began;
    named.to = Some(ip("203.0.113.7"));
    assert!(is_stale(&named, &untranslated("203.0.113.7:53"), &local));
    assert!(!is_stale(&named, &untranslated("192.0.2.1:53"), &local));
}

#[test]
fn flows_share_a_search_where_they_can() {
    let towards = flows(Stale::Towards(ip("10.0.0.2")));
    let mut tcp = towards.clone();
    tcp.protocol = Protocol::Tcp;
    let other = flows(Stale::Towards(ip("10.0.0.3")));
    let mut one = flows(Stale::Untranslated);
    one.ports = PortRange::one(53).unwrap();
    let all = [towards, tcp, other, one.clone()];
    let found = groups(&all);
    assert_eq!(found.len(), 3, "{found:?}");
    let ports: Vec<Option<u16>> = found.iter().map(|group| group.search.port).collect();
    assert!(
        ports.contains(&Some(53)),
        "a single port is sought by the kernel"
    );
    let two = [one.clone(), one];
    let more = groups(&two);
    assert_eq!((more.len(), more[0].search.port), (1, None));
}

#[test]
fn a_search_says_what_it_compares() {
    let towards = flows(Stale::Towards(ip("10.0.0.2")));
    let body = groups(&[towards])[0].search.filtered();
    let shown = Attributes::after(&body, super::request::HEAD);
    assert!(shown.find(super::request::TUPLE_REPLY).is_some());
    assert!(shown.find(super::request::TUPLE_ORIGINAL).is_none());
    assert_eq!(Record::read(&body), None, "not a whole connection");
}

#[test]
fn cut_off_input_is_no_connection() {
    let client = at("[2001:db8::9]:4000");
    let body = super::request::by_reply(Protocol::Udp, at("[fd00::1]:53"), client).unwrap();
    for length in 0..body.len() {
        assert_eq!(Record::read(&body[..length]), None);
    }
    let mixed = super::request::by_reply(Protocol::Udp, at("10.0.0.1:53"), client);
    assert_eq!(mixed, None, "of two families");
}
