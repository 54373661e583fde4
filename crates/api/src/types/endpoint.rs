//! Endpoints: what ties a sandbox to a network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Declares a request made of the settings of an endpoint after fields of its own. Serde does not
/// support flattening a struct into one that refuses unknown fields, so the fields are written here.
macro_rules! with_endpoint_settings {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $kind,)*
            /// Name of the endpoint; chosen when left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub name: Option<String>,
            /// IPv4 address that it must have; the next free one when left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ipv4_address: Option<String>,
            /// IPv6 address that it must have; the next free one when left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ipv6_address: Option<String>,
            /// MAC address that it must have, such as `02:42:ac:11:00:02`; chosen when left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub mac_address: Option<String>,
            /// Name of its interface inside the sandbox; the network's prefix and the next number
            /// when left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub interface_name: Option<String>,
            /// Which endpoint of a sandbox gives the default route: the highest wins, 0 when left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub gateway_priority: Option<i32>,
            /// Further names that its sandbox has on the network.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub aliases: Vec<String>,
            /// Free words of the caller, by key.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub labels: BTreeMap<String, String>,
        }
    };
}

with_endpoint_settings! {
    /// An endpoint to make.
    EndpointCreate {
        /// Name, id or unambiguous start of an id of its network.
        network: String,
        /// The sandbox to join at once, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<String>,
    }
}

with_endpoint_settings! {
    /// A network that a new sandbox is tied to, and what the endpoint is to be like.
    NetworkAttachment {
        /// Name, id or unambiguous start of an id of the network.
        network: String,
    }
}

with_endpoint_settings! {
    /// What an endpoint is to be like, whatever its network.
    EndpointSettings {}
}

impl EndpointSettings {
    /// Whether every choice is left open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The endpoint with these settings on a network, joined to a sandbox if one is given.
    #[must_use]
    pub fn on_network(self, network: impl Into<String>, sandbox: Option<String>) -> EndpointCreate {
        EndpointCreate {
            network: network.into(),
            sandbox,
            name: self.name,
            ipv4_address: self.ipv4_address,
            ipv6_address: self.ipv6_address,
            mac_address: self.mac_address,
            interface_name: self.interface_name,
            gateway_priority: self.gateway_priority,
            aliases: self.aliases,
            labels: self.labels,
        }
    }
}

impl EndpointCreate {
    /// The settings alone, without network and sandbox.
    #[must_use]
    pub fn into_settings(self) -> EndpointSettings {
        EndpointSettings {
            name: self.name,
            ipv4_address: self.ipv4_address,
            ipv6_address: self.ipv6_address,
            mac_address: self.mac_address,
            interface_name: self.interface_name,
            gateway_priority: self.gateway_priority,
            aliases: self.aliases,
            labels: self.labels,
        }
    }
}

impl NetworkAttachment {
    /// The endpoint that this attachment asks for, joined to a sandbox if one is given.
    #[must_use]
    pub fn into_endpoint(self, sandbox: Option<String>) -> EndpointCreate {
        EndpointCreate {
            network: self.network,
            sandbox,
            name: self.name,
            ipv4_address: self.ipv4_address,
            ipv6_address: self.ipv6_address,
            mac_address: self.mac_address,
            interface_name: self.interface_name,
            gateway_priority: self.gateway_priority,
            aliases: self.aliases,
            labels: self.labels,
        }
    }
}

/// Joins the endpoint of the path to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointJoin {
    /// Name, id or unambiguous start of an id of the sandbox.
    pub sandbox: String,
}

/// The id and name of something told elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// An endpoint as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// Its id, which never changes and is never used again.
    pub id: String,
    /// Its name, unique in its network.
    pub name: String,
    /// Its network.
    pub network: Named,
    /// The sandbox that it is joined to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Named>,
    /// Its addresses in CIDR form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Gateways of its network, one for each family that has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Its MAC address, where its driver has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Name of its interface inside the sandbox, once joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Name of its interface on the host, where its driver has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Where it stands in its life.
    pub state: EndpointState,
    /// Which endpoint of a sandbox gives the default route: the highest wins.
    pub gateway_priority: i32,
    /// Further names that its sandbox has on the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Free words of the caller, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where an endpoint stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// It has its addresses and is joined to no sandbox.
    Allocated,
    /// It is joined to a sandbox.
    Attached,
    /// It is being removed; its addresses return when the kernel no longer holds them.
    Leaving,
}
