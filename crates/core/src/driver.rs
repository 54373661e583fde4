//! Drivers: pure functions from intent and facts to the kernel objects that should exist.

use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::nft::{BaseSpec, ElementKey, ElementSpec, Field, SetName};
use tombolo_netstate::object::port::{PortRange, Protocol};
use tombolo_netstate::object::route::{RouteKey, RouteSpec};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{IfName, Key, Netns, Objects, Spec};

use crate::facts::{Facts, Settings};
use crate::model::{Driver, Endpoint, Network, Sandbox, SandboxNetns};
use crate::reject::Reject;

pub mod bridge;
pub mod detour;
pub mod firewall;
pub mod gateway;
pub mod links;
pub mod mtu;
pub mod names;
pub mod publish;
pub mod remote;
pub mod reserved;
pub mod resolver;

/// What a planner knows besides the object itself.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The world.
    pub facts: &'a Facts,
    /// The administrator's choices.
    pub settings: &'a Settings,
}

/// What every node has while the daemon owns networks: the constant rules, and a list of ports that the kernel
/// gives to nobody while large ranges are published. `kept` are bridges of others that networks of ours use.
pub fn host_objects(large_ranges: &[PortRange], kept: &[&str], context: Context<'_>) -> Objects {
    let ruleset = firewall::ruleset();
    let digest = ruleset.digest();
    let mut objects = Objects::from([(Key::NftBase, Spec::NftBase(BaseSpec { digest, ruleset }))]);
    for name in context
        .facts
        .other_bridges()
        .filter(|name| !kept.contains(name))
    {
        if let Ok(name) = names::interface(name) {
            let fields = vec![Field::Name(name)];
            add_element(&mut objects, SetName::Others, fields, Vec::new());
        }
    }
    let relay = context.facts.relay_port.map(Field::Port);
    for (port, protocol) in relay
        .iter()
        .flat_map(|port| [Protocol::Tcp, Protocol::Udp].map(|p| (port, p)))
    {
        let fields = vec![Field::Protocol(protocol)];
        let data = vec![*port, *port];
        add_element(&mut objects, SetName::Relay, fields, data);
    }
    let before = context.facts.sysctls.get(reserved::SYSCTL);
    let local = context.facts.sysctls.get(reserved::LOCAL);
    let large_ranges = reserved::sparing(large_ranges, local.map_or("", String::as_str));
    if let (Some(before), false) = (before, large_ranges.is_empty()) {
        objects.insert(
            Key::Sysctl(SysctlKey {
                path: reserved::SYSCTL.into(),
            }),
            Spec::Sysctl(SysctlSpec {
                value: reserved::with(before, &large_ranges).into(),
                restore: before.as_str().into(),
            }),
        );
    }
    objects
}

fn add_element(objects: &mut Objects, set: SetName, fields: Vec<Field>, data: Vec<Field>) {
    let key = Key::Element(ElementKey::new(set, fields));
    objects.insert(key, Spec::Element(ElementSpec::new(data)));
}

fn route(netns: &Netns, destination: IpNet, link: IfName, via: Option<IpAddr>) -> (Key, Spec) {
    let metric = if destination.addr().is_ipv6() {
        1_024
    } else {
        0
    };
    let key = RouteKey {
        netns: netns.clone(),
        destination,
        metric,
    };
    (
        Key::Route(key),
        Spec::Route(RouteSpec {
            link,
            via,
            source: None,
        }),
    )
}

/// Refuses what the driver of `network` cannot make real.
pub fn validate(network: &Network, context: Context<'_>) -> Result<(), Reject> {
    resolver::validate(network)?;
    match network.spec.driver {
        Driver::Bridge => bridge::validate(network, context),
        Driver::Null | Driver::Host | Driver::Remote => Ok(()),
    }
}

/// The objects of a network that exist without any endpoint.
pub fn network_objects(network: &Network, context: Context<'_>) -> Result<Objects, Reject> {
    match network.spec.driver {
        Driver::Bridge => bridge::network_objects(network, context),
        Driver::Null | Driver::Host | Driver::Remote => Ok(Objects::new()),
    }
}

/// The objects of the leaf bridge `leaf`, which holds a part of the network's endpoints.
pub fn leaf_objects(network: &Network, leaf: u16, context: Context<'_>) -> Result<Objects, Reject> {
    match network.spec.driver {
        Driver::Bridge => bridge::leaf_objects(network, leaf, context),
        Driver::Null | Driver::Host | Driver::Remote => Ok(Objects::new()),
    }
}

/// The objects of an endpoint: none while it is not attached.
pub fn endpoint_objects(
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    context: Context<'_>,
) -> Result<Objects, Reject> {
    match (network.spec.driver, &endpoint.attachment) {
        (Driver::Bridge, Some(attachment)) => {
            bridge::endpoint_objects(network, endpoint, attachment, netns, context)
        }
        (Driver::Remote, Some(attachment)) => {
            remote::endpoint_objects(network, endpoint, attachment, netns)
        }
        (Driver::Bridge | Driver::Null | Driver::Host | Driver::Remote, _) => Ok(Objects::new()),
    }
}

/// The objects of a running sandbox: its namespace, the default routes through the endpoints that were chosen
/// to be its gateways, where it asks for names, and what its publications need.
pub fn sandbox_objects(
    sandbox: &Sandbox,
    endpoints: &[(&Network, &Endpoint)],
    context: Context<'_>,
) -> Result<Objects, Reject> {
    let mut objects = publish::objects(sandbox, endpoints, context);
    let netns = netns_of(sandbox);
    if let Netns::Owned(name) = &netns {
        objects.insert(
            Key::Netns(NetnsKey { name: name.clone() }),
            Spec::Netns(NetnsSpec),
        );
    }
    objects.extend(resolver::listeners(sandbox, endpoints, &netns));
    objects.extend(detour::objects(sandbox, endpoints, &netns));
    // The engine itself gives its sandboxes their routes.
    for ipv6 in [false, true].into_iter().filter(|_| !sandbox.is_engines()) {
        if let Some((key, spec)) = bridge::default_route(&netns, endpoints, ipv6)? {
            objects.insert(key, spec);
        }
    }
    Ok(objects)
}

/// The namespace of a sandbox, as plans name it.
pub fn netns_of(sandbox: &Sandbox) -> Netns {
    match &sandbox.spec.netns {
        SandboxNetns::New => Netns::Owned(sandbox.netns_name().into()),
        SandboxNetns::Host => Netns::Host,
        SandboxNetns::Adopted { path, inode } => Netns::Adopted {
            path: path.as_path().into(),
            inode: *inode,
        },
        // Of one that was not seen yet nothing is planned.
        SandboxNetns::Engine { path, inode } => Netns::Adopted {
            path: path.as_path().into(),
            inode: inode.unwrap_or_default(),
        },
    }
}

/// Where a sandbox sends what is for the outside, if it goes through this endpoint.
fn default_gateway(network: &Network, endpoint: &Endpoint, ipv6: bool) -> Option<IpAddr> {
    match network.spec.driver {
        Driver::Remote => remote::default_gateway(endpoint, ipv6),
        Driver::Bridge | Driver::Null | Driver::Host => bridge::default_gateway(network, ipv6),
    }
}

/// Picks the endpoint that gives a sandbox its default route of a family: highest priority, then not
/// internal, then the network's name.
pub fn gateway_endpoint<'a>(
    endpoints: &[(&'a Network, &'a Endpoint)],
    ipv6: bool,
) -> Option<(&'a Network, &'a Endpoint, IpAddr)> {
    let mut candidates: Vec<_> = endpoints
        .iter()
        .filter(|(network, _)| !network.spec.internal)
        .filter(|(_, endpoint)| endpoint.attachment.as_ref().is_some_and(|a| !a.left))
        .filter(|(_, endpoint)| {
            endpoint
                .addresses
                .iter()
                .any(|a| a.addr().is_ipv6() == ipv6)
        })
        .filter_map(|(network, endpoint)| {
            Some((
                *network,
                *endpoint,
                default_gateway(network, endpoint, ipv6)?,
            ))
        })
        .collect();
    candidates.sort_by(|(na, a, _), (nb, b, _)| {
        (b.spec.gateway_priority, &na.spec.name, a.order).cmp(&(
            a.spec.gateway_priority,
            &nb.spec.name,
            b.order,
        ))
    });
    candidates.into_iter().next()
}
