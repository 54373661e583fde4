//! The bridge driver.
//!
//! A network is a *hub*: one bridge of the host with the gateway addresses, and endpoints that reach each
//! other by being routed through it. Nothing is flooded, endpoint ports are isolated from each other, and
//! neighbours and forwarding entries are permanent, so a newcomer costs the others nothing and every packet
//! between two endpoints passes the same rules as one from outside. Endpoints beyond the first few dozen
//! sit on leaf bridges, because a bridge gets slower with each port.
//!
//! A network with `multicast` is a plain link layer instead: ARP, neighbour discovery, broadcast and multicast
//! are flooded as on any switch. A bridge that existed before us is always used so.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::fdb::{FdbKey, FdbSpec};
use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec, Port};
use tombolo_netstate::object::neighbour::{NeighbourKey, NeighbourSpec};
use tombolo_netstate::object::nft::{Field, SetName};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{IfName, Key, Mac, Netns, Objects, Spec};

use super::{Context, add_element, gateway, gateway_endpoint, mtu, names, route};
use crate::model::{Attachment, Endpoint, GatewayMode, Network, Pool};
use crate::reject::{Code, Reject};

/// Aux-address names that mean "the endpoints' default router is this one" (as in Docker's `--default-gateway`).
pub const OTHER_ROUTER: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

/// Refuses what a bridge network cannot be.
pub fn validate(network: &Network, context: Context<'_>) -> Result<(), Reject> {
    let spec = &network.spec;
    names::interface(&network.device)?;
    names::interface(&format!("{}0", spec.interface_prefix))?;
    mtu::validate(network)?;
    if spec.ipv6 && !context.facts.ipv6 {
        return Err(Reject::new(
            Code::Ipv6Disabled,
            &spec.name,
            "the kernel has no IPv6, or it is off",
        )
        .hint("boot without ipv6.disable=1, or leave IPv6 out"));
    }
    gateway::check_modes(network)?;
    if !spec.ipv4 && !spec.ipv6 {
        return Err(Reject::new(
            Code::InvalidCombination,
            &spec.name,
            "neither IPv4 nor IPv6 is on",
        )
        .hint("leave at least one family on"));
    }
    for route in &spec.routes {
        let inside = |via: IpAddr| network.pool_of(via).is_some();
        if route.via.is_some_and(|via| !inside(via)) {
            let message = format!(
                "the router of {} is in none of the network's subnets",
                route.destination
            );
            return Err(Reject::new(Code::InvalidAddress, &spec.name, message)
                .hint("give a router inside one of them"));
        }
    }
    if let Some(link) = context.facts.links.get(&network.device)
        && network.existing
        && !link.bridge
    {
        return Err(Reject::new(
            Code::InterfaceNameTaken,
            &network.device,
            "an interface of that name exists and is not a bridge",
        )
        .hint("name a bridge, or a name that is free"));
    }
    Ok(())
}

/// The bridge, its gateway addresses, forwarding, and the elements that describe it to the constant rules.
pub fn network_objects(network: &Network, context: Context<'_>) -> Result<Objects, Reject> {
    let mut objects = Objects::new();
    let device = names::interface(&network.device)?;
    if !network.existing {
        objects.insert(
            host_link(device),
            Spec::Link(Box::new(bridge_link(network, None, context))),
        );
    }
    if !network.existing || network.spec.address_device {
        add_gateways(&mut objects, network, device);
    }
    // Endpoints of a hub reach each other by way of the host, of an internal one, too.
    let is_routed = !network.spec.internal || !network.spec.multicast;
    if is_routed && context.settings.ip_forward {
        add_forwarding(&mut objects, network, context);
    }
    add_elements(&mut objects, network, device);
    gateway::add_permissions(&mut objects, network, device, context);
    if network.existing && gateway::routes_loopback(network) {
        let path = gateway::localnet_path(&network.device);
        want_sysctl(&mut objects, context, path, "1");
    }
    Ok(objects)
}

/// A leaf bridge and the veth pair that ties it to the network's own bridge.
pub fn leaf_objects(network: &Network, leaf: u16, context: Context<'_>) -> Result<Objects, Reject> {
    let mut objects = Objects::new();
    if leaf == 0 {
        return Ok(objects);
    }
    let core = names::interface(&network.device)?;
    let bridge = names::leaf(network.id, leaf)?;
    let up = names::leaf_port(network.id, leaf)?;
    let down = names::leaf_uplink(network.id, leaf)?;
    let hub = !network.spec.multicast;
    let isolated = hub || !network.spec.icc;
    let id = network.id.0.to_be_bytes();
    let number = leaf.to_be_bytes();
    let (up_mac, down_mac) = (
        names::mac(&[b"up", &id, &number]),
        names::mac(&[b"down", &id, &number]),
    );
    let [up_key, down_key] = [up, down].map(|name| LinkKey {
        netns: Netns::Host,
        name,
    });
    objects.insert(
        host_link(bridge),
        Spec::Link(Box::new(bridge_link(network, Some(leaf), context))),
    );
    let port = |bridge, isolated, flood| {
        Some(Port {
            bridge,
            isolated,
            flood,
            hairpin: false,
            direct: None,
        })
    };
    let link = |kind, mac, port| {
        Spec::Link(Box::new(LinkSpec {
            kind,
            mac,
            mtu: mtu::effective(network, context),
            port,
            ipv6: false,
            link_local: false,
            alias: alias(network),
        }))
    };
    let kind = LinkKind::Veth {
        peer: down_key.clone(),
        peer_mac: down_mac,
    };
    objects.insert(
        Key::Link(up_key.clone()),
        link(kind, up_mac, port(core, isolated, !hub)),
    );
    let kind = LinkKind::Peer { pair: up_key };
    objects.insert(
        Key::Link(down_key),
        link(kind, down_mac, port(bridge, false, true)),
    );
    if hub {
        let (key, spec) = fdb(bridge, names::bridge_mac(network.id), down);
        objects.insert(key, spec);
    }
    // Where br_netfilter is on, frames that only cross the leaf pass the rules, too.
    let name = vec![Field::Name(bridge)];
    add_element(&mut objects, SetName::Leaves, name, vec![]);
    Ok(objects)
}

/// The veth pair of an endpoint, its addresses, routes and permanent neighbours.
pub fn endpoint_objects(
    network: &Network,
    endpoint: &Endpoint,
    attachment: &Attachment,
    netns: &Netns,
    context: Context<'_>,
) -> Result<Objects, Reject> {
    let mut objects = Objects::new();
    let hub = !network.spec.multicast;
    let core = names::interface(&network.device)?;
    let outer = names::host_end(endpoint.id, attachment.epoch)?;
    let inner = names::interface(&attachment.interface)?;
    let bridge = if attachment.leaf == 0 {
        core
    } else {
        names::leaf(network.id, attachment.leaf)?
    };
    let mac = Mac(endpoint.mac);
    add_veth(
        &mut objects,
        network,
        endpoint,
        context,
        &Veth {
            outer,
            inner,
            lent: endpoint
                .spec
                .engine
                .then(|| names::lent_end(endpoint.id, attachment.epoch))
                .transpose()?,
            bridge,
            core,
            netns,
            mac,
        },
    );
    let lent = endpoint.spec.engine;
    add_addresses(&mut objects, network, endpoint, (netns, inner), core);
    if hub {
        let (key, spec) = fdb(bridge, mac, outer);
        objects.insert(key, spec);
        if attachment.leaf != 0 {
            let (key, spec) = fdb(core, mac, names::leaf_port(network.id, attachment.leaf)?);
            objects.insert(key, spec);
        }
    }
    if !lent {
        add_routes(&mut objects, network, endpoint, netns, inner);
    }
    Ok(objects)
}

/// The default route of a family through the endpoint chosen as the gateway.
pub fn default_route(
    netns: &Netns,
    endpoints: &[(&Network, &Endpoint)],
    ipv6: bool,
) -> Result<Option<(Key, Spec)>, Reject> {
    let Some((_, endpoint, via)) = gateway_endpoint(endpoints, ipv6) else {
        return Ok(None);
    };
    let Some(attachment) = &endpoint.attachment else {
        return Ok(None);
    };
    let link = names::interface(&attachment.interface)?;
    let any = if ipv6 {
        IpNet::V6(Ipv6Net::default())
    } else {
        IpNet::V4(Ipv4Net::default())
    };
    Ok(Some(route(netns, any, link, Some(via))))
}

/// Where endpoints of a network send what is not for the network.
pub fn default_gateway(network: &Network, ipv6: bool) -> Option<IpAddr> {
    let other = OTHER_ROUTER[usize::from(ipv6)];
    let given = network
        .pools
        .iter()
        .find_map(|pool| pool.reserved.get(other).copied());
    given.or_else(|| network.gateway(ipv6))
}

fn add_gateways(objects: &mut Objects, network: &Network, link: IfName) {
    for pool in &network.pools {
        let Some(ip) = pool.gateway else { continue };
        objects.insert(
            Key::Address(AddressKey {
                netns: Netns::Host,
                link,
                ip,
            }),
            Spec::Address(AddressSpec {
                prefix_len: pool.subnet.prefix_len(),
                prefix_route: true,
                announce: None,
            }),
        );
    }
}

struct Veth<'a> {
    outer: IfName,
    inner: IfName,
    /// The other end's name at birth, where an engine takes it.
    lent: Option<IfName>,
    bridge: IfName,
    core: IfName,
    netns: &'a Netns,
    mac: Mac,
}

fn add_veth(
    objects: &mut Objects,
    network: &Network,
    endpoint: &Endpoint,
    context: Context<'_>,
    veth: &Veth<'_>,
) {
    let hub = !network.spec.multicast;
    let outer = LinkKey {
        netns: Netns::Host,
        name: veth.outer,
    };
    let inner = LinkKey {
        netns: veth.netns.clone(),
        name: veth.inner,
    };
    let mtu = mtu::effective(network, context);
    let alias: std::sync::Arc<str> = format!("endpoint/{}", endpoint.id).into();
    let isolated = hub || !network.spec.icc;
    objects.insert(
        Key::Link(outer.clone()),
        Spec::Link(Box::new(LinkSpec {
            kind: match veth.lent {
                Some(name) => LinkKind::Lent { name },
                None => LinkKind::Veth {
                    peer: inner.clone(),
                    peer_mac: veth.mac,
                },
            },
            mac: names::mac(&[b"port", &endpoint.id.0.to_be_bytes()]),
            mtu,
            port: Some(Port {
                bridge: veth.bridge,
                isolated,
                flood: !hub,
                hairpin: false,
                // Not where somebody else may give the bridge another hardware address.
                direct: (context.facts.bridge_nf && !network.existing).then_some(veth.core),
            }),
            ipv6: false,
            link_local: false,
            alias: alias.clone(),
        })),
    );
    if veth.lent.is_some() {
        return;
    }
    objects.insert(
        Key::Link(inner),
        Spec::Link(Box::new(LinkSpec {
            kind: LinkKind::Peer { pair: outer },
            mac: veth.mac,
            mtu,
            port: None,
            ipv6: true,
            link_local: network.spec.ipv6 && !hub,
            alias,
        })),
    );
}

/// Addresses in the sandbox, unless an engine gives them, and what the host knows of them.
fn add_addresses(
    objects: &mut Objects,
    network: &Network,
    endpoint: &Endpoint,
    (netns, inner): (&Netns, IfName),
    core: IfName,
) {
    let hub = !network.spec.multicast;
    let mac = Mac(endpoint.mac);
    let lent = endpoint.spec.engine;
    for address in &endpoint.addresses {
        let ip = address.addr();
        if !lent {
            objects.insert(
                Key::Address(AddressKey {
                    netns: netns.clone(),
                    link: inner,
                    ip,
                }),
                Spec::Address(AddressSpec {
                    prefix_len: address.prefix_len(),
                    prefix_route: !hub,
                    announce: (!hub).then_some(mac),
                }),
            );
        }
        // The host knows its endpoints without asking, where it is a part of the network at all.
        let isolated = network.spec.gateway_mode(ip.is_ipv6()) == GatewayMode::Isolated;
        if !network.existing && !isolated {
            objects.insert(
                Key::Neighbour(NeighbourKey {
                    netns: Netns::Host,
                    link: core,
                    ip,
                }),
                Spec::Neighbour(NeighbourSpec { mac }),
            );
        }
    }
}

fn add_routes(
    objects: &mut Objects,
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    link: IfName,
) {
    let hub = !network.spec.multicast;
    let has = |ipv6: bool| {
        endpoint
            .addresses
            .iter()
            .any(|a| a.addr().is_ipv6() == ipv6)
    };
    for pool in network
        .pools
        .iter()
        .filter(|pool| hub && has(pool.subnet.addr().is_ipv6()))
    {
        let ipv6 = pool.subnet.addr().is_ipv6();
        let Some(gateway) = pool.gateway.or_else(|| network.gateway(ipv6)) else {
            continue;
        };
        objects.extend([route(netns, pool.subnet, link, Some(gateway))]);
        objects.insert(
            Key::Neighbour(NeighbourKey {
                netns: netns.clone(),
                link,
                ip: gateway,
            }),
            Spec::Neighbour(NeighbourSpec {
                mac: names::bridge_mac(network.id),
            }),
        );
    }
    for wanted in &network.spec.routes {
        let ipv6 = wanted.destination.addr().is_ipv6();
        // The router itself reaches what is behind it in its own way.
        let own = endpoint
            .addresses
            .iter()
            .any(|address| Some(address.addr()) == wanted.via);
        if has(ipv6) && !own {
            let via = if hub {
                network.gateway(ipv6)
            } else {
                wanted.via
            };
            objects.extend([route(netns, wanted.destination, link, via)]);
        }
    }
}

fn fdb(bridge: IfName, mac: Mac, port: IfName) -> (Key, Spec) {
    (
        Key::Fdb(FdbKey { bridge, mac }),
        Spec::Fdb(FdbSpec { port }),
    )
}

fn host_link(name: IfName) -> Key {
    Key::Link(LinkKey {
        netns: Netns::Host,
        name,
    })
}

fn alias(network: &Network) -> std::sync::Arc<str> {
    format!("network/{}", network.id).into()
}

fn bridge_link(network: &Network, leaf: Option<u16>, context: Context<'_>) -> LinkSpec {
    let id = network.id.0.to_be_bytes();
    let isolated = network.spec.gateway_mode6 == GatewayMode::Isolated;
    let ipv6 = leaf.is_none() && network.spec.ipv6 && !isolated;
    LinkSpec {
        kind: LinkKind::Bridge {
            snooping: false,
            localnet: leaf.is_none() && gateway::routes_loopback(network),
        },
        mac: match leaf {
            None => names::bridge_mac(network.id),
            Some(leaf) => names::mac(&[b"leaf-mac", &id, &leaf.to_be_bytes()]),
        },
        mtu: mtu::effective(network, context),
        port: None,
        ipv6,
        // Whoever asks for neighbours needs an address to ask from.
        link_local: ipv6 && network.spec.multicast,
        alias: alias(network),
    }
}

fn want_sysctl(objects: &mut Objects, context: Context<'_>, path: String, value: &str) {
    if let Some(before) = context.facts.sysctls.get(&path) {
        objects.insert(
            Key::Sysctl(SysctlKey { path: path.into() }),
            Spec::Sysctl(SysctlSpec {
                value: value.into(),
                restore: before.as_str().into(),
            }),
        );
    }
}

fn add_forwarding(objects: &mut Objects, network: &Network, context: Context<'_>) {
    let mut want = |path: String, value: &str| want_sysctl(objects, context, path, value);
    if network.spec.ipv4 {
        want("net/ipv4/ip_forward".to_owned(), "1");
    }
    if network.spec.ipv6 {
        want("net/ipv6/conf/all/forwarding".to_owned(), "1");
        // A forwarding host ignores router advertisements unless told otherwise; it must not lose its own
        // default route because of us.
        for uplink in &context.facts.uplinks {
            let path = format!("net/ipv6/conf/{}/accept_ra", uplink.name);
            if context
                .facts
                .sysctls
                .get(&path)
                .is_some_and(|value| value == "1")
            {
                want(path, "2");
            }
        }
    }
}

fn add_elements(objects: &mut Objects, network: &Network, device: IfName) {
    let name = Field::Name(device);
    let mut add = |set, fields, data| add_element(objects, set, fields, data);
    add(SetName::Bridges, vec![name], vec![]);
    if network.spec.icc {
        add(SetName::Intra, vec![name, name], vec![]);
    } else {
        add(SetName::Apart, vec![name, name], vec![]);
    }
    if network.spec.internal {
        add(SetName::Internal, vec![name], vec![]);
        return;
    }
    for (on, ipv6) in [(network.spec.ipv4, false), (network.spec.ipv6, true)] {
        let (echo, open) = if ipv6 {
            (SetName::Echo6, SetName::Open6)
        } else {
            (SetName::Echo4, SetName::Open4)
        };
        match network.spec.gateway_mode(ipv6) {
            _ if !on => {}
            GatewayMode::Routed => add(echo, vec![name], vec![]),
            GatewayMode::NatUnprotected => add(open, vec![name], vec![]),
            GatewayMode::Nat | GatewayMode::Isolated => {}
        }
    }
    for Pool { subnet, .. } in &network.pools {
        let ipv6 = subnet.addr().is_ipv6();
        if network.spec.multicast {
            let plain = if ipv6 {
                SetName::Plain6
            } else {
                SetName::Plain4
            };
            add(
                plain,
                vec![Field::Net(*subnet), Field::Net(*subnet)],
                vec![],
            );
        }
        if network.spec.gateway_mode(ipv6) == GatewayMode::Routed {
            continue;
        }
        let snat = network.spec.snat.iter().find(|ip| ip.is_ipv6() == ipv6);
        let (masquerade, map) = if ipv6 {
            (SetName::Masquerade6, SetName::Snat6)
        } else {
            (SetName::Masquerade4, SetName::Snat4)
        };
        match snat {
            Some(ip) => add(map, vec![Field::Net(*subnet)], vec![Field::Address(*ip)]),
            None if network.spec.masquerade => add(masquerade, vec![Field::Net(*subnet)], vec![]),
            None => {}
        }
    }
}
