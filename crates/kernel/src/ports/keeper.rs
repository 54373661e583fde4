//! The keeper: a small process that holds sockets while the daemon is away. It does nothing with them; whoever
//! connects gets them back.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::shelf::Shelf;
use super::wire::{ITEMS_MAX, Item, MESSAGE_BYTES_MAX, Message, Operation};
use crate::limits::{KEEPER_FILES_SPARE, KEEPER_LOOK, KEEPER_PATIENCE, KEPT_SOCKETS_MAX};
use crate::sys;

/// The keeper's socket in its directory.
pub(super) const SOCKET: &str = "keeper.sock";
/// What the keeper is called in lists of processes, and where it is the holder of a port.
pub(super) const KEEPER_NAME: &str = "tombolo-keeper";
/// The file with the keeper's process id; locked for as long as it runs, and empty after it ended by itself.
const PID_FILE: &str = "keeper.pid";
/// Where the socket lies before others may find it.
const NEW_SOCKET: &str = "keeper.new";

/// Serves as the keeper of `directory` until nothing is held that anybody misses and nobody is connected, or
/// nobody has been connected for [`KEEPER_PATIENCE`].
///
/// # Errors
/// When another keeper serves the directory (`EWOULDBLOCK`), or it cannot be used.
pub fn keep_sockets(directory: &Path) -> io::Result<()> {
    // Started as `/proc/self/exe`, it would be called `exe`; the name is for people only.
    let _ = fs::write("/proc/self/comm", KEEPER_NAME);
    // Its death costs every published port for a moment; without the privilege it is as good as others.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    serve(directory, KEEPER_PATIENCE)
}

/// The same with another patience.
pub(super) fn serve(directory: &Path, patience: Duration) -> io::Result<()> {
    let mut pid_file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join(PID_FILE))?;
    sys::ports::lock_file(pid_file.as_fd())?;
    pid_file.set_len(0)?;
    writeln!(pid_file, "{}", std::process::id())?;
    let limit = sys::ports::raise_open_files(KEPT_SOCKETS_MAX as u64 + KEEPER_FILES_SPARE)?;
    let capacity = limit.saturating_sub(KEEPER_FILES_SPARE);
    let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
    let (path, new) = (directory.join(SOCKET), directory.join(NEW_SOCKET));
    // What a keeper that was killed has left; the lock says that there is none.
    let _ = fs::remove_file(&new);
    let listener = sys::ports::seqpacket_listener(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    let number = fs::metadata(&new)?.ino();
    fs::rename(&new, &path)?;
    let is_found = || fs::metadata(&path).is_ok_and(|found| found.ino() == number);
    let mut keeper = Keeper {
        shelf: Shelf::default(),
        capacity,
        buffer: vec![0; MESSAGE_BYTES_MAX],
    };
    let served = keeper.serve(&listener, patience, is_found);
    if is_found() {
        fs::remove_file(&path)?;
    }
    // An empty file names nobody: the number may become another process's.
    pid_file.set_len(0)?;
    served
}

#[derive(Debug)]
struct Keeper {
    shelf: Shelf,
    /// How many sockets fit.
    capacity: u32,
    buffer: Vec<u8>,
}

impl Keeper {
    /// One caller at a time: the next has to wait until this one has hung up. Where nobody can find us any more,
    /// nobody is waited for.
    fn serve(
        &mut self,
        listener: &OwnedFd,
        patience: Duration,
        is_found: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let pause_ms = left.min(KEEPER_LOOK).as_millis();
            let pause_ms = i32::try_from(pause_ms).unwrap_or(i32::MAX);
            if sys::poll(&[listener.as_fd()], pause_ms)? != [true] {
                if is_found() && Instant::now() < end {
                    continue;
                }
                return Ok(());
            }
            let caller = sys::ports::accept(listener)?;
            self.converse(&caller)?;
            if !self.shelf.is_missed() {
                return Ok(());
            }
            end = Instant::now() + patience;
        }
    }

    /// Does what a caller wants until it hangs up, or says what cannot be understood.
    ///
    /// # Errors
    /// When sockets were lost on their way to us: the caller must learn that we are of no use.
    fn converse(&mut self, caller: &OwnedFd) -> io::Result<()> {
        loop {
            let (length, sockets) = match sys::ports::receive_with(caller, &mut self.buffer) {
                Ok((0, _)) => return Ok(()),
                // It hung up without reading all our answers. What it said before is still to be read.
                Err(error) if is_gone(&error) => continue,
                other => other?,
            };
            let Some(message) = Message::decode(&self.buffer[..length]) else {
                return Ok(());
            };
            let answered = match message.operation {
                Operation::Hello => answer(caller, Operation::Hello, self.capacity, &[], &[]),
                Operation::Put => {
                    self.put(message.items, sockets);
                    Ok(())
                }
                Operation::Drop => {
                    for item in &message.items {
                        self.shelf.remove(&item.name);
                    }
                    answer(caller, Operation::Drop, 0, &[], &[])
                }
                Operation::List => self.list(caller),
                Operation::Fetch => self.fetch(caller, &message.items),
            };
            // Whoever does not take an answer and has not hung up should.
            if answered.is_err_and(|error| !is_gone(&error)) {
                return Ok(());
            }
        }
    }

    fn put(&mut self, items: Vec<Item>, sockets: Vec<OwnedFd>) {
        let mut sockets = sockets.into_iter();
        for item in items {
            let socket = if item.has_socket {
                sockets.next()
            } else {
                None
            };
            self.shelf.put(item.name, item.tag, socket);
        }
    }

    fn list(&self, caller: &OwnedFd) -> io::Result<()> {
        let items = self.shelf.items();
        let mut rest = &items[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(ITEMS_MAX));
            let left = u32::try_from(later.len()).unwrap_or(u32::MAX);
            answer(caller, Operation::List, left, now, &[])?;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    fn fetch(&self, caller: &OwnedFd, wanted: &[Item]) -> io::Result<()> {
        let mut items = Vec::with_capacity(wanted.len());
        let mut sockets = Vec::with_capacity(wanted.len());
        for item in wanted {
            let Some(socket) = self.shelf.socket(&item.name) else {
                continue;
            };
            items.push(Item {
                has_socket: true,
                ..item.clone()
            });
            sockets.push(socket.as_fd());
        }
        answer(caller, Operation::Fetch, 0, &items, &sockets)
    }
}

/// Whether an error says that the other end has hung up; the kernel tells it once before it gives what was sent.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE))
}

fn answer(
    caller: &OwnedFd,
    operation: Operation,
    value: u32,
    items: &[Item],
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let message = Message {
        operation,
        value,
        items: items.to_vec(),
    };
    sys::ports::send_with(caller, &message.encode(), sockets)
}
