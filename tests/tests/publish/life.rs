//! What becomes of publications and of what flows through them when sandboxes stop, go and are replaced.

use std::net::{IpAddr, SocketAddr, TcpListener};

use tombolo_lab::node::{NODE_V4, NODE_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::talk::{PROTOCOLS, Sees, Server, Talk, Way, assert_ways};

use tombolo_api::Protocol::{Tcp, Udp};

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn ways<'a>(from: &'a Place, port: u16, sees: Sees) -> [Way<'a>; 2] {
    [NODE_V4, NODE_V6].map(|address| Way {
        what: "outside",
        from,
        source: None,
        to: at(address, port),
        sees,
    })
}

/// Whether no program of the node could listen at a TCP port, over either family.
fn is_held(stage: &Stage, port: u16) -> bool {
    let taken = |any: &str| {
        let any = at(any, port);
        stage.here().inside(|| TcpListener::bind(any).is_err())
    };
    taken("0.0.0.0") && taken("::")
}

#[test]
fn ports_are_freed_by_stop_and_rm_and_the_same_after_a_start() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let before = stage.traces().unwrap();
    let words = "--network n -p 8080:80 -p 8080:80/udp -p 81 -p 8100-8149:82-131";
    let s = stage.sandbox("s", words);
    let port = |name| {
        let found = stage.inspect(name).publications;
        let automatic = found.iter().find(|p| p.container == "81").unwrap();
        automatic.host.clone().unwrap().parse::<u16>().unwrap()
    };
    let chosen = port("s");
    let far = stage.far();
    let server = Server::at(&s, "s", 80..=82);
    assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
    let held = [8080, chosen, 8120];
    assert!(held.iter().all(|port| is_held(&stage, *port)));
    drop(server);
    stage.ok("sandbox stop s");
    assert!(wait_until(PATIENCE, || !held
        .iter()
        .any(|port| is_held(&stage, *port))));
    assert_eq!(stage.ok("port s"), "", "it leads nowhere");
    // Others can have the ports, and then the start is refused, by name and with nothing half made.
    let other = Server::bound(&stage.here(), "own", &[at("0.0.0.0", 8120)]);
    let taken = stage.tries("sandbox start s");
    assert_eq!(taken.code, Some(3), "{taken:?}");
    assert!(
        taken.stderr.contains("8120") && taken.stderr.contains("taken"),
        "{taken:?}"
    );
    assert!(!is_held(&stage, 8080));
    drop(other);
    stage.ok("sandbox start s");
    assert_eq!(port("s"), chosen);
    let server = Server::at(&stage.place("s"), "s", 80..=82);
    assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
    let automatic = Talk::open(&far, None, Tcp, at(NODE_V4, chosen))
        .unwrap()
        .ask();
    assert_eq!(automatic.unwrap().port, 81);
    stage.assert_in_place();
    drop(server);
    stage.ok("sandbox rm s");
    assert!(wait_until(PATIENCE, || !held
        .iter()
        .any(|port| is_held(&stage, *port))));
    stage.assert_traces(&before);
}

#[test]
fn a_restarted_daemon_keeps_ports_held_and_flows_alive() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n --ipv6");
    let s = stage.sandbox(
        "s",
        "--network n -p 8080:80 -p 8080:80/udp -p 8100-8199:80-179",
    );
    let _server = Server::at(&s, "s", 80..=81);
    let far = stage.far();
    let mut talks: Vec<Talk> = PROTOCOLS
        .into_iter()
        .flat_map(|protocol| [(protocol, NODE_V4), (protocol, NODE_V6)])
        .map(|(protocol, address)| Talk::open(&far, None, protocol, at(address, 8080)).unwrap())
        .collect();
    for hard in [true, false] {
        assert!(talks.iter_mut().all(|talk| talk.ask().is_some()));
        if hard {
            stage.kill().unwrap();
        } else {
            stage.stop().unwrap();
        }
        assert!(is_held(&stage, 8080), "held without a daemon");
        assert!(talks.iter_mut().all(|talk| talk.ask().is_some()));
        assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
        stage.start_again();
        assert!(talks.iter_mut().all(|talk| talk.ask().is_some()));
        assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
        stage.assert_in_place();
    }
}

#[test]
fn a_publication_that_moves_takes_its_flows_along_and_no_others() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let publish = "-p 8080:80 -p 8080:80/udp";
    let old = stage.sandbox(
        "old",
        &format!("--network n {publish} -p 8081:81 -p 8081:81/udp"),
    );
    let new = stage.sandbox("new", "--network n -p 8082:81");
    let other = stage.sandbox("other", "--network n -p 8083:81 -p 8083:81/udp");
    let places = [("old", &old), ("new", &new), ("other", &other)];
    let _servers = places.map(|(name, place)| Server::at(place, name, 80..=81));
    let (far, here) = (stage.far(), stage.here());
    let open = |from: &Place, protocol, address, port| {
        let mut talk = Talk::open(from, None, protocol, at(address, port)).unwrap();
        assert!(
            wait_until(PATIENCE, || talk.ask().is_some()),
            "{address}:{port}/{protocol}"
        );
        talk
    };
    let mut moving: Vec<Talk> = [NODE_V4, NODE_V6]
        .iter()
        .flat_map(|address| [&far, &here].map(|from| open(from, Udp, address, 8080)))
        .collect();
    let mut ending: Vec<Talk> = [NODE_V4, NODE_V6]
        .map(|to| open(&far, Tcp, to, 8080))
        .into();
    let mut staying: Vec<Talk> = [
        (Tcp, 8081),
        (Udp, 8081),
        (Tcp, 8082),
        (Tcp, 8083),
        (Udp, 8083),
    ]
    .into_iter()
    .flat_map(|(protocol, port)| [NODE_V4, NODE_V6].map(|to| open(&far, protocol, to, port)))
    .collect();
    let direct = SocketAddr::new(old.v4(), 80);
    staying.push(Talk::open(&new, None, Tcp, direct).unwrap());
    let refused = stage.tries("publish add new 8080:80/udp");
    assert!(
        refused.code == Some(3) && refused.stderr.contains("old"),
        "{refused:?}"
    );
    stage.ok("publish rm old 8080:80 8080:80/udp");
    stage.ok("publish add new 8080:80 8080:80/udp");
    // The flows go on from the same ports.
    for talk in &mut moving {
        let moved = wait_until(PATIENCE, || {
            talk.ask().is_some_and(|answer| answer.by == "new")
        });
        assert!(moved, "{talk:?}");
    }
    for talk in &mut ending {
        assert!(wait_until(PATIENCE, || talk.ask().is_none()), "{talk:?}");
    }
    for talk in &mut staying {
        assert!(talk.ask().is_some(), "{talk:?}");
    }
    assert_ways(&ways(&far, 8080, Sees::Client), "new", &[]);
    stage.assert_in_place();
}

#[test]
fn a_removed_and_remade_sandbox_gets_the_flows_of_its_port() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("network create four");
    let far = stage.far();
    let make = |name: &str, network: &str, tag: &str| {
        let words = format!("--network {network} -p 8080:80 -p 8080:80/udp");
        let place = stage.sandbox(name, &words);
        let server = Server::at(&place, tag, 80..=80);
        (place, server)
    };
    let (_, first) = make("s", "n", "first");
    let mut talks = [NODE_V4, NODE_V6].map(|to| Talk::open(&far, None, Udp, at(to, 8080)).unwrap());
    let answers = |talk: &mut Talk, by: &str| {
        wait_until(PATIENCE, || {
            talk.ask().is_some_and(|answer| answer.by == by)
        })
    };
    assert!(talks.iter_mut().all(|talk| answers(talk, "first")));
    drop(first);
    stage.ok("sandbox rm s");
    // Asked in between, when nobody is there.
    assert!(talks.iter_mut().all(|talk| talk.ask().is_none()));
    let (_, second) = make("s", "n", "second");
    assert!(talks.iter_mut().all(|talk| answers(talk, "second")));
    drop(second);
    stage.ok("sandbox rm s");
    // IPv6 is now carried by the relay, and then by the kernel again.
    let (_, third) = make("s", "four", "third");
    assert!(talks.iter_mut().all(|talk| answers(talk, "third")));
    drop(third);
    stage.ok("sandbox rm s");
    let (_, _fourth) = make("s", "n", "fourth");
    assert!(talks.iter_mut().all(|talk| answers(talk, "fourth")));
    stage.assert_in_place();
}

#[test]
fn a_publication_follows_its_sandbox_from_network_to_network() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create a --ipv6");
    stage.ok("network create b --ipv6");
    let before = stage.traces().unwrap();
    let words =
        "--network name=a,gw-priority=9 --network b -p 8080:80 -p 8080:80/udp -p 8100-8109:80-89";
    let s = stage.sandbox("s", words);
    let server = Server::at(&s, "s", 80..=80);
    let far = stage.far();
    let network = || stage.inspect("s").publications[0].network.clone();
    assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
    assert_eq!(network().as_deref(), Some("a"));
    stage.ok("network disconnect a s");
    assert_eq!(network().as_deref(), Some("b"));
    assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
    stage.assert_in_place();
    stage.ok("network disconnect b s");
    assert!(!stage.inspect("s").publications[0].active);
    assert_ways(&ways(&far, 8080, Sees::Nobody), "s", &[]);
    stage.ok("network connect a s");
    assert_ways(&ways(&far, 8080, Sees::Client), "s", &[]);
    stage.assert_in_place();
    drop(server);
    stage.ok("sandbox rm s");
    stage.assert_traces(&before);
}

#[test]
fn a_unix_socket_leads_to_a_port() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n");
    let before = stage.traces().unwrap();
    let s = stage.sandbox("s", "--network n -p unix:/run/web.sock:80");
    let server = Server::at(&s, "s", 80..=81);
    let ask = |stage: &Stage, path: &str| -> std::io::Result<String> {
        let mut stream = UnixStream::connect(stage.path(path))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"7\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let gateway: IpAddr = stage.gateway("n", false);
    assert_eq!(
        ask(&stage, "/run/web.sock").unwrap(),
        format!("7 s 80 {gateway}\n")
    );
    assert!(stage.ok("port s").contains("80/tcp -> unix:/run/web.sock"));
    stage.ok("publish add s unix:/run/other.sock:81");
    assert!(
        ask(&stage, "/run/other.sock")
            .unwrap()
            .starts_with("7 s 81")
    );
    stage.kill().unwrap();
    stage.start_again();
    assert!(wait_until(PATIENCE, || ask(&stage, "/run/other.sock")
        .is_ok_and(|t| !t.is_empty())));
    stage.ok("publish rm s unix:/run/other.sock:81");
    assert!(!stage.path("/run/other.sock").exists());
    let file = stage.tries("publish add s unix:/etc/passwd:80");
    assert!(
        !file.success() && stage.path("/etc/passwd").is_file(),
        "{file:?}"
    );
    stage.ok("sandbox create --name t --network n");
    let twice = stage.tries("publish add t unix:/run/web.sock:80");
    assert!(
        !twice.success() && twice.stderr.contains("/run/web.sock"),
        "{twice:?}"
    );
    assert!(ask(&stage, "/run/web.sock").unwrap().starts_with("7 s 80"));
    drop(server);
    stage.ok("sandbox rm s t");
    assert!(wait_until(PATIENCE, || !stage
        .path("/run/web.sock")
        .exists()));
    stage.assert_traces(&before);
}

#[test]
fn a_port_has_an_owner_for_each_protocol_and_address() {
    let Some(stage) = Stage::start() else { return };
    stage.shell("ip address add 192.0.2.77/24 dev eth0");
    stage.ok("network create n --ipv6");
    stage.ok("network create inner --internal");
    let places = [
        ("tcp", "--network n -p 192.0.2.10:53:53 -p [::]:53:53"),
        (
            "udp",
            "--network inner --network n -p 53:53/udp -p 127.0.0.1:54:53",
        ),
        (
            "second",
            "--network n --network inner -p 192.0.2.77:53:53 -p 192.0.2.10:54:53",
        ),
    ]
    .map(|(name, words)| (name, stage.sandbox(name, words)));
    let _servers: Vec<Server> = places
        .iter()
        .map(|(name, place)| Server::at(place, name, 53..=53))
        .collect();
    let (far, here) = (stage.far(), stage.here());
    for (from, protocol, address, port, by) in [
        (&far, Tcp, NODE_V4, 53, "tcp"),
        (&far, Tcp, NODE_V6, 53, "tcp"),
        (&far, Udp, NODE_V4, 53, "udp"),
        (&far, Udp, NODE_V6, 53, "udp"),
        (&far, Udp, "192.0.2.77", 53, "udp"),
        (&far, Tcp, "192.0.2.77", 53, "second"),
        (&far, Tcp, NODE_V4, 54, "second"),
        (&here, Tcp, "127.0.0.1", 54, "udp"),
        (&here, Tcp, NODE_V4, 54, "second"),
        (&here, Tcp, "::1", 53, "tcp"),
        (&places[0].1, Udp, NODE_V4, 53, "udp"),
        (&places[1].1, Tcp, NODE_V4, 53, "tcp"),
    ] {
        let to = at(address, port);
        let mut found = None;
        wait_until(PATIENCE, || {
            let talk = Talk::open(from, None, protocol, to);
            found = talk.ok().and_then(|mut talk| talk.ask());
            found.is_some()
        });
        let by_whom = found.map(|answer| answer.by);
        assert_eq!(by_whom.as_deref(), Some(by), "{to}/{protocol}");
    }
    assert!(Talk::open(&here, None, Tcp, at("127.0.0.1", 53)).is_err());
    stage.assert_in_place();
}

#[test]
fn a_flow_that_was_there_before_its_publication_finds_it() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let s = stage.sandbox("s", "--network n -p 9999:81");
    let beside = stage.sandbox("beside", "--network n");
    let _server = Server::at(&s, "s", 80..=80);
    let (far, here) = (stage.far(), stage.here());
    let mut talks: Vec<Talk> = [&far, &here, &beside]
        .into_iter()
        .flat_map(|from| [NODE_V4, NODE_V6].map(|to| (from, to)))
        .map(|(from, to)| Talk::open(from, None, Udp, at(to, 8080)).unwrap())
        .collect();
    assert!(talks.iter_mut().all(|talk| talk.ask().is_none()));
    stage.ok("publish add s 8080:80/udp");
    for talk in &mut talks {
        assert!(wait_until(PATIENCE, || talk.ask().is_some()), "{talk:?}");
    }
    stage.ok("publish rm s 8080:80/udp");
    // What is asked before it is forgotten may be answered after: such an answer would begin a connection of its own,
    // which has the port that the next publication needs.
    let tracked = "conntrack -L -p udp 2>/dev/null; conntrack -L -f ipv6 -p udp 2>/dev/null; true";
    let forgotten = || !stage.shell(tracked).contains("sport=80 ");
    assert!(wait_until(PATIENCE, forgotten), "{}", stage.shell(tracked));
    for talk in &mut talks {
        assert!(wait_until(PATIENCE, || talk.ask().is_none()), "{talk:?}");
    }
    // The same as a part of a range.
    stage.ok("publish add s 8000-8999:80-1079/udp 8080:82/tcp");
    stage.ok("publish rm s 8000-8999:80-1079/udp");
    stage.ok("publish add s 8080-8999:80-999/udp");
    for talk in &mut talks {
        assert!(wait_until(PATIENCE, || talk.ask().is_some()), "{talk:?}");
    }
}

#[test]
fn what_is_relayed_moves_too() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("network create four");
    let obey = "8080:80,obey-host-firewall=true 8080:80/udp,obey-host-firewall=true";
    let plain = "8081:80 8081:80/udp";
    for (number, (network, words)) in [("n", obey), ("four", plain)].into_iter().enumerate() {
        let port = 8080 + u16::try_from(number).unwrap();
        let names = ["old", "new"].map(|name| format!("{name}{number}"));
        let places = names
            .each_ref()
            .map(|name| stage.sandbox(name, &format!("--network {network}")));
        let _servers = [0, 1].map(|which| Server::at(&places[which], &names[which], 80..=80));
        let far = stage.far();
        stage.ok(&format!("publish add {} {words}", names[0]));
        let mut talks =
            PROTOCOLS.map(|protocol| Talk::open(&far, None, protocol, at(NODE_V6, port)).unwrap());
        for talk in &mut talks {
            let there = wait_until(PATIENCE, || {
                talk.ask().is_some_and(|answer| answer.by == names[0])
            });
            assert!(there, "{talk:?}");
        }
        stage.ok(&format!("publish rm {} 80 80/udp", names[0]));
        stage.ok(&format!("publish add {} {words}", names[1]));
        let [tcp, udp] = &mut talks;
        assert!(wait_until(PATIENCE, || tcp.ask().is_none()), "{tcp:?}");
        let moved = wait_until(PATIENCE, || {
            udp.ask().is_some_and(|answer| answer.by == names[1])
        });
        assert!(moved, "{udp:?}");
    }
    stage.assert_in_place();
}
