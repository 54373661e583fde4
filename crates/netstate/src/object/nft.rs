//! Our nftables table: constant rules, and the elements of their sets and maps, which are all that varies.
//!
//! Mark: the table is ours alone (`inet tombolo`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::IfName;

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
    /// `ifname`: bridges whose networks are internal.
    Internal,
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
}

/// Identity: a value in a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey {
    /// The set or map.
    pub set: SetName,
    /// One field, or several of a concatenation.
    pub fields: Vec<Field>,
}

/// What a map element leads to; empty for a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementSpec {
    /// The data of a map element.
    pub data: Vec<Field>,
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
}

impl SetName {
    /// Every set, in the order in which the table declares them.
    pub const ALL: [Self; 8] = [
        Self::Bridges,
        Self::Intra,
        Self::Internal,
        Self::Leaves,
        Self::Masquerade4,
        Self::Masquerade6,
        Self::Snat4,
        Self::Snat6,
    ];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridges => "bridges",
            Self::Intra => "intra",
            Self::Internal => "internal",
            Self::Leaves => "leaves",
            Self::Masquerade4 => "masquerade4",
            Self::Masquerade6 => "masquerade6",
            Self::Snat4 => "snat4",
            Self::Snat6 => "snat6",
        }
    }

    /// The set with that name in the table.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.as_str() == name)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Net(net) => write!(f, "{net}"),
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

impl fmt::Display for BaseSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            // What is read back of a table that is not as it was written.
            0 => write!(f, "table inet {TABLE} damaged"),
            digest => write!(f, "table inet {TABLE} digest {digest:016x}"),
        }
    }
}
