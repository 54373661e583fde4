//! Published ports of programs that were run, through their whole life.

use std::net::SocketAddr;

use tombolo_lab::node::{NODE_V4, wait_until};
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

use crate::talk::{Sees, Server, Way, assert_ways};

/// Asserts that the outside reaches port 80 of a program at these ports of the node, and that it does not at
/// those others.
#[track_caller]
fn assert_served(stage: &Stage, name: &str, open: &[u16], closed: &[u16]) {
    let far = stage.far();
    let _server = (!open.is_empty()).then(|| Server::at(&stage.place(name), name, 80..=80));
    let way = |port: u16, sees| Way {
        what: "outside",
        from: &far,
        source: None,
        to: SocketAddr::new(NODE_V4.parse().unwrap(), port),
        sees,
    };
    let mut ways: Vec<Way<'_>> = open.iter().map(|port| way(*port, Sees::Client)).collect();
    ways.extend(closed.iter().map(|port| way(*port, Sees::Nobody)));
    assert_ways(&ways, name, &[]);
}

#[test]
fn a_programs_ports_come_and_go_with_it() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let ports = "-p 8080:80 -p 8080:80/udp -P --expose 80 --expose 80/udp";
    stage.ok(&format!("run -d --name web {ports} sleep 600"));
    let chosen = |protocol: &str| {
        let told = stage.ok(&format!("port web 80/{protocol}"));
        let mut ports: Vec<u16> = told
            .lines()
            .map(|line| line.rsplit_once(':').unwrap().1.parse().unwrap())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    let (tcp, udp) = (chosen("tcp"), chosen("udp"));
    assert!(
        tcp.contains(&8080) && udp.contains(&8080),
        "{tcp:?} {udp:?}"
    );
    assert_served(&stage, "web", &[8080], &[80]);
    let shown = stage.ok("ps");
    assert!(shown.contains("8080->80/tcp"), "{shown}");
    for how in ["stop --time 1 web", "kill web"] {
        stage.ok(how);
        let freed = || stage.ok("port web").is_empty();
        assert!(
            wait_until(PATIENCE, freed),
            "{how}: {}",
            stage.ok("port web")
        );
        assert_served(&stage, "web", &[], &[8080]);
        stage.ok("start web");
        assert_eq!((chosen("tcp"), chosen("udp")), (tcp.clone(), udp.clone()));
        assert_served(&stage, "web", &[8080], &[80]);
    }
    stage.ok("restart --time 1 web");
    assert_eq!(chosen("tcp"), tcp);
    stage.ok("publish add web 8081:80 8081:80/udp");
    assert_served(&stage, "web", &[8080, 8081], &[80]);
    stage.ok("rm --force web");
    assert_served(&stage, "web", &[], &[8080, 8081]);
    stage.ok("run -d --rm --name web -p 8080:80 sleep 600");
    stage.ok("rm --force web");
    stage.assert_traces(&before);
}

#[test]
fn a_program_that_shares_anothers_network_shares_its_ports() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("run -d --name web -p 8080:80 -p 8080:80/udp sleep 600");
    stage.ok("run -d --name side --network container:web sleep 600");
    assert_eq!(stage.ok("port side"), stage.ok("port web"));
    for (line, word) in [
        (
            "run --rm --network container:web -p 8081:80 true",
            "set it on web",
        ),
        ("run --rm --network container:web -P true", "set it on web"),
        ("publish add side 8081:80", "shares"),
        ("publish rm side 80", "shares"),
    ] {
        let refused = stage.tries(line);
        let told = !refused.success() && refused.stderr.contains(word);
        assert!(told, "`{line}`: {refused:?}");
    }
    assert_served(&stage, "web", &[8080], &[8081]);
    stage.ok("rm --force side");
    assert_served(&stage, "web", &[8080], &[8081]);
    stage.ok("rm --force web");
}
