//! Beside the real dockerd, which lets nothing through the host but its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tombolo_lab::node::{ROUTER_V4, ROUTER_V6, wait_until};
use tombolo_tests::peers::Dockerd;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::traffic::{FREE, Server, assert_answers, assert_answers_soon, bridge, node, publish};

/// The port that our sandbox publishes, and that which Docker's container publishes.
const OURS: u16 = 8_080;
const DOCKERS: u16 = 8_081;

fn web(stage: &Stage) -> Place {
    publish(stage, &format!("-p {OURS}:80{FREE}"))
}

/// What dockerd does to those that it does not know.
fn assert_drops_others(stage: &Stage) {
    let policy = stage.shell("iptables -S FORWARD");
    assert!(policy.contains("-P FORWARD DROP"), "{policy}");
}

/// Rules of Docker's chain for the user that name the bridge of network `front`, and thus are ours.
fn ours_in_docker_user(stage: &Stage, bridge: &str) -> Vec<String> {
    let text = stage.shell("iptables -S DOCKER-USER; ip6tables -S DOCKER-USER 2>/dev/null || true");
    let lines = text.lines().filter(|line| line.contains(bridge));
    lines.map(ToOwned::to_owned).collect()
}

#[test]
fn both_publish_and_reach_each_other() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    stage.start().unwrap();
    let ours = web(&stage);
    let theirs = docker.run(&stage, "theirs", &format!("-p {DOCKERS}:80"));
    let _servers = [Server::start(&ours, 80), Server::start(&theirs, 80)];
    assert_drops_others(&stage);
    let (here, far) = (stage.here(), stage.far());
    let [v4, v6] = node(OURS);
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, OURS));
    let clients = [ROUTER_V4, ROUTER_V6].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(
        assert_answers(&far, &[v4, v6]),
        clients,
        "the clients are seen as they are"
    );
    assert_answers(&here, &[v4, v6, loopback]);
    assert_answers(&theirs, &[v4]);
    assert_answers(&ours, &[v4]);
    let [docker_v4, _] = node(DOCKERS);
    assert_answers(&far, &[docker_v4]);
    assert_answers(&here, &[docker_v4]);
    assert_answers(&ours, &[docker_v4]);
    ours.assert_reaches(&far);
    docker.stop(&stage);
}

#[test]
fn a_dockerd_that_comes_later_or_again_cuts_nothing_off_for_long() {
    let Some(stage) = Stage::start() else { return };
    let ours = web(&stage);
    let _server = Server::start(&ours, 80);
    let far = stage.far();
    assert_answers(&far, &node(OURS));
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    // This is for dockerd to do where it is the first to make the host forward.
    stage.shell("iptables -P FORWARD DROP");
    assert_answers_soon(&far, &node(OURS));
    ours.assert_reaches(&far);
    docker.restart(&stage);
    assert_drops_others(&stage);
    assert_answers_soon(&far, &node(OURS));
    ours.assert_reaches(&far);
    docker.stop(&stage);
}

#[test]
fn our_permission_comes_back_when_the_chain_is_emptied() {
    let Some(stage) = Stage::start() else { return };
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    let ours = web(&stage);
    let _server = Server::start(&ours, 80);
    let far = stage.far();
    assert_answers(&far, &node(OURS));
    let bridge = bridge(&stage);
    let rules = || ours_in_docker_user(&stage, &bridge);
    let before = rules();
    assert!(!before.is_empty(), "nothing of ours to be lost");
    stage.shell("iptables -F DOCKER-USER");
    assert!(wait_until(PATIENCE, || rules() == before), "{:#?}", rules());
    assert_answers_soon(&far, &node(OURS));
    docker.stop(&stage);
}

#[test]
fn nothing_of_ours_stays_in_the_chain_of_others_and_nothing_of_others_goes() {
    let Some(stage) = Stage::start() else { return };
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    web(&stage);
    let bridge = bridge(&stage);
    let rules = || ours_in_docker_user(&stage, &bridge);
    assert!(
        wait_until(PATIENCE, || !rules().is_empty()),
        "nothing of ours to go"
    );
    let other = "-A DOCKER-USER -s 203.0.113.9/32 -j DROP";
    stage.shell(&other.replace("-A", "iptables -I"));
    stage.ok("rm -f web");
    stage.ok("network rm front");
    assert!(
        wait_until(PATIENCE, || rules().is_empty()),
        "{:#?}",
        rules()
    );
    let left = stage.shell("iptables -S DOCKER-USER");
    assert!(left.contains(other), "{left}");
    docker.stop(&stage);
}

#[test]
fn dockerd_leaves_nothing_behind() {
    let Some(stage) = Stage::bare() else { return };
    let processes = || stage.shell("ps -eo args= | sort -u");
    let mounts = || stage.shell("awk '{print $5}' /proc/self/mountinfo | grep -v ^/sys/fs/cgroup");
    let (before, mounted) = (processes(), mounts());
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    docker.run(&stage, "theirs", &format!("-p {DOCKERS}:80"));
    let group = docker.control_group().to_owned();
    let groups = || stage.shell("ls /sys/fs/cgroup");
    assert!(groups().lines().any(|line| line == group));
    docker.stop(&stage);
    assert!(
        wait_until(PATIENCE, || processes() == before),
        "{}",
        processes()
    );
    assert_eq!(mounts(), mounted);
    assert!(!groups().lines().any(|line| line == group));
}
