//! Static entries of bridges' forwarding databases: what is sent and what is read (bridge(8),
//! linux/neighbour.h).

use std::io;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use tombolo_netstate::Mac;

use super::attribute::{Attributes, read_mac, read_u16, read_u32};
use super::neighbour::{DELETE, GET, HEAD, NEW, PUT};
use super::{Batch, ReadBuffer, Socket};

const NUD_NOARP: u16 = 0x40;
/// `NTF_STICKY`.
const STICKY: u8 = 0x40;

fn message(port: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

/// Makes or moves an entry of the bridge that `port` is attached to. The kernel makes a new entry first and sticky
/// thereafter: a frame that comes through another port in between moves it there, where it would stay. The second
/// request moves it back when nothing can move it any more, and changes nothing else.
pub(crate) fn set(batch: &mut Batch, port: u32, mac: Mac) {
    let mut message = message(port, mac);
    message.header.state = NeighbourState::Noarp;
    message.header.flags |= NeighbourFlags::Sticky;
    batch.push(NEW, PUT, &message);
    batch.push(NEW, PUT, &message);
}

/// Removes an entry.
pub(crate) fn delete(batch: &mut Batch, port: u32, mac: Mac) {
    batch.push(DELETE, 0, &message(port, mac));
}

/// What is read of a static entry of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FdbRecord {
    pub(crate) port: u32,
    pub(crate) bridge: u32,
    pub(crate) mac: Mac,
}

impl FdbRecord {
    /// Reads the body of an `RTM_NEWNEIGH` or `RTM_DELNEIGH`; none when the entry is not static and sticky,
    /// as nobody else's are.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, HEAD);
        let bridge_family = *body.first()? == libc::AF_BRIDGE as u8;
        let fixed = read_u16(body.get(8..)?)? & NUD_NOARP != 0;
        let sticky = body.get(10)? & STICKY != 0;
        if !bridge_family || !fixed || !sticky {
            return None;
        }
        Some(Self {
            port: read_u32(body.get(4..)?)?,
            bridge: read_u32(attributes.find(9)?)?,
            mac: read_mac(attributes.find(2)?)?,
        })
    }
}

/// All static and sticky entries of the socket's namespace.
pub(crate) fn dump(socket: &Socket, buffer: &mut ReadBuffer) -> io::Result<Vec<FdbRecord>> {
    let mut body = [0; HEAD];
    body[0] = libc::AF_BRIDGE as u8;
    let mut entries = Vec::new();
    socket.dump(GET, &body, buffer, |message| match message {
        None => entries.clear(),
        Some(message) => entries.extend(FdbRecord::read(message.body)),
    })?;
    Ok(entries)
}
