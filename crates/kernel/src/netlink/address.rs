//! Addresses: what is sent and what is read (rtnetlink(7), linux/if_addr.h).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope,
};
use tombolo_netstate::object::address::AddressSpec;
use tombolo_netstate::object::route::PROTOCOL;

use super::attribute::{Attributes, read_ip, read_u32};
use super::{Batch, ReadBuffer, Socket};

pub(crate) const NEW: u16 = 20;
pub(crate) const DELETE: u16 = 21;
const GET: u16 = 22;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// `NLM_F_REPLACE`.
const REPLACE: u16 = 0x100;
/// Bytes of `struct ifaddrmsg`.
const HEAD: usize = 8;
const F_NODAD: u32 = 0x02;
const F_TENTATIVE: u32 = 0x40;
const F_PERMANENT: u32 = 0x80;
const F_NOPREFIXROUTE: u32 = 0x200;

fn message(index: u32, ip: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Puts an address on a link, or changes its flags when `replace`.
pub(crate) fn set(batch: &mut Batch, index: u32, ip: IpAddr, spec: &AddressSpec, replace: bool) {
    let mut message = message(index, ip, spec.prefix_len);
    let mut flags = AddressFlags::Nodad | AddressFlags::Permanent;
    if !spec.prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    message
        .attributes
        .push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    if let Some(broadcast) = broadcast(ip, spec) {
        message
            .attributes
            .push(AddressAttribute::Broadcast(broadcast));
    }
    batch.push(NEW, if replace { REPLACE } else { CREATE }, &message);
}

/// The broadcast address of the subnet, where the link is on a subnet that has one.
fn broadcast(ip: IpAddr, spec: &AddressSpec) -> Option<Ipv4Addr> {
    let IpAddr::V4(ip) = ip else { return None };
    let net = Ipv4Net::new(ip, spec.prefix_len).ok()?;
    (spec.prefix_route && spec.prefix_len < 31).then(|| net.broadcast())
}

/// Takes an address off a link.
pub(crate) fn delete(batch: &mut Batch, index: u32, ip: IpAddr, prefix_len: u8) {
    batch.push(DELETE, 0, &message(index, ip, prefix_len));
}

/// What is read of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressRecord {
    pub(crate) index: u32,
    pub(crate) ip: IpAddr,
    pub(crate) prefix_len: u8,
    pub(crate) link_scope: bool,
    pub(crate) protocol: Option<u8>,
    flags: u32,
}

impl AddressRecord {
    /// Reads the body of an `RTM_NEWADDR` or `RTM_DELADDR`.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(body, HEAD);
        let local = attributes.find(2).or_else(|| attributes.find(1))?;
        Some(Self {
            index: read_u32(body.get(4..)?)?,
            ip: read_ip(local)?,
            prefix_len: *body.get(1)?,
            link_scope: body.get(3) == Some(&libc::RT_SCOPE_LINK),
            protocol: attributes.find(11).and_then(|value| value.first().copied()),
            flags: match attributes.find(8) {
                Some(value) => read_u32(value)?,
                None => u32::from(*body.get(2)?),
            },
        })
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.flags & F_TENTATIVE == 0
    }

    pub(crate) fn has_prefix_route(&self) -> bool {
        self.flags & F_NOPREFIXROUTE == 0
    }

    /// Whether it looks like one of ours, on a kernel that keeps no protocol of addresses.
    pub(crate) fn is_assigned(&self) -> bool {
        let flags = F_NODAD | F_PERMANENT;
        let wanted = if self.ip.is_ipv4() {
            F_PERMANENT
        } else {
            flags
        };
        self.flags & wanted == wanted && !self.link_scope
    }
}

/// All addresses of the socket's namespace.
pub(crate) fn dump(socket: &Socket, buffer: &mut ReadBuffer) -> io::Result<Vec<AddressRecord>> {
    let mut addresses = Vec::new();
    socket.dump(GET, &[0; HEAD], buffer, |message| match message {
        None => addresses.clear(),
        Some(message) => addresses.extend(AddressRecord::read(message.body)),
    })?;
    Ok(addresses)
}
