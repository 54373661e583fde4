//! Listeners: sockets that the daemon goes on using while the keeper has copies of them, so that there is one open
//! file for each in either process.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::port::{HostAddress, Protocol};

use super::Ports;
use super::name;
use super::state::State;
use super::wire::Item;
use crate::kernel::lock;

/// The two sockets of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) udp: Arc<UdpSocket>,
    pub(crate) tcp: Arc<TcpListener>,
}

/// What the keeper has copies of, or should have.
#[derive(Debug, Default)]
pub(super) struct Shares {
    held: BTreeMap<ListenerKey, Listener>,
    /// Those of an earlier daemon, until somebody has asked for them; nobody does so twice.
    left: Left,
}

#[derive(Debug)]
enum Left {
    Here(Vec<Vec<u8>>),
    Taken,
}

impl Default for Left {
    fn default() -> Self {
        Self::Here(Vec::new())
    }
}

impl Listener {
    /// The two sockets with their names; `None` when those are too long.
    fn named(&self, key: &ListenerKey) -> Option<[(Vec<u8>, BorrowedFd<'_>); 2]> {
        Some([
            (name::of_listener(key, Protocol::Udp)?, self.udp.as_fd()),
            (name::of_listener(key, Protocol::Tcp)?, self.tcp.as_fd()),
        ])
    }
}

impl Shares {
    /// The listener of the host's own that is in the way of a port at an address.
    pub(super) fn holder(&self, address: HostAddress, port: u16) -> Option<&ListenerKey> {
        let mut held = self.held.keys();
        held.find(|key| {
            let at = HostAddress::One(key.address);
            key.netns == Netns::Host && key.port == port && at.overlaps(address)
        })
    }

    /// Looks through what a keeper has. What an earlier daemon left is remembered; the names returned are those of
    /// sockets that nobody wants any more.
    pub(super) fn find(&mut self, items: &[Item]) -> Vec<Vec<u8>> {
        let names = items.iter().map(|item| &item.name);
        let listeners = names.filter(|name| name::is_listener(name));
        match &mut self.left {
            Left::Here(left) => {
                *left = listeners.cloned().collect();
                Vec::new()
            }
            Left::Taken => {
                let is_held = |name: &Vec<u8>| {
                    name::listener(name).is_some_and(|(key, _)| self.held.contains_key(&key))
                };
                listeners.filter(|name| !is_held(name)).cloned().collect()
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let none_left = match &self.left {
            Left::Here(left) => left.is_empty(),
            Left::Taken => true,
        };
        self.held.is_empty() && none_left
    }

    /// How many sockets there are.
    pub(super) fn count(&self) -> usize {
        2 * self.held.len()
    }
}

impl State {
    /// Gives the keeper copies of what is held already, as far as they have room beside the reservations.
    pub(super) fn share_again(&mut self) {
        let held = std::mem::take(&mut self.shares.held);
        let listeners: Vec<_> = held.into_iter().collect();
        self.share(listeners);
    }

    fn share(&mut self, listeners: Vec<(ListenerKey, Listener)>) {
        let mut sockets = Vec::with_capacity(2 * listeners.len());
        for (key, listener) in &listeners {
            let has_room = self.count + self.shares.count() + sockets.len() + 2 <= self.capacity;
            match listener.named(key) {
                Some(named) if has_room => sockets.extend(named),
                _ => tracing::debug!(%key, "a listener that cannot be kept ends with this process"),
            }
        }
        let borrowed: Vec<_> = sockets
            .iter()
            .map(|(name, socket)| (&name[..], *socket))
            .collect();
        self.place.share(&borrowed);
        drop(sockets);
        self.shares.held.extend(listeners);
    }

    fn unshare(&mut self, keys: &[&ListenerKey]) {
        let mut names = Vec::with_capacity(2 * keys.len());
        for key in keys {
            if self.shares.held.remove(key).is_some() {
                names.extend(names_of(key));
            }
        }
        self.place.unshare(&names);
    }

    fn take_left(&mut self) -> Vec<(ListenerKey, Listener)> {
        let Left::Here(names) = std::mem::replace(&mut self.shares.left, Left::Taken) else {
            return Vec::new();
        };
        let sockets = self.place.fetch(&names);
        let mut halves: BTreeMap<ListenerKey, [Option<OwnedFd>; 2]> = BTreeMap::new();
        let mut stale = Vec::new();
        for (name, socket) in names.into_iter().zip(sockets) {
            match name::listener(&name) {
                Some((key, Protocol::Udp)) => halves.entry(key).or_default()[0] = socket,
                Some((key, Protocol::Tcp)) => halves.entry(key).or_default()[1] = socket,
                _ => stale.push(name),
            }
        }
        for (key, sockets) in halves {
            match sockets {
                [Some(udp), Some(tcp)] => {
                    let (udp, tcp) = (Arc::new(udp.into()), Arc::new(tcp.into()));
                    self.shares.held.insert(key, Listener { udp, tcp });
                }
                _ => stale.extend(names_of(&key)),
            }
        }
        self.place.remove(&stale);
        let pair = |(key, listener): (&ListenerKey, &Listener)| (key.clone(), listener.clone());
        self.shares.held.iter().map(pair).collect()
    }
}

impl Ports {
    /// The listeners that an earlier daemon left with the keeper, the first time that somebody asks. They stay with
    /// it.
    pub(crate) fn left_listeners(&self) -> Vec<(ListenerKey, Listener)> {
        lock(&self.shared.state).take_left()
    }

    /// Lets the keeper have copies of listeners from now on. One for which there is no room, or whose name is too
    /// long, ends with this process.
    pub(crate) fn share(&self, listeners: Vec<(ListenerKey, Listener)>) {
        lock(&self.shared.state).share(listeners);
    }

    /// Lets the keeper close its copies, which it does a moment later.
    pub(crate) fn unshare(&self, keys: &[&ListenerKey]) {
        lock(&self.shared.state).unshare(keys);
    }

    /// Waits until the keeper has closed what it was to close.
    pub(crate) fn await_unshared(&self) {
        lock(&self.shared.state).place.settle();
    }

    /// Who has a port of the host, where that can be known.
    pub(crate) fn holder(
        &self,
        protocol: Protocol,
        address: HostAddress,
        port: u16,
    ) -> Option<String> {
        lock(&self.shared.state).holder(protocol, address, port)
    }
}

fn names_of(key: &ListenerKey) -> impl Iterator<Item = Vec<u8>> {
    let protocols = [Protocol::Udp, Protocol::Tcp].into_iter();
    protocols.filter_map(|protocol| name::of_listener(key, protocol))
}
