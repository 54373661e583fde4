//! Endpoints: a place in a network, with addresses that last as long as the endpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::plugin::EndpointPlugin;
use crate::id::{EndpointId, Name, NetworkId, SandboxId};

/// What was asked of an endpoint, checked for form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Unique in its network; default: the sandbox's name, else made from the id.
    pub name: Option<Name>,
    /// Addresses asked for, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Hardware address asked for.
    pub mac: Option<[u8; 6]>,
    /// Exact interface name in the sandbox.
    pub interface: Option<String>,
    /// The endpoint with the highest one gives its sandbox the default route.
    pub gateway_priority: i32,
    /// Further names in its network.
    pub aliases: Vec<String>,
    /// Of the user.
    pub labels: BTreeMap<String, String>,
    /// Of another engine: it has the addresses named and no others, and its interface is lent.
    #[serde(default)]
    pub engine: bool,
}

/// An endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its identity.
    pub id: EndpointId,
    /// What was asked.
    pub spec: EndpointSpec,
    /// Its name.
    pub name: Name,
    /// Its network.
    pub network: NetworkId,
    /// Addresses with their subnets' prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Hardware address.
    pub mac: [u8; 6],
    /// The sandbox that it belongs to, also while that is stopped.
    pub sandbox: Option<SandboxId>,
    /// Its place in the order of the sandbox's endpoints.
    pub order: u32,
    /// Its interface, while the sandbox runs.
    pub attachment: Option<Attachment>,
    /// Counts attachments, so that a new interface never has the name of one that the kernel still removes.
    pub epoch: u32,
    /// Stored, not yet acknowledged; withdrawn by a restart.
    pub fresh: bool,
    /// Being removed; a restart goes on with it.
    pub deleting: bool,
    /// What its network's plugin knows and said of it; none while it knows nothing.
    #[serde(default)]
    pub plugin: Option<EndpointPlugin>,
    /// Those of its addresses that a plugin has back already; it is being removed.
    #[serde(default)]
    pub given_back: Vec<IpAddr>,
}

impl Endpoint {
    /// The hardware address of its interface as far as somebody has chosen it: of a plugin's link nobody else may know.
    pub fn chosen_mac(&self) -> Option<[u8; 6]> {
        let by_plugin = self.plugin.as_ref().and_then(|plugin| plugin.mac);
        self.spec.mac.or(by_plugin)
    }
}

/// The interface of an endpoint in a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name in the sandbox.
    pub interface: String,
    /// Which bridge of the network: 0 is its own, the others are leaf bridges.
    pub leaf: u16,
    /// Which attachment of the endpoint this is.
    pub epoch: u32,
    /// Not yet acknowledged; withdrawn by a restart.
    pub fresh: bool,
    /// The engine has given it up and will take the interface out of its sandbox: nothing leads through it.
    #[serde(default)]
    pub left: bool,
}
