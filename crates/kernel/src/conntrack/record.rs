//! What is read of a tracked connection.

use std::net::SocketAddr;

use super::request::{
    HEAD, IP_V4_DESTINATION, IP_V4_SOURCE, IP_V6_DESTINATION, IP_V6_SOURCE, PROTO_DESTINATION_PORT,
    PROTO_NUMBER, PROTO_SOURCE_PORT, TUPLE_IP, TUPLE_ORIGINAL, TUPLE_PROTO, TUPLE_REPLY,
};
use crate::netlink::attribute::{Attributes, read_be32, read_ip};

/// `CTA_STATS_GLOBAL_ENTRIES`.
const GLOBAL_ENTRIES: u16 = 1;

/// A connection as its first packet began it, and as the answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) protocol: u8,
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
}

/// The two ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Record {
    /// Reads the body of an `IPCTNL_MSG_CT_NEW`; none for a connection of a protocol without ports.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, HEAD);
        let (protocol, original) = read_tuple(attributes.find(TUPLE_ORIGINAL)?)?;
        let (_, reply) = read_tuple(attributes.find(TUPLE_REPLY)?)?;
        Some(Self {
            protocol,
            original,
            reply,
        })
    }
}

fn read_tuple(value: &[u8]) -> Option<(u8, Tuple)> {
    let parts = Attributes::of(value);
    let addresses = Attributes::of(parts.find(TUPLE_IP)?);
    let proto = Attributes::of(parts.find(TUPLE_PROTO)?);
    let end = |v4, v6, port| {
        let ip = addresses.find(v4).or_else(|| addresses.find(v6))?;
        let port = u16::from_be_bytes(*proto.find(port)?.first_chunk()?);
        Some(SocketAddr::new(read_ip(ip)?, port))
    };
    let tuple = Tuple {
        source: end(IP_V4_SOURCE, IP_V6_SOURCE, PROTO_SOURCE_PORT)?,
        destination: end(IP_V4_DESTINATION, IP_V6_DESTINATION, PROTO_DESTINATION_PORT)?,
    };
    Some((*proto.find(PROTO_NUMBER)?.first()?, tuple))
}

/// Reads the body of an answer to `IPCTNL_MSG_CT_GET_STATS`.
pub(super) fn read_entries(body: &[u8]) -> Option<u32> {
    Attributes::after(body, HEAD)
        .find(GLOBAL_ENTRIES)
        .and_then(read_be32)
}
