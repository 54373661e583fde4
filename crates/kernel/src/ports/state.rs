//! What is held, and the steps from there to what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec, Protocol};

use super::PortError;
use super::connection::{Connection, Entry};
use super::found::Found;
use super::hold::{Sockets, is_nowhere, is_taken};
use super::holder;
use super::name::{self, NO_PORT};
use super::place::Place;
use super::shared::Shares;
use super::shelf::Shelf;
use super::wire::Item;
use crate::limits::{
    ENTRIES_TOGETHER, KEPT_SOCKETS_MAX, PORTS_HELD_MAX, RECLAIM_PAUSE, RECLAIM_TRIES_MAX,
};
use crate::sys::ports as sys;

/// Where a picked port waits to be reserved.
pub(super) type Parking = (Protocol, HostAddress, u16);

#[derive(Debug)]
pub(super) struct State {
    pub(super) sockets: Sockets,
    held: BTreeMap<PortKey, PortSpec>,
    /// Those of them that have no sockets, which therefore no bind runs into.
    bare: BTreeSet<PortKey>,
    /// Ports that are picked and not reserved; without a socket where the kernel has none of that protocol.
    pub(super) parked: BTreeMap<Parking, Option<OwnedFd>>,
    /// Sockets that somebody was given to listen at: while they are open nobody can bind others.
    lent: BTreeMap<Vec<u8>, OwnedFd>,
    /// Copies of the daemon's own sockets, in case the keeper loses them.
    kept: BTreeMap<Vec<u8>, OwnedFd>,
    /// Sockets that the daemon uses while the keeper has copies.
    pub(super) shares: Shares,
    pub(super) place: Place,
    /// How many sockets the place has for reservations.
    pub(super) count: usize,
    /// How many sockets it can have in all.
    pub(super) capacity: usize,
}

/// Why a port of a reservation was not to be had.
struct Refusal {
    port: u16,
    source: io::Error,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            sockets: Sockets::new(),
            held: BTreeMap::new(),
            bare: BTreeSet::new(),
            parked: BTreeMap::new(),
            lent: BTreeMap::new(),
            kept: BTreeMap::new(),
            shares: Shares::default(),
            place: Place::Here(Shelf::default()),
            count: 0,
            capacity: KEPT_SOCKETS_MAX,
        }
    }

    pub(super) fn reserve_all(
        &mut self,
        wishes: &[(&PortKey, PortSpec)],
    ) -> Vec<Result<(), PortError>> {
        let mut entries = Vec::new();
        let mut results = Vec::with_capacity(wishes.len());
        for (key, spec) in wishes {
            results.push(self.reserve(key, *spec, &mut entries));
            if entries.len() >= ENTRIES_TOGETHER {
                self.place.put(std::mem::take(&mut entries));
            }
        }
        self.put(entries);
        results
    }

    pub(super) fn release(&mut self, keys: &[&PortKey]) {
        let mut names = Vec::new();
        for key in keys {
            if let Some(spec) = self.held.remove(key) {
                self.forget(key, spec, &mut names);
            }
        }
        self.place.remove(&names);
    }

    pub(super) fn held(&self) -> Vec<(PortKey, PortSpec)> {
        let pair = |(key, spec): (&PortKey, &PortSpec)| (key.clone(), *spec);
        self.held.iter().map(pair).collect()
    }

    pub(super) fn listener(&mut self, key: &PortKey, port: u16) -> Option<OwnedFd> {
        if self.held.get(key) != Some(&PortSpec::Relayed) {
            return None;
        }
        let name = name::of_reservation(key, port);
        if !self.lent.contains_key(&name) {
            let socket = self
                .place
                .fetch(std::slice::from_ref(&name))
                .pop()
                .flatten()?;
            self.lent.insert(name.clone(), socket);
        }
        self.lent.get(&name)?.try_clone().ok()
    }

    pub(super) fn keep(&mut self, name: Vec<u8>, socket: OwnedFd) -> io::Result<()> {
        let entry = kept_entry(&name, &socket)?;
        self.kept.insert(name, socket);
        self.put(vec![entry]);
        Ok(())
    }

    pub(super) fn kept(&mut self, name: &[u8]) -> Option<OwnedFd> {
        if !self.kept.contains_key(name) {
            let socket = self.place.fetch(&[name.to_vec()]).pop().flatten()?;
            self.kept.insert(name.to_vec(), socket);
        }
        self.kept.get(name)?.try_clone().ok()
    }

    /// Counts ports as held, for tests at the limit.
    #[cfg(test)]
    pub(super) fn pretend_held(&mut self, key: &PortKey) {
        self.know(key, PortSpec::Held, false);
    }

    /// Whether nobody misses what is kept, so that the keeper has nothing to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.shares.is_empty()
    }

    pub(super) fn hang_up(&self) {
        if let Place::Keeper(connection) = &self.place {
            connection.hang_up();
        }
    }

    /// Goes on with a keeper and what it has: reservations that we know of are completed there, and at the
    /// beginning, when none is known, those that it has whole are known from then on.
    pub(super) fn adopt(&mut self, connection: Connection, items: Vec<Item>) {
        self.capacity = KEPT_SOCKETS_MAX.min(connection.capacity);
        let stale = self.shares.find(&items);
        let mut found = Found::of(items);
        let here = std::mem::replace(&mut self.place, Place::Keeper(connection));
        let known = std::mem::take(&mut self.held);
        self.bare.clear();
        self.count = 0;
        if known.is_empty() {
            for (key, spec) in std::mem::take(&mut found.whole) {
                self.know(&key, spec, found.bare.contains(&key));
            }
        }
        let mut missing = Vec::new();
        for (key, spec) in known {
            if found.whole.remove(&key) == Some(spec) {
                self.know(&key, spec, found.bare.contains(&key));
            } else {
                found.names.extend(names(&key));
                missing.push((key, spec));
            }
        }
        for key in found.whole.keys() {
            found.names.extend(names(key));
        }
        found.names.extend(stale);
        self.place.remove(&found.names);
        // What was held by this process meanwhile is closed now, and taken again at once.
        drop(here);
        let kept = self.kept.iter();
        let kept: Vec<_> = kept
            .filter_map(|(name, socket)| kept_entry(name, socket).ok())
            .collect();
        self.put(kept);
        self.reclaim(missing);
        self.share_again();
    }

    /// Goes on without a keeper.
    pub(super) fn take_back(&mut self) {
        self.capacity = KEPT_SOCKETS_MAX;
        self.hang_up();
        self.place = Place::Here(Shelf::default());
        let known = std::mem::take(&mut self.held);
        self.bare.clear();
        self.count = 0;
        self.reclaim(known.into_iter().collect());
    }

    /// Whether a reservation or picked port without a socket is in the way.
    pub(super) fn overlaps_bare(
        &self,
        protocol: Protocol,
        address: HostAddress,
        ports: PortRange,
    ) -> Option<u16> {
        let mut bare = self.bare.iter();
        let reserved = bare.find(|key| {
            key.protocol == protocol && key.ports.overlaps(ports) && key.address.overlaps(address)
        });
        let mut parked = self.parked.iter().filter(|(_, socket)| socket.is_none());
        let waiting = parked.find(|((of, at, port), _)| {
            *of == protocol && ports.contains(*port) && at.overlaps(address)
        });
        let first = |key: &PortKey| key.ports.first().max(ports.first());
        reserved
            .map(first)
            .or(waiting.map(|((_, _, port), _)| *port))
    }

    /// What a failed bind means, with the holder's name where it was taken.
    pub(super) fn explain(
        &self,
        protocol: Protocol,
        address: HostAddress,
        port: u16,
        source: io::Error,
    ) -> PortError {
        if is_nowhere(&source) {
            return PortError::NoSuchAddress { address };
        }
        if !is_taken(&source) {
            return PortError::Other {
                protocol,
                address,
                port,
                source,
            };
        }
        self.taken(protocol, address, port)
    }

    fn taken(&self, protocol: Protocol, address: HostAddress, port: u16) -> PortError {
        PortError::Taken {
            protocol,
            address,
            port,
            holder: self.holder(protocol, address, port),
        }
    }

    /// Who has a port of the host, where that can be known.
    pub(super) fn holder(
        &self,
        protocol: Protocol,
        address: HostAddress,
        port: u16,
    ) -> Option<String> {
        let mut held = self.held.keys();
        let ours = held.find(|key| {
            key.protocol == protocol && key.ports.contains(port) && key.address.overlaps(address)
        });
        let ours = ours.map(|key| format!("another published port ({key})"));
        let resolver = || {
            let key = self.shares.holder(address, port)?;
            Some(format!("the resolver of a network ({key})"))
        };
        ours.or_else(resolver)
            .or_else(|| holder::holder(protocol, address, port))
    }

    fn put(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.place.put(entries);
        }
    }

    fn reserve(
        &mut self,
        key: &PortKey,
        spec: PortSpec,
        entries: &mut Vec<Entry>,
    ) -> Result<(), PortError> {
        let current = self.held.get(key).copied();
        if current == Some(spec) {
            return Ok(());
        }
        self.give_way(key, spec);
        let is_socket = |spec| spec != PortSpec::Checked;
        if let Some(current) = current {
            let is_bare = self.bare.contains(key);
            if is_bare && is_socket(current) && is_socket(spec) {
                // There is nothing to change but the word.
                entries.push(entry(key, NO_PORT, spec, None));
                self.held.insert(key.clone(), spec);
                return Ok(());
            }
            if !is_bare && is_socket(spec) && self.change(key, spec, entries) {
                self.held.insert(key.clone(), spec);
                return Ok(());
            }
            // A socket each, or none any more: what was held is given up for it.
            self.release(&[key]);
        }
        let taken = if is_socket(spec) {
            self.bind(key, spec)?
        } else {
            self.check(key)?;
            vec![entry(key, NO_PORT, spec, None)]
        };
        let is_bare = taken.iter().any(|entry| entry.socket.is_none());
        entries.extend(taken);
        self.know(key, spec, is_bare);
        Ok(())
    }

    /// Lets go of parked sockets that would stand in the way of a reservation and cannot serve it: they were
    /// picked before it was known at which addresses the ports are wanted.
    fn give_way(&mut self, key: &PortKey, spec: PortSpec) {
        self.parked.retain(|(protocol, address, port), _| {
            let serves = *address == key.address && spec != PortSpec::Checked;
            let apart = *protocol != key.protocol
                || !key.ports.contains(*port)
                || !address.overlaps(key.address);
            serves || apart
        });
    }

    /// Lets the sockets that hold ports hold them in another way; whether there were all and it went well.
    fn change(&mut self, key: &PortKey, spec: PortSpec, entries: &mut Vec<Entry>) -> bool {
        let names: Vec<_> = names(key).skip(1).collect();
        self.lent.retain(|name, _| !names.contains(name));
        let sockets = self.place.fetch(&names);
        // Should we end half-way, nobody must take them for what they were, nor for what they were to be.
        let unsure = |name| Entry {
            name,
            tag: name::TAG_UNSURE,
            socket: None,
        };
        self.put(names.into_iter().map(unsure).collect());
        for socket in sockets {
            let changed =
                socket.is_some_and(|s| self.sockets.change(key.protocol, &s, spec).is_ok());
            if !changed {
                return false;
            }
        }
        let ports = key.ports.first()..=key.ports.last();
        entries.extend(ports.map(|port| entry(key, port, spec, None)));
        true
    }

    /// A socket for each port, or a mere name where the kernel has no such sockets.
    fn bind(&mut self, key: &PortKey, spec: PortSpec) -> Result<Vec<Entry>, PortError> {
        let limit = PORTS_HELD_MAX.min(self.capacity - self.shares.count().min(self.capacity));
        if self.count + key.ports.count() as usize > limit {
            return Err(PortError::TooMany { limit });
        }
        self.bind_quietly(key, spec).map_err(|refusal| {
            self.explain(key.protocol, key.address, refusal.port, refusal.source)
        })
    }

    /// The same, without looking for whoever has the port.
    fn bind_quietly(&mut self, key: &PortKey, spec: PortSpec) -> Result<Vec<Entry>, Refusal> {
        let (protocol, address) = (key.protocol, key.address);
        let mut entries = Vec::with_capacity(key.ports.count() as usize);
        let ports = key.ports.first()..=key.ports.last();
        let parked: Vec<_> = ports
            .clone()
            .map(|port| self.parked.remove(&(protocol, address, port)))
            .collect();
        if let Some(port) = self.overlaps_bare(protocol, address, key.ports) {
            let source = io::Error::from_raw_os_error(libc::EADDRINUSE);
            return Err(Refusal { port, source });
        }
        for (port, parked) in ports.zip(parked) {
            let refused = |source| Refusal { port, source };
            let lent = self.lent.get(&name::of_reservation(key, port));
            let lent = lent.filter(|_| spec == PortSpec::Relayed);
            if let Some(socket) = lent.and_then(|socket| socket.try_clone().ok()) {
                entries.push(entry(key, port, spec, Some(socket)));
                continue;
            }
            let socket = match parked {
                Some(Some(socket)) => {
                    if spec == PortSpec::Relayed {
                        let changed = self.sockets.change(protocol, &socket, spec);
                        changed.map_err(refused)?;
                    }
                    Some(socket)
                }
                Some(None) => None,
                None => self
                    .sockets
                    .bind(protocol, address, port, spec)
                    .map_err(refused)?,
            };
            if socket.is_none() {
                return Ok(vec![entry(key, NO_PORT, spec, None)]);
            }
            entries.push(entry(key, port, spec, socket));
        }
        Ok(entries)
    }

    /// Looks whether anybody takes traffic at the ports of a large range.
    fn check(&self, key: &PortKey) -> Result<(), PortError> {
        let (protocol, address) = (key.protocol, key.address);
        if let Some(port) = self.overlaps_bare(protocol, address, key.ports) {
            return Err(self.taken(protocol, address, port));
        }
        // The planner decides between our own; the host's sockets are what it cannot see.
        let mut ours: BTreeMap<u16, Vec<HostAddress>> = BTreeMap::new();
        for (held, spec) in &self.held {
            if *spec != PortSpec::Checked
                && held.protocol == protocol
                && held.ports.overlaps(key.ports)
            {
                for port in held.ports.first()..=held.ports.last() {
                    ours.entry(port).or_default().push(held.address);
                }
            }
        }
        // The daemon's own sockets stand in nobody's way: what arrives at their ports is translated before.
        let kept: BTreeSet<u16> = self
            .kept
            .values()
            .filter_map(|s| sys::local_port(s).ok())
            .collect();
        let is_ours = |port, at: HostAddress| {
            if kept.contains(&port) {
                return true;
            }
            let held = ours.get(&port);
            held.is_some_and(|held| held.iter().any(|address| address.overlaps(at)))
        };
        let taken = holder::first_taken(protocol, address, key.ports, is_ours);
        match taken {
            Ok(None) => Ok(()),
            Ok(Some(port)) => Err(self.taken(protocol, address, port)),
            Err(source) => Err(PortError::Look {
                protocol,
                ports: key.ports,
                source,
            }),
        }
    }

    fn know(&mut self, key: &PortKey, spec: PortSpec, is_bare: bool) {
        self.held.insert(key.clone(), spec);
        if is_bare {
            self.bare.insert(key.clone());
        } else {
            self.count += key.ports.count() as usize;
        }
    }

    /// The names of what was held for a reservation.
    fn forget(&mut self, key: &PortKey, spec: PortSpec, gone: &mut Vec<Vec<u8>>) {
        if self.bare.remove(key) {
            gone.push(name::of_reservation(key, NO_PORT));
            return;
        }
        debug_assert!(spec != PortSpec::Checked);
        self.count -= key.ports.count() as usize;
        for name in names(key).skip(1) {
            self.lent.remove(&name);
            gone.push(name);
        }
    }

    /// Takes ports again that a keeper held until it ended. Its sockets are closed one after the other, a moment
    /// after it hung up.
    fn reclaim(&mut self, mut missing: Vec<(PortKey, PortSpec)>) {
        for tries in 1..=RECLAIM_TRIES_MAX {
            let mut entries = Vec::new();
            missing.retain(|(key, spec)| {
                let taken = match spec {
                    PortSpec::Checked => Ok(vec![entry(key, NO_PORT, *spec, None)]),
                    _ => self.bind_quietly(key, *spec),
                };
                match taken {
                    Ok(taken) => {
                        self.know(key, *spec, taken.iter().any(|entry| entry.socket.is_none()));
                        entries.extend(taken);
                        false
                    }
                    Err(refusal) if tries == RECLAIM_TRIES_MAX => {
                        let error = refusal.source;
                        tracing::error!(%key, port = refusal.port, %error, "a published port is lost");
                        true
                    }
                    Err(_) => true,
                }
            });
            self.put(entries);
            if missing.is_empty() || tries == RECLAIM_TRIES_MAX {
                return;
            }
            thread::sleep(RECLAIM_PAUSE);
        }
    }
}

/// All names that a reservation can have, the one without a port first.
fn names(key: &PortKey) -> impl Iterator<Item = Vec<u8>> {
    let ports = key.ports.first()..=key.ports.last();
    std::iter::once(NO_PORT)
        .chain(ports)
        .map(|port| name::of_reservation(key, port))
}

fn entry(key: &PortKey, port: u16, spec: PortSpec, socket: Option<OwnedFd>) -> Entry {
    Entry {
        name: name::of_reservation(key, port),
        tag: name::tag(spec),
        socket,
    }
}

fn kept_entry(name: &[u8], socket: &OwnedFd) -> io::Result<Entry> {
    Ok(Entry {
        name: name.to_vec(),
        tag: 0,
        socket: Some(socket.try_clone()?),
    })
}
