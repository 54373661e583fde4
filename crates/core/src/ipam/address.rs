//! Addresses as numbers, and the blocks no pool may touch.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a subnet.
    #[must_use]
    pub const fn of_net(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address that `number` stands for; `number` must come from the same family.
    pub(super) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => {
                debug_assert!(number <= u128::from(u32::MAX), "not an IPv4 number");
                #[expect(clippy::cast_possible_truncation, reason = "IPv4 numbers have 32 bits")]
                IpAddr::V4(Ipv4Addr::from_bits(number as u32))
            }
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The number of an address within its family.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The first and last number of a subnet, network and broadcast addresses included.
pub(super) fn bounds(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

/// The part of a subnet that hosts may use without asking for an address by name.
///
/// IPv4 loses the network and broadcast addresses, IPv6 the subnet-router anycast address
/// (RFC 4291, section 2.6.1). Point-to-point prefixes lose nothing (RFC 3021, RFC 6164).
pub(super) fn usable(net: &IpNet) -> (u128, u128) {
    let (first, last) = bounds(net);
    let family = Family::of_net(net);
    if net.prefix_len() + 1 >= family.bits() {
        return (first, last);
    }
    match family {
        Family::V4 => (first + 1, last - 1),
        Family::V6 => (first + 1, last),
    }
}

/// Whether two subnets share an address.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether a route is so wide that it says "everywhere" rather than "this subnet is in use".
///
/// Besides the default route this covers the halves and quarters that VPN clients install.
pub(super) const fn is_default_like(route: &IpNet) -> bool {
    match route {
        IpNet::V4(net) => net.prefix_len() < 8,
        IpNet::V6(net) => net.prefix_len() < 7,
    }
}

/// Blocks with a meaning of their own (RFC 6890), in which no pool may lie.
const SPECIAL: [(IpNet, &str); 10] = [
    (v4(0, 0, 8), "the unspecified block"),
    (v4(127, 0, 8), "loopback"),
    (v4(169, 254, 16), "link-local"),
    (v4(224, 0, 4), "multicast"),
    (
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
        "limited broadcast",
    ),
    (v6(0, 128), "the unspecified address"),
    (
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        "loopback",
    ),
    (
        IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
            96,
        )),
        "IPv4-mapped addresses",
    ),
    (v6(0xfe80, 10), "link-local"),
    (v6(0xff00, 8), "multicast"),
];

const fn v4(a: u8, b: u8, prefix_len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix_len))
}

const fn v6(a: u16, prefix_len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, 0),
        prefix_len,
    ))
}

/// The special block that `net` touches, and what it is for.
pub(super) fn special(net: &IpNet) -> Option<(IpNet, &'static str)> {
    SPECIAL.into_iter().find(|(block, _)| overlap(block, net))
}
