//! Links: what is sent to make, set up and remove them (rtnetlink(7), linux/if_link.h). What is read of them is
//! in `record`.

mod record;

use std::os::fd::RawFd;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use tombolo_netstate::object::link::{LinkKind, LinkSpec, Port};
use tombolo_netstate::{IfName, Mac};

use super::attribute::Writer;
use super::batch::{Pardon, Refusal};
use super::{Batch, ReadBuffer, Socket};
use crate::limits::{GROUP_GRAVEYARD, GROUP_NURSERY};

pub(crate) use record::{Kind, LinkRecord, dump, get_by_index, get_by_name};

pub(crate) const NEW: u16 = 16;
pub(crate) const DELETE: u16 = 17;
const SET: u16 = 19;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// Bytes of `struct ifinfomsg`.
const HEAD: usize = 16;
/// `IFLA_PROTINFO`, and in it `IFLA_BRPORT_STATE` of value `BR_STATE_DISABLED` (linux/if_bridge.h).
const PROTOCOL_INFO: u16 = 12;
const PORT_STATE: u16 = 1;
const STATE_DISABLED: u8 = 0;
/// `IFLA_INET_CONF`: the settings of IPv4 on a link.
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_ROUTE_LOCALNET` (linux/ip.h).
const ROUTE_LOCALNET: u16 = 26;
/// Least MTU of a link with IPv6 (RFC 8200 section 5); below it the kernel takes IPv6 off the link.
pub(crate) const IPV6_MTU_MIN: u32 = 1280;

/// The other end of a veth at birth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Twin {
    pub(crate) index: u32,
    pub(crate) name: IfName,
    /// None leaves it to the kernel.
    pub(crate) mac: Option<Mac>,
    /// Its namespace; none for the one that the message is sent in.
    pub(crate) netns: Option<RawFd>,
}

/// What a link bears for all of its life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) index: u32,
    pub(crate) spec: &'a LinkSpec,
    /// The whole `ifalias`.
    pub(crate) alias: &'a str,
    /// Whether the kernel has IPv6.
    pub(crate) ipv6: bool,
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

/// Makes a bridge. It begins with another MTU than it will have: only a change marks the MTU as set by the
/// user, without which the bridge follows its ports (net/bridge/br_if.c, `br_mtu_auto_adjust`).
pub(crate) fn create_bridge(
    batch: &mut Batch,
    index: u32,
    name: IfName,
    spec: &LinkSpec,
    snooping: bool,
) {
    let data = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(snooping)]);
    let other_mtu = if spec.mtu > IPV6_MTU_MIN {
        spec.mtu - 1
    } else {
        spec.mtu + 1
    };
    let attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(spec.mac.0.to_vec()),
        LinkAttribute::Mtu(other_mtu),
        LinkAttribute::Group(GROUP_NURSERY),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]),
    ];
    batch.push(NEW, CREATE, &message(index, attributes));
}

/// Makes both ends of a veth, each in its place and under its final name.
pub(crate) fn create_veth(
    batch: &mut Batch,
    index: u32,
    name: IfName,
    spec: &LinkSpec,
    master: Option<u32>,
    twin: &Twin,
) {
    let mut born = vec![
        LinkAttribute::IfName(twin.name.to_string()),
        LinkAttribute::Mtu(spec.mtu),
    ];
    born.extend(twin.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    match twin.netns {
        Some(fd) => born.push(LinkAttribute::NetNsFd(fd)),
        None => born.push(LinkAttribute::Group(GROUP_NURSERY)),
    }
    let data = InfoData::Veth(InfoVeth::Peer(message(twin.index, born)));
    let mut attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(spec.mac.0.to_vec()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::Group(GROUP_NURSERY),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]),
    ];
    if let Some(master) = master {
        attributes.push(LinkAttribute::Controller(master));
    }
    batch.push(NEW, CREATE, &message(index, attributes));
}

/// Gives a link its mark, settings and port flags, and brings it up; leaves the nursery. Up comes in a message
/// of its own: together with the address generation mode the kernel would make a link-local address first.
pub(crate) fn set_up(batch: &mut Batch, setup: &Setup<'_>) {
    let spec = setup.spec;
    let mut attributes = vec![
        LinkAttribute::IfAlias(setup.alias.to_owned()),
        LinkAttribute::Group(0),
        LinkAttribute::Mtu(spec.mtu),
    ];
    let settings = family_settings(setup);
    if !settings.is_empty() {
        attributes.push(LinkAttribute::AfSpecUnspec(settings));
    }
    let mut info = Vec::new();
    if let LinkKind::Bridge { snooping, .. } = spec.kind {
        info.push(LinkInfo::Kind(InfoKind::Bridge));
        info.push(LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::MulticastSnooping(snooping),
        ])));
    }
    if let Some(port) = &spec.port {
        info.push(LinkInfo::PortKind(InfoPortKind::Bridge));
        info.push(LinkInfo::PortData(InfoPortData::BridgePort(port_flags(
            port,
        ))));
    }
    if !info.is_empty() {
        attributes.push(LinkAttribute::LinkInfo(info));
    }
    batch.push(NEW, 0, &message(setup.index, attributes));
    let mut up = message(setup.index, Vec::new());
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    batch.push(SET, 0, &up);
}

/// What is set of IPv4 and IPv6 on a link.
fn family_settings(setup: &Setup<'_>) -> Vec<AfSpecUnspec> {
    let mut settings = Vec::new();
    if let LinkKind::Bridge { localnet, .. } = setup.spec.kind {
        let mut inet = Writer::default();
        inet.nest(INET_CONF, |conf| {
            conf.put(ROUTE_LOCALNET, &u32::from(localnet).to_ne_bytes());
        });
        let inet = DefaultNla::new(libc::AF_INET as u16, inet.0);
        settings.push(AfSpecUnspec::Other(inet));
    }
    if setup.ipv6 && setup.spec.mtu >= IPV6_MTU_MIN {
        settings.push(generation(setup.spec.link_local));
    }
    settings
}

fn generation(link_local: bool) -> AfSpecUnspec {
    let mode = if link_local {
        In6AddrGenMode::Eui64
    } else {
        In6AddrGenMode::None
    };
    AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])
}

/// Learning stays on: ports that neither learn nor flood are taken out of promiscuous mode, at a cost that
/// grows with the bridge.
fn port_flags(port: &Port) -> Vec<InfoBridgePort> {
    vec![
        InfoBridgePort::HairpinMode(port.hairpin),
        InfoBridgePort::Learning(true),
        InfoBridgePort::UnicastFlood(port.flood),
        InfoBridgePort::MulticastFlood(port.flood),
        InfoBridgePort::BroadcastFlood(port.flood),
        InfoBridgePort::NeighSupress(false),
        InfoBridgePort::Isolated(port.isolated),
    ]
}

/// Changes the hardware address.
pub(crate) fn set_mac(batch: &mut Batch, index: u32, mac: Mac) {
    batch.push(
        SET,
        0,
        &message(index, vec![LinkAttribute::Address(mac.0.to_vec())]),
    );
}

/// Marks the end of a veth that an engine takes, which leaves the nursery; everything else is the engine's.
pub(crate) fn lend(batch: &mut Batch, index: u32, alias: &str) {
    let attributes = vec![
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::Group(0),
    ];
    batch.push(SET, 0, &message(index, attributes));
}

/// Where a link goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move<'a> {
    /// The namespace.
    pub(crate) netns: RawFd,
    /// Its name there.
    pub(crate) name: IfName,
    /// None leaves it as it is.
    pub(crate) mac: Option<Mac>,
    /// The same.
    pub(crate) alias: Option<&'a str>,
}

/// Moves a link that is down to another namespace. Where its present name is taken there, it arrives under the new one.
pub(crate) fn relocate(batch: &mut Batch, index: u32, to: &Move<'_>) {
    let mut attributes = vec![
        LinkAttribute::NetNsFd(to.netns),
        LinkAttribute::IfName(to.name.to_string()),
    ];
    attributes.extend(to.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(to.alias.map(|text| LinkAttribute::IfAlias(text.to_owned())));
    batch.push(SET, 0, &message(index, attributes));
}

/// Takes a link down.
pub(crate) fn down(batch: &mut Batch, index: u32) {
    let mut down = message(index, Vec::new());
    down.header.change_mask = LinkFlags::Up;
    batch.push(SET, 0, &down);
}

/// The same, and marks it.
pub(crate) fn mark_down(batch: &mut Batch, index: u32, alias: &str) {
    let alias = LinkAttribute::IfAlias(alias.to_owned());
    batch.push(SET, 0, &message(index, vec![alias]));
    down(batch, index);
}

/// Takes the mark off.
pub(crate) fn unmark(batch: &mut Batch, index: u32) {
    let alias = LinkAttribute::IfAlias(String::new());
    batch.push(SET, 0, &message(index, vec![alias]));
}

/// Renames a link that is down.
pub(crate) fn rename(batch: &mut Batch, index: u32, name: IfName) {
    let name = LinkAttribute::IfName(name.to_string());
    batch.push(SET, 0, &message(index, vec![name]));
}

/// Marks a link that is not ours and brings it up; says whether the kernel makes a link-local address, where it has
/// IPv6.
pub(crate) fn set_up_taken(batch: &mut Batch, index: u32, alias: &str, link_local: Option<bool>) {
    batch.push(
        SET,
        0,
        &message(index, vec![LinkAttribute::IfAlias(alias.to_owned())]),
    );
    if let Some(link_local) = link_local {
        let settings = vec![generation(link_local)];
        batch.push(
            SET,
            0,
            &message(index, vec![LinkAttribute::AfSpecUnspec(settings)]),
        );
    }
    let mut up = message(index, Vec::new());
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    batch.push(SET, 0, &up);
}

/// Attaches a link to a bridge, or takes it off with 0.
pub(crate) fn set_master(batch: &mut Batch, index: u32, master: u32) {
    batch.push(
        SET,
        0,
        &message(index, vec![LinkAttribute::Controller(master)]),
    );
}

/// Puts a link among those that one message will remove.
pub(crate) fn bury(batch: &mut Batch, index: u32) {
    batch.push(
        SET,
        0,
        &message(index, vec![LinkAttribute::Group(GROUP_GRAVEYARD)]),
    );
}

/// The same, and no frame passes the port any more. That takes a message of its own, in the language of
/// bridges: the other one ends with a notice of change, upon which the bridge opens a port that is shut
/// (net/bridge/br_if.c, `br_port_carrier_check`).
pub(crate) fn close(batch: &mut Batch, index: u32) -> Pardon {
    bury(batch, index);
    let mut body = Writer(vec![0; HEAD]);
    body.0[0] = libc::AF_BRIDGE as u8;
    body.0[4..8].copy_from_slice(&index.to_ne_bytes());
    body.nest(PROTOCOL_INFO, |port| {
        port.put(PORT_STATE, &[STATE_DISABLED]);
    });
    let place = batch.push_bytes(SET, 0, &body.0);
    // A port that is down, or that has left its bridge, passes nothing anyway.
    let errors = &[libc::ENETDOWN, libc::EOPNOTSUPP];
    Pardon { place, errors }
}

/// Removes one link.
pub(crate) fn delete(batch: &mut Batch, index: u32) {
    batch.push(DELETE, 0, &message(index, Vec::new()));
}

/// Removes all links of a group at the price of one.
pub(crate) fn delete_group(batch: &mut Batch, group: u32) {
    batch.push(DELETE, 0, &message(0, vec![LinkAttribute::Group(group)]));
}

/// Brings the loopback interface of the socket's namespace up; its number is 1 in every namespace.
pub(crate) fn loopback_up(socket: &Socket, buffer: &mut ReadBuffer) -> Result<(), Refusal> {
    let mut up = message(1, Vec::new());
    up.header.interface_family = AddressFamily::Unspec;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    socket.request(SET, 0, &up, buffer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::netlink::attribute::{Attributes, read_text, read_u32};
    use crate::netlink::batch::messages;

    fn spec(kind: LinkKind, port: Option<Port>) -> LinkSpec {
        LinkSpec {
            kind,
            mac: Mac([2, 0, 0, 0, 0, 7]),
            mtu: 1450,
            port,
            ipv6: false,
            link_local: false,
            alias: Arc::from("x"),
        }
    }

    fn bridge(localnet: bool) -> LinkKind {
        LinkKind::Bridge {
            snooping: false,
            localnet,
        }
    }

    #[test]
    fn loopback_addresses_are_allowed_or_not_in_the_message_of_the_settings() {
        for wanted in [false, true] {
            let spec = spec(bridge(wanted), None);
            let mut batch = Batch::default();
            let setup = Setup {
                index: 5,
                spec: &spec,
                alias: "x",
                ipv6: false,
            };
            set_up(&mut batch, &setup);
            let body = &messages(&batch)[0].2;
            let families = Attributes::of(Attributes::after(body, HEAD).find(26).unwrap());
            assert_eq!(families.find(libc::AF_INET6 as u16), None);
            let inet = Attributes::of(families.find(libc::AF_INET as u16).unwrap());
            let conf = Attributes::of(inet.find(INET_CONF).unwrap());
            let value = conf.find(ROUTE_LOCALNET).and_then(read_u32);
            assert_eq!(value, Some(u32::from(wanted)));
        }
    }

    #[test]
    fn a_veth_is_born_whole_in_one_message() {
        let name = IfName::new("tv1").unwrap();
        let spec = spec(bridge(false), None);
        let twin = Twin {
            index: 65537,
            name: IfName::new("eth0").unwrap(),
            mac: Some(Mac([2, 0, 0, 0, 0, 8])),
            netns: Some(9),
        };
        let mut batch = Batch::default();
        create_veth(&mut batch, 65536, name, &spec, Some(3), &twin);
        let sent = messages(&batch);
        assert_eq!(sent.len(), 1);
        let (kind, flags, body) = &sent[0];
        assert_eq!((*kind, *flags & CREATE), (NEW, CREATE));
        let read = LinkRecord::read(body).unwrap();
        assert_eq!((read.index, read.name, read.mtu), (65536, name, 1450));
        assert_eq!((read.mac, read.master), (Some(spec.mac), Some(3)));
        assert_eq!((read.group, read.kind), (GROUP_NURSERY, Kind::Veth));
        let data = Attributes::after(body, HEAD).find(18).unwrap();
        let peer = Attributes::of(Attributes::of(data).find(2).unwrap())
            .find(1)
            .unwrap();
        let other = LinkRecord::read(peer).unwrap();
        assert_eq!(
            (other.index, other.name, other.mac),
            (65537, twin.name, twin.mac)
        );
        let netns = Attributes::after(peer, HEAD).find(28).and_then(read_u32);
        assert_eq!(netns, Some(9));
    }

    #[test]
    fn the_link_comes_up_in_a_message_after_that_of_its_settings() {
        let port = Port {
            bridge: IfName::new("tb0").unwrap(),
            isolated: true,
            flood: false,
            hairpin: false,
            direct: None,
        };
        let spec = spec(bridge(false), Some(port));
        let mut batch = Batch::default();
        set_up(
            &mut batch,
            &Setup {
                index: 5,
                spec: &spec,
                alias: "tombolo:t:x",
                ipv6: true,
            },
        );
        let sent = messages(&batch);
        assert_eq!(sent.len(), 2);
        let up = |body: &[u8]| read_u32(&body[8..]).unwrap() & read_u32(&body[12..]).unwrap() & 1;
        assert_eq!((up(&sent[0].2), up(&sent[1].2)), (0, 1));
        let settings = Attributes::after(&sent[0].2, HEAD);
        assert_eq!(settings.find(20).and_then(read_text), Some("tombolo:t:x"));
        assert_eq!(
            settings.find(27).and_then(read_u32),
            Some(0),
            "leaves the nursery"
        );
        let flags = Attributes::of(Attributes::of(settings.find(18).unwrap()).find(5).unwrap());
        for (flag, value) in [(33, 1), (9, 0), (27, 0), (30, 0), (8, 1), (32, 0)] {
            assert_eq!(flags.find(flag), Some(&[value][..]), "flag {flag}");
        }
    }
}
