//! Reservations of the host's ports: what keeps a published port from everybody else.
//!
//! Mark: the sockets are held for us by name; the kernel keeps no trace of a range that is only looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A transport protocol that has ports (IANA protocol numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// First and last port of a range, both belonging to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Addresses of the host at which a port is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostAddress {
    /// Every address of both families.
    Any,
    /// Every IPv4 address.
    AnyV4,
    /// Every IPv6 address.
    AnyV6,
    /// One address.
    One(IpAddr),
}

/// Identity: ports of a protocol at an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// The protocol.
    pub protocol: Protocol,
    /// Where.
    pub address: HostAddress,
    /// Which ports.
    pub ports: PortRange,
}

/// How ports are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSpec {
    /// A bound socket for each port, at which nothing arrives.
    Held,
    /// Looked up once among the host's sockets: too many for a socket each.
    Checked,
    /// A bound socket for each port, at which the daemon's relay takes what arrives.
    Relayed,
}

/// A range whose end lies before its beginning, or that holds port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ports {first} to {last} are not a range within 1 to 65535")]
pub struct RangeError {
    first: u16,
    last: u16,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The number in an IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.number() == number)
    }

    /// The name, as in services(5).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl PortRange {
    /// The ports from `first` to `last`.
    pub fn new(first: u16, last: u16) -> Result<Self, RangeError> {
        if first == 0 || last < first {
            return Err(RangeError { first, last });
        }
        Ok(Self { first, last })
    }

    /// The range that comes first in order.
    pub(crate) const LEAST: Self = Self { first: 1, last: 1 };
    /// The range that comes last in order.
    pub(crate) const GREATEST: Self = Self::from_to_end(u16::MAX);

    /// The last, in order, of the ranges that begin at `first`.
    pub(crate) const fn from_to_end(first: u16) -> Self {
        Self {
            first,
            last: u16::MAX,
        }
    }

    /// A single port.
    pub fn one(port: u16) -> Result<Self, RangeError> {
        Self::new(port, port)
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, at least one.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether it is a single port.
    pub fn is_one(self) -> bool {
        self.first == self.last
    }

    /// Whether the two share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether it holds `port`.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl HostAddress {
    /// Whether one packet could be for both.
    pub fn overlaps(self, other: Self) -> bool {
        let families = |address: Self| match address {
            Self::Any => (true, true),
            Self::AnyV4 => (true, false),
            Self::AnyV6 => (false, true),
            Self::One(ip) => (ip.is_ipv4(), ip.is_ipv6()),
        };
        match (self, other) {
            (Self::One(a), Self::One(b)) => a == b,
            _ => {
                let (a, b) = (families(self), families(other));
                a.0 && b.0 || a.1 && b.1
            }
        }
    }

    /// Whether it is, or holds, addresses of that family.
    pub fn has(self, ipv6: bool) -> bool {
        match self {
            Self::Any => true,
            Self::AnyV4 => !ipv6,
            Self::AnyV6 => ipv6,
            Self::One(ip) => ip.is_ipv6() == ipv6,
        }
    }
}

/// A text that is not a protocol, a range of ports or an address of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a protocol, port range or host address")]
pub struct FormError(String);

impl FromStr for Protocol {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let named = |protocol: &Self| protocol.as_str().eq_ignore_ascii_case(text);
        let found = Self::ALL.into_iter().find(named);
        found.ok_or_else(|| FormError(text.to_owned()))
    }
}

impl FromStr for PortRange {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse().ok();
        let range = port(first)
            .zip(port(last))
            .and_then(|(first, last)| Self::new(first, last).ok());
        range.ok_or_else(|| FormError(text.to_owned()))
    }
}

impl FromStr for HostAddress {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(text) {
            "*" => Ok(Self::Any),
            bare => match bare.parse() {
                Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ok(Self::AnyV4),
                Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ok(Self::AnyV6),
                Ok(ip) => Ok(Self::One(ip)),
                Err(_) => Err(FormError(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::AnyV4 => f.write_str("0.0.0.0"),
            Self::AnyV6 => f.write_str("[::]"),
            Self::One(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::One(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.address, self.ports, self.protocol)
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Checked => "checked",
            Self::Relayed => "relayed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_within_bounds_and_know_their_overlap() {
        assert!(PortRange::new(0, 5).is_err());
        assert!(PortRange::new(6, 5).is_err());
        let all = PortRange::new(1, u16::MAX).unwrap();
        assert_eq!(all.count(), 65_535);
        let web = PortRange::one(80).unwrap();
        assert!(web.is_one() && all.overlaps(web) && web.overlaps(all) && all.contains(80));
        assert!(!web.overlaps(PortRange::new(81, 90).unwrap()));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["*", "0.0.0.0", "[::]", "192.0.2.1", "[2001:db8::1]"] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), text);
        }
        for text in ["80", "80-90"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert!("90-80".parse::<PortRange>().is_err());
        assert!("80-90-95".parse::<PortRange>().is_err());
        assert_eq!("TCP".parse::<Protocol>().unwrap(), Protocol::Tcp);
    }

    #[test]
    fn addresses_overlap_within_a_family_only() {
        let one = |text: &str| HostAddress::One(text.parse().unwrap());
        assert!(HostAddress::Any.overlaps(one("::1")));
        assert!(HostAddress::AnyV4.overlaps(one("192.0.2.1")));
        assert!(!HostAddress::AnyV4.overlaps(one("::1")));
        assert!(!HostAddress::AnyV4.overlaps(HostAddress::AnyV6));
        assert!(!one("192.0.2.1").overlaps(one("192.0.2.2")));
    }
}
