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
    let met = ["Plugin.Activate", "IpamDriver.GetCapabilities"];
    let asked = [&met, POOL, &["IpamDriver.RequestAddress"]].concat();
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
        &[
            "Plugin.Activate",
            "NetworkDriver.GetCapabilities",
            "IpamDriver.GetCapabilities",
        ][..],
        POOL,
        POOL,
        &["NetworkDriver.CreateNetwork"],
    ];
    assert_eq!(scene.asked(), made.concat());
    let a = scene.sandbox("a", "--network far");
    assert_eq!(
        scene.asked(),
        [
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

/// A plugin gives the lowest address out again while the kernel still removes the link that had it.
#[test]
fn an_address_that_was_just_given_back_may_be_handed_out_at_once() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.ok("network create --ipam-driver peer lan");
    for name in ["a", "b", "c", "d", "e"] {
        let place = scene.sandbox(name, "--network lan");
        assert_eq!(place.v4().to_string(), "10.99.0.2", "{name}");
        scene.ok(&format!("sandbox rm {name}"));
    }
}

#[test]
fn addresses_that_are_not_of_the_pool_are_refused() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let before = scene.links();
    scene.network("far", "--ipam-driver peer --subnet 10.99.0.0/24");
    for answer in ["fd00::5/64", "192.168.9.9/24", "10.99.0.9/8", "10.99.0.9"] {
        scene.misbehave(&format!(
            "RequestAddress answer {{\"Address\": \"{answer}\"}}"
        ));
        scene.assert_refused("sandbox create --name a --network far", 3, &[answer]);
    }
    scene.misbehave("");
    scene.ok("network rm far");
    scene.misbehave("RequestPool answer {\"PoolID\": \"p\", \"Pool\": \"10.99.0.0/24\", \"Data\": {\"com.docker.network.gateway\": \"10.98.0.1/24\"}}");
    let create = "network create --ipam-driver peer --subnet 10.99.0.0/24 lan";
    scene.assert_refused(create, 3, &["10.98.0.1"]);
    scene.misbehave("");
    scene.ok("network create --subnet 10.99.0.0/24 ours");
    scene.ok("network rm ours");
    scene.assert_nothing_left(&before);
}

#[test]
fn a_plugin_chooses_the_gateway_and_is_told_hardware_addresses() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let gateway = "RequestPool answer {\"PoolID\": \"peer-local/10.99.0.0/24\", \"Pool\": \"10.99.0.0/24\", \"Data\": {\"com.docker.network.gateway\": \"10.99.0.254/24\"}}";
    let wants = "IpamDriver.GetCapabilities answer {\"RequiresMACAddress\": true}";
    scene.misbehave(&format!("{gateway}\n{wants}"));
    scene.ok("network create --ipam-driver peer lan");
    let asked = scene.asked();
    let addresses = asked.iter().filter(|m| m.ends_with("RequestAddress"));
    assert_eq!(addresses.count(), 0, "{asked:?}");
    let a = scene.sandbox("a", "--network lan");
    assert!(a.ok("ip route").contains("default via 10.99.0.254"));
    let calls = scene.plugin.calls(&scene.stage);
    let options = &calls.last().unwrap().request["Options"];
    let told = options["com.docker.network.endpoint.macaddress"].as_str();
    assert!(
        a.ok("ip link show eth0").contains(told.unwrap()),
        "{options}"
    );
    assert_eq!(options["com.docker.network.endpoint.name"], "a");
}

/// As with plugins that ask a DHCP server.
#[test]
fn without_an_allocator_the_driver_chooses_addresses_for_as_long_as_a_sandbox_runs() {
    let Some(scene) = Scene::start() else {
        return;
    };
    scene.assert_refused("network create --ipam-driver null x", 2, &["plugins"]);
    scene.network("far", "--ipam-driver null");
    let calls = scene.plugin.calls(&scene.stage);
    let data = &calls.last().unwrap().request["IPv4Data"][0];
    assert_eq!(
        (&data["AddressSpace"], &data["Pool"]),
        (&"null".into(), &"0.0.0.0/0".into())
    );
    scene.assert_refused(
        "sandbox create --network far --ip 10.7.0.3",
        2,
        &["no addresses"],
    );
    for last in [7, 8] {
        scene.misbehave(&format!(
            "CreateEndpoint answer {{\"Interface\": {{\"Address\": \"10.7.0.{last}/24\"}}}}"
        ));
        match last {
            7 => drop(scene.sandbox("a", "--network far")),
            _ => drop(scene.ok("sandbox start a")),
        }
        let addresses = scene.place("a").ok("ip -4 address show eth0");
        assert!(
            addresses.contains(&format!("10.7.0.{last}/24")),
            "{addresses}"
        );
        scene.assert_refused(
            "sandbox create --name b --network far",
            3,
            &["has this address"],
        );
        scene.ok("sandbox stop a");
        assert!(!scene.ok("endpoint inspect far/a").contains("10.7.0."));
    }
}

/// It is asked again for everything before it is asked for more, and calls the pool what it likes.
#[test]
fn a_plugin_that_forgets_is_asked_again_by_the_next_daemon() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    let forgets = "IpamDriver.GetCapabilities answer {\"RequiresRequestReplay\": true}";
    scene.misbehave(forgets);
    scene.ok("network create --ipam-driver peer --ipam-opt ids=new --aux-address printer=10.99.0.9 --subnet 10.99.0.0/24 lan");
    let a = scene.sandbox("a", "--network lan");
    scene.stage.kill().unwrap();
    scene.plugin.stop(&scene.stage);
    scene.asked();
    scene.start_anew();
    scene.assert_refused("sandbox create --name b --network lan", 4, &["peer"]);
    scene.plugin.launch(&scene.stage);
    let b = scene.sandbox("b", "--network lan");
    assert_eq!(b.v4().to_string(), "10.99.0.3");
    scene.place("a").assert_reaches(&b);
    let addresses = scene.plugin.calls(&scene.stage).into_iter();
    let addresses = addresses.filter(|call| call.method.ends_with("RequestAddress"));
    let addresses: Vec<String> = addresses
        .map(|call| {
            call.request["Address"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    let own = a.v4().to_string();
    assert_eq!(addresses, ["10.99.0.1", "10.99.0.9", &own, ""]);
    // Nothing of it is asked twice, and everything goes back.
    scene.asked();
    scene.ok("sandbox rm a b");
    scene.ok("network rm lan");
    let asked = scene.asked();
    assert!(
        asked.iter().all(|method| method.contains(".Release")),
        "{asked:?}"
    );
}

/// What is given back is called as the plugin calls it now.
#[test]
fn a_plugin_that_forgets_is_asked_again_before_it_gets_anything_back() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.misbehave("IpamDriver.GetCapabilities answer {\"RequiresRequestReplay\": true}");
    scene.ok("network create --ipam-driver peer --ipam-opt ids=new lan");
    scene.sandbox("a", "--network lan");
    scene.stage.kill().unwrap();
    scene.plugin.stop(&scene.stage);
    scene.plugin.launch(&scene.stage);
    scene.asked();
    scene.start_anew();
    scene.ok("sandbox rm a");
    scene.ok("network rm lan");
    let calls = scene.plugin.calls(&scene.stage);
    let refused = calls.iter().find(|call| call.answer.get("Error").is_some());
    assert!(refused.is_none(), "{refused:?}");
    let methods = scene.plugin.methods(&scene.stage);
    assert!(
        methods.ends_with(&["IpamDriver.ReleasePool".to_owned()]),
        "{methods:?}"
    );
}
