//! Addresses that plugins hand out.

use super::fails_words;
use super::scene::Scene;

const POOL: &[&str] = &[
    "IpamDriver.GetDefaultAddressSpaces",
    "IpamDriver.RequestPool",
    "IpamDriver.RequestAddress",
];

#[test]
fn a_bridge_of_ours_has_addresses_of_a_plugin() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let before = scene.links();
    scene.ok("network create --ipam-driver peer --ipam-opt colour=red --aux-address printer=10.99.0.9 --subnet 10.99.0.0/24 lan");
    let asked = [&["Plugin.Activate"], POOL, &["IpamDriver.RequestAddress"]].concat();
    assert_eq!(scene.asked(), asked);
    let shown = scene.ok("network inspect lan");
    assert!(
        shown.contains("10.99.0.1") && shown.contains("\"ipam_driver\": \"peer\""),
        "{shown}"
    );
    let a = scene.sandbox("a", "--network lan");
    let b = scene.sandbox("b", "--network lan");
    assert_eq!(a.v4().to_string(), "10.99.0.2");
    a.assert_reaches(&b);
    scene.asked();
    scene.ok("sandbox stop a");
    scene.ok("sandbox start a");
    scene.assert_asked(&[]);
    assert_eq!(scene.place("a").v4(), a.v4());
    scene.ok("sandbox rm a");
    scene.assert_asked(&["IpamDriver.ReleaseAddress"]);
    scene.ok("sandbox rm b");
    scene.asked();
    scene.ok("network rm lan");
    scene.assert_asked(&[
        "IpamDriver.ReleaseAddress",
        "IpamDriver.ReleaseAddress",
        "IpamDriver.ReleasePool",
    ]);
    scene.assert_nothing_left(&before);
}

#[test]
fn a_plugin_makes_the_network_and_its_addresses() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.network("far", "--ipam-driver peer --ipv6");
    let made = [
        &["Plugin.Activate", "NetworkDriver.GetCapabilities"],
        POOL,
        POOL,
        &["NetworkDriver.CreateNetwork"],
    ];
    assert_eq!(scene.asked(), made.concat());
    let a = scene.sandbox("a", "--network far");
    assert_eq!(
        scene.asked(),
        [
            "IpamDriver.GetCapabilities",
            "IpamDriver.RequestAddress",
            "IpamDriver.RequestAddress",
            "NetworkDriver.CreateEndpoint",
            "NetworkDriver.Join",
            "NetworkDriver.ProgramExternalConnectivity",
            "NetworkDriver.EndpointOperInfo",
        ]
    );
    let b = scene.sandbox("b", "--network far");
    a.assert_reaches(&b);
    scene.asked();
    scene.ok("network disconnect far a");
    scene.assert_asked(&[
        "NetworkDriver.RevokeExternalConnectivity",
        "NetworkDriver.Leave",
        "NetworkDriver.DeleteEndpoint",
        "IpamDriver.ReleaseAddress",
        "IpamDriver.ReleaseAddress",
    ]);
    scene.ok("sandbox rm b");
    scene.asked();
    scene.ok("network rm far");
    let pool = ["IpamDriver.ReleaseAddress", "IpamDriver.ReleasePool"];
    let gone = [&pool[..], &pool[..], &["NetworkDriver.DeleteNetwork"]];
    assert_eq!(scene.asked(), gone.concat());
}

#[test]
fn addresses_of_a_network_that_fails_are_given_back() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let create = "network create --driver peer --ipam-driver peer --ipv6 far";
    for method in [
        "GetDefaultAddressSpaces",
        "RequestPool",
        "RequestAddress",
        "CreateNetwork",
    ] {
        for (misdeed, words) in fails_words() {
            scene.misbehave(&format!("{method} {misdeed}"));
            let outcome = scene.tries(create);
            assert!(
                outcome.stderr.contains(words),
                "{method} {misdeed}: {outcome:?}"
            );
            scene.misbehave("");
            // A plugin that kept the pool would offer another.
            scene.ok(create);
            assert!(
                scene.ok("network inspect far").contains("10.99.0.0/24"),
                "{method} {misdeed}"
            );
            scene.ok("network rm far");
        }
    }
    scene.network("far", "--ipam-driver peer");
    scene.misbehave("RequestAddress error it rains");
    scene.assert_refused("sandbox create --network far", 3, &["it rains"]);
    assert_eq!(scene.ok("sandbox ls -q"), "");
}

#[test]
fn a_plugin_that_offers_nothing_but_what_overlaps_is_not_asked_for_ever() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.ok("network create --subnet 10.99.0.0/24 taken");
    // The second pool that it offers is free; the first goes back.
    scene.network("far", "--ipam-driver peer");
    assert!(scene.ok("network inspect far").contains("10.99.1.0/24"));
    scene.ok("network rm far");
    scene.asked();
    scene.misbehave(
        "RequestPool answer {\"PoolID\": \"peer-local/10.99.0.0/24\", \"Pool\": \"10.99.0.0/24\"}",
    );
    scene.assert_refused(
        "network create --driver peer --ipam-driver peer far",
        3,
        &["8 pools", "overlaps"],
    );
    let asked = scene.asked();
    let pools = asked
        .iter()
        .filter(|method| method.ends_with("RequestPool"));
    assert_eq!(pools.count(), 8);
}
