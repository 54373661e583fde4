//! What is asked about tracked connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tombolo_netstate::object::port::Protocol;

use crate::netlink::attribute::{Attributes, Writer};

/// `NFNL_SUBSYS_CTNETLINK`, as the high byte of message types.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`, `IPCTNL_MSG_CT_GET_STATS`.
pub(super) const GET: u16 = SUBSYSTEM | 1;
pub(super) const DELETE: u16 = SUBSYSTEM | 2;
pub(super) const GET_STATS: u16 = SUBSYSTEM | 5;
/// Bytes of `struct nfgenmsg`.
pub(super) const HEAD: usize = 4;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`, `CTA_FILTER`.
pub(super) const TUPLE_ORIGINAL: u16 = 1;
pub(super) const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`.
pub(super) const TUPLE_IP: u16 = 1;
pub(super) const TUPLE_PROTO: u16 = 2;
/// `CTA_IP_V4_SRC` and those that follow it.
pub(super) const IP_V4_SOURCE: u16 = 1;
pub(super) const IP_V4_DESTINATION: u16 = 2;
pub(super) const IP_V6_SOURCE: u16 = 3;
pub(super) const IP_V6_DESTINATION: u16 = 4;
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
pub(super) const PROTO_NUMBER: u16 = 1;
pub(super) const PROTO_SOURCE_PORT: u16 = 2;
pub(super) const PROTO_DESTINATION_PORT: u16 = 3;
/// `CTA_FILTER_ORIG_FLAGS`, `CTA_FILTER_REPLY_FLAGS`.
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// Which parts of a tuple are compared (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// What the kernel itself can sort out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Search {
    pub(super) ipv6: bool,
    /// From where the answers come.
    pub(super) towards: Option<Ipv4Addr>,
    /// The protocol of the first packet, and the port that it named.
    pub(super) protocol: Option<u8>,
    pub(super) port: Option<u16>,
}

impl Search {
    /// Body of the dump, where the kernel compares (Linux 5.8).
    pub(super) fn filtered(&self) -> Vec<u8> {
        let mut body = Writer(head(self.ipv6).to_vec());
        let (mut original, mut reply) = (0, 0);
        if let Some(ip) = self.towards {
            reply = BY_SOURCE;
            body.nest(TUPLE_REPLY, |tuple| {
                tuple.nest(TUPLE_IP, |part| put_source(part, ip.into()));
            });
        }
        if let Some(protocol) = self.protocol {
            original = BY_PROTOCOL;
            body.nest(TUPLE_ORIGINAL, |tuple| {
                tuple.nest(TUPLE_PROTO, |part| {
                    part.put(PROTO_NUMBER, &[protocol]);
                    if let Some(port) = self.port {
                        original |= BY_DESTINATION_PORT;
                        part.put(PROTO_DESTINATION_PORT, &port.to_be_bytes());
                    }
                });
            });
        }
        body.nest(FILTER, |filter| {
            for (kind, flags) in [(FILTER_ORIGINAL, original), (FILTER_REPLY, reply)] {
                if flags != 0 {
                    filter.put(kind, &flags.to_ne_bytes());
                }
            }
        });
        body.0
    }
}

/// A `struct nfgenmsg`.
pub(super) fn head(ipv6: bool) -> [u8; HEAD] {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    [family as u8, 0, 0, 0]
}

/// Asks for the connection whose answers go from `local` to `client`; none unless they are of one family.
pub(super) fn by_reply(
    protocol: Protocol,
    local: SocketAddr,
    client: SocketAddr,
) -> Option<Vec<u8>> {
    let (from, to) = (local.ip().to_canonical(), client.ip().to_canonical());
    if from.is_ipv6() != to.is_ipv6() {
        return None;
    }
    let mut body = Writer(head(from.is_ipv6()).to_vec());
    body.nest(TUPLE_REPLY, |tuple| {
        tuple.nest(TUPLE_IP, |part| {
            put_source(part, from);
            match to {
                IpAddr::V4(ip) => part.put(IP_V4_DESTINATION, &ip.octets()),
                IpAddr::V6(ip) => part.put(IP_V6_DESTINATION, &ip.octets()),
            };
        });
        tuple.nest(TUPLE_PROTO, |part| {
            part.put(PROTO_NUMBER, &[protocol.number()])
                .put(PROTO_SOURCE_PORT, &local.port().to_be_bytes())
                .put(PROTO_DESTINATION_PORT, &client.port().to_be_bytes());
        });
    });
    Some(body.0)
}

/// Asks to forget the connection that `shown` describes: that one and no later one of the same ends.
pub(super) fn deletion(ipv6: bool, shown: &[u8]) -> Vec<u8> {
    let mut body = Writer(head(ipv6).to_vec());
    let attributes = Attributes::after(shown, HEAD);
    if let Some(tuple) = attributes.find(TUPLE_ORIGINAL) {
        body.nest(TUPLE_ORIGINAL, |inner| inner.0.extend_from_slice(tuple));
    }
    for kind in [ID, ZONE] {
        if let Some(value) = attributes.find(kind) {
            body.put(kind, value);
        }
    }
    body.0
}

fn put_source(part: &mut Writer, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => part.put(IP_V4_SOURCE, &ip.octets()),
        IpAddr::V6(ip) => part.put(IP_V6_SOURCE, &ip.octets()),
    };
}
