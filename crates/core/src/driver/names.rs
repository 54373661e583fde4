//! Names and hardware addresses of links: made from stable ids, so that a daemon with no memory makes the
//! same ones.

use tombolo_netstate::{IfName, Mac};

use crate::id::{EndpointId, NetworkId, stable_hash};
use crate::reject::{Code, Reject};

/// Checks an interface name from a record or a person.
pub fn interface(name: &str) -> Result<IfName, Reject> {
    IfName::new(name).map_err(|error| {
        Reject::new(Code::InterfaceName, name, error.to_string())
            .hint("give a name of 1 to 15 visible ASCII characters without `/`, `:` and `%`")
    })
}

/// The name of a network's own bridge, unless one was asked for.
pub fn bridge(network: NetworkId) -> String {
    format!(
        "tb-{:010x}",
        stable_hash(&[b"bridge", &network.0.to_be_bytes()]) >> 24
    )
}

/// The name of a leaf bridge.
pub fn leaf(network: NetworkId, leaf: u16) -> Result<IfName, Reject> {
    hashed(
        "tl",
        &[b"leaf", &network.0.to_be_bytes(), &leaf.to_be_bytes()],
    )
}

/// The name of the veth end, on the network's own bridge, that leads to a leaf bridge.
pub fn leaf_port(network: NetworkId, leaf: u16) -> Result<IfName, Reject> {
    hashed(
        "tu",
        &[b"leaf", &network.0.to_be_bytes(), &leaf.to_be_bytes()],
    )
}

/// The name of the veth end, on a leaf bridge, that leads to the network's own bridge.
pub fn leaf_uplink(network: NetworkId, leaf: u16) -> Result<IfName, Reject> {
    hashed(
        "td",
        &[b"leaf", &network.0.to_be_bytes(), &leaf.to_be_bytes()],
    )
}

/// The name of an endpoint's end in the host's namespace.
pub fn host_end(endpoint: EndpointId, epoch: u32) -> Result<IfName, Reject> {
    hashed(
        "tv",
        &[b"endpoint", &endpoint.0.to_be_bytes(), &epoch.to_be_bytes()],
    )
}

/// The name at birth of the end of a veth that is lent to an engine.
pub fn lent_end(endpoint: EndpointId, epoch: u32) -> Result<IfName, Reject> {
    hashed(
        "tp",
        &[b"lent", &endpoint.0.to_be_bytes(), &epoch.to_be_bytes()],
    )
}

/// The hardware address of a link known by `parts`.
pub fn mac(parts: &[&[u8]]) -> Mac {
    Mac::local(stable_hash(parts))
}

/// The hardware address of a network's own bridge, which endpoints know as their gateway's.
pub fn bridge_mac(network: NetworkId) -> Mac {
    mac(&[b"bridge-mac", &network.0.to_be_bytes()])
}

fn hashed(prefix: &str, parts: &[&[u8]]) -> Result<IfName, Reject> {
    interface(&format!("{prefix}{:012x}", stable_hash(parts) >> 16))
}
