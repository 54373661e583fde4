//! Addresses of interfaces. Duplicate address detection is off on all of them (`IFA_F_NODAD`): we assign
//! them, so nobody else has them.
//!
//! Mark: the link is ours, or `IFA_PROTO` is our protocol number (Linux 5.18).

use std::fmt;
use std::net::IpAddr;

use super::{Change, write_place};
use crate::name::{IfName, Mac, Netns};

/// Identity: an address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey {
    /// The namespace that holds the link.
    pub netns: Netns,
    /// The link.
    pub link: IfName,
    /// The address.
    pub ip: IpAddr,
}

/// What we set on an address.
#[derive(Debug, Clone, Copy)]
pub struct AddressSpec {
    /// Length of the subnet's prefix in bits.
    pub prefix_len: u8,
    /// Whether the kernel adds the route to the subnet; `false` is `IFA_F_NOPREFIXROUTE`.
    pub prefix_route: bool,
    /// Neighbours are told of the address with this MAC once it is in place (RFC 5227 section 3, RFC 4861
    /// section 7.2.6).
    pub announce: Option<Mac>,
}

/// What is announced is a message, which cannot be read back: it makes no difference between two specs.
impl PartialEq for AddressSpec {
    fn eq(&self, other: &Self) -> bool {
        (self.prefix_len, self.prefix_route) == (other.prefix_len, other.prefix_route)
    }
}

impl Eq for AddressSpec {}

impl AddressSpec {
    /// The kernel changes flags in place, but not the prefix of an address.
    pub(super) fn change(&self, desired: &Self) -> Change {
        if self.prefix_len == desired.prefix_len && self.prefix_route == desired.prefix_route {
            Change::Update
        } else {
            Change::Replace
        }
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.netns)?;
        write!(f, "{} {}", self.link, self.ip)
    }
}

impl fmt::Display for AddressSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.prefix_len)?;
        if !self.prefix_route {
            f.write_str(" no-prefix-route")?;
        }
        if self.announce.is_some() {
            f.write_str(" announced")?;
        }
        Ok(())
    }
}
