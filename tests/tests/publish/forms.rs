//! Ports, ranges and automatic choices; publications of running sandboxes; who may use them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use tombolo_api::Publication;
use tombolo_lab::node::{FAR_V4, FAR_V6, NODE_V4, NODE_V6, ROUTER_V4, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::talk::{PROTOCOLS, Sees, Server, Talk, Way, ask, assert_ways};

use tombolo_api::Protocol::{Tcp, Udp};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn way(from: &Place, to: SocketAddr, sees: Sees) -> Way<'_> {
    Way {
        what: "outside",
        from,
        source: None,
        to,
        sees,
    }
}

/// The port of the sandbox at which a question to a port of the node is heard.
fn heard_at(from: &Place, to: SocketAddr) -> Option<u16> {
    let mut ports = BTreeSet::new();
    for protocol in PROTOCOLS {
        let mut heard = None;
        wait_until(PATIENCE, || {
            heard = ask(from, None, protocol, to);
            heard.is_some()
        });
        ports.insert(heard.map(|(answer, _)| answer.port));
    }
    assert_eq!(ports.len(), 1, "{to}: {ports:?}");
    ports.pop_first().flatten()
}

fn publications(stage: &Stage, name: &str) -> Vec<Publication> {
    stage.inspect(name).publications
}

#[test]
fn a_range_leads_port_by_port_whatever_its_size_and_shift() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let ranges = [
        "8000-8009:80-89",
        "8000-8009:80-89/udp",
        "300-310:2000-2010",
        "300-310:2000-2010/udp",
        "20000-29999:10000-19999",
        "20000-29999:10000-19999/udp",
        "40000-64999:100-25099",
        "40000-64999:100-25099/udp",
    ];
    let publish: Vec<String> = ranges.iter().map(|range| format!("-p {range}")).collect();
    let s = stage.sandbox("s", &format!("--network n {}", publish.join(" ")));
    let served = [80, 85, 89, 2000, 2010, 10000, 15000, 19999, 100, 25099];
    let _servers = served.map(|port| Server::at(&s, "s", port..=port));
    let far = stage.far();
    let pairs = [
        (8000, 80),
        (8005, 85),
        (8009, 89),
        (300, 2000),
        (310, 2010),
        (20000, 10000),
        (25000, 15000),
        (29999, 19999),
        (40000, 100),
        (64999, 25099),
    ];
    for address in [NODE_V4, NODE_V6] {
        for (port, to) in pairs {
            assert_eq!(
                heard_at(&far, at(address, port)),
                Some(to),
                "{address}:{port}"
            );
        }
        let beyond = [7999, 8010, 299, 311, 19999, 30000, 39999, 65000];
        let ways = beyond.map(|port| way(&far, at(address, port), Sees::Nobody));
        assert_ways(&ways, "s", &[]);
    }
    let own = stage.here();
    assert_eq!(heard_at(&own, at("127.0.0.1", 8005)), Some(85));
    assert_eq!(heard_at(&own, at("::1", 25000)), Some(15000));
    assert_eq!(
        stage.ok("port s 10000-10009"),
        "0.0.0.0:20000-20009\n[::]:20000-20009\n0.0.0.0:49900-49909\n[::]:49900-49909"
    );
    stage.assert_in_place();
}

#[test]
fn every_port_from_1024_on_is_one_publication_and_kept_from_ephemeral_use() {
    let Some(stage) = Stage::start() else { return };
    let reserved = || stage.shell("cat /proc/sys/net/ipv4/ip_local_reserved_ports");
    let sockets = || stage.shell("ss -Hltun | wc -l");
    stage.shell("echo 111,222-333 >/proc/sys/net/ipv4/ip_local_reserved_ports");
    stage.ok("network create n --ipv6");
    let (traces, before) = (stage.traces().unwrap(), reserved());
    let held = sockets();
    let all = "-p 1024-65535:1024-65535 -p 1024-65535:1024-65535/udp";
    let s = stage.sandbox("s", &format!("--network n {all}"));
    let _servers = [1024, 30000, 65535].map(|port| Server::at(&s, "s", port..=port));
    let far = stage.far();
    for address in [NODE_V4, NODE_V6] {
        for port in [1024, 30000, 65535] {
            assert_eq!(heard_at(&far, at(address, port)), Some(port));
        }
    }
    assert_eq!(sockets(), held, "no socket for each port");
    let kept = reserved();
    assert!(kept.contains("111") && kept.contains("-65535"), "{kept}");
    // What leaves still finds a port to leave from.
    assert_eq!(s.seen_by(&far, far.v4()), NODE_V4.parse().ok());
    stage.assert_in_place();
    drop(_servers);
    stage.ok("sandbox rm s");
    assert!(
        wait_until(PATIENCE, || reserved() == before),
        "{}",
        reserved()
    );
    stage.assert_traces(&traces);
}

#[test]
fn automatic_ports_are_free_ones_and_the_same_for_both_families() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let taken = Server::bound(&stage.here(), "own", &[at("0.0.0.0", 7001)]);
    let words = "--network n -P --expose 80 --expose 81/udp -p 82 -p 0:83 -p 192.0.2.10::84 \
                 -p 7001-7003:85 -p 90-92";
    let s = stage.sandbox("s", words);
    let _server = Server::at(&s, "s", 80..=92);
    let all = publications(&stage, "s");
    let host = |container: &str| {
        let found = all.iter().find(|p| p.container == container).unwrap();
        found.host.clone().unwrap()
    };
    let one = |container: &str| host(container).parse::<u16>().unwrap();
    assert_eq!(all.len(), 7, "{all:#?}");
    let ephemeral = stage.shell("cat /proc/sys/net/ipv4/ip_local_port_range");
    let far = stage.far();
    for (container, protocol) in [
        (80, Tcp),
        (81, Udp),
        (82, Tcp),
        (83, Tcp),
        (84, Tcp),
        (85, Tcp),
    ] {
        let port = one(&container.to_string());
        for address in [NODE_V4, NODE_V6] {
            if container == 84 && address == NODE_V6 {
                continue;
            }
            let mut found = None;
            wait_until(PATIENCE, || {
                found = ask(&far, None, protocol, at(address, port));
                found.is_some()
            });
            let heard = found.map(|(answer, _)| answer.port);
            assert_eq!(
                heard,
                Some(container),
                "{address}:{port}/{protocol} ({ephemeral})"
            );
        }
    }
    assert!([7002, 7003].contains(&one("85")), "{}", host("85"));
    let (first, last) = host("90-92")
        .split_once('-')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(
        last.parse::<u16>().unwrap() - first.parse::<u16>().unwrap(),
        2
    );
    assert_eq!(
        heard_tcp(&far, at(NODE_V4, last.parse().unwrap())),
        Some(92)
    );
    let told = stage.ok("port s");
    for (container, port) in [("80/tcp", one("80")), ("81/udp", one("81"))] {
        for address in ["0.0.0.0", "[::]"] {
            let line = format!("{container} -> {address}:{port}");
            assert!(told.lines().any(|l| l == line), "no {line} in {told}");
        }
    }
    assert!(
        told.contains(&format!("84/tcp -> 192.0.2.10:{}", one("84"))),
        "{told}"
    );
    drop(taken);
    stage.assert_in_place();
}

fn heard_tcp(from: &Place, to: SocketAddr) -> Option<u16> {
    let mut found = None;
    wait_until(PATIENCE, || {
        found = ask(from, None, Tcp, to);
        found.is_some()
    });
    found.map(|(answer, _)| answer.port)
}

#[test]
fn ports_of_a_running_sandbox_are_added_taken_back_and_listed() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let s = stage.sandbox("s", "--network n -p 8080:80 -p 8080:80/udp");
    let _server = Server::at(&s, "s", 80..=82);
    let far = stage.far();
    let before = stage.traces().unwrap();
    stage.ok("publish add s 8081:81 8081:81/udp 8090-8091:80-81 8090-8091:80-81/udp");
    for address in [NODE_V4, NODE_V6] {
        for (port, to) in [(8080, 80), (8081, 81), (8091, 81)] {
            assert_eq!(heard_at(&far, at(address, port)), Some(to));
        }
    }
    let listed = stage.ok("publish ls");
    for words in [
        "*:8080",
        "*:8081",
        "*:8090-8091",
        "80-81/udp",
        "81/tcp",
        "kernel",
    ] {
        assert!(listed.contains(words), "no {words} in {listed}");
    }
    // A connection that exists ends with its publication; that of another one goes on.
    let mut kept = Talk::open(&far, None, Tcp, at(NODE_V4, 8080)).unwrap();
    let mut ended = Talk::open(&far, None, Tcp, at(NODE_V4, 8081)).unwrap();
    assert!(kept.ask().is_some() && ended.ask().is_some());
    stage.ok("publish rm s 8081:81 81/udp *:8090-8091->80-81/tcp 8090-8091:80-81/udp");
    let gone = [8081, 8090, 8091].map(|port| way(&far, at(NODE_V4, port), Sees::Nobody));
    assert_ways(&gone, "s", &[]);
    assert!(
        wait_until(PATIENCE, || ended.ask().is_none()),
        "it lives on"
    );
    assert!(kept.ask().is_some());
    assert_eq!(stage.tries("publish rm s 8081:81").code, Some(5));
    drop(kept);
    stage.assert_traces(&before);
    stage.assert_in_place();
}

/// Ways from both addresses of the outside to a port of the node.
fn from_outside<'a>(far: &'a Place, port: u16, seen: [Sees; 3]) -> Vec<Way<'a>> {
    let sources = [(FAR_V4, NODE_V4), (ROUTER_V4, NODE_V4), (FAR_V6, NODE_V6)];
    let ways = sources.iter().zip(seen).map(|((source, to), sees)| Way {
        source: Some(ip(source)),
        ..way(far, at(to, port), sees)
    });
    ways.collect()
}

#[test]
fn a_source_filter_admits_who_it_names_and_changes_while_running() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("network create four");
    let (all, some) = ("from=0.0.0.0/0,from=2001:db8::/32", "from=198.51.100.0/24");
    let publish = |port: u16, from: &str| {
        format!(
            "{port}:80,{from} {port}:80/udp,{from} {0}-{1}:80-81,{from} {0}-{1}:80-81/udp,{from}",
            port + 100,
            port + 101
        )
    };
    let s = stage.sandbox("s", "--network n");
    let four = stage.sandbox("four", "--network four");
    let _servers =
        [("s", &s), ("four", &four)].map(|(name, place)| Server::at(place, name, 80..=81));
    let far = stage.far();
    let own = stage.own_addresses();
    stage.ok(&format!("publish add s {}", publish(8080, some)));
    stage
        .ok("publish add four 8480:80,from=2001:db8:ffff::/48 8480:80/udp,from=2001:db8:ffff::/48");
    use Sees::{Client, Host, Nobody};
    let check = |seen: [Sees; 3]| {
        for port in [8080, 8181] {
            assert_ways(&from_outside(&far, port, seen), "s", &own);
        }
    };
    check([Client, Nobody, Nobody]);
    assert_ways(
        &from_outside(&far, 8480, [Nobody, Nobody, Host]),
        "four",
        &own,
    );
    let mut talks: Vec<(Talk, bool)> = Vec::new();
    stage.ok(&format!("publish add s {}", publish(8080, all)));
    check([Client; 3]);
    for protocol in PROTOCOLS {
        for (source, stays) in [(FAR_V4, true), (ROUTER_V4, false)] {
            for port in [8080, 8181] {
                let talk = Talk::open(&far, Some(ip(source)), protocol, at(NODE_V4, port));
                talks.push((talk.unwrap(), stays));
            }
        }
    }
    assert!(
        talks
            .iter_mut()
            .all(|(talk, _)| wait_until(PATIENCE, || talk.ask().is_some()))
    );
    stage.ok(&format!("publish add s {}", publish(8080, some)));
    for (talk, stays) in &mut talks {
        assert!(
            wait_until(PATIENCE, || talk.ask().is_some() == *stays),
            "{talk:?} stays: {stays}"
        );
    }
    check([Client, Nobody, Nobody]);
    assert!(
        talks
            .iter_mut()
            .filter(|(_, stays)| *stays)
            .all(|(talk, _)| talk.ask().is_some())
    );
    let listed = stage.ok("publish ls s");
    assert!(
        listed.contains("198.51.100.0/24") && !listed.contains("0.0.0.0/0"),
        "{listed}"
    );
    assert_eq!(publications(&stage, "s").len(), 4);
    stage.assert_in_place();
}
