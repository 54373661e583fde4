//! Network interfaces (rtnetlink(7), linux/if_link.h).
//!
//! Mark: `ifalias` begins with `tombolo:` and the instance; the other end of a veth dies with its pair. A taken link
//! bears the mark only while we have it.

use std::fmt;
use std::sync::Arc;

use super::{Change, Phase, write_place};
use crate::name::{IfName, Mac, Netns};

/// Identity: a name in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    /// The namespace that holds the link.
    pub netns: Netns,
    /// Its name there.
    pub name: IfName,
}

/// What we set on a link. Every field is ours: none means "keep what is there".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// What the link is.
    pub kind: LinkKind,
    /// Hardware address.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Attachment to a bridge.
    pub port: Option<Port>,
    /// Whether the host's IPv6 may use the link (`disable_ipv6`). Links inside sandboxes are always `true`:
    /// writing a sysctl there costs more with every namespace.
    pub ipv6: bool,
    /// Whether the kernel makes an IPv6 link-local address (`IFLA_INET6_ADDR_GEN_MODE`).
    pub link_local: bool,
    /// Text after the mark in `ifalias`: whose the link is.
    pub alias: Arc<str>,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge without spanning tree.
    Bridge {
        /// IGMP and MLD snooping (`IFLA_BR_MCAST_SNOOPING`).
        snooping: bool,
        /// Loopback addresses may be routed over it (`route_localnet`): the host reaches through it what it
        /// asks of 127.0.0.1.
        localnet: bool,
    },
    /// The end of a veth from which the pair is made; the other end is made in its namespace at once.
    Veth {
        /// Where the other end goes.
        peer: LinkKey,
        /// The other end's hardware address, given at birth.
        peer_mac: Mac,
    },
    /// A veth whose other end an engine of others takes into a namespace of its own, and names and configures
    /// there. It is made beside this end under the name; from then on it is nobody's object but the engine's.
    Lent {
        /// The other end's name at birth.
        name: IfName,
    },
    /// The other end: exists once its pair was made and dies with it.
    Peer {
        /// The end from which the pair is made.
        pair: LinkKey,
    },
    /// A link that a plugin has made on the host, taken from there and given back under its old name: it is never
    /// removed. Its largest packet stays the plugin's choice ([`KEPT_MTU`]), and its hardware address, too, where that
    /// is [`KEPT_MAC`].
    Taken {
        /// Its name on the host.
        from: IfName,
    },
}

/// Stands for the MTU that a taken link has from its maker; no link has this one.
pub const KEPT_MTU: u32 = 1;

/// Stands for the hardware address that a taken link has from its maker.
pub const KEPT_MAC: Mac = Mac([0; 6]);

/// Attachment of a link to a bridge (`IFLA_MASTER`, `IFLA_BRPORT_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The bridge.
    pub bridge: IfName,
    /// Frames never pass between two isolated ports.
    pub isolated: bool,
    /// Unknown unicast, multicast and broadcast are sent to this port.
    pub flood: bool,
    /// A frame may leave by the port it came from.
    pub hairpin: bool,
    /// What arrives at the port goes to the host as if this bridge had received it, past all bridging: where
    /// br_netfilter is on, translation would otherwise happen within the bridge and not for the host.
    pub direct: Option<IfName>,
}

impl LinkSpec {
    /// Whether the link is somebody else's and is given back rather than removed.
    pub fn is_taken(&self) -> bool {
        matches!(self.kind, LinkKind::Taken { .. })
    }

    /// Bridges come before what attaches to them, the other ends after their pairs.
    pub fn phase(&self) -> Phase {
        match self.kind {
            LinkKind::Bridge { .. } => Phase::Master,
            LinkKind::Veth { .. } | LinkKind::Lent { .. } | LinkKind::Taken { .. } => Phase::Link,
            LinkKind::Peer { .. } => Phase::Peer,
        }
    }

    /// A link of another kind, or a veth to another place, is another link.
    pub(super) fn change(&self, desired: &Self) -> Change {
        match (&self.kind, &desired.kind) {
            (LinkKind::Bridge { .. }, LinkKind::Bridge { .. }) => Change::Update,
            (LinkKind::Lent { name: a }, LinkKind::Lent { name: b })
            | (LinkKind::Taken { from: a }, LinkKind::Taken { from: b })
                if a == b =>
            {
                Change::Update
            }
            (LinkKind::Veth { peer: a, .. }, LinkKind::Veth { peer: b, .. })
            | (LinkKind::Peer { pair: a }, LinkKind::Peer { pair: b })
                if a == b =>
            {
                Change::Update
            }
            _ => Change::Replace,
        }
    }
}

impl fmt::Display for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.netns)?;
        write!(f, "{}", self.name)
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LinkKind::Bridge { snooping, localnet } => write!(
                f,
                "bridge{}{}",
                on(*snooping, " snooping"),
                on(*localnet, " localnet")
            )?,
            LinkKind::Veth { peer, .. } => write!(f, "veth to {peer}")?,
            LinkKind::Lent { name } => write!(f, "veth lent as {name}")?,
            LinkKind::Peer { pair } => write!(f, "veth end of {pair}")?,
            LinkKind::Taken { from } => write!(f, "{from} of the host")?,
        }
        if self.mac != KEPT_MAC {
            write!(f, " mac {}", self.mac)?;
        }
        if self.mtu != KEPT_MTU {
            write!(f, " mtu {}", self.mtu)?;
        }
        if let Some(port) = &self.port {
            write!(f, " on {}", port.bridge)?;
            write!(
                f,
                "{}{}",
                on(port.isolated, " isolated"),
                on(port.flood, " flood")
            )?;
            f.write_str(on(port.hairpin, " hairpin"))?;
            if let Some(bridge) = port.direct {
                write!(f, " direct to {bridge}")?;
            }
        }
        write!(
            f,
            "{}{}",
            on(!self.ipv6, " no-ipv6"),
            on(!self.link_local, " no-link-local")
        )
    }
}

fn on(flag: bool, word: &'static str) -> &'static str {
    if flag { word } else { "" }
}
