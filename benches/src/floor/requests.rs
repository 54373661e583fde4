//! The requests of an attach, as few as the kernel allows.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::wire::{
    Attributes, Batch, CREATE, NEW_ADDRESS, NEW_LINK, NEW_NEIGHBOUR, NEW_ROUTE, PUT,
};

/// MTU in bytes of every link.
pub(crate) const MTU: u32 = 1500;
/// Group of the floor's ports, by which all are removed together.
pub(crate) const GROUP: u32 = 7_777;
/// Number by which the floor's addresses and routes name their maker.
const PROTOCOL: u8 = 0x54;
/// `IFF_UP`.
const UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

/// One end of a veth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) index: u32,
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
}

/// An address with its prefix length, and the gateway of its network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) network: IpAddr,
    pub(crate) gateway: IpAddr,
}

fn link_head(index: u32, flags: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&flags.to_ne_bytes());
    head
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// A bridge; kernel defaults unless `hub`.
pub(crate) fn bridge(batch: &mut Batch, end: End<'_>, hub: bool) {
    batch.push(NEW_LINK, CREATE, &link_head(end.index, 0), |a| {
        a.put_text(3, end.name).put(1, &end.mac);
        a.nest(18, &[], |info| {
            info.put_text(1, "bridge").nest(2, &[], |data| {
                data.put(23, &[u8::from(!hub)]);
            });
        });
    });
    if hub {
        no_link_local(batch, end.index, None);
    }
    up(batch, end.index);
}

/// A veth: this end on a bridge, the other in the namespace `netns`.
pub(crate) fn veth(batch: &mut Batch, outer: End<'_>, inner: End<'_>, bridge: u32, netns: RawFd) {
    batch.push(NEW_LINK, CREATE, &link_head(outer.index, 0), |a| {
        a.put_text(3, outer.name).put(1, &outer.mac);
        a.put_u32(4, MTU).put_u32(27, GROUP).put_u32(10, bridge);
        a.nest(18, &[], |info| {
            info.put_text(1, "veth").nest(2, &[], |data| {
                data.nest(1, &link_head(inner.index, 0), |peer| {
                    peer.put_text(3, inner.name).put(1, &inner.mac);
                    peer.put_u32(4, MTU).put(28, &netns.to_ne_bytes());
                });
            });
        });
    });
}

/// The flags of a hub's port, its mark, and up.
pub(crate) fn port(batch: &mut Batch, index: u32, alias: &str) {
    batch.push(NEW_LINK, 0, &link_head(index, UP), |a| {
        a.put_text(20, alias);
        a.nest(18, &[], |info| {
            info.put_text(4, "bridge").nest(5, &[], |flags| {
                // Hairpin, learning, the three floods, isolation.
                for (kind, value) in [(4, 0), (8, 1), (9, 0), (27, 0), (30, 0), (33, 1)] {
                    flags.put(kind, &[value]);
                }
            });
        });
    });
}

/// No link-local address, and a mark if one is given.
pub(crate) fn no_link_local(batch: &mut Batch, index: u32, alias: Option<&str>) {
    batch.push(NEW_LINK, 0, &link_head(index, 0), |a| {
        if let Some(alias) = alias {
            a.put_text(20, alias);
        }
        a.nest(26, &[], |families| {
            families.nest(u16::from(AF_INET6), &[], |inet6| {
                inet6.put(8, &[1]);
            });
        });
    });
}

/// Brings a link up.
pub(crate) fn up(batch: &mut Batch, index: u32) {
    batch.push(NEW_LINK, 0, &link_head(index, UP), |_| {});
}

/// Puts an address on a link, usable without duplicate address detection.
pub(crate) fn address(batch: &mut Batch, index: u32, address: &Address, prefix_route: bool) {
    let [a, b, c, d] = index.to_ne_bytes();
    let head = [family(address.ip), address.prefix, 0, 0, a, b, c, d];
    // IFA_F_NODAD | IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE.
    let flags = 0x82 | if prefix_route { 0 } else { 0x200 };
    batch.push(NEW_ADDRESS, CREATE, &head, |a| {
        a.put_ip(2, address.ip).put_ip(1, address.ip);
        a.put_u32(8, flags).put(11, &[PROTOCOL]);
    });
}

/// A route; the gateway is taken to be on the link.
pub(crate) fn route(batch: &mut Batch, index: u32, to: &Address, default: bool) {
    let prefix = if default { 0 } else { to.prefix };
    let mut head = [family(to.ip), prefix, 0, 0, 254, PROTOCOL, 0, 1, 0, 0, 0, 0];
    // RTNH_F_ONLINK.
    head[8..12].copy_from_slice(&4_u32.to_ne_bytes());
    batch.push(NEW_ROUTE, CREATE, &head, |a| {
        if !default {
            a.put_ip(1, to.network);
        }
        a.put_u32(4, index).put_ip(5, to.gateway);
        if to.ip.is_ipv6() {
            a.put_u32(6, 1_024);
        }
    });
}

/// A permanent neighbour.
pub(crate) fn neighbour(batch: &mut Batch, index: u32, ip: IpAddr, mac: [u8; 6]) {
    // NUD_PERMANENT.
    let head = neighbour_head(family(ip), index, 0x80, 0);
    batch.push(NEW_NEIGHBOUR, PUT, &head, |a: &mut Attributes<'_>| {
        a.put_ip(1, ip).put(2, &mac).put(12, &[PROTOCOL]);
    });
}

/// A static forwarding entry of the bridge that the port is on.
pub(crate) fn forward(batch: &mut Batch, port: u32, mac: [u8; 6]) {
    // NUD_NOARP, NTF_MASTER | NTF_STICKY.
    let head = neighbour_head(AF_BRIDGE, port, 0x40, 0x44);
    batch.push(NEW_NEIGHBOUR, PUT, &head, |a| {
        a.put(2, &mac);
    });
}

fn neighbour_head(family: u8, index: u32, state: u8, flags: u8) -> [u8; 12] {
    let [a, b, c, d] = index.to_ne_bytes();
    let [low, high] = u16::from(state).to_ne_bytes();
    [family, 0, 0, 0, a, b, c, d, low, high, flags, 1]
}

/// Removes all ports of the floor.
pub(crate) fn remove_group(batch: &mut Batch) {
    batch.push(super::wire::DELETE_LINK, 0, &link_head(0, 0), |a| {
        a.put_u32(27, GROUP);
    });
}
