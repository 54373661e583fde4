use std::collections::BTreeMap;

use tombolo_netstate::object::port::{PortRange, Protocol};

use super::*;
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::model::DnsSettings;
use crate::model::{
    Attachment, EndpointSpec, Exposed, Forward, NetworkDns, NetworkSpec, NetworkState, Pool,
    Publication, SandboxSpec, SandboxState, SubnetSpec,
};

/// As it was stored before networks had settings for names.
const OLD_SPEC: &str = r#"{
    "name": "old", "driver": "bridge", "subnets": [], "ipv4": true, "ipv6": false, "internal": false,
    "mtu": null, "device": null, "multicast": false, "icc": true, "masquerade": true, "snat": [],
    "routes": [], "interface_prefix": "eth", "labels": {}, "options": {}
}"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn old_spec() -> NetworkSpec {
    serde_json::from_str(OLD_SPEC).unwrap()
}

/// A bridge network with a gateway in each family.
fn network(number: u128, resolver: ResolverAt) -> Network {
    let pool = |subnet: String, gateway: String| Pool {
        subnet: subnet.parse().unwrap(),
        ranges: vec![],
        gateway: Some(ip(&gateway)),
        reserved: BTreeMap::new(),
        plugin: None,
    };
    let mut spec = old_spec();
    spec.ipv6 = true;
    spec.dns.resolver = resolver;
    Network {
        id: NetworkId(number),
        spec,
        pools: vec![
            pool(format!("10.{number}.0.0/24"), format!("10.{number}.0.1")),
            pool(format!("fd00:{number}::/64"), format!("fd00:{number}::1")),
        ],
        device: "br0".to_owned(),
        existing: false,
        state: NetworkState::Ready,
        predefined: false,
        created_ms: 0,
        plugin_told: false,
        forsaken: false,
    }
}

fn gateways(number: u128) -> Place {
    Place::Gateway(vec![
        ip(&format!("10.{number}.0.1")),
        ip(&format!("fd00:{number}::1")),
    ])
}

fn endpoint(order: u32, attached: bool) -> Endpoint {
    Endpoint {
        id: EndpointId(u128::from(order)),
        spec: EndpointSpec::default(),
        name: "e".parse().unwrap(),
        network: NetworkId(0),
        addresses: vec![],
        mac: [2, 0, 0, 0, 0, 1],
        sandbox: None,
        order,
        attachment: attached.then(|| Attachment {
            interface: "eth0".to_owned(),
            leaf: 0,
            epoch: 0,
            left: false,
            fresh: false,
        }),
        epoch: 0,
        fresh: false,
        deleting: false,
        given_back: vec![],
        plugin: None,
    }
}

fn sandbox() -> Sandbox {
    Sandbox {
        id: SandboxId(1),
        spec: SandboxSpec {
            name: None,
            hostname: None,
            netns: SandboxNetns::New,
            dns: DnsSettings::default(),
            extra_hosts: vec![],
            publications: vec![],
            exposed: vec![],
            links: vec![],
            labels: BTreeMap::new(),
        },
        name: "s".parse().unwrap(),
        state: SandboxState::Running,
        epoch: 0,
        created_ms: 0,
    }
}

fn place_on(sandbox: &Sandbox, networks: &[&Network]) -> Place {
    let here = endpoint(0, true);
    let pairs: Vec<_> = networks.iter().map(|network| (*network, &here)).collect();
    place(sandbox, &pairs)
}

fn exposing(first: u16, last: u16) -> Sandbox {
    let mut sandbox = sandbox();
    sandbox.spec.exposed.push(Exposed {
        protocol: Protocol::Tcp,
        ports: PortRange::new(first, last).unwrap(),
    });
    sandbox
}

#[test]
fn a_network_of_before_has_a_resolver_and_forwards() {
    let spec = old_spec();
    assert_eq!(spec.dns, NetworkDns::default());
    assert_eq!(spec.dns.resolver, ResolverAt::Sandbox);
    assert!(spec.forwards_names());
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<NetworkSpec>(&text).unwrap(), spec);
    // What a later program left out has its default, too.
    let dns: NetworkDns = serde_json::from_str(r#"{"resolver":"off","mdns":true}"#).unwrap();
    assert!(dns.resolver == ResolverAt::Off && dns.mdns && dns.servers.is_empty());
}

#[test]
fn internal_networks_forward_only_when_told_to() {
    let mut spec = old_spec();
    for (internal, forward, expected) in [
        (false, Forward::Auto, true),
        (true, Forward::Auto, false),
        (true, Forward::Always, true),
        (false, Forward::Never, false),
    ] {
        (spec.internal, spec.dns.forward) = (internal, forward);
        assert_eq!(spec.forwards_names(), expected, "{internal} {forward:?}");
    }
}

#[test]
fn the_first_network_with_a_resolver_decides() {
    let (inside, at_gateway, off) = (
        network(1, ResolverAt::Sandbox),
        network(2, ResolverAt::Gateway),
        network(3, ResolverAt::Off),
    );
    let own = sandbox();
    let cases: [(&[&Network], Place); 7] = [
        (&[], Place::Off),
        (&[&off], Place::Off),
        (&[&inside], Place::Sandbox),
        (&[&at_gateway], gateways(2)),
        (&[&off, &at_gateway, &inside], gateways(2)),
        (&[&off, &inside, &at_gateway], Place::Sandbox),
        (&[&inside, &at_gateway], Place::Sandbox),
    ];
    for (networks, expected) in cases {
        assert_eq!(place_on(&own, networks), expected);
    }
}

#[test]
fn without_an_interface_of_its_own_there_is_no_resolver() {
    let own = sandbox();
    let mut host = own.clone();
    host.spec.netns = SandboxNetns::Host;
    let inside = network(1, ResolverAt::Sandbox);
    assert_eq!(place_on(&host, &[&inside]), Place::Off);
    assert_eq!(place(&own, &[(&inside, &endpoint(0, false))]), Place::Off);
    let mut null = inside.clone();
    null.spec.driver = Driver::Null;
    assert_eq!(place_on(&own, &[&null]), Place::Off);
    // The network that it is attached to decides, not one that it will be attached to.
    let at_gateway = network(2, ResolverAt::Gateway);
    let (away, here) = (endpoint(0, false), endpoint(1, true));
    let pairs = [(&at_gateway, &away), (&inside, &here)];
    assert_eq!(place(&own, &pairs), Place::Sandbox);
}

#[test]
fn who_serves_names_has_no_resolver_but_one_at_a_gateway() {
    let (inside, at_gateway) = (
        network(1, ResolverAt::Sandbox),
        network(2, ResolverAt::Gateway),
    );
    assert_eq!(place_on(&exposing(53, 53), &[&inside]), Place::Off);
    assert_eq!(place_on(&exposing(54, 60), &[&inside]), Place::Sandbox);
    let networks = [&inside, &at_gateway];
    assert_eq!(place_on(&exposing(50, 60), &networks), gateways(2));
    let mut publishing = sandbox();
    publishing.spec.publications.push(Publication {
        protocol: Protocol::Udp,
        address: None,
        ports: PortRange::new(5353, 5353).ok(),
        automatic: false,
        within: None,
        container: PortRange::new(53, 53).unwrap(),
        from: vec![],
        socket: None,
        by_engine: false,
        obey_host_firewall: None,
    });
    assert_eq!(place_on(&publishing, &[&inside]), Place::Off);
    assert_eq!(place_on(&publishing, &networks), gateways(2));
}

#[test]
fn gateways_count_only_where_the_host_has_them() {
    let both = vec![ip("10.1.0.1"), ip("fd00:1::1")];
    let mut network = network(1, ResolverAt::Gateway);
    assert_eq!(gateway_addresses(&network), both);
    network.spec.gateway_mode6 = GatewayMode::Isolated;
    assert_eq!(gateway_addresses(&network), both[..1]);
    network.spec.gateway_mode6 = GatewayMode::Nat;
    // Taken from the bridge itself.
    network.existing = true;
    assert_eq!(gateway_addresses(&network), both);
    network.spec.subnets.push(SubnetSpec {
        gateway: Some(both[0]),
        ..SubnetSpec::default()
    });
    assert_eq!(gateway_addresses(&network), both[1..]);
    network.spec.address_device = true;
    assert_eq!(gateway_addresses(&network), both);
}

#[test]
fn a_resolver_at_no_gateway_is_refused() {
    let mut isolated = network(1, ResolverAt::Gateway);
    validate(&isolated).unwrap();
    for pool in &mut isolated.pools {
        pool.gateway = None;
    }
    let mut null = network(1, ResolverAt::Gateway);
    null.spec.driver = Driver::Null;
    let mut existing = isolated.clone();
    existing.existing = true;
    for (network, word) in [
        (&isolated, "isolated"),
        (&null, "driver"),
        (&existing, "sure"),
    ] {
        let reject = validate(network).unwrap_err();
        assert_eq!(reject.code, Code::InvalidCombination);
        assert!(reject.message.contains(word), "{reject}");
        assert!(!reject.hint.is_empty());
    }
    isolated.spec.dns.resolver = ResolverAt::Off;
    validate(&isolated).unwrap();
}
