//! Between records and the words of plugins: pure, in both directions.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};
use tombolo_core::driver::links;
use tombolo_core::model::{
    Endpoint, IpamSpec, Joined, Network, NetworkSpec, Pool, Publication, Sandbox, StaticRoute,
};
use tombolo_netstate::Mac;
use tombolo_netstate::object::port::{HostAddress, Protocol};

use crate::plugin::wire;
use crate::plugin::wire::network::{
    CreateEndpointRequest, CreateNetworkRequest, EndpointInterface, EndpointRequest, IpamData,
    JoinResponse, RouteType,
};
use crate::plugin::wire::options::{EndpointOptions, NetworkOptions, PortBinding, TransportPort};

/// What engines call the address space of their own addresses.
const OWN_SPACE: &str = "LocalDefault";

/// The options of a network, as engines send them.
pub(super) fn network_options(spec: &NetworkSpec) -> Map<String, Value> {
    let options = NetworkOptions {
        generic: spec.options.clone(),
        enable_ipv4: Some(spec.ipv4),
        enable_ipv6: Some(spec.ipv6),
        internal: spec.internal.then_some(true),
    };
    written(&options)
}

/// The request that makes a network.
pub(super) fn create_network(network: &Network) -> CreateNetworkRequest {
    if network.spec.ipam.as_ref().is_some_and(IpamSpec::is_null) {
        return CreateNetworkRequest {
            network_id: wire_id(network.id),
            options: network_options(&network.spec),
            ipv4_data: vec![no_addresses()],
            ipv6_data: vec![],
        };
    }
    let data = |ipv6: bool| {
        let pools = network.pools.iter();
        let of_family = pools.filter(|pool| pool.subnet.addr().is_ipv6() == ipv6);
        of_family.map(ipam_data).collect()
    };
    CreateNetworkRequest {
        network_id: wire_id(network.id),
        options: network_options(&network.spec),
        ipv4_data: data(false),
        ipv6_data: data(true),
    }
}

/// What engines say of a network that has no addresses.
fn no_addresses() -> IpamData {
    IpamData {
        address_space: "null".to_owned(),
        pool: "0.0.0.0/0".to_owned(),
        ..IpamData::default()
    }
}

fn ipam_data(pool: &Pool) -> IpamData {
    let with_length = |ip: IpAddr| format!("{ip}/{}", pool.subnet.prefix_len());
    let space = pool.plugin.as_ref().map(|plugin| plugin.space.clone());
    IpamData {
        address_space: space.unwrap_or_else(|| OWN_SPACE.to_owned()),
        pool: pool.subnet.to_string(),
        gateway: pool.gateway.map_or_else(String::new, with_length),
        aux_addresses: pool
            .reserved
            .iter()
            .map(|(name, ip)| (name.clone(), with_length(*ip)))
            .collect(),
    }
}

/// An id as engines write it, with 64 digits: ours twice. Plugins make names of its beginning, and some count.
pub(super) fn wire_id(id: impl Display) -> String {
    format!("{id}{id}")
}

/// Names an endpoint. Each of its attachments has another name, which begins with what differs.
pub(super) fn endpoint_request(endpoint: &Endpoint) -> EndpointRequest {
    let draw = endpoint.plugin.as_ref().map_or(0, |plugin| plugin.draw);
    EndpointRequest {
        network_id: wire_id(endpoint.network),
        endpoint_id: format!("{draw:016x}{}{draw:016x}", endpoint.id),
    }
}

/// The request that makes an endpoint. A hardware address is in it only if somebody asked for one: the plugin chooses
/// otherwise.
pub(super) fn create_endpoint(
    network: &Network,
    endpoint: &Endpoint,
    sandbox: &Sandbox,
) -> CreateEndpointRequest {
    let EndpointRequest {
        network_id,
        endpoint_id,
    } = endpoint_request(endpoint);
    let mut options = match network.spec.internal {
        true => EndpointOptions::default(),
        false => sandbox_options(sandbox),
    };
    if !network.spec.internal {
        let servers = sandbox.spec.dns.servers.iter();
        options.dns_servers = servers.map(ToString::to_string).collect();
    }
    // Engines of Go send bytes so.
    options.mac_address = endpoint.spec.mac.map(|mac| base64(&mac).into());
    CreateEndpointRequest {
        network_id,
        endpoint_id,
        interface: Some(interface(endpoint)),
        options: written(&options),
    }
}

fn interface(endpoint: &Endpoint) -> EndpointInterface {
    let address = |ipv6: bool| {
        let mut addresses = endpoint.addresses.iter();
        let found = addresses.find(|net| net.addr().is_ipv6() == ipv6);
        found.map_or_else(String::new, ToString::to_string)
    };
    let mac = endpoint.spec.mac;
    EndpointInterface {
        address: address(false),
        address_ipv6: address(true),
        mac_address: mac.map_or_else(String::new, |mac| Mac(mac).to_string()),
    }
}

/// What is told of a sandbox: its published ports and those that it serves.
pub(super) fn sandbox_labels(sandbox: &Sandbox) -> Map<String, Value> {
    written(&sandbox_options(sandbox))
}

fn sandbox_options(sandbox: &Sandbox) -> EndpointOptions {
    let published = sandbox.spec.publications.iter();
    let exposed = links::exposed(sandbox).into_iter().flat_map(|one| {
        let ports = one.ports.first()..=one.ports.last();
        ports.map(move |port| TransportPort {
            proto: number(one.protocol),
            port,
        })
    });
    EndpointOptions {
        port_map: Some(published.flat_map(bindings).collect()),
        exposed_ports: Some(exposed.collect()),
        ..EndpointOptions::default()
    }
}

/// One for each port.
fn bindings(publication: &Publication) -> Vec<PortBinding> {
    if publication.socket.is_some() {
        return Vec::new();
    }
    let container = publication.container.first()..=publication.container.last();
    let host_ip = match publication.address {
        None | Some(HostAddress::Any) => String::new(),
        Some(HostAddress::AnyV4) => "0.0.0.0".to_owned(),
        Some(HostAddress::AnyV6) => "::".to_owned(),
        Some(HostAddress::One(ip)) => ip.to_string(),
    };
    let first = publication.ports.map_or(0, |ports| ports.first());
    let host = |at: u16| {
        if first == 0 {
            0
        } else {
            first.saturating_add(at)
        }
    };
    let one = |(at, port): (usize, u16)| {
        let host_port = host(u16::try_from(at).unwrap_or(u16::MAX));
        PortBinding {
            proto: number(publication.protocol),
            ip: String::new(),
            port,
            host_ip: host_ip.clone(),
            host_port,
            host_port_end: host_port,
        }
    };
    container.enumerate().map(one).collect()
}

/// The number of a protocol in IP (IANA, "Assigned Internet Protocol Numbers").
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// What a plugin added to an endpoint that it made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    /// A hardware address.
    pub(super) mac: Option<[u8; 6]>,
    /// Addresses of families of which it was given none.
    pub(super) addresses: Vec<IpNet>,
}

/// Reads what a plugin added. Only what it was not given may be said.
pub(super) fn added(
    endpoint: &Endpoint,
    answer: Option<EndpointInterface>,
) -> Result<Added, String> {
    let asked = interface(endpoint);
    let answer = answer.unwrap_or_default();
    let mut added = Added::default();
    for (what, given, said) in [
        ("IPv4 address", &asked.address, &answer.address),
        ("IPv6 address", &asked.address_ipv6, &answer.address_ipv6),
        ("hardware address", &asked.mac_address, &answer.mac_address),
    ] {
        if !given.is_empty() && !said.is_empty() {
            return Err(format!(
                "the plugin was given an {what} and answered with {said}"
            ));
        }
    }
    for (ipv6, said) in [(false, &answer.address), (true, &answer.address_ipv6)] {
        if !said.is_empty() {
            let net = said.parse().ok();
            let net = net.filter(|net: &IpNet| net.addr().is_ipv6() == ipv6);
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            let net = net
                .ok_or_else(|| format!("{said:?} is no {family} address with its prefix length"))?;
            added.addresses.push(net);
        }
    }
    if !answer.mac_address.is_empty() {
        let mac = answer.mac_address.parse::<Mac>().and_then(Mac::unicast);
        added.mac = Some(mac.map_err(|error| error.to_string())?.0);
    }
    Ok(added)
}

/// Reads what is to be done in the sandbox of an endpoint that has joined.
pub(super) fn joined(answer: JoinResponse) -> Result<Joined, String> {
    let Some(link) = answer
        .interface_name
        .filter(|link| !link.src_name.is_empty())
    else {
        return Err("the plugin names no link for the sandbox".to_owned());
    };
    let address = |text: &str| match text {
        "" => Ok(None),
        text => host_of(text).map(Some),
    };
    let mut routes = Vec::new();
    for route in answer.static_routes {
        let text = &route.destination;
        let destination: Result<IpNet, _> = text.parse();
        let destination = destination.map_err(|_| format!("{text:?} is no destination"))?;
        let via = match route.route_type {
            RouteType::Connected => None,
            RouteType::NextHop => Some(host_of(&route.next_hop)?),
        };
        routes.push(StaticRoute {
            destination: destination.trunc(),
            via,
        });
    }
    Ok(Joined {
        source: link.src_name,
        prefix: link.dst_prefix,
        gateway4: address(&answer.gateway)?,
        gateway6: address(&answer.gateway_ipv6)?,
        routes,
    })
}

/// An address, with or without a prefix length: there are plugins that write one.
pub(super) fn host_of(text: &str) -> Result<IpAddr, String> {
    let plain: Result<IpAddr, _> = text.parse();
    let net = || text.parse::<IpNet>().map(|net| net.addr());
    plain
        .or_else(|_| net())
        .map_err(|_| format!("{text:?} is no address"))
}

/// Typed options as the free map of a request. Those of ours can always be written.
fn written(options: &impl serde::Serialize) -> Map<String, Value> {
    wire::write_object(options).unwrap_or_default()
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}

#[cfg(test)]
mod tests;
