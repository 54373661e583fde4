//! Any bytes as a query to the embedded resolver, and any bytes as another server's message.

#![no_main]

use std::sync::LazyLock;

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use tombolo_dns::answer::{Carrier, Decision, decide};
use tombolo_dns::name::HostName;
use tombolo_dns::names::{Names, OwnerId, Registration, Service, Transport, Zone, ZoneId};
use tombolo_dns::view::{Settings, View};

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut names = Names::default();
    for (id, name) in [(1, "front"), (2, "dev"), (3, "example.com")] {
        let subnets = vec![format!("10.{id}.0.0/16").parse().expect("a subnet")];
        names.set_zone(
            ZoneId(id),
            Zone {
                name: host(name),
                subnets,
            },
        );
        for owner in 1..=40 {
            let zone = ZoneId(id);
            let canonical = host(&format!("w{owner}"));
            let addresses = [format!("10.{id}.0.{owner}"), format!("fd0{id}::{owner}")];
            let service = Service {
                protocol: Transport::Tcp,
                first: 80,
                last: 90,
            };
            let registration = Registration {
                zone,
                canonical,
                names: vec![host("w"), host("a.b")],
                addresses: addresses
                    .iter()
                    .map(|a| a.parse().expect("an address"))
                    .collect(),
                services: vec![service],
            };
            names.set(OwnerId(id * 100 + owner), vec![registration]);
        }
    }
    names
});

fn host(name: &str) -> HostName {
    name.parse().expect("a name")
}

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, turn, split], data)) = data.split_first_chunk() else {
        return;
    };
    let carrier = if choice & 1 == 0 {
        Carrier::Datagram
    } else {
        Carrier::Stream
    };
    let view = View {
        zones: vec![ZoneId(1), ZoneId(2), ZoneId(3)],
        links: vec![(host("l"), OwnerId(101)), (host("l"), OwnerId(202))],
        host: vec!["10.1.0.1".parse().expect("an address")],
        ipv6: choice & 2 == 0,
        forwards: choice & 4 == 0,
    };
    let settings = Settings {
        single_labels: choice & 8 == 0,
        ..Settings::default()
    };
    let (query, other) = data.split_at(usize::from(split).min(data.len()));
    // Half of the time a header that is worth reading on.
    let mut whole = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, choice >> 5 & 1];
    let query = if choice & 16 == 0 {
        whole.extend(query);
        &whole[..]
    } else {
        query
    };
    let check = |answer: &[u8]| {
        assert_eq!(answer[..2], query[..2]);
        assert!(Message::from_vec(answer).is_ok());
        let limit = if carrier == Carrier::Datagram {
            1232
        } else {
            65_535
        };
        assert!(answer.len() <= limit);
    };
    match decide(&NAMES, &view, &settings, query, carrier, u32::from(turn)) {
        Decision::Ignore => assert!(query.len() < 12 || query[2] >= 0x80),
        Decision::Answer(answer) => check(&answer),
        Decision::Forward(question) => {
            assert!(view.forwards && question.recursion_desired());
            check(&question.failed());
            if let Ok(message) = Message::from_vec(other) {
                let reply = question.reply(&message);
                assert!(reply.len() <= question.limit());
                check(&reply);
            }
        }
    }
});
