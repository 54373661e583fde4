//! Noticing what others do to the host's network, so that drift is repaired unasked.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use tombolo_netstate::object::route::PROTOCOL;
use tombolo_netstate::{IfName, Mac};

use crate::kernel::{Kernel, is_passing, lock};
use crate::listeners::Listeners;
use crate::netlink::address::AddressRecord;
use crate::netlink::attribute::{Attributes, Message, read_u32};
use crate::netlink::fdb::FdbRecord;
use crate::netlink::link::LinkRecord;
use crate::netlink::route::RouteRecord;
use crate::netlink::socket::Protocol;
use crate::netlink::{ReadBuffer, Socket, address, link, neighbour, route};
use crate::sys::removals::Removals;
use crate::{nft, sys};

/// `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`, `_IPV4_NETCONF`,
/// `_IPV6_NETCONF`.
const ROUTE_GROUPS: [u32; 8] = [1, 3, 5, 7, 9, 11, 24, 25];
/// `RTM_NEWNETCONF`.
const NETCONF: u16 = 80;
/// `NETCONFA_IFINDEX`.
const NETCONF_INDEX: u16 = 1;
/// `NETCONFA_FORWARDING`.
const NETCONF_FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`: the setting of all links together.
const NETCONF_ALL: i32 = -1;
/// `NFNLGRP_NFTABLES`.
const GROUP_NFTABLES: u32 = 7;

/// Why the host cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No socket.
    #[error("cannot open a netlink socket to watch the host")]
    Socket(#[source] io::Error),
    /// A group of notifications was refused.
    #[error("cannot subscribe to notifications of group {group}")]
    Join {
        /// Its number.
        group: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The links that are there cannot be read.
    #[error("cannot read the host's links")]
    Links(#[source] io::Error),
}

/// Something changed in the host's namespace. What our own requests did is left out where the kernel names the
/// cause, which it does not always do: whoever is told compares with what should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link of ours was removed.
    LinkGone(IfName),
    /// A link of ours that was up is down, renamed, or has another MTU, hardware address or bridge.
    LinkChanged(IfName),
    /// An address of ours was removed.
    AddressGone(IfName, IpAddr),
    /// A permanent neighbour of ours was removed.
    NeighbourGone(IfName, IpAddr),
    /// A static forwarding entry of a bridge was removed.
    FdbGone(IfName, Mac),
    /// A route of ours was removed.
    RouteGone(IpNet),
    /// A namespace of ours lost its name while listeners keep it alive.
    NetnsGone(Arc<str>),
    /// The host was told to forward, or not to.
    ForwardingChanged,
    /// Somebody else's routes, addresses or links changed; facts about uplinks may be out of date.
    RoutesChanged,
    /// The rules changed, by us or by somebody else.
    NftChanged {
        /// Whether our own transaction did it.
        by_us: bool,
    },
    /// Changes came faster than they were read, and some are lost: everything must be observed.
    Lost,
}

/// Changes as they come; the iterator blocks, and ends once stopped.
#[derive(Debug)]
pub struct Watch {
    mark: String,
    route: Socket,
    netfilter: Socket,
    /// Ports of our own sockets.
    ports: Arc<Mutex<Vec<u32>>>,
    nft_port: u32,
    stop: Arc<OwnedFd>,
    /// Of the directory of our namespaces; without it, one that is kept alive is missed when all is observed.
    names: Option<Removals>,
    listeners: Arc<Listeners>,
    buffer: ReadBuffer,
    links: BTreeMap<u32, Known>,
    pending: Vec<Change>,
    stopped: bool,
}

/// Ends a [`Watch`] from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Ends the iterator, now or when it is next asked.
    pub fn stop(&self) {
        if let Err(error) = sys::signal(&self.0) {
            tracing::warn!(%error, "cannot stop watching the host");
        }
    }
}

/// The last that was heard of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: IfName,
    ours: bool,
    passing: bool,
    up: bool,
    mtu: u32,
    mac: Option<Mac>,
    master: Option<u32>,
}

impl Watch {
    pub(crate) fn open(kernel: &Kernel) -> Result<Self, WatchError> {
        let open = |protocol| {
            let socket = Socket::open(protocol).map_err(WatchError::Socket)?;
            socket.enlarge().map_err(WatchError::Socket)?;
            Ok(socket)
        };
        let join = |socket: &Socket, group| {
            socket
                .join(group)
                .map_err(|source| WatchError::Join { group, source })
        };
        let (route, netfilter) = (open(Protocol::Route)?, open(Protocol::Netfilter)?);
        for group in ROUTE_GROUPS {
            join(&route, group)?;
        }
        join(&netfilter, GROUP_NFTABLES)?;
        let links = kernel
            .with_host(link::dump)
            .and_then(|links| links)
            .map_err(WatchError::Links)?;
        let links = links
            .iter()
            .map(|l| (l.index, known(l, &kernel.mark)))
            .collect();
        Ok(Self {
            mark: kernel.mark.clone(),
            route,
            netfilter,
            ports: Arc::clone(&kernel.netlink_ports),
            nft_port: kernel.nft.port(),
            stop: Arc::new(sys::event_counter().map_err(WatchError::Socket)?),
            names: watch_names(kernel),
            listeners: Arc::clone(&kernel.listeners),
            buffer: ReadBuffer::new(),
            links,
            pending: Vec::new(),
            stopped: false,
        })
    }

    /// What ends this iterator from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Waits for notifications and turns them into changes, each told once.
    fn wait(&mut self) -> io::Result<()> {
        let mut fds = vec![
            self.stop.as_fd(),
            self.route.as_fd(),
            self.netfilter.as_fd(),
        ];
        fds.extend(self.names.as_ref().map(|names| names.fd().as_fd()));
        let ready = sys::poll(&fds, -1)?;
        self.stopped = ready[0];
        let mut changes = Vec::new();
        if ready[1] {
            self.read_route(&mut changes);
        }
        if ready[2] {
            self.read_netfilter(&mut changes);
        }
        if ready.get(3) == Some(&true) {
            self.read_names(&mut changes);
        }
        // The last is told first, by `pop`.
        changes.reverse();
        self.pending = changes;
        Ok(())
    }

    fn read_route(&mut self, changes: &mut Vec<Change>) {
        let Self {
            route,
            buffer,
            links,
            ports,
            mark,
            ..
        } = self;
        let ports = lock(ports).clone();
        let read = route.drain(buffer, |message| {
            let by_us = ports.contains(&message.port);
            let change = read_link(&message, links, mark).or_else(|| read_inside(&message, links));
            if let Some(change) = change.filter(|change| !by_us && !changes.contains(change)) {
                changes.push(change);
            }
        });
        if read.is_err() {
            changes.push(Change::Lost);
            // What was known of links is out of date as well.
            match link::dump(route, buffer) {
                Ok(now) => *links = now.iter().map(|l| (l.index, known(l, mark))).collect(),
                Err(error) => tracing::warn!(%error, "cannot read the host's links again"),
            }
        }
    }

    fn read_netfilter(&mut self, changes: &mut Vec<Change>) {
        let Self {
            netfilter,
            buffer,
            nft_port,
            ..
        } = self;
        let read = netfilter.drain(buffer, |message| {
            if nft::is_new_generation(&message) {
                let change = Change::NftChanged {
                    by_us: message.port == *nft_port,
                };
                if !changes.contains(&change) {
                    changes.push(change);
                }
            }
        });
        if read.is_err() {
            changes.push(Change::Lost);
        }
    }
}

impl Watch {
    /// Without listeners of ours a namespace goes, and its veths tell of that.
    fn read_names(&mut self, changes: &mut Vec<Change>) {
        let Some(Ok(Some(gone))) = self.names.as_mut().map(Removals::read) else {
            changes.push(Change::Lost);
            return;
        };
        for name in gone.into_iter().filter_map(|name| name.into_string().ok()) {
            if self.listeners.is_in(&name) {
                changes.push(Change::NetnsGone(name.into()));
            }
        }
    }
}

fn watch_names(kernel: &Kernel) -> Option<Removals> {
    let watched = Removals::watch(&kernel.namespaces.path(""));
    watched
        .inspect_err(|error| tracing::warn!(%error, "cannot watch the names of namespaces"))
        .ok()
}

impl Iterator for Watch {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.pending.pop() {
                return Some(change);
            }
            if self.stopped {
                return None;
            }
            if let Err(error) = self.wait() {
                tracing::error!(%error, "cannot watch the host any more");
                return None;
            }
        }
    }
}

fn known(link: &LinkRecord, mark: &str) -> Known {
    Known {
        name: link.name,
        ours: link.owned_alias(mark).is_some(),
        passing: is_passing(link),
        up: link.up,
        mtu: link.mtu,
        mac: link.mac,
        master: link.master,
    }
}

/// The change that a message about a link tells of, if any.
fn read_link(
    message: &Message<'_>,
    links: &mut BTreeMap<u32, Known>,
    mark: &str,
) -> Option<Change> {
    match message.kind {
        link::NEW => {
            let record = LinkRecord::read(message.body)?;
            let now = known(&record, mark);
            let before = links.insert(record.index, now.clone())?;
            let settled = before.ours && before.up && !now.passing;
            if settled && now != before {
                Some(Change::LinkChanged(before.name))
            } else {
                let foreign = !before.ours && !now.ours && !now.passing && !before.passing;
                (foreign && (before.up, before.mtu) != (now.up, now.mtu))
                    .then_some(Change::RoutesChanged)
            }
        }
        link::DELETE => {
            let record = LinkRecord::read(message.body)?;
            let now = known(&record, mark);
            let before = links.remove(&record.index).unwrap_or_else(|| now.clone());
            // What is in the graveyard or the nursery is being removed by ourselves.
            if before.passing || now.passing {
                None
            } else if before.ours || now.ours {
                Some(Change::LinkGone(before.name))
            } else {
                Some(Change::RoutesChanged)
            }
        }
        _ => None,
    }
}

/// Whether a message about settings (struct netconfmsg) tells of forwarding on all links.
fn is_forwarding(body: &[u8]) -> bool {
    let settings = Attributes::after(body, 4);
    let index = settings.find(NETCONF_INDEX).and_then(read_u32);
    index == Some(NETCONF_ALL.cast_unsigned()) && settings.find(NETCONF_FORWARDING).is_some()
}

/// The change that a message about what links have tells of, if any.
fn read_inside(message: &Message<'_>, links: &BTreeMap<u32, Known>) -> Option<Change> {
    let name = |index: u32| {
        links
            .get(&index)
            .filter(|link| !link.passing)
            .map(|link| link.name)
    };
    match message.kind {
        address::NEW | address::DELETE => {
            let record = AddressRecord::read(message.body)?;
            let ours = record.protocol == Some(PROTOCOL);
            match message.kind {
                address::DELETE if ours => {
                    Some(Change::AddressGone(name(record.index)?, record.ip))
                }
                _ => {
                    let foreign = links
                        .get(&record.index)
                        .is_some_and(|l| !l.ours && !l.passing);
                    (!ours && foreign).then_some(Change::RoutesChanged)
                }
            }
        }
        neighbour::DELETE => match FdbRecord::read(message.body) {
            Some(entry) => Some(Change::FdbGone(name(entry.bridge)?, entry.mac)),
            None => {
                let (index, ip) = neighbour::read_removed(message.body)?;
                Some(Change::NeighbourGone(name(index)?, ip))
            }
        },
        NETCONF => is_forwarding(message.body).then_some(Change::ForwardingChanged),
        route::NEW | route::DELETE => {
            let record = RouteRecord::read(message.body)?;
            match message.kind {
                route::DELETE if record.ours => Some(Change::RouteGone(record.destination)),
                _ if record.ours => None,
                _ => {
                    let on_ours = record
                        .link
                        .and_then(|i| links.get(&i))
                        .is_some_and(|l| l.ours);
                    (!on_ours).then_some(Change::RoutesChanged)
                }
            }
        }
        _ => None,
    }
}
