//! Which network leads out of a sandbox, and who publishes its ports.

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;

use super::scene::{ATTACH, Scene};

#[test]
fn the_way_out_changes_between_networks_of_plugins_and_ours() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.ok("network create --subnet 10.10.0.0/24 near");
    let a = scene.sandbox("a", "--network near --network far -p 8080:80");
    let methods = scene.asked();
    // By the order of names the plugin's network is the way out; its plugin publishes.
    assert!(methods.ends_with(&ATTACH.map_owned()), "{methods:?}");
    assert!(a.ok("ip route").contains("default via 10.9.0.1"));
    let elements = scene.shell("nft list map inet tombolo publish_any4 2>/dev/null; true");
    assert!(!elements.contains("8080"), "{elements}");
    scene.ok("network disconnect far a");
    assert!(a.ok("ip route").contains("default via 10.10.0.1"));
    scene.asked();
    scene.ok("network connect far a");
    scene.assert_asked(ATTACH);
    scene.ok("sandbox rm a");
}

/// Whatever changes which network leads out, the plugin publishes exactly while its own does.
#[test]
fn the_plugin_is_told_whenever_its_network_leads_out_or_no_more() {
    let Some(scene) = Scene::start() else {
        return;
    };
    const PROGRAM: &str = "NetworkDriver.ProgramExternalConnectivity";
    const REVOKE: &str = "NetworkDriver.RevokeExternalConnectivity";
    let told = || {
        let mut asked = scene.asked();
        asked.retain(|method| method.ends_with("ExternalConnectivity"));
        asked
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    // Before the plugin's by the order of names.
    scene.ok("network create --subnet 10.8.0.0/24 aaa");
    let a = scene.sandbox("a", "--network far -p 8080:80");
    let publishes = || {
        let table = scene.shell("nft list table inet tombolo");
        table.contains("8080")
    };
    scene.asked();
    scene.ok("network connect aaa a");
    assert_eq!(told(), [REVOKE]);
    assert!(publishes());
    assert!(a.ok("ip route").contains("default via 10.8.0.1"));
    scene.ok("network disconnect aaa a");
    assert_eq!(told(), [PROGRAM]);
    assert!(!publishes());
    scene.ok("endpoint create --name e aaa");
    scene.ok("endpoint join aaa/e a");
    assert_eq!(told(), [REVOKE]);
    scene.ok("endpoint leave aaa/e");
    assert_eq!(told(), [PROGRAM]);
    scene.ok("endpoint join aaa/e a");
    scene.ok("endpoint rm aaa/e");
    assert_eq!(told(), [REVOKE, PROGRAM]);
    scene.ok("sandbox rm a");
    scene.asked();
    scene.sandbox("b", "--network far --network aaa -p 8080:80");
    assert_eq!(told(), [PROGRAM, REVOKE]);
}

/// What could not be told is told later.
#[test]
fn a_plugin_that_fails_to_publish_is_asked_again() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.ok("network create --subnet 10.8.0.0/24 aaa");
    scene.sandbox("a", "--network far --network aaa");
    scene.misbehave("ProgramExternalConnectivity error it rains");
    scene.ok("network disconnect aaa a");
    scene.asked();
    scene.misbehave("");
    let told = || {
        let mut calls = scene.plugin.calls(&scene.stage).into_iter();
        calls.any(|call| {
            call.method.ends_with("ProgramExternalConnectivity") && call.answer.get("Err").is_none()
        })
    };
    assert!(wait_until(PATIENCE, told), "{:?}", scene.asked());
}

#[test]
fn ports_are_the_plugins_to_publish() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.asked();
    scene.sandbox(
        "a",
        "--network far -p 192.0.2.1:8080-8081:80-81 -p 5353:53/udp --expose 9000",
    );
    let calls = scene.plugin.calls(&scene.stage);
    let program = calls
        .iter()
        .find(|call| call.method.ends_with("ProgramExternalConnectivity"))
        .unwrap();
    let ports = &program.request["Options"]["com.docker.network.portmap"];
    let text = ports.to_string();
    for word in [
        "\"Port\":81",
        "\"HostPort\":8081",
        "\"Proto\":17",
        "\"HostPort\":5353",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let exposed = &program.request["Options"]["com.docker.network.endpoint.exposedports"];
    assert!(exposed.to_string().contains("9000"), "{exposed}");
    scene.assert_refused(
        "publish add a 8888:88",
        2,
        &["a plugin publishes its ports"],
    );
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|word| (*word).to_owned()).collect()
    }
}
