//! What is inside the options of requests.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::messages;

/// Network: what the user wrote for the driver.
pub(crate) const GENERIC: &str = "com.docker.network.generic";

/// Network: whether it has IPv4. Since Docker 28.
pub(crate) const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";

/// Network: whether it has IPv6.
pub(crate) const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// Network: whether it has no way out.
pub(crate) const INTERNAL: &str = "com.docker.network.internal";

/// Endpoint and sandbox: published ports.
pub(crate) const PORT_MAP: &str = "com.docker.network.portmap";

/// Endpoint and sandbox: exposed ports.
pub(crate) const EXPOSED_PORTS: &str = "com.docker.network.endpoint.exposedports";

/// Endpoint: name servers of the sandbox.
pub(crate) const DNS_SERVERS: &str = "com.docker.network.endpoint.dnsservers";

/// Endpoint: the MAC address that was asked for. For network drivers its bytes in base64, for address allocators as
/// people write it.
pub(crate) const MAC_ADDRESS: &str = "com.docker.network.endpoint.macaddress";

/// External connectivity: IPv6 ports of the host are another endpoint's.
pub(crate) const NO_PROXY_6TO4: &str = "com.docker.network.driver.private.no_proxy_6to4";

messages! {
    /// Options of a network. Absent is told from `false`: engines leave out what nobody asked for.
    NetworkOptions {
        /// What the user wrote for the driver; engines send it even if it is empty.
        generic: BTreeMap<String, String> = "com.docker.network.generic",
        /// Whether it has IPv4; absent before Docker 28, when every network had.
        #[serde(skip_serializing_if = "Option::is_none")]
        enable_ipv4: Option<bool> = "com.docker.network.enable_ipv4",
        /// Whether it has IPv6.
        #[serde(skip_serializing_if = "Option::is_none")]
        enable_ipv6: Option<bool> = "com.docker.network.enable_ipv6",
        /// Whether it has no way out.
        #[serde(skip_serializing_if = "Option::is_none")]
        internal: Option<bool> = "com.docker.network.internal",
    }

    /// Options of an endpoint, or of a sandbox: a request has the one or the other.
    EndpointOptions {
        /// Published ports.
        #[serde(skip_serializing_if = "Option::is_none")]
        port_map: Option<Vec<PortBinding>> = "com.docker.network.portmap",
        /// Exposed ports.
        #[serde(skip_serializing_if = "Option::is_none")]
        exposed_ports: Option<Vec<TransportPort>> = "com.docker.network.endpoint.exposedports",
        /// Name servers of the sandbox.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        dns_servers: Vec<String> = "com.docker.network.endpoint.dnsservers",
        /// The MAC address that was asked for, in base64; `Interface` has it as people write it.
        #[serde(skip_serializing_if = "Option::is_none")]
        mac_address: Option<Value> = "com.docker.network.endpoint.macaddress",
        /// Whether IPv6 ports of the host are another endpoint's.
        #[serde(skip_serializing_if = "Option::is_none")]
        no_proxy_6to4: Option<bool> = "com.docker.network.driver.private.no_proxy_6to4",
    }

    /// A published port, or a range of the host of which one port is taken.
    PortBinding {
        /// The protocol's number in IP: 6, 17 or 132.
        proto: u8 = "Proto",
        /// The endpoint's address; empty as engines send it.
        ip: String = "IP",
        /// The endpoint's port.
        port: u16 = "Port",
        /// The host's address; empty for every one.
        host_ip: String = "HostIP",
        /// The first port of the host; 0 for any.
        host_port: u16 = "HostPort",
        /// The last port of the host; 0 or `host_port` for one port.
        host_port_end: u16 = "HostPortEnd",
    }

    /// An exposed port.
    TransportPort {
        /// The protocol's number in IP: 6, 17 or 132.
        proto: u8 = "Proto",
        /// The port.
        port: u16 = "Port",
    }
}

impl EndpointOptions {
    /// The keys that have a field; the others are what the user wrote for the driver.
    const KEYS: [&str; 5] = [
        PORT_MAP,
        EXPOSED_PORTS,
        DNS_SERVERS,
        MAC_ADDRESS,
        NO_PROXY_6TO4,
    ];

    /// What the user wrote for the driver, which engines mix with the rest: every other key with its string.
    pub(crate) fn driver_options(
        options: &Map<String, Value>,
    ) -> impl Iterator<Item = (&str, &str)> {
        let others = options
            .iter()
            .filter(|(key, _)| !Self::KEYS.contains(&key.as_str()));
        others.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}
