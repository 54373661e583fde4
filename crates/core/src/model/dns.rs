//! How names are resolved in the sandboxes of a network.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How names are resolved in a network; lists that are empty leave the choice to the daemon's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkDns {
    /// Addresses of resolvers, for sandboxes that name none.
    pub servers: Vec<IpAddr>,
    /// Search list, for sandboxes that name none; a single `.` means none.
    pub searches: Vec<String>,
    /// Options as in resolv.conf(5), for sandboxes that name none.
    pub options: Vec<String>,
    /// Where our own resolver answers.
    pub resolver: ResolverAt,
    /// Whether it asks other resolvers for names that are not ours.
    pub forward: Forward,
    /// Whether it asks the network itself for names below `local` (RFC 6762).
    pub mdns: bool,
}

/// Where our own resolver answers the sandboxes of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResolverAt {
    /// At a loopback address inside each sandbox.
    #[default]
    Sandbox,
    /// At the addresses that the host has in the network.
    Gateway,
    /// Nowhere: sandboxes ask the other resolvers themselves.
    Off,
}

/// Whether our own resolver asks other resolvers for names that are not ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// Unless the network is internal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
