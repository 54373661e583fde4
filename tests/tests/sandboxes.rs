//! The life of sandboxes and endpoints: made, joined, left, stopped, started, adopted, lost.

use std::process::Stdio;

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

fn default_route(place: &Place, family: &str) -> String {
    place.ok(&format!("ip {family} route show default"))
}

#[test]
fn an_endpoint_keeps_its_addresses_with_and_without_a_sandbox() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    stage.ok("network create n --ipv6");
    stage.ok("endpoint create n --name kept --mac-address 02:00:00:00:00:42");
    let addresses = stage.client().endpoint_inspect("kept").unwrap().addresses;
    assert_eq!(addresses.len(), 2);
    let peer = stage.sandbox("peer", "--network n");
    for sandbox in ["s1", "s2"] {
        stage.ok(&format!("sandbox create --name {sandbox}"));
        stage.ok(&format!("endpoint join kept {sandbox}"));
        let endpoint = stage.client().endpoint_inspect("kept").unwrap();
        assert_eq!(endpoint.addresses, addresses);
        assert_eq!(endpoint.mac.as_deref(), Some("02:00:00:00:00:42"));
        let place = stage.place(sandbox);
        place.assert_reaches(&peer);
        peer.assert_reaches(&place);
        stage.ok("endpoint leave kept");
        assert!(peer.pings_in_vain(place.v4()) && peer.pings_in_vain(place.v6()));
        assert!(!place.ok("ip -br link").contains("eth0"));
    }
    // Nobody else is given the addresses meanwhile.
    let other = stage.sandbox("other", "--network n");
    assert!(
        addresses
            .iter()
            .all(|address| !address.starts_with(&format!("{}/", other.v4())))
    );
    let taken = addresses[0].split('/').next().unwrap();
    let refused = stage.tries(&format!("sandbox create --network n --ip {taken}"));
    assert_eq!(refused.code, Some(3), "{refused:?}");
    stage.ok("endpoint rm kept");
    assert_eq!(stage.tries("endpoint inspect kept").code, Some(5));
    stage.ok("sandbox rm s1 s2 peer other");
    stage.ok("network rm n");
    stage.assert_traces(&before);
}

#[test]
fn networks_are_connected_and_disconnected_while_it_runs_and_the_default_route_moves() {
    let Some(stage) = Stage::start() else { return };
    for name in ["a", "b"] {
        stage.ok(&format!("network create {name} --ipv6"));
    }
    let peer = stage.sandbox("peer", "--network b");
    let place = stage.sandbox("s", "--network a");
    let through = |name: &str, link: &str| {
        let endpoint = stage
            .inspect("s")
            .endpoints
            .into_iter()
            .find(|e| e.network.name == name);
        let gateways = endpoint.unwrap().gateways;
        for (gateway, family) in gateways.iter().zip(["-4", "-6"]) {
            let route = default_route(&stage.place("s"), family);
            let wanted = format!("default via {gateway} dev {link} ");
            assert!(
                route.starts_with(&wanted) && route.lines().count() == 1,
                "{route}"
            );
        }
        stage.place("s").assert_reaches(&stage.far());
    };
    through("a", "eth0");
    place.assert_cut_off(&peer);
    stage.ok("network connect b s --gw-priority 10 --alias db");
    through("b", "eth1");
    place.assert_reaches(&peer);
    stage.ok("network disconnect b s");
    through("a", "eth0");
    place.assert_cut_off(&peer);
    stage.ok("network connect b s --gw-priority -1 --ifname uplink");
    through("a", "eth0");
    place.assert_reaches(&peer);
    stage.ok("network disconnect a s");
    through("b", "uplink");
    stage.assert_in_place();
}

#[test]
fn interfaces_are_in_the_order_of_the_networks_as_given() {
    let Some(stage) = Stage::start() else { return };
    for name in ["a", "b", "c"] {
        stage.ok(&format!("network create {name}"));
    }
    stage.ok("sandbox create --name s --network c --network a --network name=b,ifname=mine0");
    let check = || {
        let endpoints = stage.inspect("s").endpoints;
        let order: Vec<_> = endpoints
            .iter()
            .map(|e| (e.network.name.as_str(), e.interface.as_deref()))
            .collect();
        assert_eq!(
            order,
            [
                ("c", Some("eth0")),
                ("a", Some("eth1")),
                ("b", Some("mine0"))
            ]
        );
        let place = stage.place("s");
        for endpoint in &endpoints {
            let link = endpoint.interface.as_deref().unwrap();
            let shown = place.ok(&format!("ip -o address show dev {link}"));
            assert!(shown.contains(&endpoint.addresses[0]), "{link}: {shown}");
        }
    };
    check();
    stage.ok("sandbox stop s");
    stage.ok("sandbox start s");
    check();
}

#[test]
fn a_stopped_sandbox_keeps_its_addresses() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n --ipv6");
    let (peer, before) = (
        stage.sandbox("peer", "--network n"),
        stage.sandbox("s", "--network n"),
    );
    peer.assert_reaches(&before);
    stage.ok("sandbox stop s");
    let stopped = stage.inspect("s");
    assert!(stopped.netns.is_none());
    assert!(peer.pings_in_vain(before.v4()));
    let others = ["o1", "o2"].map(|name| stage.sandbox(name, "--network n"));
    assert!(
        others
            .iter()
            .all(|other| other.v4() != before.v4() && other.v6() != before.v6())
    );
    assert!(stage.tries("sandbox stop s").code != Some(1));
    // Also over a restart of the daemon.
    stage.stop().unwrap();
    stage.start_again();
    stage.ok("sandbox start s");
    let after = stage.place("s");
    assert_eq!(after.addresses, before.addresses);
    peer.assert_reaches(&after);
    assert_eq!(stage.tries("sandbox start s").code, Some(3));
    stage.assert_in_place();
}

#[test]
fn packets_flow_while_the_daemon_is_dead_and_while_it_comes_back() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n --ipv6");
    let (s1, s2) = (
        stage.sandbox("s1", "--network n"),
        stage.sandbox("s2", "--network n"),
    );
    let mut pings: Vec<_> = [s2.v4(), s2.v6(), stage.far().v4()]
        .into_iter()
        .map(|to| {
            let mut net = std::ffi::OsString::from("--net=");
            net.push(&s1.netns);
            let line = format!("ping -n -q -i 0.01 -W 3 -c 400 {to}");
            let mut ping = std::process::Command::new("nsenter");
            ping.arg(net).arg("--").args(line.split(' '));
            ping.stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    stage.kill().unwrap();
    s2.assert_reaches(&s1);
    s1.assert_reaches(&stage.far());
    stage.start_again();
    s2.assert_reaches(&s1);
    stage.assert_in_place();
    for ping in pings.drain(..) {
        let output = ping.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
}

#[test]
fn a_namespace_of_somebody_else_is_adopted_and_left_as_it_was() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let peer = stage.sandbox("peer", "--network n");
    // The first named namespace makes a mount that stays.
    stage.shell("ip netns add first && ip netns del first");
    let before = stage.traces().unwrap();
    stage.shell("ip netns add theirs && ip -n theirs link add own0 type veth peer name own1 && ip -n theirs address add 10.99.0.1/24 dev own0");
    stage.shell("ip -n theirs link set own0 up && ip -n theirs link set own1 up && ip -n theirs link set lo up");
    let look = || stage.shell("ip -n theirs -o address | grep -v fe80; ip -n theirs route");
    let own = look();
    let theirs = stage.sandbox("s", "--netns /run/netns/theirs --network n");
    theirs.assert_reaches(&peer);
    peer.assert_reaches(&theirs);
    let again = stage.tries("sandbox create --netns /run/netns/theirs");
    assert_eq!(again.code, Some(3), "{again:?}");
    let addresses = stage.inspect("s").endpoints[0].addresses.clone();
    stage.ok("sandbox stop s");
    stage.ok("sandbox start s");
    assert_eq!(stage.inspect("s").endpoints[0].addresses, addresses);
    stage.place("s").assert_reaches(&peer);
    stage.ok("sandbox rm s");
    wait_until(PATIENCE, || look() == own);
    assert_eq!(look(), own);
    stage.shell("ip netns del theirs");
    stage.assert_traces(&before);
}

#[test]
fn a_process_that_is_adopted_may_vanish() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let peer = stage.sandbox("peer", "--network n");
    let before = stage.traces().unwrap();
    let pid = stage.shell("unshare -n sleep 1000 >/dev/null 2>&1 & echo $!; while [ $(readlink /proc/$!/ns/net) = $(readlink /proc/self/ns/net) ]; do :; done");
    let place = stage.sandbox("s", &format!("--pid {pid} --network n"));
    place.assert_reaches(&peer);
    let addresses = stage.inspect("s").endpoints[0].addresses.clone();
    stage.shell(&format!("kill -9 {pid}"));
    // The link goes with its namespace, and nobody should try for ever to bring it back.
    let settled = wait_until(PATIENCE, || stage.drift().is_empty());
    assert!(settled, "{:?}", stage.drift());
    assert_eq!(stage.inspect("s").endpoints[0].addresses, addresses);
    let stopped = wait_until(PATIENCE, || stage.inspect("s").netns.is_none());
    assert!(stopped, "{:?}", stage.inspect("s"));
    let refused = stage.tries("sandbox start s");
    assert!(matches!(refused.code, Some(2 | 3)), "{refused:?}");
    assert!(refused.stderr.contains("namespace"), "{refused:?}");
    stage
        .sandbox("another", "--network n")
        .assert_reaches(&peer);
    stage.ok("sandbox rm s another");
    stage.assert_traces(&before);
}

#[test]
fn nothing_is_made_when_one_network_of_several_refuses() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create a --subnet 10.70.0.0/30");
    stage.ok("network create b");
    stage.sandbox("s1", "--network a");
    let before = stage.traces().unwrap();
    let leases = || stage.network("b").subnets[0].leases;
    assert_eq!(leases(), 0);
    let full = stage.tries("sandbox create --name s2 --network b --network a");
    assert_eq!(full.code, Some(3), "{full:?}");
    assert_eq!(stage.tries("sandbox inspect s2").code, Some(5));
    assert_eq!(leases(), 0);
    stage.assert_traces(&before);
}
