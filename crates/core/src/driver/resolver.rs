//! Where our own resolver answers a sandbox.

use std::net::{IpAddr, Ipv4Addr};

use tombolo_netstate::object::listener::{ListenerKey, ListenerSpec};
use tombolo_netstate::{Key, Netns, Spec};

use super::links;
use crate::model::{Driver, Endpoint, GatewayMode, Network, ResolverAt, Sandbox, SandboxNetns};
use crate::reject::{Code, Reject};

/// The port of resolvers (RFC 1035, section 4.2).
pub(super) const DNS_PORT: u16 = 53;

/// Where a sandbox finds our own resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a loopback address inside it.
    Sandbox,
    /// At these addresses of the host.
    Gateway(Vec<IpAddr>),
    /// Nowhere: it asks the other resolvers itself.
    Off,
}

/// Refuses a resolver at gateway addresses that the host does not have.
pub fn validate(network: &Network) -> Result<(), Reject> {
    let spec = &network.spec;
    if spec.dns.resolver != ResolverAt::Gateway || !gateway_addresses(network).is_empty() {
        return Ok(());
    }
    let (message, hint) = match spec.driver {
        Driver::Null | Driver::Host | Driver::Remote => (
            "the resolver is to answer at the gateway, and networks of this driver have none",
            "leave the resolver out, or use the driver bridge",
        ),
        Driver::Bridge if network.existing => (
            "the resolver is to answer at the gateway, which is no address of this host that is sure to stay",
            "let the bridge's own address be the gateway, add --address-device, or leave the resolver out",
        ),
        Driver::Bridge => (
            "the resolver is to answer at the gateway, and an isolated network has none",
            "leave the resolver out, or choose another gateway mode",
        ),
    };
    Err(Reject::new(Code::InvalidCombination, &spec.name, message).hint(hint))
}

/// The gateway addresses of a network that are addresses of this host.
///
/// A bridge that was there before us has them when we put them there, or when they were taken from it; of an
/// address that was named as the gateway nobody knows whose it is.
pub fn gateway_addresses(network: &Network) -> Vec<IpAddr> {
    let spec = &network.spec;
    let ours = !network.existing || spec.address_device;
    let is_named = |ip: IpAddr| spec.subnets.iter().any(|s| s.gateway == Some(ip));
    let isolated = |ip: IpAddr| spec.gateway_mode(ip.is_ipv6()) == GatewayMode::Isolated;
    let pools = network.pools.iter();
    pools
        .filter(|_| spec.driver == Driver::Bridge)
        .filter_map(|pool| pool.gateway)
        .filter(|ip| (ours || !is_named(*ip)) && !isolated(*ip))
        .collect()
}

/// Whether sandboxes know each other by name in a network.
pub fn has_names(network: &Network) -> bool {
    matches!(network.spec.driver, Driver::Bridge | Driver::Remote)
}

/// Where a sandbox with these endpoints, in their order, finds our own resolver.
///
/// The first network that has a resolver decides. A sandbox that serves names itself has none inside: its programs
/// want the port for themselves. At a gateway it has one only if the network says so, since there the port may be
/// wanted for what is published.
pub fn place(sandbox: &Sandbox, endpoints: &[(&Network, &Endpoint)]) -> Place {
    if let SandboxNetns::Host | SandboxNetns::Engine { inode: None, .. } = sandbox.spec.netns {
        return Place::Off;
    }
    let attached = endpoints.iter().filter(|(_, e)| e.attachment.is_some());
    let mut networks = attached.map(|(network, _)| *network);
    let serves_names = serves_names(sandbox);
    let found = networks.find_map(|network| match network.spec.dns.resolver {
        _ if !has_names(network) => None,
        ResolverAt::Sandbox => (!serves_names).then_some(Place::Sandbox),
        ResolverAt::Gateway => {
            let addresses = gateway_addresses(network);
            (!addresses.is_empty()).then_some(Place::Gateway(addresses))
        }
        ResolverAt::Off => None,
    });
    found.unwrap_or(Place::Off)
}

/// Where the resolver answers inside a sandbox: the address that programs know from Docker.
pub const IN_SANDBOX: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The sockets at which a sandbox asks for names. Several sandboxes share those at a gateway.
pub fn listeners(
    sandbox: &Sandbox,
    endpoints: &[(&Network, &Endpoint)],
    netns: &Netns,
) -> Vec<(Key, Spec)> {
    let listener = |netns: &Netns, address| {
        let key = ListenerKey {
            netns: netns.clone(),
            address,
            port: DNS_PORT,
        };
        (Key::Listener(key), Spec::Listener(ListenerSpec))
    };
    match place(sandbox, endpoints) {
        Place::Off => Vec::new(),
        Place::Sandbox => vec![listener(netns, IN_SANDBOX)],
        Place::Gateway(addresses) => {
            let addresses = addresses.into_iter();
            addresses.map(|ip| listener(&Netns::Host, ip)).collect()
        }
    }
}

/// Whether programs in a sandbox are said to answer at the port of resolvers.
fn serves_names(sandbox: &Sandbox) -> bool {
    let exposed = links::exposed(sandbox);
    exposed.iter().any(|one| one.ports.contains(DNS_PORT))
}

#[cfg(test)]
mod tests;
