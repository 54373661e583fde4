//! Beside rules written by hand, as ufw or an administrator has them, and those who flush everything.

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::traffic::{
    FREE, OBEYING, SECOND, Server, assert_answers, assert_answers_soon, assert_silent, bridge,
    connect, is_alive, node, publish,
};

/// The published port, and that which asks the host's firewall.
const PORT: u16 = 8_080;
const ASKING: u16 = 8_081;
/// A host that lets nothing in and nothing through but answers, as ufw makes it.
const CLOSED: &str = "for ipt in iptables ip6tables; do
    $ipt -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $ipt -A INPUT -i lo -j ACCEPT
    $ipt -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $ipt -P INPUT DROP
    $ipt -P FORWARD DROP
done
ip6tables -I INPUT -p icmpv6 -j ACCEPT";
/// What a user does not want.
const RULE: &str = "nft add rule inet tombolo tombolo-user ip saddr 192.0.2.1 tcp dport 80 \
     counter drop comment \\\"not from there\\\"";

fn web(stage: &Stage, words: &str) -> (Place, Server) {
    let web = publish(stage, words);
    let server = Server::start(&web, 80);
    (web, server)
}

fn has_iptables(stage: &Stage) -> bool {
    let found = stage
        .run(&["sh", "-c", "command -v iptables"])
        .unwrap()
        .success();
    if !found {
        tombolo_lab::node::skip("no iptables: install Debian's iptables");
    }
    found
}

#[test]
fn a_host_that_lets_nothing_through_lets_ours_through() {
    let Some(stage) = Stage::start() else { return };
    if !has_iptables(&stage) {
        return;
    }
    stage.shell(CLOSED);
    let words = format!("-p {PORT}:80{FREE} -p {ASKING}:80{OBEYING}");
    let (web, _server) = web(&stage, &words);
    let far = stage.far();
    assert_answers(&far, &node(PORT));
    assert_answers(&stage.here(), &node(PORT));
    web.assert_reaches(&far);
    assert_silent(&far, &node(ASKING));
    assert_answers(&stage.here(), &node(ASKING));
    let open = format!("-I INPUT -p tcp --dport {ASKING} -j ACCEPT");
    stage.shell(&format!("iptables {open} && ip6tables {open}"));
    assert_answers(&far, &node(ASKING));
    let closed = format!("-I INPUT -p tcp --dport {ASKING} -j DROP");
    stage.shell(&format!(
        "iptables {closed} -s 192.0.2.1 && ip6tables {closed} -s 2001:db8::1"
    ));
    assert_silent(&far, &node(ASKING));
}

#[test]
fn a_host_that_is_closed_later_lets_ours_through() {
    let Some(stage) = Stage::start() else { return };
    if !has_iptables(&stage) {
        return;
    }
    let (web, _server) = web(&stage, &format!("-p {PORT}:80{FREE}"));
    let far = stage.far();
    assert_answers(&far, &node(PORT));
    stage.shell(CLOSED);
    assert_answers_soon(&far, &node(PORT));
    web.assert_reaches(&far);
    let ours = || stage.shell("iptables -S FORWARD; ip6tables -S FORWARD");
    let bridge = bridge(&stage);
    assert!(ours().contains(&bridge), "{}", ours());
    stage.shell("iptables -F FORWARD; ip6tables -F FORWARD");
    assert_answers_soon(&far, &node(PORT));
    stage.ok("rm -f web");
    stage.ok("network rm front");
    assert!(
        wait_until(PATIENCE, || !ours().contains(&bridge)),
        "left behind: {}",
        ours()
    );
}

#[test]
fn a_flush_of_everything_is_mended_unasked() {
    let Some(stage) = Stage::start() else { return };
    let words = format!("-p {PORT}:80{FREE} -p 9000-9999:9000-9999/udp{FREE}");
    let (web, _server) = web(&stage, &words);
    let far = stage.far();
    assert_answers(&far, &node(PORT));
    let (mut stream, _) = connect(&far, node(PORT)[0]).unwrap();
    for _ in 0..3 {
        stage.shell("nft flush ruleset");
        assert_answers_soon(&far, &node(PORT));
        assert!(is_alive(&mut stream), "an existing connection ended");
    }
    web.assert_reaches(&far);
    stage.assert_in_place();
}

#[test]
fn a_rule_of_the_user_survives_a_flush_and_every_restart() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    let (_web, _server) = web(&stage, &format!("-p {PORT}:80{FREE}"));
    let far = stage.far();
    let [v4, v6] = node(PORT);
    assert_answers(&far, &[v4, v6]);
    stage.shell(RULE);
    let rules = |stage: &Stage| {
        let text = stage.shell("nft list chain inet tombolo tombolo-user 2>/dev/null || true");
        text.contains("not from there")
    };
    assert_silent(&far, &[v4]);
    assert_answers(&far, &[v6]);
    // What was written this moment need not be known yet; what was written a second ago must be.
    std::thread::sleep(SECOND);
    stage.shell("nft flush ruleset");
    assert!(wait_until(PATIENCE, || rules(&stage)), "lost by a flush");
    assert_answers_soon(&far, &[v6]);
    assert_silent(&far, &[v4]);
    stage.stop().unwrap();
    stage.start_again();
    assert!(rules(&stage), "lost by a restart");
    stage.kill().unwrap();
    stage.shell("nft flush ruleset");
    stage.start_again();
    assert!(wait_until(PATIENCE, || rules(&stage)), "lost by a crash");
    assert_answers(&far, &[v6]);
    assert_silent(&far, &[v4]);
}
