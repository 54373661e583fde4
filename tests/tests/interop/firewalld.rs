//! Beside the real firewalld, which refuses what comes from interfaces that it does not know.

use tombolo_lab::node::{NODE_V4, ROUTER_V4, ROUTER_V6, wait_until};
use tombolo_tests::peers::Firewalld;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::traffic::{
    FREE, OBEYING, Server, assert_answers, assert_answers_soon, assert_silent, bridge, connect,
    is_alive, node, publish,
};

/// The published port, and that which asks the host's firewall.
const PORT: u16 = 8_080;
const ASKING: u16 = 8_081;

/// Without this the others would prove nothing.
#[test]
fn what_firewalld_does_not_know_is_refused() {
    let Some(stage) = Stage::bare() else { return };
    let Some(firewalld) = Firewalld::start(&stage) else {
        return;
    };
    stage.shell(
        "ip netns add x && ip link add x0 type veth peer name eth0 netns x \
         && ip address add 10.99.0.1/24 dev x0 && ip link set x0 up \
         && ip -n x address add 10.99.0.2/24 dev eth0 && ip -n x link set eth0 up \
         && ip -n x route add default via 10.99.0.1 && sysctl -q -w net.ipv4.ip_forward=1",
    );
    stage.shell_outside(&format!("ip route add 10.99.0.0/24 via {NODE_V4}"));
    let x = Place {
        netns: stage.path("/run/netns/x"),
        addresses: vec!["10.99.0.2".parse().unwrap()],
    };
    let far = stage.far();
    assert!(x.tcp(&far, far.v4()).is_none());
    firewalld.ok(&stage, "--zone=trusted --change-interface=x0");
    assert!(wait_until(PATIENCE, || x.tcp(&far, far.v4()).is_some()));
}

#[test]
fn what_is_published_freely_and_what_goes_out_passes_firewalld() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let Some(_firewalld) = Firewalld::start(&stage) else {
        return;
    };
    stage.start().unwrap();
    let web = publish(&stage, &format!("-p {PORT}:80{FREE}"));
    let _server = Server::start(&web, 80);
    let far = stage.far();
    assert_answers(&far, &node(PORT));
    assert_answers(&stage.here(), &node(PORT));
    web.assert_reaches(&far);
}

#[test]
fn what_obeys_the_host_is_as_open_as_its_zone() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let Some(firewalld) = Firewalld::start(&stage) else {
        return;
    };
    stage.start().unwrap();
    let words = format!("-p {PORT}:80{FREE} -p {ASKING}:80{OBEYING}");
    let web = publish(&stage, &words);
    let _server = Server::start(&web, 80);
    let far = stage.far();
    assert_silent(&far, &node(ASKING));
    assert_answers(&stage.here(), &node(ASKING));
    firewalld.ok(&stage, &format!("--add-port={ASKING}/tcp"));
    assert_answers(&far, &node(ASKING));
    for source in [ROUTER_V4, ROUTER_V6] {
        firewalld.ok(&stage, &format!("--zone=drop --add-source={source}"));
    }
    assert_silent(&far, &node(ASKING));
    assert_answers(&far, &node(PORT));
}

#[test]
fn a_reload_of_firewalld_cuts_nothing_off_for_long() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let Some(firewalld) = Firewalld::start(&stage) else {
        return;
    };
    stage.start().unwrap();
    let web = publish(&stage, &format!("-p {PORT}:80{FREE}"));
    let _server = Server::start(&web, 80);
    let far = stage.far();
    assert_answers(&far, &node(PORT));
    for reload in ["--reload", "--complete-reload"] {
        let (mut stream, _) = connect(&far, node(PORT)[0]).unwrap();
        firewalld.ok(&stage, reload);
        assert!(is_alive(&mut stream), "{reload} ended a connection");
        assert_answers_soon(&far, &node(PORT));
        let out = || web.pings(far.v4()) && web.tcp(&far, far.v4()).is_some();
        assert!(wait_until(PATIENCE, out), "{reload} cut off what goes out");
    }
}

#[test]
fn a_firewalld_that_comes_later_or_again_cuts_nothing_off_for_long() {
    let Some(stage) = Stage::start() else { return };
    let web = publish(&stage, &format!("-p {PORT}:80{FREE}"));
    let _server = Server::start(&web, 80);
    let far = stage.far();
    assert_answers(&far, &node(PORT));
    let Some(firewalld) = Firewalld::start(&stage) else {
        return;
    };
    let is_whole = || web.pings(far.v4()) && web.tcp(&far, far.v4()).is_some();
    // A bus that was not there when the daemon started is looked for every while.
    assert!(wait_until(3 * PATIENCE, is_whole), "cut off");
    assert_answers_soon(&far, &node(PORT));
    firewalld.stop(&stage);
    assert!(wait_until(PATIENCE, is_whole), "cut off without firewalld");
    firewalld.launch(&stage);
    assert!(wait_until(PATIENCE, is_whole), "cut off by the next one");
    assert_answers_soon(&far, &node(PORT));
}

#[test]
fn nothing_of_ours_stays_in_a_zone() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let Some(firewalld) = Firewalld::start(&stage) else {
        return;
    };
    stage.start().unwrap();
    publish(&stage, &format!("-p {PORT}:80{FREE}"));
    let bridge = bridge(&stage);
    let is_there = || firewalld.ok(&stage, "--get-active-zones").contains(&bridge);
    assert!(wait_until(PATIENCE, is_there), "{bridge} is in no zone");
    stage.ok("rm -f web");
    stage.ok("network rm front");
    assert!(wait_until(PATIENCE, || !is_there()), "{bridge} is left");
}
