//! What flags become on their way to the daemon.

use std::collections::BTreeMap;

use tombolo_api::{
    Command, EndpointSettings, NetnsChoice, NetworkConnect, NetworkCreate, NetworkDisconnect,
    Operations, PlanRequest, Request, Response, RouteConfig, SandboxCreate, SubnetConfig,
};

use crate::fake::Host;
use crate::samples::{endpoint, network, sandbox};

fn host() -> Host {
    Host::answering(|request| {
        Ok(match request {
            Request::NetworkCreate(create) => Response::Network(network(&create.name)),
            Request::NetworkConnect { .. } | Request::EndpointCreate(_) => {
                Response::Endpoint(endpoint(&network("blue"), "web", "10.1.0.2/24"))
            }
            Request::SandboxCreate(_) => Response::Sandbox(sandbox("web", Vec::new())),
            Request::Plan(_) => Response::Operations(Operations::default()),
            _ => Response::Done,
        })
    })
}

fn text(words: &[&str]) -> BTreeMap<String, String> {
    words
        .iter()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_network_with_everything() {
    let host = host();
    let words = "network create --driver bridge --subnet 10.1.0.0/16 --subnet 2001:db8::/64 \
        --ip-range 10.1.5.0/24 --gateway 2001:db8::1 --gateway 10.1.0.9 --aux-address a=10.1.0.7 \
        --ipv4 --ipv6=true --internal --mtu 1400 --device br9 --multicast --icc=false \
        --masquerade=false --snat-ipv4 192.0.2.1 --snat-ipv6 2001:db8:1::1 --route 10.9.0.0/16 \
        --route 10.8.0.0/16,10.1.0.3 --interface-prefix lan --label x=1 --label y \
        -o com.docker.network.bridge.name=br9 blue";
    let id = host.output(&words.split_whitespace().collect::<Vec<_>>());
    assert_eq!(id.trim().len(), 32);
    let expected = NetworkCreate {
        subnets: vec![
            SubnetConfig {
                subnet: Some("10.1.0.0/16".into()),
                ip_range: vec!["10.1.5.0/24".into()],
                gateway: Some("10.1.0.9".into()),
                aux_addresses: text(&["a=10.1.0.7"]),
            },
            SubnetConfig {
                subnet: Some("2001:db8::/64".into()),
                gateway: Some("2001:db8::1".into()),
                ..SubnetConfig::default()
            },
        ],
        ipv4: Some(true),
        ipv6: Some(true),
        internal: true,
        mtu: Some(1400),
        device: Some("br9".into()),
        multicast: Some(true),
        icc: Some(false),
        masquerade: Some(false),
        snat_ipv4: Some("192.0.2.1".into()),
        snat_ipv6: Some("2001:db8:1::1".into()),
        routes: vec![
            RouteConfig {
                destination: "10.9.0.0/16".into(),
                via: None,
            },
            RouteConfig {
                destination: "10.8.0.0/16".into(),
                via: Some("10.1.0.3".into()),
            },
        ],
        interface_prefix: Some("lan".into()),
        labels: text(&["x=1", "y="]),
        options: text(&["com.docker.network.bridge.name=br9"]),
        ..NetworkCreate::new("blue")
    };
    assert_eq!(host.asked(), [Request::NetworkCreate(expected)]);
    host.output(&["network", "create", "plain"]);
    assert_eq!(
        host.asked(),
        [Request::NetworkCreate(NetworkCreate::new("plain"))]
    );
}

#[test]
fn what_fits_no_subnet_never_reaches_the_daemon() {
    let host = host();
    let words = [
        "network",
        "create",
        "--subnet",
        "10.1.0.0/16",
        "--gateway",
        "10.2.0.1",
        "blue",
    ];
    let (code, _, err) = host.tombolo(&words);
    assert_eq!(code, 2);
    assert!(
        err.starts_with("tombolo: no matching subnet for gateway 10.2.0.1"),
        "{err}"
    );
    assert!(host.asked().is_empty());
}

#[test]
fn connecting_and_disconnecting() {
    let host = host();
    let words = "network connect --ip 10.1.0.5 --ip6 2001:db8::5 --mac-address 02:00:00:00:00:05 \
        --alias a --alias b --ifname lan0 --gw-priority -1 blue web";
    host.output(&words.split_whitespace().collect::<Vec<_>>());
    host.output(&["network", "disconnect", "-f", "blue", "web"]);
    let attachment = EndpointSettings {
        ipv4_address: Some("10.1.0.5".into()),
        ipv6_address: Some("2001:db8::5".into()),
        mac_address: Some("02:00:00:00:00:05".into()),
        interface_name: Some("lan0".into()),
        gateway_priority: Some(-1),
        aliases: vec!["a".into(), "b".into()],
        ..EndpointSettings::default()
    };
    let connect = NetworkConnect {
        sandbox: "web".into(),
        attachment,
    };
    let disconnect = NetworkDisconnect {
        sandbox: "web".into(),
        force: true,
    };
    assert_eq!(
        host.asked(),
        [
            Request::NetworkConnect {
                reference: "blue".into(),
                connect
            },
            Request::NetworkDisconnect {
                reference: "blue".into(),
                disconnect
            },
        ]
    );
}

#[test]
fn sandboxes_of_every_kind() {
    let host = host();
    let named = |netns| SandboxCreate {
        name: Some("s".into()),
        netns,
        ..SandboxCreate::default()
    };
    let cases: [(&[&str], SandboxCreate); 4] = [
        (&[], named(NetnsChoice::New)),
        (&["--host"], named(NetnsChoice::Host)),
        (&["--pid", "7"], named(NetnsChoice::Pid { pid: 7 })),
        (
            &["--netns", "/run/netns/x"],
            named(NetnsChoice::Path {
                path: "/run/netns/x".into(),
            }),
        ),
    ];
    for (flags, expected) in cases {
        host.output(&[&["sandbox", "create", "--name", "s"], flags].concat());
        assert_eq!(host.asked(), [Request::SandboxCreate(expected)]);
    }
    let words = "sandbox create --network name=blue,ip=10.1.0.5 --network green --dns 192.0.2.53 \
        --add-host db:10.0.0.1 --hostname h";
    host.output(&words.split_whitespace().collect::<Vec<_>>());
    let asked = host.asked();
    let [Request::SandboxCreate(create)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(create.networks[0].ipv4_address.as_deref(), Some("10.1.0.5"));
    assert_eq!(create.networks[1].network, "green");
    assert_eq!(create.dns.servers, ["192.0.2.53"]);
    assert_eq!(create.extra_hosts, ["db:10.0.0.1"]);
    for refused in [
        &["--host", "--pid", "7"][..],
        &["--network", "container:web"],
        &["--network", "host", "--pid", "7"],
    ] {
        assert_eq!(
            host.tombolo(&[&["sandbox", "create"], refused].concat()).0,
            2,
            "{refused:?}"
        );
    }
    assert!(host.asked().is_empty());
}

#[test]
fn a_plan_asks_for_the_same_request_without_doing_it() {
    let host = host();
    let (code, out, err) = host.tombolo(&["plan", "network", "create", "--internal", "blue"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "", "tombolo: nothing would be done\n")
    );
    host.output(&["plan", "network", "rm", "blue"]);
    host.output(&["plan", "sandbox", "rm", "--keep-endpoints", "web", "--json"]);
    host.output(&["plan", "endpoint", "join", "e", "web"]);
    let create = NetworkCreate {
        internal: true,
        ..NetworkCreate::new("blue")
    };
    let commands = [
        Command::NetworkCreate(create),
        Command::NetworkDelete {
            reference: "blue".into(),
        },
        Command::SandboxDelete {
            reference: "web".into(),
            keep_endpoints: true,
        },
        Command::EndpointJoin {
            reference: "e".into(),
            sandbox: "web".into(),
        },
    ];
    let expected = commands.map(|command| Request::Plan(PlanRequest { command }));
    assert_eq!(host.asked(), expected);
}
