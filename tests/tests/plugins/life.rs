//! Networks, sandboxes and endpoints from beginning to end.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use tombolo_lab::node::wait_until;
use tombolo_tests::peers::Plugin;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use super::scene::{ATTACH, DETACH, Scene};

const MAKE: &[&str] = &[
    "Plugin.Activate",
    "NetworkDriver.GetCapabilities",
    "NetworkDriver.CreateNetwork",
];
/// Asserts that a sandbox is told the IPv4 address of another by its name, which has one letter (RFC 1035, section 4).
#[track_caller]
fn assert_resolves(from: &Place, name: &str, to: &Place) {
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1];
    let question = [&head[..], name.as_bytes(), &[0, 0, 1, 0, 1]].concat();
    let answer = from.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket of the sandbox");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket of the sandbox");
        socket
            .send_to(&question, "127.0.0.11:53")
            .expect("a socket of the sandbox");
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).expect("a socket of the sandbox");
        answer[..length].to_vec()
    });
    let IpAddr::V4(address) = to.v4() else {
        panic!("an IPv4 address");
    };
    let found = answer.windows(4).any(|bytes| bytes == address.octets());
    assert!(found, "{name}: {answer:?}");
}

#[test]
fn sandboxes_on_a_plugins_network_reach_each_other() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let before = scene.links();
    scene.network(
        "far",
        "--subnet 10.9.0.0/24 --ipv6 --subnet fd09::/64 -o prefix=lan",
    );
    scene.assert_asked(MAKE);
    let a = scene.sandbox("a", "--network far");
    scene.assert_asked(ATTACH);
    let b = scene.sandbox("b", "--network far");
    a.assert_reaches(&b);
    b.assert_reaches(&a);
    assert!(a.pings("10.9.0.1".parse().unwrap()) && a.pings("fd09::1".parse().unwrap()));
    let routes = a.ok("ip route");
    assert!(routes.contains("default via 10.9.0.1 dev lan0"), "{routes}");
    assert_resolves(&a, "b", &b);
    scene.assert_in_place();
    scene.asked();
    scene.ok("network disconnect far b");
    scene.assert_asked(DETACH);
    scene.ok("sandbox rm b");
    scene.assert_asked(&[]);
    scene.ok("sandbox rm a");
    scene.assert_asked(DETACH);
    scene.ok("network rm far");
    scene.assert_asked(&["NetworkDriver.DeleteNetwork"]);
    scene.assert_nothing_left(&before);
}

/// The order of Docker's engine since version 28, where a sandbox is on two networks of plugins.
#[test]
fn plugins_are_asked_about_what_is_there_when_something_comes_or_goes() {
    const ASK: &[&str] = &["NetworkDriver.EndpointOperInfo"];
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.network("further", "--subnet 10.10.0.0/24 --ipam-driver peer");
    scene.ok("sandbox create --name a --network far");
    scene.asked();
    scene.ok("network connect further a");
    let comes = [
        "IpamDriver.RequestAddress",
        "NetworkDriver.CreateEndpoint",
        "NetworkDriver.Join",
    ];
    scene.assert_asked(&[ASK, &comes, ASK].concat());
    scene.ok("network disconnect far a");
    let [revoke, leave, delete] = DETACH else {
        panic!("three calls");
    };
    let program = "NetworkDriver.ProgramExternalConnectivity";
    scene.assert_asked(&[revoke, leave, ASK[0], program, delete]);
    scene.ok("sandbox rm a");
}

#[test]
fn a_stopped_sandbox_is_taken_out_and_comes_back_with_its_address() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    let a = scene.sandbox("a", "--network far");
    scene.asked();
    scene.ok("sandbox stop a");
    scene.assert_asked(DETACH);
    scene.ok("sandbox start a");
    scene.assert_asked(ATTACH);
    let again = scene.place("a");
    assert_eq!(again.v4(), a.v4());
    assert!(again.pings("10.9.0.1".parse().unwrap()));
    // The facts are in the records: a new daemon asks nothing.
    scene.stage.kill().unwrap();
    scene.start_anew();
    assert!(scene.place("a").pings("10.9.0.1".parse().unwrap()));
    scene.assert_in_place();
    scene.assert_asked(&[]);
    // Somebody takes the address away.
    scene.place("a").ok("ip address flush dev eth0");
    scene.ok("repair");
    scene.ok("repair");
    assert!(scene.place("a").pings("10.9.0.1".parse().unwrap()));
    scene.ok("sandbox rm a");
    assert_eq!(
        scene.asked(),
        [&["Plugin.Activate"], DETACH].concat(),
        "the daemon makes sure of a plugin that it has not met"
    );
}

#[test]
fn a_plugin_that_comes_later_than_the_daemon_is_told_what_was_left() {
    // No call of this test runs out of time.
    let Some(mut scene) = Scene::start_with(&["--plugin-call-timeout-seconds", "40"]) else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24 --ipam-driver peer");
    let mut asking = scene.hangs_in("Join", "sandbox create --name a --network far");
    let methods = |scene: &Scene| scene.plugin.methods(&scene.stage);
    scene.misbehave("");
    scene.stage.kill().unwrap();
    drop(asking.wait());
    scene.shell("mv /run/docker/plugins/peer.sock /run/away.sock");
    scene.start_anew();
    let told = scene.tries("doctor");
    assert!(
        told.stdout
            .contains("plugin peer of network far does not answer"),
        "{told:?}"
    );
    let shown = scene.ok("network inspect far");
    assert!(shown.contains("\"answers\": false"), "{shown}");
    assert!(
        scene.ok("endpoint ls -q").lines().count() == 1,
        "it is kept to be told"
    );
    scene.asked();
    scene.shell("mv /run/away.sock /run/docker/plugins/peer.sock");
    let gone = || scene.ok("endpoint ls -q").is_empty();
    // It is looked for ever less often.
    let told = wait_until(Duration::from_secs(60), gone);
    assert!(told, "{:?}", methods(&scene));
    let asked = scene.asked();
    for method in ["NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"] {
        assert!(asked.iter().any(|asked| asked == method), "{asked:?}");
    }
}

/// The sandbox runs without it until then, and the plugin is told what it still knows from before.
#[test]
fn a_start_that_was_cut_short_goes_on_when_the_plugin_is_there() {
    let Some(mut scene) = Scene::start_with(&["--plugin-call-timeout-seconds", "40"]) else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.sandbox("a", "--network far");
    scene.ok("sandbox stop a");
    scene.asked();
    let mut asking = scene.hangs_in("Join", "sandbox start a");
    let methods = |scene: &Scene| scene.plugin.methods(&scene.stage);
    scene.misbehave("");
    scene.stage.kill().unwrap();
    drop(asking.wait());
    scene.shell("mv /run/docker/plugins/peer.sock /run/away.sock");
    scene.start_anew();
    let told = scene.tries("doctor");
    assert!(told.stdout.contains("does not answer"), "{told:?}");
    scene.asked();
    scene.shell("mv /run/away.sock /run/docker/plugins/peer.sock");
    let pings = || {
        let a = scene.place("a");
        let links = a.run("ip -4 -o address show").stdout;
        links.contains("10.9.0.") && a.pings("10.9.0.1".parse().unwrap())
    };
    let attached = wait_until(Duration::from_secs(60), pings);
    assert!(attached, "{:?}", methods(&scene));
    let asked = scene.asked();
    let deleted = asked.iter().position(|m| m.ends_with("DeleteEndpoint"));
    let created = asked.iter().position(|m| m.ends_with("CreateEndpoint"));
    assert!(deleted.is_some() && deleted < created, "{asked:?}");
}

#[test]
fn routes_of_plugins_and_networks_without_a_way_out() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.misbehave("NetworkDriver.GetCapabilities answer {\"Scope\": \"global\", \"GwAllocChecker\": true}\nGwAllocCheck answer {\"SkipIPv4\": true}");
    scene.network(
        "far",
        "--subnet 10.9.0.0/24 -o gateway=none -o routes=10.50.0.0/16@10.9.0.9,10.51.0.0/16",
    );
    let create = scene.plugin.calls(&scene.stage).pop().unwrap();
    assert!(
        create.request["IPv4Data"][0].get("Gateway").is_none(),
        "{create:?}"
    );
    let options = &create.request["Options"]["com.docker.network.generic"];
    assert_eq!(options["gateway"], "none");
    scene.misbehave(
        "ProgramExternalConnectivity 404\nEndpointOperInfo 404\nRevokeExternalConnectivity 404",
    );
    let a = scene.sandbox("a", "--network far");
    let routes = a.ok("ip route");
    assert!(
        routes.contains("10.50.0.0/16 via 10.9.0.9") && routes.contains("10.51.0.0/16 dev"),
        "{routes}"
    );
    assert!(!routes.contains("default"), "{routes}");
    scene.ok("sandbox rm a");
    scene.misbehave("");
    scene.ok("network rm far");
    scene.network("plain", "--subnet 10.9.0.0/24");
    let create = scene.plugin.calls(&scene.stage).pop().unwrap();
    let options = &create.request["Options"]["com.docker.network.generic"];
    assert_eq!(
        options,
        &serde_json::json!({}),
        "engines send it without options, too"
    );
}

#[test]
fn a_plugin_is_found_by_a_file_and_reached_by_its_hosts_name() {
    const FILES: &str = "/run/plugin-files";
    let Some(stage) = Stage::start_with(&["--plugin-files", FILES]) else {
        return;
    };
    let Some(plugin) = Plugin::start_at(&stage, "peer", Some("127.0.0.1:9000")) else {
        return;
    };
    stage.shell(&format!(
        "mkdir -p {FILES} && echo '{{\"Name\": \"peer\", \"Addr\": \"tcp://localhost:9000\"}}' >{FILES}/peer.json"
    ));
    stage.ok("network create --driver peer --ipam-driver peer far");
    let a = stage.sandbox("a", "--network far");
    assert!(a.pings("10.99.0.1".parse().unwrap()));
    assert!(
        stage
            .ok("network inspect far")
            .contains("http://localhost:9000")
    );
    stage.ok("sandbox rm a");
    stage.ok("network rm far");
    assert!(
        plugin
            .methods(&stage)
            .ends_with(&["NetworkDriver.DeleteNetwork".to_owned()])
    );
}

#[test]
fn a_request_in_the_middle_is_undone_after_the_daemon_was_killed() {
    // The call does not run out of time before the daemon is killed.
    let Some(mut scene) = Scene::start_with(&["--plugin-call-timeout-seconds", "40"]) else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    let before = scene.links();
    scene.asked();
    let mut asking = scene.hangs_in("Join", "sandbox create --name a --network far");
    scene.misbehave("");
    scene.stage.kill().unwrap();
    drop(asking.wait());
    scene.start_anew();
    let clean = || scene.ok("endpoint ls -q").is_empty() && scene.links() == before;
    assert!(
        wait_until(Duration::from_secs(30), clean),
        "{}",
        scene.links()
    );
    scene.assert_nothing_left(&before);
    scene.sandbox("a", "--network far");
}

#[test]
fn a_plugin_that_is_gone_is_told_of_and_what_it_made_can_be_removed() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.sandbox("a", "--network far");
    let shown = scene.ok("network inspect far");
    assert!(
        shown.contains("\"plugins\"") && shown.contains("peer.sock"),
        "{shown}"
    );
    assert!(shown.contains("\"answers\": true"), "{shown}");
    scene.plugin.stop(&scene.stage);
    let told = scene.tries("doctor");
    assert!(
        told.stdout
            .contains("plugin peer of network far does not answer"),
        "{told:?}"
    );
    let shown = scene.ok("network inspect far");
    assert!(
        shown.contains("\"answers\": false") && shown.contains("last_error"),
        "{shown}"
    );
    scene.assert_refused("sandbox create --network far", 4, &["peer"]);
    // What is not of the plugin goes on, and what is can be removed.
    scene.ok("network create --subnet 10.10.0.0/24 near");
    scene.sandbox("b", "--network near");
    scene.ok("sandbox rm a");
    let removed = scene.tries("network rm far");
    assert!(removed.stderr.contains("is removed here"), "{removed:?}");
    assert!(!scene.ok("network ls").contains("far"));
}

#[test]
fn an_endpoint_alone_joins_and_leaves_and_keeps_its_address() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let before = scene.links();
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.ok("sandbox create --name a");
    scene.asked();
    scene.ok("endpoint create --name e --ip 10.9.0.7 --mac-address 02:00:00:00:00:07 far");
    scene.assert_asked(&[]);
    scene.ok("endpoint join far/e a");
    let create = scene.plugin.calls(&scene.stage).remove(0);
    assert_eq!(create.request["Interface"]["Address"], "10.9.0.7/24");
    assert_eq!(
        create.request["Interface"]["MacAddress"],
        "02:00:00:00:00:07"
    );
    scene.assert_asked(ATTACH);
    let a = scene.place("a");
    assert!(a.ok("ip link show eth0").contains("02:00:00:00:00:07"));
    assert!(a.pings("10.9.0.1".parse().unwrap()));
    scene.ok("endpoint leave far/e");
    scene.assert_asked(DETACH);
    assert!(scene.ok("endpoint inspect far/e").contains("10.9.0.7"));
    scene.ok("sandbox rm a");
    let pruned = scene.ok("system prune -f");
    assert!(pruned.contains("far") && pruned.contains('e'), "{pruned}");
    assert_eq!(scene.links(), before);
}

#[test]
fn a_sandbox_whose_namespace_vanishes_is_forgotten_by_the_plugin() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let before = scene.links();
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.shell("ip netns add theirs");
    scene.ok("sandbox create --name a --netns /run/netns/theirs --network far");
    scene.asked();
    scene.shell("ip netns del theirs");
    let told = || scene.was_asked("DeleteEndpoint");
    assert!(
        wait_until(PATIENCE, told),
        "{:?}",
        scene.plugin.methods(&scene.stage)
    );
    scene.ok("sandbox rm a");
    scene.ok("network rm far");
    assert!(wait_until(PATIENCE, || scene.links() == before));
}

/// The namespace of a sandbox that was not finished goes, and the plugin's link in it is given back before.
#[test]
fn what_a_killed_daemon_had_taken_is_given_back() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.asked();
    // Asked when the link is in the sandbox already.
    let mut asking = scene.hangs_in("EndpointOperInfo", "sandbox create --name a --network far");
    assert!(!scene.links().contains("vp-"), "{}", scene.links());
    scene.misbehave("DeleteEndpoint error it rains");
    scene.stage.kill().unwrap();
    drop(asking.wait());
    scene.start_anew();
    let back = || scene.links().contains("vp-") && scene.ok("endpoint ls -q").is_empty();
    assert!(
        wait_until(Duration::from_secs(30), back),
        "{}",
        scene.links()
    );
    assert_eq!(scene.ok("sandbox ls -q"), "");
    assert_eq!(scene.shell("ls /run/tombolo/netns"), "");
}
