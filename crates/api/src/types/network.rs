//! Networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{EndpointSettings, EndpointState, Named};
use super::is_false;
use super::names::{NetworkDns, NetworkDnsConfig};

/// A network to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Its name, unique on this host.
    pub name: String,
    /// Its driver: `bridge`, `null`, `host`, or the name of a plugin.
    #[serde(default = "default_driver")]
    pub driver: String,
    /// Its subnets; empty means that one is chosen for each enabled family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<SubnetConfig>,
    /// Whether its endpoints have IPv4 addresses; yes unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Whether its endpoints have IPv6 addresses; no unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// Whether it is cut off from everything outside itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Largest packet in bytes; follows the uplink when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Name of its interface on the host. An interface that exists is used, never owned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether an existing interface gets the gateway addresses for as long as the network exists.
    #[serde(default, skip_serializing_if = "is_false")]
    pub address_device: bool,
    /// Whether it is a plain layer 2 segment with flooding, in place of the routed hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast: Option<bool>,
    /// Whether its endpoints reach each other; yes unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icc: Option<bool>,
    /// Whether traffic that leaves it takes an address of the host; yes unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
    /// IPv4 address that leaving traffic takes, in place of the outgoing interface's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ipv4: Option<String>,
    /// IPv6 address that leaving traffic takes, in place of the outgoing interface's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ipv6: Option<String>,
    /// How IPv4 from outside gets to its endpoints: `nat`, `routed`, `nat-unprotected` or `isolated`; `nat`
    /// when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mode_ipv4: Option<String>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mode_ipv6: Option<String>,
    /// Whether the host's own input policy decides who reaches its published ports, where they do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obey_host_firewall: Option<bool>,
    /// Address of the host for its published ports that name none; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_binding: Option<String>,
    /// How names are resolved in its sandboxes.
    #[serde(default, skip_serializing_if = "NetworkDnsConfig::is_empty")]
    pub dns: NetworkDnsConfig,
    /// Routes that each endpoint gets besides the default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// What interface names inside sandboxes begin with; `eth` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_prefix: Option<String>,
    /// Free words of the caller, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, by key: `com.docker.network.*` and ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The plugin that hands out its subnets and addresses; the daemon does when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam_driver: Option<String>,
    /// Options of that plugin, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
}

impl NetworkCreate {
    /// A bridge network of this name with every choice left open.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            driver: default_driver(),
            subnets: Vec::new(),
            ipv4: None,
            ipv6: None,
            internal: false,
            mtu: None,
            device: None,
            address_device: false,
            multicast: None,
            icc: None,
            masquerade: None,
            snat_ipv4: None,
            snat_ipv6: None,
            gateway_mode_ipv4: None,
            gateway_mode_ipv6: None,
            obey_host_firewall: None,
            host_binding: None,
            dns: NetworkDnsConfig::default(),
            routes: Vec::new(),
            interface_prefix: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            ipam_driver: None,
            ipam_options: BTreeMap::new(),
        }
    }
}

fn default_driver() -> String {
    "bridge".to_owned()
}

/// A subnet to give to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetConfig {
    /// In CIDR form with host bits zero; chosen from the default pools when left out. `0.0.0.0/24` and
    /// `::/64` choose one of that size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Ranges in CIDR form that automatic addresses are taken from; the whole subnet when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_range: Vec<String>,
    /// Address of the gateway; the first of the subnet when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses that others use and that are never given away, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// A route inside the sandboxes of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Where to, in CIDR form.
    pub destination: String,
    /// The next hop; the network's gateway when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// Connects a sandbox to the network of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkConnect {
    /// Name, id or unambiguous start of an id of the sandbox.
    pub sandbox: String,
    /// What the new endpoint is to be like.
    #[serde(default, skip_serializing_if = "EndpointSettings::is_empty")]
    pub attachment: EndpointSettings,
}

/// Disconnects a sandbox from the network of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkDisconnect {
    /// Name, id or unambiguous start of an id of the sandbox.
    pub sandbox: String,
    /// Whether to forget the endpoint even when its namespace cannot be reached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// A network as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Its id, which never changes and is never used again.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// Whether its endpoints have IPv4 addresses.
    pub ipv4: bool,
    /// Whether its endpoints have IPv6 addresses.
    pub ipv6: bool,
    /// Whether it is cut off from everything outside itself.
    pub internal: bool,
    /// Largest packet in bytes, as in effect now.
    pub mtu: u32,
    /// Largest packet in bytes as asked for; absent when it follows the uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_configured: Option<u32>,
    /// Name of its interface on the host, where its driver has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether it is a plain layer 2 segment with flooding.
    pub multicast: bool,
    /// Whether its endpoints reach each other.
    pub icc: bool,
    /// Whether traffic that leaves it takes an address of the host.
    pub masquerade: bool,
    /// IPv4 address that leaving traffic takes, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ipv4: Option<String>,
    /// IPv6 address that leaving traffic takes, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ipv6: Option<String>,
    /// How IPv4 from outside gets to its endpoints: `nat`, `routed`, `nat-unprotected` or `isolated`; absent
    /// where its driver has no gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mode_ipv4: Option<String>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mode_ipv6: Option<String>,
    /// Whether the host's own input policy decides who reaches its published ports, where they do not say.
    #[serde(default)]
    pub obey_host_firewall: bool,
    /// Address of the host for its published ports that name none; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_binding: Option<String>,
    /// How names are resolved in its sandboxes.
    #[serde(default)]
    pub dns: NetworkDns,
    /// Routes that each endpoint gets besides the default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// What interface names inside sandboxes begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_prefix: Option<String>,
    /// Free words of the caller, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The plugin that hands out its subnets and addresses; the daemon does when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam_driver: Option<String>,
    /// Options of that plugin, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
    /// The plugins that it needs, and how they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<PluginStatus>,
    /// Where it stands in its life.
    pub state: NetworkState,
    /// Its endpoints, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointSummary>,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
}

/// A plugin of others, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// Where it was found; absent before it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When it last answered, in milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer_ms: Option<u64>,
    /// What last went wrong with it since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Whether it answered when this daemon last asked it; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<bool>,
}

/// Where a network stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkState {
    /// Every object of it is in place.
    Ready,
    /// An object of it is missing or different and is being repaired.
    Degraded,
    /// It is being removed.
    Leaving,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subnet {
    /// In CIDR form.
    pub subnet: String,
    /// Ranges in CIDR form that automatic addresses are taken from; empty means the whole subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_range: Vec<String>,
    /// Address of the gateway, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses that others use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
    /// How many addresses are leased.
    pub leases: u64,
}

/// An endpoint as its network lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointSummary {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The sandbox that it is joined to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Named>,
    /// Its addresses in CIDR form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Its MAC address, where its driver has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Where it stands in its life.
    pub state: EndpointState,
}
