//! Where the sockets are: with the keeper, or in this process.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::connection::{Connection, Entry};
use super::shelf::Shelf;

/// Where sockets are kept by name.
#[derive(Debug)]
pub(super) enum Place {
    /// With the keeper: they outlive this process.
    Keeper(Connection),
    /// Here: they end with this process.
    Here(Shelf),
}

impl Place {
    /// Keeps entries. When the keeper does not take them they stay here, and it is given up.
    pub(super) fn put(&mut self, entries: Vec<Entry>) {
        if let Self::Keeper(connection) = self {
            match connection.put(&entries) {
                Ok(()) => return,
                Err(error) => self.give_up(&error),
            }
        }
        if let Self::Here(shelf) = self {
            for entry in entries {
                shelf.put(entry.name, entry.tag, entry.socket);
            }
        }
    }

    /// Gives copies of sockets to the keeper, if there is one: we have them ourselves.
    pub(super) fn share(&mut self, sockets: &[(&[u8], BorrowedFd<'_>)]) {
        if let Self::Keeper(connection) = self
            && let Err(error) = connection.share(sockets)
        {
            self.give_up(&error);
        }
    }

    /// Closes what has these names.
    pub(super) fn remove(&mut self, names: &[Vec<u8>]) {
        match self {
            _ if names.is_empty() => {}
            Self::Keeper(connection) => {
                if let Err(error) = connection.remove(names) {
                    self.give_up(&error);
                }
            }
            Self::Here(shelf) => names.iter().for_each(|name| shelf.remove(name)),
        }
    }

    /// Lets the keeper, if there is one, close its copies of sockets that we have ourselves, without waiting for it.
    pub(super) fn unshare(&mut self, names: &[Vec<u8>]) {
        if let Self::Keeper(connection) = self
            && let Err(error) = connection.remove_soon(names)
        {
            self.give_up(&error);
        }
    }

    /// Waits until the keeper, if there is one, has closed what it was to close.
    pub(super) fn settle(&mut self) {
        if let Self::Keeper(connection) = self
            && let Err(error) = connection.settle()
        {
            self.give_up(&error);
        }
    }

    /// Copies of the sockets that have these names, as far as there are such.
    pub(super) fn fetch(&mut self, names: &[Vec<u8>]) -> Vec<Option<OwnedFd>> {
        match self {
            Self::Keeper(connection) => match connection.fetch(names) {
                Ok(sockets) => return sockets,
                Err(error) => self.give_up(&error),
            },
            Self::Here(shelf) => {
                let copy = |name: &Vec<u8>| shelf.socket(name)?.try_clone().ok();
                return names.iter().map(copy).collect();
            }
        }
        names.iter().map(|_| None).collect()
    }

    /// Goes on without the keeper; whoever watches the connection sees that and finds another.
    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the keeper of ports does not do its work");
        if let Self::Keeper(connection) = self {
            connection.hang_up();
        }
        *self = Self::Here(Shelf::default());
    }
}
