//! How names are resolved: what a network says of it, the names that there are, and the answer to a question.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::Named;
use super::is_false;

/// How names are to be resolved in the sandboxes of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkDnsConfig {
    /// Addresses of the servers asked for foreign names, for sandboxes that name none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Domains tried after a short name, for sandboxes that name none; none when it is `.` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// Options of resolv.conf(5), such as `ndots:1`, for sandboxes that name none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Where Tombolo's own resolver answers: `sandbox`, inside each sandbox; `gateway`, at the network's gateway
    /// addresses; or `off`, nowhere. `sandbox` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Whether it asks other servers for foreign names: `always`, `never`, or `auto`, which is unless the network
    /// is internal. `auto` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Whether it answers for names below `local` by asking the network (multicast DNS).
    #[serde(default, skip_serializing_if = "is_false")]
    pub mdns: bool,
}

impl NetworkDnsConfig {
    /// Whether every choice is left open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How names are resolved in the sandboxes of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkDns {
    /// Addresses of the servers asked for foreign names; empty leaves it to the daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Domains tried after a short name; empty leaves it to the daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// Options of resolv.conf(5); empty leaves it to the daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Where Tombolo's own resolver answers: `sandbox`, `gateway` or `off`; absent where its driver has no place
    /// for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Whether it asks other servers for foreign names: `auto`, `always` or `never`; absent like the resolver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Whether it answers for names below `local` by asking the network (multicast DNS).
    #[serde(default)]
    pub mdns: bool,
}

/// A name that Tombolo's own resolver knows on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DnsName {
    /// Name of the network.
    pub network: String,
    /// The name.
    pub name: String,
    /// The running sandbox that has it.
    pub sandbox: Named,
    /// Its addresses on the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Further names that it has there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// What Tombolo's own resolver answers to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DnsAnswer {
    /// The name that was asked for.
    pub name: String,
    /// The type of record that was asked for, such as `A`.
    pub kind: String,
    /// How it ended, as the registry of DNS parameters calls it: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`, ...
    pub code: String,
    /// Where the answer comes from.
    pub source: DnsSource,
    /// The records that it consists of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<DnsRecord>,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The other server that gave it, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DnsSource {
    /// From what Tombolo itself knows.
    Own,
    /// From another server, which was asked.
    Forwarded,
    /// From what another server said before.
    Cache,
    /// From nowhere: nobody was to be asked.
    Refused,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DnsRecord {
    /// The name that it belongs to.
    pub name: String,
    /// Its type, such as `A`.
    pub kind: String,
    /// How long it may be kept, in seconds.
    pub ttl_seconds: u32,
    /// What it says, as in a zone file.
    pub data: String,
}
