//! Where our own resolver answers a sandbox, and what the sandbox's own settings for names are.

use std::net::IpAddr;

use super::links;
use crate::model::{
    DnsSettings, Driver, Endpoint, GatewayMode, Network, ResolverAt, Sandbox, SandboxNetns,
};
use crate::reject::{Code, Reject};

/// The port of resolvers (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

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
        Driver::Null | Driver::Host => (
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

/// Where a sandbox with these endpoints, in their order, finds our own resolver.
///
/// The first network that has a resolver decides. A sandbox that serves names itself is answered at a gateway
/// where there is one: its programs want the port for themselves.
pub fn place(sandbox: &Sandbox, endpoints: &[(&Network, &Endpoint)]) -> Place {
    if sandbox.spec.netns == SandboxNetns::Host {
        return Place::Off;
    }
    let networks: Vec<&Network> = endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint.attachment.is_some())
        .map(|(network, _)| *network)
        .filter(|n| n.spec.driver == Driver::Bridge && n.spec.dns.resolver != ResolverAt::Off)
        .collect();
    let Some(first) = networks.first() else {
        return Place::Off;
    };
    if first.spec.dns.resolver == ResolverAt::Sandbox && !serves_names(sandbox) {
        return Place::Sandbox;
    }
    let mut addresses = networks.iter().map(|network| gateway_addresses(network));
    addresses
        .find(|addresses| !addresses.is_empty())
        .map_or(Place::Sandbox, Place::Gateway)
}

/// How names are resolved in a sandbox: each list is that of the sandbox, else of the first of its networks that
/// has one, else of `defaults`. A list that is empty leaves the choice to the host.
pub fn settings(
    sandbox: &Sandbox,
    endpoints: &[(&Network, &Endpoint)],
    defaults: &DnsSettings,
) -> DnsSettings {
    fn first<'a, T: Clone + 'a>(
        own: &'a [T],
        mut networks: impl Iterator<Item = &'a [T]>,
        default: &'a [T],
    ) -> Vec<T> {
        if !own.is_empty() {
            return own.to_vec();
        }
        let found = networks.find(|list| !list.is_empty());
        found.unwrap_or(default).to_vec()
    }
    let own = &sandbox.spec.dns;
    let networks = || endpoints.iter().map(|(network, _)| &network.spec.dns);
    let servers = networks().map(|dns| dns.servers.as_slice());
    let searches = networks().map(|dns| dns.searches.as_slice());
    let options = networks().map(|dns| dns.options.as_slice());
    DnsSettings {
        servers: first(&own.servers, servers, &defaults.servers),
        searches: first(&own.searches, searches, &defaults.searches),
        options: first(&own.options, options, &defaults.options),
    }
}

/// Whether programs in a sandbox are said to answer at the port of resolvers.
fn serves_names(sandbox: &Sandbox) -> bool {
    let exposed = links::exposed(sandbox);
    exposed.iter().any(|one| one.ports.contains(DNS_PORT))
}

#[cfg(test)]
mod tests;
