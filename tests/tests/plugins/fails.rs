//! Plugins that fail at each method: their words are told, and nothing is left.

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;

use super::scene::Scene;

/// What a plugin may do instead of answering, and what is told of it.
pub(crate) const MISDEEDS: &[(&str, &str)] = &[
    ("error it rains", "it rains"),
    ("garbage", "cannot understand"),
    ("close", "closed the connection"),
    ("500 it snows", "it snows"),
    ("hang 4", "did not answer"),
];

/// Waits until calls that hung have come to an end on the plugin's side, too.
fn settle(scene: &Scene, links: &str) {
    scene.misbehave("");
    let settled = wait_until(PATIENCE, || scene.links() == links);
    assert!(settled, "{} instead of {links}", scene.links());
}

#[test]
fn a_failure_in_any_method_of_an_attachment_leaves_nothing() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24 --ipv6 --subnet fd09::/64");
    let before = scene.links();
    for method in [
        "CreateEndpoint",
        "Join",
        "ProgramExternalConnectivity",
        "EndpointOperInfo",
    ] {
        for (misdeed, words) in MISDEEDS {
            scene.misbehave(&format!("NetworkDriver.{method} {misdeed}"));
            let outcome = scene.tries("sandbox create --name a --network far");
            assert!(!outcome.success(), "{method} {misdeed}");
            let told = outcome.stderr.contains(words) && outcome.stderr.contains("peer");
            assert!(told, "{method} {misdeed}: {outcome:?}");
            settle(&scene, &before);
            scene.assert_nothing_left(&before);
        }
    }
    scene.sandbox("a", "--network far");
}

#[test]
fn a_plugin_that_hangs_keeps_nobody_else_waiting() {
    // For as long as this test may take.
    let Some(scene) = Scene::start_with(&["--plugin-call-timeout-seconds", "20"]) else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.misbehave("Join hang 40");
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| scene.tries("sandbox create --name a --network far"));
        assert!(wait_until(PATIENCE, || scene.was_asked("Join")));
        scene.ok("network create --subnet 10.10.0.0/24 near");
        scene.sandbox("b", "--network near");
        scene.ok("sandbox rm b");
        scene.ok("network ls");
        assert!(
            !hanging.is_finished(),
            "the plugin hung for too short a time"
        );
        assert!(!hanging.join().unwrap().success());
    });
}

#[test]
fn a_network_that_its_plugin_does_not_make_is_not_there() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let before = scene.links();
    for (misdeed, words) in MISDEEDS {
        scene.misbehave(&format!("CreateNetwork {misdeed}"));
        let outcome = scene.tries("network create --driver peer --subnet 10.9.0.0/24 far");
        assert!(outcome.stderr.contains(words), "{misdeed}: {outcome:?}");
        settle(&scene, &before);
        assert!(!scene.ok("network ls").contains("far"));
    }
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.ok("network rm far");
}

#[test]
fn a_driver_that_nobody_has_is_refused_with_where_it_was_looked_for() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let words = [
        "no driver has this name",
        "/run/docker/plugins",
        "bridge, null and host",
    ];
    scene.assert_refused("network create --driver macwlan x", 2, &words);
    scene.misbehave("GetCapabilities answer {\"Scope\": \"galactic\"}");
    let words = ["galactic", "no scope"];
    scene.assert_refused("network create --driver peer x", 3, &words);
}

/// The endpoint that the plugin still has is in nobody's way.
#[test]
fn a_sandbox_starts_again_although_its_plugin_forgot_nothing() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--subnet 10.9.0.0/24");
    scene.sandbox("a", "--network far");
    for misdeed in ["DeleteEndpoint error it rains", "DeleteEndpoint close"] {
        scene.misbehave(misdeed);
        scene.ok("sandbox stop a");
        scene.misbehave("");
        scene.ok("sandbox start a");
        assert!(
            scene.place("a").pings("10.9.0.1".parse().unwrap()),
            "{misdeed}"
        );
    }
}

#[test]
fn removals_go_on_without_the_plugin() {
    let Some(scene) = Scene::start() else {
        return;
    };
    for method in ["Leave", "DeleteEndpoint", "RevokeExternalConnectivity"] {
        scene.network("far", "--subnet 10.9.0.0/24");
        let a = scene.sandbox("a", "--network far");
        assert!(a.pings("10.9.0.1".parse().unwrap()));
        scene.misbehave(&format!("{method} error it rains"));
        scene.ok("sandbox rm a");
        assert_eq!(scene.ok("endpoint ls -q"), "");
        assert!(scene.ok("network inspect far").contains("it rains"));
        scene.misbehave("");
        let removed = scene.tries("network rm far");
        // The plugin still has the endpoint that it would not delete.
        assert_eq!(removed.success(), method != "DeleteEndpoint", "{removed:?}");
        scene.plugin.stop(&scene.stage);
        scene.shell("for l in $(ls /sys/class/net | grep -E '^(pb|vh|vp)-'); do ip link del $l 2>/dev/null; done; true");
        scene.plugin.launch(&scene.stage);
    }
}
