//! Requests as text, for scenarios and tables: `network web ipv6`, `run c1 web:priority=5 db`.

use std::collections::BTreeMap;

use tombolo_netstate::object::port::Protocol;

use crate::command::{Command, PublicationMatch, Reference};
use crate::model::{
    DnsSettings, Driver, EndpointSpec, Exposed, GatewayMode, Link, NetworkDns, NetworkSpec,
    Publication, ResolverAt, SandboxNetns, SandboxSpec, StaticRoute, SubnetSpec,
};

/// The request that a line means; `None` for a line that is none.
pub(super) fn command(line: &str) -> Option<Command> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = |text: &str| Reference(text.to_owned());
    Some(match words.as_slice() {
        ["network", text, options @ ..] => {
            let predefined = options.contains(&"predefined");
            Command::CreateNetwork {
                spec: Box::new(network(text, options)),
                predefined,
            }
        }
        ["prune"] => Command::Prune,
        ["prune", "networks"] => Command::PruneNetworks,
        ["look"] => Command::Drift,
        ["repair"] => Command::Repair,
        ["run", text, networks @ ..] => run(text, SandboxNetns::New, networks),
        ["adopt", text, inode, networks @ ..] => {
            let path = format!("/proc/{inode}/ns/net").into();
            run(
                text,
                SandboxNetns::Adopted {
                    path,
                    inode: inode.parse().ok()?,
                },
                networks,
            )
        }
        ["share", text, networks @ ..] => run(text, SandboxNetns::Host, networks),
        ["stop", text] => Command::StopSandbox(name(text)),
        ["start" | "publish" | "unpublish", ..] => return about_ports(&words),
        ["rm", text] => Command::DeleteSandbox {
            sandbox: name(text),
            keep_endpoints: false,
        },
        ["rm", text, "keep"] => Command::DeleteSandbox {
            sandbox: name(text),
            keep_endpoints: true,
        },
        ["connect", network, sandbox] => {
            let (network, spec) = place(network);
            Command::CreateEndpoint {
                network,
                sandbox: Some(name(sandbox)),
                spec: Box::new(spec),
            }
        }
        ["endpoint", network] => {
            let (network, spec) = place(network);
            Command::CreateEndpoint {
                network,
                sandbox: None,
                spec: Box::new(spec),
            }
        }
        ["disconnect", network, sandbox] => Command::Disconnect {
            network: name(network),
            sandbox: name(sandbox),
        },
        ["join", endpoint, sandbox] => Command::Join {
            endpoint: name(endpoint),
            sandbox: name(sandbox),
        },
        ["leave", endpoint] => Command::Leave(name(endpoint)),
        ["delete", "network", text] => Command::DeleteNetwork(name(text)),
        ["delete", "endpoint", text] => Command::DeleteEndpoint(name(text)),
        _ => return None,
    })
}

/// Requests that concern published ports.
fn about_ports(words: &[&str]) -> Option<Command> {
    let name = |text: &str| Reference(text.to_owned());
    Some(match words {
        ["start", text] => Command::StartSandbox {
            sandbox: name(text),
            picked: vec![],
        },
        ["start", text, ports] => Command::StartSandbox {
            sandbox: name(text),
            picked: vec![(0, ports.parse().ok()?)],
        },
        ["publish", text, publications @ ..] => Command::Publish {
            sandbox: name(text),
            publications: publications.iter().map(|text| publication(text)).collect(),
        },
        ["unpublish", text, container] => Command::Unpublish {
            sandbox: name(text),
            publications: vec![PublicationMatch {
                text: (*container).to_owned(),
                protocol: None,
                address: None,
                ports: None,
                container: Some(container.parse().ok()?),
                socket: None,
            }],
        },
        _ => return None,
    })
}

fn network(name: &str, options: &[&str]) -> NetworkSpec {
    let mut spec = plain(name);
    for option in options {
        let (word, value) = option.split_once('=').unwrap_or((option, ""));
        match word {
            "ipv6" => spec.ipv6 = true,
            "no-ipv4" => spec.ipv4 = false,
            "internal" => spec.internal = true,
            "multicast" => spec.multicast = true,
            "no-icc" => spec.icc = false,
            "no-masquerade" => spec.masquerade = false,
            "predefined" => {}
            "null" | "host" => spec.driver = driver(word),
            "mode4" | "mode6" | "obey" | "binding" | "resolver" => {
                towards_outside(&mut spec, word, value)
            }
            "mtu" => spec.mtu = value.parse().ok(),
            "device" => spec.device = Some(value.to_owned()),
            "prefix" => value.clone_into(&mut spec.interface_prefix),
            "snat" => spec.snat.push(value.parse().unwrap()),
            "route" => {
                let (destination, via) = value.split_once(',').unwrap_or((value, ""));
                let via = via.parse().ok();
                spec.routes.push(StaticRoute {
                    destination: destination.parse().unwrap(),
                    via,
                });
            }
            "subnet" => {
                let subnet = Some(value.parse().unwrap());
                spec.subnets.push(SubnetSpec {
                    subnet,
                    ..SubnetSpec::default()
                });
            }
            "gateway" => spec.subnets.last_mut().unwrap().gateway = value.parse().ok(),
            "range" => spec
                .subnets
                .last_mut()
                .unwrap()
                .ranges
                .push(value.parse().unwrap()),
            "reserve" => {
                let (name, ip) = value.split_once(',').unwrap();
                let reserved = &mut spec.subnets.last_mut().unwrap().reserved;
                reserved.insert(name.to_owned(), ip.parse().unwrap());
            }
            _ => panic!("unknown option {option}"),
        }
    }
    spec
}

/// A bridge network with every choice left open.
fn plain(name: &str) -> NetworkSpec {
    NetworkSpec {
        address_device: false,
        name: name.parse().unwrap(),
        driver: Driver::Bridge,
        subnets: vec![],
        ipv4: true,
        ipv6: false,
        internal: false,
        mtu: None,
        device: None,
        multicast: false,
        icc: true,
        masquerade: true,
        snat: vec![],
        gateway_mode4: GatewayMode::Nat,
        gateway_mode6: GatewayMode::Nat,
        obey_host_firewall: None,
        host_binding: None,
        dns: NetworkDns::default(),
        routes: vec![],
        interface_prefix: "eth".to_owned(),
        engine: None,
        plugin: None,
        ipam: None,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

fn driver(word: &str) -> Driver {
    if word == "null" {
        Driver::Null
    } else {
        Driver::Host
    }
}

fn towards_outside(spec: &mut NetworkSpec, word: &str, value: &str) {
    match word {
        "mode4" => spec.gateway_mode4 = mode(value),
        "mode6" => spec.gateway_mode6 = mode(value),
        "obey" => spec.obey_host_firewall = Some(value != "no"),
        "resolver" => spec.dns.resolver = resolver(value),
        _ => spec.host_binding = value.parse().ok(),
    }
}

fn resolver(word: &str) -> ResolverAt {
    match word {
        "sandbox" => ResolverAt::Sandbox,
        "gateway" => ResolverAt::Gateway,
        "off" => ResolverAt::Off,
        _ => panic!("unknown place {word}"),
    }
}

fn mode(word: &str) -> GatewayMode {
    match word {
        "nat" => GatewayMode::Nat,
        "open" => GatewayMode::NatUnprotected,
        "routed" => GatewayMode::Routed,
        "isolated" => GatewayMode::Isolated,
        _ => panic!("unknown mode {word}"),
    }
}

/// `8080:80`, `8000-8010:80-90;udp;at=192.0.2.1;from=10.0.0.0/8;obey=no;auto`.
fn publication(text: &str) -> Publication {
    let mut parts = text.split(';');
    let (ports, container) = parts.next().unwrap().split_once(':').unwrap();
    let mut publication = Publication {
        protocol: Protocol::Tcp,
        address: None,
        ports: ports.parse().ok(),
        automatic: false,
        within: None,
        container: container.parse().unwrap(),
        from: vec![],
        socket: None,
        by_engine: false,
        obey_host_firewall: None,
    };
    for part in parts {
        match part.split_once('=').unwrap_or((part, "")) {
            ("udp" | "tcp" | "sctp", _) => publication.protocol = part.parse().unwrap(),
            ("at", value) => publication.address = value.parse().ok(),
            ("from", value) => publication.from.push(value.parse().unwrap()),
            ("obey", value) => publication.obey_host_firewall = Some(value != "no"),
            ("unix", value) => publication.socket = Some(value.into()),
            ("auto", _) => publication.automatic = true,
            _ => panic!("unknown word {part}"),
        }
    }
    publication
}

fn run(name: &str, netns: SandboxNetns, words: &[&str]) -> Command {
    let name = (name != "-").then(|| name.parse().unwrap());
    let (mut publications, mut exposed, mut links) = (vec![], vec![], vec![]);
    let mut networks = vec![];
    for word in words {
        match word.split_once('=') {
            Some(("publish", text)) => publications.push(publication(text)),
            Some(("expose", ports)) => exposed.push(Exposed {
                protocol: Protocol::Tcp,
                ports: ports.parse().unwrap(),
            }),
            Some(("link", text)) => {
                let (sandbox, alias) = text.split_once(':').unwrap_or((text, text));
                links.push(Link {
                    sandbox: sandbox.parse().unwrap(),
                    alias: alias.to_owned(),
                });
            }
            _ => networks.push(place(word)),
        }
    }
    let spec = SandboxSpec {
        publications,
        exposed,
        links,
        name,
        hostname: None,
        netns,
        dns: DnsSettings::default(),
        extra_hosts: vec![],
        labels: BTreeMap::new(),
    };
    Command::CreateSandbox {
        spec: Box::new(spec),
        networks,
    }
}

/// A network with what an endpoint in it should be: `web;ip=10.1.0.9;priority=5`.
fn place(text: &str) -> (Reference, EndpointSpec) {
    let mut parts = text.split(';');
    let network = parts.next().unwrap_or_default();
    let mut spec = EndpointSpec::default();
    for part in parts {
        let (word, value) = part.split_once('=').unwrap();
        match word {
            "ip" => spec.addresses.push(value.parse().unwrap()),
            "priority" => spec.gateway_priority = value.parse().unwrap(),
            "if" => spec.interface = Some(value.to_owned()),
            "name" => spec.name = Some(value.parse().unwrap()),
            "mac" => spec.mac = Some(value.parse::<tombolo_netstate::Mac>().unwrap().0),
            _ => panic!("unknown word {part}"),
        }
    }
    (Reference(network.to_owned()), spec)
}
