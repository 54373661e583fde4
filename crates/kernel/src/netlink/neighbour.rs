//! Neighbour entries: what is sent and what is read (rtnetlink(7), linux/neighbour.h).

use std::io;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use tombolo_netstate::Mac;
use tombolo_netstate::object::route::PROTOCOL;

use super::address::family;
use super::attribute::{Attributes, read_ip, read_mac, read_u16, read_u32};
use super::{Batch, ReadBuffer, Socket};

pub(crate) const NEW: u16 = 28;
pub(crate) const DELETE: u16 = 29;
pub(crate) const GET: u16 = 30;
/// `NLM_F_CREATE | NLM_F_REPLACE`: what the kernel has learnt of the neighbour gives way.
pub(crate) const PUT: u16 = 0x500;
/// Bytes of `struct ndmsg`.
pub(crate) const HEAD: usize = 12;
const NUD_PERMANENT: u16 = 0x80;

fn message(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.kind = RouteType::Unicast;
    let destination = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

/// Makes or changes a permanent entry.
pub(crate) fn set(batch: &mut Batch, index: u32, ip: IpAddr, mac: Mac) {
    let mut message = message(index, ip);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
        .attributes
        .push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    batch.push(NEW, PUT, &message);
}

/// Removes an entry.
pub(crate) fn delete(batch: &mut Batch, index: u32, ip: IpAddr) {
    batch.push(DELETE, 0, &message(index, ip));
}

/// What is read of a permanent entry of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeighbourRecord {
    pub(crate) index: u32,
    pub(crate) ip: IpAddr,
    pub(crate) mac: Mac,
}

/// Link and address of an entry of ours, from the body of an `RTM_DELNEIGH`: by then the kernel has taken its
/// state and hardware address away.
pub(crate) fn read_removed(body: &[u8]) -> Option<(u32, IpAddr)> {
    let attributes = Attributes::after(body, HEAD);
    let ours = attributes.find(12).and_then(<[u8]>::first) == Some(&PROTOCOL);
    let ip = attributes.find(1).and_then(read_ip).filter(|_| ours)?;
    Some((read_u32(body.get(4..)?)?, ip))
}

impl NeighbourRecord {
    /// Reads the body of an `RTM_NEWNEIGH`; none when the entry is not ours.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, HEAD);
        let ours = attributes.find(12).and_then(<[u8]>::first) == Some(&PROTOCOL);
        let permanent = read_u16(body.get(8..)?)? & NUD_PERMANENT != 0;
        if !ours || !permanent {
            return None;
        }
        Some(Self {
            index: read_u32(body.get(4..)?)?,
            ip: read_ip(attributes.find(1)?)?,
            mac: read_mac(attributes.find(2)?)?,
        })
    }
}

/// All permanent entries of ours in the socket's namespace.
pub(crate) fn dump(socket: &Socket, buffer: &mut ReadBuffer) -> io::Result<Vec<NeighbourRecord>> {
    let mut entries = Vec::new();
    socket.dump(GET, &[0; HEAD], buffer, |message| match message {
        None => entries.clear(),
        Some(message) => entries.extend(NeighbourRecord::read(message.body)),
    })?;
    Ok(entries)
}
