//! Our nftables table: constant rules, and the elements of their sets and maps, which are all that varies.
//!
//! Mark: the table is ours alone (`inet tombolo`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::port::{PortRange, Protocol};
use crate::name::IfName;

pub mod flows;
pub mod ruleset;

pub use ruleset::Ruleset;

/// Name of our table.
pub const TABLE: &str = "tombolo";

/// The constant rules, known by a number that changes with their text.
#[derive(Debug, Clone)]
pub struct BaseSpec {
    /// Hash of the rules; kept in the table's user data so that a later program knows whether it must
    /// rewrite them.
    pub digest: u64,
    /// The rules; empty in what was read back, where the digest stands for them.
    pub ruleset: Arc<Ruleset>,
}

impl PartialEq for BaseSpec {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for BaseSpec {}

/// The sets and maps of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// `ifname`: every bridge of ours.
    Bridges,
    /// `ifname . ifname`: pairs between which new connections may be opened.
    Intra,
    /// `ifname . ifname`: a bridge with itself, whose endpoints reach each other by nothing but links and what is
    /// published on the host.
    Apart,
    /// `ifname`: bridges whose networks are internal.
    Internal,
    /// `ifname`: bridges of other engines, kept apart from ours.
    Others,
    /// `ifname`: leaf bridges, on whose ports nothing is tracked or translated.
    Leaves,
    /// IPv4 subnets whose sources are masqueraded towards the outside (intervals).
    Masquerade4,
    /// The same for IPv6.
    Masquerade6,
    /// IPv4 subnet to the source address that it gets towards the outside (intervals).
    Snat4,
    /// The same for IPv6.
    Snat6,
    /// `proto . port` at every IPv4 address of the host, to `address . port`.
    PublishAny4,
    /// The same for IPv6.
    PublishAny6,
    /// `proto . address . port`, to the same data.
    PublishAt4,
    /// The same for IPv6.
    PublishAt6,
    /// `source . proto . address . ports`, to `address . least port . greatest port` (intervals): ranges, and what
    /// only some may reach.
    PublishRange4,
    /// The same for IPv6.
    PublishRange6,
    /// `proto` to the port at which the relay takes it, twice.
    Relay,
    /// `proto . port` at every IPv6 address of the host that the relay is to take: where no translation leads.
    RelayAny6,
    /// `source . proto . address . ports` that the relay is to take (intervals).
    RelayRange6,
    /// `source . destination` that are one endpoint, which reaches itself through the host.
    Hairpin4,
    /// The same for IPv6.
    Hairpin6,
    /// `source . destination` on one plain link layer, where replies would bypass the host (intervals).
    Plain4,
    /// The same for IPv6.
    Plain6,
    /// `source . destination . proto . ports` of links (intervals).
    Links4,
    /// The same for IPv6.
    Links6,
    /// `destination . proto . port` that is open on a routed network.
    Routed4,
    /// The same for IPv6.
    Routed6,
    /// `source . destination . proto . ports` that are open on a routed network (intervals).
    RoutedRange4,
    /// The same for IPv6.
    RoutedRange6,
    /// `ifname`: bridges whose IPv4 endpoints answer echo requests from outside.
    Echo4,
    /// The same for IPv6.
    Echo6,
    /// `ifname`: bridges whose IPv4 endpoints are open to the outside.
    Open4,
    /// The same for IPv6.
    Open6,
}

/// Identity: a value in a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey {
    /// The set or map.
    pub set: SetName,
    /// One field, or several of a concatenation.
    pub fields: Arc<[Field]>,
}

/// What a map element leads to; empty for a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ElementSpec {
    /// The data of a map element.
    pub data: Arc<[Field]>,
}

/// A part of an element's key or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// An interface name (16 bytes, padded with zeros).
    Name(IfName),
    /// An address.
    Address(IpAddr),
    /// All addresses of a subnet (an interval).
    Net(IpNet),
    /// A transport protocol.
    Protocol(Protocol),
    /// A port, or the number 0 where it stands for a bound.
    Port(u16),
    /// All ports of a range (an interval).
    Ports(PortRange),
}

impl SetName {
    /// Every set, in the order in which the table declares them.
    pub const ALL: [Self; 33] = [
        Self::Bridges,
        Self::Intra,
        Self::Apart,
        Self::Internal,
        Self::Others,
        Self::Leaves,
        Self::Masquerade4,
        Self::Masquerade6,
        Self::Snat4,
        Self::Snat6,
        Self::PublishAny4,
        Self::PublishAny6,
        Self::PublishAt4,
        Self::PublishAt6,
        Self::PublishRange4,
        Self::PublishRange6,
        Self::Relay,
        Self::RelayAny6,
        Self::RelayRange6,
        Self::Hairpin4,
        Self::Hairpin6,
        Self::Plain4,
        Self::Plain6,
        Self::Links4,
        Self::Links6,
        Self::Routed4,
        Self::Routed6,
        Self::RoutedRange4,
        Self::RoutedRange6,
        Self::Echo4,
        Self::Echo6,
        Self::Open4,
        Self::Open6,
    ];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridges => "bridges",
            Self::Intra => "intra",
            Self::Apart => "apart",
            Self::Internal => "internal",
            Self::Others => "others",
            Self::Leaves => "leaves",
            Self::Masquerade4 => "masquerade4",
            Self::Masquerade6 => "masquerade6",
            Self::Snat4 => "snat4",
            Self::Snat6 => "snat6",
            Self::PublishAny4 => "publish_any4",
            Self::PublishAny6 => "publish_any6",
            Self::PublishAt4 => "publish_at4",
            Self::PublishAt6 => "publish_at6",
            Self::PublishRange4 => "publish_range4",
            Self::PublishRange6 => "publish_range6",
            Self::Relay => "relay",
            Self::RelayAny6 => "relay_any6",
            Self::RelayRange6 => "relay_range6",
            Self::Hairpin4 => "hairpin4",
            Self::Hairpin6 => "hairpin6",
            Self::Plain4 => "plain4",
            Self::Plain6 => "plain6",
            Self::Links4 => "links4",
            Self::Links6 => "links6",
            Self::Routed4 => "routed4",
            Self::Routed6 => "routed6",
            Self::RoutedRange4 => "routed_range4",
            Self::RoutedRange6 => "routed_range6",
            Self::Echo4 => "echo4",
            Self::Echo6 => "echo6",
            Self::Open4 => "open4",
            Self::Open6 => "open6",
        }
    }

    /// The set with that name in the table.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.as_str() == name)
    }
}

impl ElementKey {
    /// The identity with these fields.
    pub fn new(set: SetName, fields: impl Into<Arc<[Field]>>) -> Self {
        Self {
            set,
            fields: fields.into(),
        }
    }
}

impl ElementSpec {
    /// What leads to these data.
    pub fn new(data: impl Into<Arc<[Field]>>) -> Self {
        Self { data: data.into() }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Ports(ports) => write!(f, "{ports}"),
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[Field]) -> fmt::Result {
    for (n, field) in fields.iter().enumerate() {
        if n > 0 {
            f.write_str(" . ")?;
        }
        write!(f, "{field}")?;
    }
    Ok(())
}

impl fmt::Display for ElementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{ ", self.set.as_str())?;
        write_fields(f, &self.fields)?;
        f.write_str(" }")
    }
}

impl fmt::Display for ElementSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data.is_empty() {
            return f.write_str("present");
        }
        f.write_str(": ")?;
        write_fields(f, &self.data)
    }
}

impl BaseSpec {
    /// Writes it as the rules of the table of this name.
    pub(super) fn write_as(&self, table: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            // What is read back of a table that is not as it was written.
            0 => write!(f, "table inet {table} damaged"),
            digest => write!(f, "table inet {table} digest {digest:016x}"),
        }
    }
}

impl fmt::Display for BaseSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_as(TABLE, f)
    }
}
