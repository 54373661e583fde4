//! What plugins of others were told of networks and endpoints, and what they said: facts, as far as they must outlast
//! the daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::network::StaticRoute;

/// Whose addresses a network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamSpec {
    /// The plugin that hands them out.
    pub plugin: String,
    /// What the user wrote for it.
    pub options: BTreeMap<String, String>,
}

impl IpamSpec {
    /// Whether nobody hands any out: what Docker calls the driver `null`.
    pub fn is_null(&self) -> bool {
        self.plugin == "null"
    }
}

/// A pool that a plugin handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginPool {
    /// What the plugin calls it.
    pub id: String,
    /// The address space that it is of.
    pub space: String,
    /// Addresses that were asked of it for the network itself, to be given back with it.
    pub requested: Vec<IpAddr>,
    /// Whether the plugin wants everything in use requested again by the next daemon.
    #[serde(default)]
    pub replay: bool,
}

/// What a network's plugin was told of an endpoint, and said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPlugin {
    /// Random: part of what the plugin calls the endpoint. Each attachment has another, as a plugin may still have one
    /// that it failed to forget.
    #[serde(default)]
    pub draw: u64,
    /// Addresses that the plugin chose, of families of which it was given none.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// The hardware address that the plugin chose.
    pub mac: Option<[u8; 6]>,
    /// What it said when the endpoint joined its sandbox.
    pub joined: Option<Joined>,
    /// It was told that the endpoint is the sandbox's way out.
    pub way_out: bool,
}

/// What is to be done in a sandbox that an endpoint joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The link's name on the host.
    pub source: String,
    /// What its name in the sandbox begins with.
    pub prefix: String,
    /// Next hop of the default route of IPv4.
    pub gateway4: Option<IpAddr>,
    /// The same of IPv6.
    pub gateway6: Option<IpAddr>,
    /// Further routes; without a router they are on the link.
    pub routes: Vec<StaticRoute>,
}

impl Joined {
    /// Next hop of the default route of a family.
    pub fn gateway(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 { self.gateway6 } else { self.gateway4 }
    }
}
