use std::net::IpAddr;

use tombolo_netstate::object::link::{KEPT_MAC, LinkKind};
use tombolo_netstate::{Mac, Netns, Spec};

use super::*;
use crate::driver::{Context, endpoint_objects, gateway_endpoint, sandbox_objects};
use crate::facts::{Facts, Settings};
use crate::model::{Driver, EndpointPlugin, StaticRoute};

/// A network of a plugin and an endpoint that has joined, as they are stored.
fn joined_endpoint() -> (Network, Endpoint) {
    let network = serde_json::json!({
        "id": format!("{:032x}", 1), "pools": [], "device": "tb-1", "existing": false,
        "state": "ready", "predefined": false, "created_ms": 0, "plugin_told": true,
        "spec": {
            "name": "far", "driver": "remote", "subnets": [], "ipv4": true, "ipv6": true,
            "internal": false, "mtu": null, "device": null, "multicast": false, "icc": true,
            "masquerade": true, "snat": [], "routes": [], "interface_prefix": "eth",
            "labels": {}, "options": {}, "plugin": "peer",
        },
    });
    let endpoint = serde_json::json!({
        "id": format!("{:032x}", 2), "name": "web", "network": format!("{:032x}", 1),
        "addresses": ["10.9.0.2/24", "fd09::2/64"], "mac": [2, 0, 0, 0, 0, 2],
        "sandbox": format!("{:032x}", 3), "order": 0, "epoch": 1, "fresh": false, "deleting": false,
        "attachment": {"interface": "lan0", "leaf": 0, "epoch": 1, "fresh": false},
        "spec": {
            "name": null, "addresses": [], "mac": null, "interface": null, "gateway_priority": 0,
            "aliases": [], "labels": {},
        },
        "plugin": {
            "mac": null, "way_out": false,
            "joined": {
                "source": "vp1", "prefix": "lan", "gateway4": "10.9.0.1", "gateway6": null,
                "routes": [
                    {"destination": "10.50.0.0/16", "via": "10.9.0.9"},
                    {"destination": "10.51.0.0/16", "via": null},
                ],
            },
        },
    });
    (
        serde_json::from_value(network).unwrap(),
        serde_json::from_value(endpoint).unwrap(),
    )
}

fn planned(network: &Network, endpoint: &Endpoint) -> Vec<String> {
    let (facts, settings) = (Facts::default(), Settings::default());
    let context = Context {
        facts: &facts,
        settings: &settings,
    };
    let netns = Netns::Owned("sb".into());
    let objects = endpoint_objects(network, endpoint, &netns, context).unwrap();
    let lines = objects.iter().map(|(key, spec)| format!("{key} {spec}"));
    lines.collect()
}

#[test]
fn an_endpoint_is_the_plugins_link_with_addresses_and_routes() {
    let (network, endpoint) = joined_endpoint();
    assert_eq!(
        planned(&network, &endpoint),
        [
            "link sb:lan0 vp1 of the host",
            "address sb:lan0 10.9.0.2 /24",
            "address sb:lan0 fd09::2 /64",
            "route sb:10.50.0.0/16 metric 0 via 10.9.0.9 dev lan0",
            "route sb:10.51.0.0/16 metric 0 dev lan0",
        ]
    );
}

#[test]
fn a_hardware_address_is_set_only_where_somebody_chose_it() {
    let (network, mut endpoint) = joined_endpoint();
    let attachment = endpoint.attachment.clone().unwrap();
    let netns = Netns::Owned("sb".into());
    let mac = |endpoint: &Endpoint| {
        let objects = super::endpoint_objects(&network, endpoint, &attachment, &netns).unwrap();
        let link = objects.values().find_map(|spec| match spec {
            Spec::Link(link) => Some((link.mac, link.kind.clone())),
            _ => None,
        });
        let (mac, kind) = link.unwrap();
        assert!(matches!(kind, LinkKind::Taken { .. }));
        mac
    };
    assert_eq!(mac(&endpoint), KEPT_MAC);
    endpoint.plugin.as_mut().unwrap().mac = Some([2, 0, 0, 0, 0, 7]);
    assert_eq!(mac(&endpoint), Mac([2, 0, 0, 0, 0, 7]));
    endpoint.spec.mac = Some([2, 0, 0, 0, 0, 8]);
    assert_eq!(mac(&endpoint), Mac([2, 0, 0, 0, 0, 8]));
}

#[test]
fn nothing_is_there_before_the_plugin_has_said_what() {
    let (network, mut endpoint) = joined_endpoint();
    endpoint.plugin = Some(EndpointPlugin::default());
    assert_eq!(planned(&network, &endpoint), [] as [&str; 0]);
    let attached = joined_endpoint().1;
    let mut left = attached;
    left.attachment = None;
    assert_eq!(planned(&network, &left), [] as [&str; 0]);
}

#[test]
fn the_way_out_is_the_plugins_gateway_in_each_family() {
    let (network, endpoint) = joined_endpoint();
    assert_eq!(network.spec.driver, Driver::Remote);
    let endpoints = [(&network, &endpoint)];
    let via = |ipv6| gateway_endpoint(&endpoints, ipv6).map(|(_, _, via)| via);
    assert_eq!(via(false), Some(IpAddr::from([10, 9, 0, 1])));
    assert_eq!(via(true), None);
}

#[test]
fn a_plugins_way_out_publishes_no_port_of_ours() {
    let (network, endpoint) = joined_endpoint();
    let sandbox = serde_json::json!({
        "id": format!("{:032x}", 3), "name": "web", "state": "running", "epoch": 1, "created_ms": 0,
        "spec": {
            "name": null, "hostname": null, "netns": "new", "extra_hosts": [], "labels": {},
            "dns": {"servers": [], "searches": [], "options": []},
            "publications": [{
                "protocol": "tcp", "address": null, "ports": "8080", "automatic": false, "container": "80", "from": [],
            }],
        },
    });
    let sandbox = match serde_json::from_value(sandbox) {
        Ok(sandbox) => sandbox,
        Err(error) => panic!("{error}"),
    };
    let (facts, settings) = (Facts::default(), Settings::default());
    let context = Context {
        facts: &facts,
        settings: &settings,
    };
    let objects = sandbox_objects(&sandbox, &[(&network, &endpoint)], context).unwrap();
    let kinds: Vec<&str> = objects.keys().map(Key::kind).collect();
    assert_eq!(kinds, ["netns", "route", "listener"]);
}

#[test]
fn answers_that_cannot_be_carried_out_are_refused() {
    let good = joined_endpoint().1.plugin.unwrap().joined.unwrap();
    check_joined("peer", &good).unwrap();
    let far: IpAddr = "fd09::1".parse().unwrap();
    for (what, bad) in [
        (
            "a link that cannot be",
            Joined {
                source: "a/b".into(),
                ..good.clone()
            },
        ),
        (
            "a link that cannot be",
            Joined {
                source: String::new(),
                ..good.clone()
            },
        ),
        (
            "a prefix",
            Joined {
                prefix: "x".repeat(15),
                ..good.clone()
            },
        ),
        (
            "another family",
            Joined {
                gateway4: Some(far),
                ..good.clone()
            },
        ),
        (
            "another family",
            Joined {
                routes: vec![StaticRoute {
                    destination: "10.0.0.0/8".parse().unwrap(),
                    via: Some(far),
                }],
                ..good.clone()
            },
        ),
    ] {
        let refused = check_joined("peer", &bad).unwrap_err();
        assert_eq!(refused.code, Code::PluginRefused);
        assert!(refused.message.contains(what), "{refused}");
    }
    let longest = Joined {
        prefix: "x".repeat(14),
        ..good
    };
    check_joined("peer", &longest).unwrap();
}
