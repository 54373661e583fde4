//! Permanent neighbour entries (`NUD_PERMANENT`): they are neither asked for nor counted by the kernel's
//! garbage collection.
//!
//! Mark: the link is ours, or `NDA_PROTOCOL` is our protocol number.

use std::fmt;
use std::net::IpAddr;

use super::write_place;
use crate::name::{IfName, Mac, Netns};

/// Identity: an address behind a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    /// The namespace that holds the link.
    pub netns: Netns,
    /// The link.
    pub link: IfName,
    /// The neighbour's address.
    pub ip: IpAddr,
}

/// Where the neighbour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourSpec {
    /// Its hardware address.
    pub mac: Mac,
}

impl fmt::Display for NeighbourKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.netns)?;
        write!(f, "{} {}", self.link, self.ip)
    }
}

impl fmt::Display for NeighbourSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", self.mac)
    }
}
