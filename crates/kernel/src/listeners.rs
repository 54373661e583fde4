//! Listeners: the sockets at which names are asked for, inside sandboxes and at the host's own addresses. They are
//! opened here, answered by whoever subscribes, and kept by the keeper, so that a question that comes while the
//! daemon is away waits for the next one.
//!
//! An open socket keeps its namespace alive. What is closed here, the keeper closes a moment later, and the subscriber
//! when it drops what it was given; nobody waits for either.

mod open;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Weak};

use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::port::Protocol;

use crate::kernel::lock;
use crate::limits::LISTENERS_MAX;
use crate::netns::Namespaces;
use crate::ports::{Listener, Ports, by};
use crate::sys;

use open::{Place, Way, failure};

/// What becomes of a listener. The sockets do not block; they are shared, and closed once everybody has dropped
/// them.
#[derive(Debug, Clone)]
pub enum ListenerChange {
    /// It is there, and to be answered.
    Opened {
        /// Which.
        key: ListenerKey,
        /// Where datagrams arrive.
        udp: Arc<UdpSocket>,
        /// Where connections arrive.
        tcp: Arc<TcpListener>,
    },
    /// It is closed; its sockets are to be dropped soon, because they keep its namespace alive.
    Closed {
        /// Which.
        key: ListenerKey,
    },
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Somebody has the port.
    #[error("{protocol} port {port} at {address}{place} is taken{}", by(holder.as_deref()))]
    Taken {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        place: &'static str,
        holder: Option<String>,
    },
    /// The namespace cannot be entered.
    #[error("{reason}")]
    Netns { reason: String },
    /// More than can be held.
    #[error("there are no more than {LISTENERS_MAX} listeners")]
    TooMany,
    /// This process has as many open files as it may have.
    #[error("no more than {limit} files can be open; raise the limit (LimitNOFILE=)")]
    TooManyFiles { limit: u64 },
    /// The socket cannot be made or bound.
    #[error("cannot take {protocol} port {port} at {address}")]
    Other {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        source: io::Error,
    },
}

/// The listeners that are open.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    held: BTreeMap<ListenerKey, Held>,
    /// Sockets that we closed and the subscriber perhaps not yet: until then they are in nobody's way.
    closing: Vec<(ListenerKey, Weak<UdpSocket>)>,
    subscriber: Option<Subscriber>,
}

#[derive(Debug)]
struct Held {
    sockets: Listener,
    /// The number of the namespace that the sockets are in; none where it is the host's or cannot be known.
    netns_inode: Option<u64>,
}

struct Subscriber(Box<dyn Fn(ListenerChange) + Send + Sync>);

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscriber")
    }
}

impl Listeners {
    /// Goes on with what an earlier daemon left with the keeper.
    pub(crate) fn adopt(namespaces: &Namespaces, ports: &Ports) -> Self {
        let listeners = Self::default();
        let mut table = lock(&listeners.table);
        for (key, sockets) in ports.left_listeners() {
            let netns_inode = match key.netns {
                Netns::Host => None,
                Netns::Owned(_) | Netns::Adopted { .. } => {
                    sys::netns_of_socket(sockets.udp.as_fd()).ok()
                }
            };
            let held = Held {
                sockets,
                netns_inode,
            };
            table.held.insert(key, held);
        }
        table.drop_stranded(namespaces, ports);
        drop(table);
        listeners
    }

    /// Opens listeners; what is open already stays. The results are in the order of the keys.
    pub(crate) fn open(
        &self,
        namespaces: &Namespaces,
        ports: &Ports,
        keys: &[&ListenerKey],
    ) -> Vec<Result<(), ListenError>> {
        let mut results = Vec::with_capacity(keys.len());
        for group in keys.chunk_by(|a, b| a.netns == b.netns) {
            match Place::find(namespaces, &group[0].netns) {
                Ok(place) => results.extend(self.open_in(&place, ports, group)),
                Err(error) => {
                    let reason = failure(&error);
                    let refused = |_| {
                        let reason = reason.clone();
                        Err(ListenError::Netns { reason })
                    };
                    results.extend(group.iter().map(refused));
                }
            }
        }
        results
    }

    /// The same within one namespace.
    fn open_in(
        &self,
        place: &Place<'_>,
        ports: &Ports,
        keys: &[&ListenerKey],
    ) -> Vec<Result<(), ListenError>> {
        let ways = lock(&self.table).ways(ports, place, keys);
        let made = place.open_all(ports, keys, &ways);
        let mut results = Vec::with_capacity(keys.len());
        let mut fresh = Vec::with_capacity(keys.len());
        for (key, made) in keys.iter().zip(made) {
            results.push(made.map(|sockets| {
                fresh.extend(sockets.map(|sockets| ((*key).clone(), sockets)));
            }));
        }
        lock(&self.table).add(ports, place.inode(), fresh);
        results
    }

    /// Closes listeners, here and in the keeper; those that are not open are no error. Nobody can connect to them
    /// when this returns, and others may have their ports.
    pub(crate) fn close(&self, ports: &Ports, keys: &[&ListenerKey]) {
        lock(&self.table).remove(ports, keys);
    }

    /// Those that are open. One whose namespace has lost its name, or whose name leads to another by now, is none,
    /// and closed: only so can that namespace go.
    pub(crate) fn held(&self, namespaces: &Namespaces, ports: &Ports) -> Vec<ListenerKey> {
        let mut table = lock(&self.table);
        table.drop_stranded(namespaces, ports);
        table.held.keys().cloned().collect()
    }

    /// Whether any is in the namespace of that name, or in one that had it.
    pub(crate) fn is_in(&self, name: &str) -> bool {
        let first = ListenerKey {
            netns: Netns::Owned(name.into()),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
        };
        let table = lock(&self.table);
        let next = table.held.range(&first..).next();
        next.is_some_and(|(key, _)| key.netns == first.netns)
    }

    /// See [`Kernel::on_listeners`](crate::Kernel::on_listeners).
    pub(crate) fn subscribe(&self, subscriber: Box<dyn Fn(ListenerChange) + Send + Sync>) {
        let mut table = lock(&self.table);
        for (key, held) in &table.held {
            subscriber(opened(key, &held.sockets));
        }
        table.subscriber = Some(Subscriber(subscriber));
    }
}

impl Table {
    /// What is to be done about each of these keys in a place. What is held in another namespace that had the name
    /// before is closed.
    fn ways(&mut self, ports: &Ports, place: &Place<'_>, keys: &[&ListenerKey]) -> Vec<Way> {
        let elsewhere = |key: &&&ListenerKey| {
            let held = self.held.get(**key);
            held.is_some_and(|held| held.netns_inode != place.inode())
        };
        let stranded: Vec<&ListenerKey> = keys.iter().filter(elsewhere).copied().collect();
        self.remove(ports, &stranded);
        self.closing.retain(|(_, socket)| socket.strong_count() > 0);
        let mut room = LISTENERS_MAX.saturating_sub(self.held.len());
        let mut way = |key: &&ListenerKey| {
            if self.held.contains_key(*key) {
                return Way::Stay;
            }
            if room == 0 {
                return Way::Refuse;
            }
            room -= 1;
            if self.closing.iter().any(|(closing, _)| closing == *key) {
                Way::OpenBeside
            } else {
                Way::Open
            }
        };
        keys.iter().map(&mut way).collect()
    }

    fn add(
        &mut self,
        ports: &Ports,
        netns_inode: Option<u64>,
        listeners: Vec<(ListenerKey, Listener)>,
    ) {
        if listeners.is_empty() {
            return;
        }
        ports.share(listeners.clone());
        for (key, sockets) in listeners {
            self.tell(opened(&key, &sockets));
            let held = Held {
                sockets,
                netns_inode,
            };
            self.held.insert(key, held);
        }
    }

    fn remove(&mut self, ports: &Ports, keys: &[&ListenerKey]) {
        let mut closed = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(held) = self.held.remove(*key) else {
                continue;
            };
            open::shut(&held.sockets);
            let socket = Arc::downgrade(&held.sockets.udp);
            self.closing.push(((*key).clone(), socket));
            self.tell(ListenerChange::Closed {
                key: (*key).clone(),
            });
            closed.push(*key);
        }
        ports.unshare(&closed);
        self.closing.retain(|(_, socket)| socket.strong_count() > 0);
    }

    fn drop_stranded(&mut self, namespaces: &Namespaces, ports: &Ports) {
        let is_stranded =
            |(key, held): &(&ListenerKey, &Held)| match Place::find(namespaces, &key.netns) {
                Ok(place) => held.netns_inode.is_some() && held.netns_inode != place.inode(),
                Err(error) => error.is_gone(),
            };
        let stranded = self.held.iter().filter(is_stranded);
        let stranded: Vec<ListenerKey> = stranded.map(|(key, _)| key.clone()).collect();
        self.remove(ports, &stranded.iter().collect::<Vec<_>>());
    }

    fn tell(&self, change: ListenerChange) {
        if let Some(Subscriber(subscriber)) = &self.subscriber {
            subscriber(change);
        }
    }
}

fn opened(key: &ListenerKey, sockets: &Listener) -> ListenerChange {
    ListenerChange::Opened {
        key: key.clone(),
        udp: Arc::clone(&sockets.udp),
        tcp: Arc::clone(&sockets.tcp),
    }
}
