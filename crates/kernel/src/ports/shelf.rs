//! Sockets by name: what the keeper has, and what a process without a keeper has itself.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::name;
use super::wire::Item;

/// A socket, or a mere name, with its tag.
#[derive(Debug)]
struct Kept {
    tag: u8,
    socket: Option<OwnedFd>,
}

/// Sockets by name.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<Vec<u8>, Kept>);

impl Shelf {
    /// Keeps a socket, or a mere name. What was kept under that name is closed; without a new socket it stays
    /// and only its tag changes.
    pub(super) fn put(&mut self, name: Vec<u8>, tag: u8, socket: Option<OwnedFd>) {
        if let Some(kept) = self.0.get_mut(&name) {
            kept.tag = tag;
            if socket.is_some() {
                kept.socket = socket;
            }
            return;
        }
        self.0.insert(name, Kept { tag, socket });
    }

    /// Closes what has that name.
    pub(super) fn remove(&mut self, name: &[u8]) {
        self.0.remove(name);
    }

    /// The socket of that name.
    pub(super) fn socket(&self, name: &[u8]) -> Option<&OwnedFd> {
        self.0.get(name)?.socket.as_ref()
    }

    /// Everything, by name.
    pub(super) fn items(&self) -> Vec<Item> {
        let item = |(name, kept): (&Vec<u8>, &Kept)| Item {
            name: name.clone(),
            tag: kept.tag,
            has_socket: kept.socket.is_some(),
        };
        self.0.iter().map(item).collect()
    }

    /// Whether anybody misses what is kept while the daemon is away: a port that is held, or a question that
    /// waits to be answered. What the daemon keeps for itself alone is not worth waiting for it.
    pub(super) fn is_missed(&self) -> bool {
        let is_missed = |name: &Vec<u8>| name::is_reservation(name) || name::is_listener(name);
        self.0.keys().any(is_missed)
    }
}
