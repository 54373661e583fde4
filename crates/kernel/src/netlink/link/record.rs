//! What is read of links.

use std::io;

use tombolo_netstate::{IfName, Mac};

use super::{HEAD, INET_CONF, NEW, ROUTE_LOCALNET};
use crate::netlink::attribute::{Attributes, Writer, read_mac, read_text, read_u32};
use crate::netlink::{Batch, ReadBuffer, Socket};

const GET: u16 = 18;
/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATS: u32 = 8;

/// What is read of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkRecord {
    pub(crate) index: u32,
    pub(crate) name: IfName,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) group: u32,
    pub(crate) alias: Option<String>,
    /// Number of the other end.
    pub(crate) link: Option<u32>,
    /// Whether that is in another namespace.
    pub(crate) link_elsewhere: bool,
    pub(crate) master: Option<u32>,
    pub(crate) kind: Kind,
    pub(crate) port: Option<PortRecord>,
    pub(crate) ipv6: Option<Ipv6Record>,
    /// Loopback addresses may be routed over it.
    pub(crate) localnet: bool,
}

/// The kinds that concern us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bridge {
        snooping: bool,
    },
    Veth,
    /// A tun or tap, as virtual machines have.
    Tun,
    Other,
}

/// The flags of a bridge's port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortRecord {
    /// Frames pass (`BR_STATE_FORWARDING`).
    pub(crate) forwarding: bool,
    pub(crate) isolated: bool,
    pub(crate) hairpin: bool,
    pub(crate) unicast: bool,
    pub(crate) multicast: bool,
    pub(crate) broadcast: bool,
}

/// The settings of IPv6 on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ipv6Record {
    pub(crate) disabled: bool,
    pub(crate) link_local: bool,
}

impl LinkRecord {
    /// Reads the body of an `RTM_NEWLINK` or `RTM_DELLINK`; none for a message of another family, such as
    /// those about bridge ports, or without what every link has.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        if *body.first()? != libc::AF_UNSPEC as u8 {
            return None;
        }
        let flags = read_u32(body.get(8..)?)?;
        let mut record = Self {
            index: read_u32(body.get(4..)?)?,
            name: IfName::new(read_text(Attributes::after(body, HEAD).find(3)?)?).ok()?,
            up: flags & libc::IFF_UP as u32 != 0,
            loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
            mac: None,
            mtu: 0,
            group: 0,
            alias: None,
            link: None,
            link_elsewhere: false,
            master: None,
            kind: Kind::Other,
            port: None,
            ipv6: None,
            localnet: false,
        };
        for (kind, value) in Attributes::after(body, HEAD) {
            record.attribute(kind, value);
        }
        Some(record)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        match kind {
            1 => self.mac = read_mac(value),
            4 => self.mtu = read_u32(value).unwrap_or(0),
            5 => self.link = read_u32(value),
            10 => self.master = read_u32(value),
            18 => self.info(value),
            20 => self.alias = read_text(value).map(str::to_owned),
            26 => {
                let families = Attributes::of(value);
                self.ipv6 = families.find(libc::AF_INET6 as u16).and_then(read_ipv6);
                self.localnet = families
                    .find(libc::AF_INET as u16)
                    .and_then(read_localnet)
                    .unwrap_or(false);
            }
            27 => self.group = read_u32(value).unwrap_or(0),
            37 => self.link_elsewhere = true,
            _ => {}
        }
    }

    fn info(&mut self, value: &[u8]) {
        /// `BR_STATE_FORWARDING` (linux/if_bridge.h).
        const FORWARDING: u8 = 3;
        let info = Attributes::of(value);
        let flag = |data: &[u8], kind| {
            Attributes::of(data)
                .find(kind)
                .and_then(<[u8]>::first)
                .is_some_and(|byte| *byte != 0)
        };
        self.kind = match info.find(1).and_then(read_text) {
            Some("bridge") => Kind::Bridge {
                snooping: info.find(2).is_some_and(|data| flag(data, 23)),
            },
            Some("veth") => Kind::Veth,
            Some("tun") => Kind::Tun,
            _ => Kind::Other,
        };
        if info.find(4).and_then(read_text) == Some("bridge") {
            let state = |data| Attributes::of(data).find(1).and_then(<[u8]>::first);
            self.port = info.find(5).map(|data| PortRecord {
                forwarding: state(data) == Some(&FORWARDING),
                isolated: flag(data, 33),
                hairpin: flag(data, 4),
                unicast: flag(data, 9),
                multicast: flag(data, 27),
                broadcast: flag(data, 30),
            });
        }
    }

    /// The text after our mark, if the link bears it.
    pub(crate) fn owned_alias(&self, mark: &str) -> Option<&str> {
        self.alias.as_deref()?.strip_prefix(mark)
    }
}

/// The settings are shown as an array that begins with the first of them, whose number is 1.
fn read_localnet(value: &[u8]) -> Option<bool> {
    let settings = Attributes::of(value).find(INET_CONF)?;
    let at = (usize::from(ROUTE_LOCALNET) - 1) * 4;
    Some(settings.get(at..).and_then(read_u32)? != 0)
}

fn read_ipv6(value: &[u8]) -> Option<Ipv6Record> {
    /// `DEVCONF_DISABLE_IPV6` (linux/ipv6.h).
    const DISABLE_IPV6: usize = 26;
    /// `IN6_ADDR_GEN_MODE_NONE`.
    const NONE: u8 = 1;
    let settings = Attributes::of(value);
    let disabled = settings
        .find(2)?
        .get(DISABLE_IPV6 * 4..)
        .and_then(read_u32)?;
    Some(Ipv6Record {
        disabled: disabled != 0,
        link_local: settings.find(8).and_then(<[u8]>::first) != Some(&NONE),
    })
}

/// Body of a request for links, without their counters.
fn get_body(index: u32) -> Vec<u8> {
    let mut body = Writer(vec![0; HEAD]);
    body.0[4..8].copy_from_slice(&index.to_ne_bytes());
    body.put(29, &SKIP_STATS.to_ne_bytes());
    body.0
}

/// All links of the socket's namespace.
pub(crate) fn dump(socket: &Socket, buffer: &mut ReadBuffer) -> io::Result<Vec<LinkRecord>> {
    let mut links = Vec::new();
    socket.dump(GET, &get_body(0), buffer, |message| match message {
        None => links.clear(),
        Some(message) => links.extend(LinkRecord::read(message.body)),
    })?;
    Ok(links)
}

/// One link by its name; none when there is none.
pub(crate) fn get_by_name(
    socket: &Socket,
    name: IfName,
    buffer: &mut ReadBuffer,
) -> Option<LinkRecord> {
    let mut body = Writer(get_body(0));
    body.put_text(3, name.as_str());
    get(socket, &body.0, buffer)
}

/// One link by its number; none when there is none.
pub(crate) fn get_by_index(
    socket: &Socket,
    index: u32,
    buffer: &mut ReadBuffer,
) -> Option<LinkRecord> {
    get(socket, &get_body(index), buffer)
}

fn get(socket: &Socket, body: &[u8], buffer: &mut ReadBuffer) -> Option<LinkRecord> {
    let mut found = None;
    let mut batch = Batch::default();
    batch.push_bytes(GET, 0, body);
    batch.run_seeing(socket, buffer, &mut |message| {
        if message.kind == NEW {
            found = LinkRecord::read(message.body);
        }
    });
    found
}
