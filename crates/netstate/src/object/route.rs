//! Routes of the main table.
//!
//! Mark: `rtm_protocol` is our protocol number (rtnetlink(7)), in every namespace.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::write_place;
use crate::name::{IfName, Netns};

/// The protocol number that marks our routes, addresses and neighbours (`rtm_protocol`; free in
/// linux/rtnetlink.h and in iproute2's `rt_protos`).
pub const PROTOCOL: u8 = 84;

/// Identity: a destination with a metric, in the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The namespace that holds the route.
    pub netns: Netns,
    /// The destination; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: IpNet,
    /// Lower is preferred. The kernel reports IPv6's 0 as 1024, so we always give IPv6 a value.
    pub metric: u32,
}

/// How the destination is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    /// The link that packets leave by.
    pub link: IfName,
    /// The router, taken to be on the link whatever the prefixes say (`RTNH_F_ONLINK`).
    pub via: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.netns)?;
        if self.destination.prefix_len() == 0 {
            f.write_str(if self.destination.addr().is_ipv4() {
                "default"
            } else {
                "default6"
            })?;
        } else {
            write!(f, "{}", self.destination)?;
        }
        write!(f, " metric {}", self.metric)
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, "via {via} ")?;
        }
        write!(f, "dev {}", self.link)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        Ok(())
    }
}
