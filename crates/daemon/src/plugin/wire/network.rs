//! Requests to network drivers, and their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::messages;

/// Scope of networks of one host.
pub(crate) const SCOPE_LOCAL: &str = "local";

/// Scope of networks of a cluster.
pub(crate) const SCOPE_GLOBAL: &str = "global";

/// The only kind of discovery that drivers are told of: nodes.
pub(crate) const DISCOVERY_NODE: i64 = 1;

messages! {
    /// How far networks of a driver reach.
    Capabilities {
        /// Where networks are known: [`SCOPE_LOCAL`] or [`SCOPE_GLOBAL`]; engines refuse anything else.
        scope: String = "Scope",
        /// How far packets get; the same as `scope` when empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        connectivity_scope: String = "ConnectivityScope",
        /// Whether the driver takes [`GwAllocCheckRequest`].
        gw_alloc_checker: bool = "GwAllocChecker",
    }

    /// Asks whether a network to be made needs addresses of gateways.
    GwAllocCheckRequest {
        /// Those of [`CreateNetworkRequest`].
        options: Map<String, Value> = "Options",
    }

    /// Which addresses of gateways a network does without.
    GwAllocCheckResponse {
        /// The one of IPv4.
        skip_ipv4: bool = "SkipIPv4",
        /// The one of IPv6.
        skip_ipv6: bool = "SkipIPv6",
    }

    /// Addresses of a network, of one family.
    IpamData {
        /// The name of the address space that the pool is of.
        address_space: String = "AddressSpace",
        /// The prefix.
        #[serde(skip_serializing_if = "String::is_empty")]
        pool: String = "Pool",
        /// The gateway with its prefix length; empty if there is none.
        #[serde(skip_serializing_if = "String::is_empty")]
        gateway: String = "Gateway",
        /// Addresses that are kept free, with prefix lengths, by the names that the user gave them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        aux_addresses: BTreeMap<String, String> = "AuxAddresses",
    }

    /// Reserves a network of a cluster.
    AllocateNetworkRequest {
        /// The network.
        network_id: String = "NetworkID",
        /// What the user wrote for the driver.
        options: BTreeMap<String, String> = "Options",
        /// Addresses of IPv4.
        ipv4_data: Vec<IpamData> = "IPv4Data",
        /// Addresses of IPv6.
        ipv6_data: Vec<IpamData> = "IPv6Data",
    }

    /// A reserved network.
    AllocateNetworkResponse {
        /// What every node is told when it makes the network, besides what the user wrote.
        options: BTreeMap<String, String> = "Options",
    }

    /// Makes a network.
    CreateNetworkRequest {
        /// The network.
        network_id: String = "NetworkID",
        /// Read them as [`NetworkOptions`](super::options::NetworkOptions).
        options: Map<String, Value> = "Options",
        /// Addresses of IPv4; one item or none, as engines send it.
        ipv4_data: Vec<IpamData> = "IPv4Data",
        /// Addresses of IPv6.
        ipv6_data: Vec<IpamData> = "IPv6Data",
    }

    /// Names a network: gives a reserved one up, or removes it.
    NetworkRequest {
        /// The network.
        network_id: String = "NetworkID",
    }

    /// The addresses of an endpoint. All three are written, empty or not, as engines do.
    EndpointInterface {
        /// Of IPv4, with prefix length.
        address: String = "Address",
        /// Of IPv6, with prefix length.
        address_ipv6: String = "AddressIPv6",
        /// Of Ethernet.
        mac_address: String = "MacAddress",
    }

    /// Makes an endpoint.
    CreateEndpointRequest {
        /// The network.
        network_id: String = "NetworkID",
        /// The endpoint.
        endpoint_id: String = "EndpointID",
        /// What is decided about it; engines always send it.
        interface: Option<EndpointInterface> = "Interface",
        /// Read them as [`EndpointOptions`](super::options::EndpointOptions).
        options: Map<String, Value> = "Options",
    }

    /// A made endpoint.
    CreateEndpointResponse {
        /// Only what the driver adds: engines undo the endpoint when a field is set that the request set already.
        interface: Option<EndpointInterface> = "Interface",
    }

    /// Names an endpoint: asks about it, takes it out of its sandbox, withdraws its ports, or removes it.
    EndpointRequest {
        /// The network.
        network_id: String = "NetworkID",
        /// The endpoint.
        endpoint_id: String = "EndpointID",
    }

    /// What a driver tells about an endpoint.
    EndpointOperInfoResponse {
        /// Anything; engines show none of it.
        value: Map<String, Value> = "Value",
    }

    /// Joins an endpoint to a sandbox.
    JoinRequest {
        /// The network.
        network_id: String = "NetworkID",
        /// The endpoint.
        endpoint_id: String = "EndpointID",
        /// Path of the sandbox's network namespace; before Docker 28 nothing is there yet.
        sandbox_key: String = "SandboxKey",
        /// Those of the sandbox; read them as [`EndpointOptions`](super::options::EndpointOptions).
        options: Map<String, Value> = "Options",
    }

    /// The link of an endpoint, which the engine moves into the sandbox.
    InterfaceName {
        /// Its name on the host.
        src_name: String = "SrcName",
        /// What its name in the sandbox begins with; a number follows.
        dst_prefix: String = "DstPrefix",
    }

    /// A joined endpoint: what the engine does in the sandbox.
    JoinResponse {
        /// The link; none if there is nothing to move.
        interface_name: Option<InterfaceName> = "InterfaceName",
        /// Next hop of the default route of IPv4; empty for none.
        #[serde(skip_serializing_if = "String::is_empty")]
        gateway: String = "Gateway",
        /// The same of IPv6.
        #[serde(skip_serializing_if = "String::is_empty")]
        gateway_ipv6: String = "GatewayIPv6",
        /// Further routes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        static_routes: Vec<StaticRoute> = "StaticRoutes",
        /// Whether a sandbox without a gateway stays without: the engine adds a network of its own otherwise.
        disable_gateway_service: bool = "DisableGatewayService",
    }

    /// A route in a sandbox.
    StaticRoute {
        /// Where to, with prefix length.
        destination: String = "Destination",
        /// Whether there is a next hop.
        route_type: RouteType = "RouteType",
        /// The next hop; empty for a connected route.
        #[serde(skip_serializing_if = "String::is_empty")]
        next_hop: String = "NextHop",
    }

    /// Publishes the ports of an endpoint.
    ProgramExternalConnectivityRequest {
        /// The network.
        network_id: String = "NetworkID",
        /// The endpoint.
        endpoint_id: String = "EndpointID",
        /// Those of [`JoinRequest`].
        options: Map<String, Value> = "Options",
    }

    /// Tells of a node that came or went.
    DiscoveryNotification {
        /// Always [`DISCOVERY_NODE`].
        discovery_type: i64 = "DiscoveryType",
        /// The node.
        discovery_data: NodeData = "DiscoveryData",
    }

    /// A node of a cluster.
    NodeData {
        /// Its address.
        address: String = "Address",
        /// The address that it binds to.
        #[serde(skip_serializing_if = "String::is_empty")]
        bind_address: String = "BindAddress",
        /// Whether it is the one that is told. Engines write it as here, their documentation in lower case.
        #[serde(alias = "self")]
        is_self: bool = "Self",
    }
}

/// Whether a route has a next hop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub(crate) enum RouteType {
    /// It has.
    #[default]
    NextHop,
    /// It has not: the destination is on the link.
    Connected,
}

/// A number that stands for no [`RouteType`].
#[derive(Debug, thiserror::Error)]
#[error("{0} is no type of a route: 0 is one with a next hop, 1 a connected one")]
pub(crate) struct UnknownRouteType(u8);

impl TryFrom<u8> for RouteType {
    type Error = UnknownRouteType;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            0 => Ok(Self::NextHop),
            1 => Ok(Self::Connected),
            _ => Err(UnknownRouteType(number)),
        }
    }
}

impl From<RouteType> for u8 {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::NextHop => 0,
            RouteType::Connected => 1,
        }
    }
}
