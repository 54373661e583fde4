//! The daemon's end of the talk with the keeper of its sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::KeeperCommand;
use super::keeper::{KEEPER_NAME, SOCKET};
use super::wire::{ITEMS_MAX, Item, MESSAGE_BYTES_MAX, Message, Operation};
use crate::limits::{KEEPER_ANSWER, KEEPER_ANSWERS_OWED_MAX, KEEPER_LOOK_AGAIN, KEEPER_START};
use crate::sys;

/// A socket, or a mere name, to be kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) tag: u8,
    pub(super) socket: Option<OwnedFd>,
}

/// A connection to a keeper that has answered.
#[derive(Debug)]
pub(super) struct Connection {
    fd: Arc<OwnedFd>,
    /// How many sockets the keeper can keep.
    pub(super) capacity: usize,
    buffer: Vec<u8>,
    /// Answers that are on their way and nobody waits for.
    owed: usize,
}

impl Connection {
    /// Connects to the keeper of a directory, which is started if there is none.
    ///
    /// # Errors
    /// When it cannot be started or does not answer in time, as when another daemon is connected to it.
    pub(super) fn open(
        directory: &Path,
        command: &KeeperCommand,
        child: &mut Option<Child>,
    ) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        let end = Instant::now() + KEEPER_START;
        loop {
            let error = match Self::connect(&path) {
                Err(error) if Instant::now() < end && is_absent(&error) => error,
                other => return other,
            };
            let is_starting = match child {
                Some(child) => child.try_wait()?.is_none(),
                None => false,
            };
            if !is_starting {
                tracing::debug!(%error, "starting a keeper of ports");
                *child = Some(start(command)?);
            }
            thread::sleep(KEEPER_LOOK_AGAIN);
        }
    }

    fn connect(path: &Path) -> io::Result<Self> {
        let fd = sys::ports::seqpacket_connect(path, KEEPER_ANSWER)?;
        let mut connection = Self {
            fd: Arc::new(fd),
            capacity: 0,
            buffer: vec![0; MESSAGE_BYTES_MAX],
            owed: 0,
        };
        let (hello, _) = connection.ask(Operation::Hello, Vec::new())?;
        connection.capacity = hello.value as usize;
        Ok(connection)
    }

    /// What shows that the keeper has hung up.
    pub(super) fn watched(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Gives entries to the keeper. They are safe as soon as they are sent: it reads them even when we are gone.
    pub(super) fn put(&self, entries: &[Entry]) -> io::Result<()> {
        for entries in entries.chunks(ITEMS_MAX) {
            let item = |entry: &Entry| Item {
                name: entry.name.clone(),
                tag: entry.tag,
                has_socket: entry.socket.is_some(),
            };
            let message = Message::new(Operation::Put, entries.iter().map(item).collect());
            let sockets: Vec<_> = entries
                .iter()
                .filter_map(|entry| Some(entry.socket.as_ref()?.as_fd()))
                .collect();
            sys::ports::send_with(&self.fd, &message.encode(), &sockets)?;
        }
        Ok(())
    }

    /// Gives copies of sockets to the keeper.
    pub(super) fn share(&self, sockets: &[(&[u8], BorrowedFd<'_>)]) -> io::Result<()> {
        for sockets in sockets.chunks(ITEMS_MAX) {
            let item = |(name, _): &(&[u8], BorrowedFd<'_>)| Item {
                has_socket: true,
                ..Item::named(name.to_vec())
            };
            let message = Message::new(Operation::Put, sockets.iter().map(item).collect());
            let sockets: Vec<_> = sockets.iter().map(|(_, socket)| *socket).collect();
            sys::ports::send_with(&self.fd, &message.encode(), &sockets)?;
        }
        Ok(())
    }

    /// Lets the keeper close what has these names, and waits until it has.
    pub(super) fn remove(&mut self, names: &[Vec<u8>]) -> io::Result<()> {
        for names in names.chunks(ITEMS_MAX) {
            self.ask(Operation::Drop, items(names))?;
        }
        Ok(())
    }

    /// The same without waiting. They are as good as closed: the keeper does it even when we are gone.
    pub(super) fn remove_soon(&mut self, names: &[Vec<u8>]) -> io::Result<()> {
        for names in names.chunks(ITEMS_MAX) {
            if self.owed >= KEEPER_ANSWERS_OWED_MAX {
                self.settle()?;
            }
            let message = Message::new(Operation::Drop, items(names));
            sys::ports::send_with(&self.fd, &message.encode(), &[])?;
            self.owed += 1;
        }
        Ok(())
    }

    /// Copies of the sockets that have these names.
    pub(super) fn fetch(&mut self, names: &[Vec<u8>]) -> io::Result<Vec<Option<OwnedFd>>> {
        let mut fetched = Vec::with_capacity(names.len());
        for names in names.chunks(ITEMS_MAX) {
            let (answer, sockets) = self.ask(Operation::Fetch, items(names))?;
            let mut found = answer.items.into_iter().zip(sockets).peekable();
            for name in names {
                let socket = found.next_if(|(item, _)| item.name == *name);
                fetched.push(socket.map(|(_, socket)| socket));
            }
        }
        Ok(fetched)
    }

    /// Everything that is kept.
    pub(super) fn list(&mut self) -> io::Result<Vec<Item>> {
        let (mut answer, _) = self.ask(Operation::List, Vec::new())?;
        let mut all = answer.items;
        while answer.value > 0 {
            (answer, _) = self.answer(Operation::List)?;
            all.append(&mut answer.items);
        }
        Ok(all)
    }

    /// Hangs up; the keeper then waits for the next daemon.
    pub(super) fn hang_up(&self) {
        // One that is not connected any more has hung up.
        let _ = sys::ports::hang_up(&self.fd);
    }

    fn ask(
        &mut self,
        operation: Operation,
        items: Vec<Item>,
    ) -> io::Result<(Message, Vec<OwnedFd>)> {
        self.settle()?;
        let message = Message::new(operation, items);
        sys::ports::send_with(&self.fd, &message.encode(), &[])?;
        self.answer(operation)
    }

    /// Reads the answers that nobody waited for; they come before any other.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        while self.owed > 0 {
            self.answer(Operation::Drop)?;
            self.owed -= 1;
        }
        Ok(())
    }

    fn answer(&mut self, operation: Operation) -> io::Result<(Message, Vec<OwnedFd>)> {
        let (length, sockets) = sys::ports::receive_with(&self.fd, &mut self.buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match Message::decode(&self.buffer[..length]) {
            Some(message) if message.operation == operation => Ok((message, sockets)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn items(names: &[Vec<u8>]) -> Vec<Item> {
    names.iter().cloned().map(Item::named).collect()
}

/// Whether there is no keeper, or one that is just ending.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}

fn start(command: &KeeperCommand) -> io::Result<Child> {
    let mut process = Command::new(&command.program);
    process
        .arg0(KEEPER_NAME)
        .args(&command.arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sys::ports::detach(&mut process).spawn()
}
