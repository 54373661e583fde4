//! Routes of the main table: what is sent and what is read (rtnetlink(7), linux/rtnetlink.h).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    RouteVia,
};
use tombolo_netstate::object::route::{PROTOCOL, RouteKey, RouteSpec};

use super::address::family;
use super::attribute::{Attributes, read_ip, read_u32};
use super::{Batch, ReadBuffer, Socket};

pub(crate) const NEW: u16 = 24;
pub(crate) const DELETE: u16 = 25;
const GET: u16 = 26;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// `NLM_F_CREATE | NLM_F_REPLACE`.
const PUT: u16 = 0x500;
/// Bytes of `struct rtmsg`.
const HEAD: usize = 12;
/// `RTM_F_CLONED`.
const CLONED: u32 = 0x200;

fn message(key: &RouteKey) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = key.destination;
    message.header.address_family = family(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    if destination.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(destination.network().into()));
    }
    message
        .attributes
        .push(RouteAttribute::Priority(key.metric));
    message
}

/// Makes a route, or changes the one with the same key when `replace`.
pub(crate) fn set(batch: &mut Batch, key: &RouteKey, spec: &RouteSpec, link: u32, replace: bool) {
    let mut message = message(key);
    message.attributes.push(RouteAttribute::Oif(link));
    match spec.via {
        None if key.destination.addr().is_ipv4() => message.header.scope = RouteScope::Link,
        None => {}
        Some(via) => {
            message.header.flags = RouteFlags::Onlink;
            message
                .attributes
                .push(gateway(key.destination.addr(), via));
        }
    }
    if let Some(source) = spec.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
    }
    batch.push(NEW, if replace { PUT } else { CREATE }, &message);
}

/// A router of the other family is named by `RTA_VIA` (RFC 5549).
fn gateway(destination: IpAddr, via: IpAddr) -> RouteAttribute {
    match (destination, via) {
        (IpAddr::V4(_), IpAddr::V6(ip)) => RouteAttribute::Via(RouteVia::Inet6(ip)),
        (IpAddr::V6(_), IpAddr::V4(ip)) => RouteAttribute::Via(RouteVia::Inet(ip)),
        _ => RouteAttribute::Gateway(via.into()),
    }
}

/// Removes a route of ours, which leaves by `link` if that is known.
pub(crate) fn delete(batch: &mut Batch, key: &RouteKey, link: Option<u32>) {
    let mut message = message(key);
    message.header.scope = RouteScope::NoWhere;
    message.attributes.extend(link.map(RouteAttribute::Oif));
    batch.push(DELETE, 0, &message);
}

/// What is read of a unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteRecord {
    pub(crate) destination: IpNet,
    pub(crate) metric: u32,
    pub(crate) link: Option<u32>,
    pub(crate) via: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) ours: bool,
}

impl RouteRecord {
    /// Reads the body of an `RTM_NEWROUTE` or `RTM_DELROUTE`; none for other tables, local and other special
    /// routes, and entries of a cache.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = body.first_chunk()?;
        let attributes = Attributes::after(body, HEAD);
        let table = attributes
            .find(15)
            .and_then(read_u32)
            .unwrap_or(u32::from(head[4]));
        let cloned = read_u32(&head[8..])? & CLONED != 0;
        if table != u32::from(libc::RT_TABLE_MAIN) || head[7] != libc::RTN_UNICAST || cloned {
            return None;
        }
        let any = match i32::from(head[0]) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let destination = attributes.find(1).and_then(read_ip).unwrap_or(any);
        Some(Self {
            destination: IpNet::new(destination, head[1]).ok()?,
            metric: attributes.find(6).and_then(read_u32).unwrap_or(0),
            link: attributes
                .find(4)
                .and_then(read_u32)
                .or_else(|| first_hop(&attributes)),
            via: attributes
                .find(5)
                .and_then(read_ip)
                .or_else(|| attributes.find(18).and_then(|via| read_ip(via.get(2..)?))),
            source: attributes.find(7).and_then(read_ip),
            ours: head[5] == PROTOCOL,
        })
    }
}

/// The link of the first of several next hops (`struct rtnexthop`).
fn first_hop(attributes: &Attributes<'_>) -> Option<u32> {
    attributes.find(9)?.get(4..).and_then(read_u32)
}

/// Which routes of the main table are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours,
    All,
}

/// The unicast routes of the main table of the socket's namespace, of both families.
pub(crate) fn dump(
    socket: &Socket,
    whose: Whose,
    buffer: &mut ReadBuffer,
) -> io::Result<Vec<RouteRecord>> {
    let mut body = [0; HEAD];
    body[4] = libc::RT_TABLE_MAIN;
    if whose == Whose::Ours {
        body[5] = PROTOCOL;
    }
    let mut routes = Vec::new();
    socket.dump(GET, &body, buffer, |message| match message {
        None => routes.clear(),
        Some(message) => routes.extend(RouteRecord::read(message.body)),
    })?;
    routes.retain(|route: &RouteRecord| whose == Whose::All || route.ours);
    Ok(routes)
}
