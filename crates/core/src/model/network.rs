//! Networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tombolo_netstate::object::port::HostAddress;

use super::dns::{Forward, NetworkDns};
use super::plugin::{IpamSpec, PluginPool};
use crate::id::{Name, NetworkId};

/// Which planner makes a network real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host with addresses of its own.
    Bridge,
    /// No interface at all.
    Null,
    /// The host's own namespace.
    Host,
    /// A plugin of others.
    Remote,
}

/// How the outside reaches the endpoints of a network, and they it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Through ports of the host; endpoints borrow the host's address.
    #[default]
    Nat,
    /// Through ports of the host, and at their own addresses with all their ports.
    NatUnprotected,
    /// At their own addresses, at the ports they publish; nothing is translated.
    Routed,
    /// Not at all, not even by the host: the bridge has no address.
    Isolated,
}

/// What was asked of a network, checked for form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Unique on the node.
    pub name: Name,
    /// Which planner makes it real.
    pub driver: Driver,
    /// Subnets asked for; families without one get one from the default pools.
    pub subnets: Vec<SubnetSpec>,
    /// Endpoints get IPv4 addresses.
    pub ipv4: bool,
    /// Endpoints get IPv6 addresses.
    pub ipv6: bool,
    /// No way out and no way in.
    pub internal: bool,
    /// Bytes; `None` follows the uplink.
    pub mtu: Option<u32>,
    /// Name of the bridge; one that exists is used and stays its owner's.
    pub device: Option<String>,
    /// Give an existing bridge the gateway addresses, for as long as the network exists.
    #[serde(default)]
    pub address_device: bool,
    /// Plain link-layer network: broadcast and multicast reach every endpoint.
    pub multicast: bool,
    /// Endpoints may open connections to each other.
    pub icc: bool,
    /// Sources are masqueraded towards the outside.
    pub masquerade: bool,
    /// Source address towards the outside, instead of the outgoing interface's.
    pub snat: Vec<IpAddr>,
    /// How the outside reaches endpoints over IPv4.
    #[serde(default)]
    pub gateway_mode4: GatewayMode,
    /// How the outside reaches endpoints over IPv6.
    #[serde(default)]
    pub gateway_mode6: GatewayMode,
    /// Whether the host's own firewall decides about published ports; `None` follows the daemon.
    #[serde(default)]
    pub obey_host_firewall: Option<bool>,
    /// Where ports are published that name no address; `None` is everywhere.
    #[serde(with = "super::publication::optional", default)]
    pub host_binding: Option<HostAddress>,
    /// How names are resolved in its sandboxes.
    #[serde(default)]
    pub dns: NetworkDns,
    /// Routes that endpoints get.
    pub routes: Vec<StaticRoute>,
    /// Interfaces in sandboxes are named with this prefix and a number.
    pub interface_prefix: String,
    /// Of the user.
    pub labels: BTreeMap<String, String>,
    /// Its id in the engine that asked for it.
    #[serde(default)]
    pub engine: Option<String>,
    /// As they were written: for showing, and for a plugin.
    pub options: BTreeMap<String, String>,
    /// The plugin that makes it, where its driver is one.
    #[serde(default)]
    pub plugin: Option<String>,
    /// The plugin that hands its addresses out; we do where there is none.
    #[serde(default)]
    pub ipam: Option<IpamSpec>,
}

/// A subnet asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// Which; `None` takes one from the default pools.
    pub subnet: Option<IpNet>,
    /// What is taken from the default pools.
    #[serde(default)]
    pub pick: SubnetPick,
    /// Automatic choice is limited to these.
    pub ranges: Vec<IpNet>,
    /// Default: the lowest usable address.
    pub gateway: Option<IpAddr>,
    /// Addresses kept out, by name.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A subnet to take from the default pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPick {
    /// Of IPv6, else of IPv4.
    pub ipv6: bool,
    /// Prefix length in bits; `None` is the pool's own.
    pub size: Option<u8>,
}

impl SubnetSpec {
    /// Whether the subnet is or will be one of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.subnet
            .map_or(self.pick.ipv6, |net| net.addr().is_ipv6())
    }
}

/// A route that every endpoint of a network gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where to.
    pub destination: IpNet,
    /// The router, inside one of the network's subnets; `None` means on the link.
    pub via: Option<IpAddr>,
}

/// A subnet that a network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The subnet.
    pub subnet: IpNet,
    /// Automatic choice is limited to these.
    pub ranges: Vec<IpNet>,
    /// The host's address in it, and the endpoints' way out.
    pub gateway: Option<IpAddr>,
    /// Addresses kept out, by name.
    pub reserved: BTreeMap<String, IpAddr>,
    /// Which pool of a plugin it is.
    #[serde(default)]
    pub plugin: Option<PluginPool>,
}

/// Where a network is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// Stored while plugins are asked; nothing of it is made, and a restart takes it back.
    Reserved,
    /// Stored, not yet acknowledged; withdrawn by a restart.
    Creating,
    /// In use.
    Ready,
    /// Being removed; a restart goes on with it.
    Deleting,
}

/// A network of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its identity.
    pub id: NetworkId,
    /// What was asked.
    pub spec: NetworkSpec,
    /// What it got.
    pub pools: Vec<Pool>,
    /// The bridge's name.
    pub device: String,
    /// The bridge was there before us and stays.
    pub existing: bool,
    /// Where it is in its life.
    pub state: NetworkState,
    /// Made by the daemon.
    pub predefined: bool,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The plugin that makes it may know of it.
    #[serde(default)]
    pub plugin_told: bool,
    /// Its engine has removed it on its own side, while it still had endpoints of ours.
    #[serde(default)]
    pub forsaken: bool,
}

impl NetworkSpec {
    /// Whether a plugin of others makes it or hands its addresses out.
    pub fn has_plugin(&self) -> bool {
        self.plugin.is_some() || self.ipam.is_some()
    }

    /// The plugin that hands its addresses out; none where we do, or nobody.
    pub fn allocator(&self) -> Option<&IpamSpec> {
        self.ipam.as_ref().filter(|ipam| !ipam.is_null())
    }

    /// The plugins of others that are asked about it, each once.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        let driver = self.plugin.as_deref();
        let ipam = self.allocator().map(|ipam| ipam.plugin.as_str());
        let ipam = ipam.filter(|ipam| driver != Some(*ipam));
        driver.into_iter().chain(ipam)
    }

    /// How the outside reaches endpoints over a family.
    pub fn gateway_mode(&self, ipv6: bool) -> GatewayMode {
        if ipv6 {
            self.gateway_mode6
        } else {
            self.gateway_mode4
        }
    }

    /// Whether our resolver asks others for names that are not ours, for sandboxes of this network.
    pub fn forwards_names(&self) -> bool {
        match self.dns.forward {
            Forward::Auto => !self.internal,
            Forward::Always => true,
            Forward::Never => false,
        }
    }
}

impl Network {
    /// Whether its objects should exist.
    pub fn is_made(&self) -> bool {
        matches!(self.state, NetworkState::Creating | NetworkState::Ready)
    }

    /// The pool that holds `ip`.
    pub fn pool_of(&self, ip: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.contains(&ip))
    }

    /// The first gateway of a family.
    pub fn gateway(&self, ipv6: bool) -> Option<IpAddr> {
        self.pools
            .iter()
            .filter_map(|pool| pool.gateway)
            .find(|ip| ip.is_ipv6() == ipv6)
    }
}
