//! Reservations of the host's ports. A published port is held by a bound socket before any rule exists, so that
//! no other program gets it, and the socket outlives the daemon: a small process keeps it. That process also has
//! copies of the listeners' sockets.

mod connection;
mod found;
mod hold;
pub(crate) mod holder;
mod keeper;
mod name;
mod pick;
mod place;
mod shared;
mod shelf;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec, Protocol};

use crate::kernel::lock;
use crate::limits::{KEEPER_LOOK_AGAIN, KEEPER_START, KEPT_SOCKETS_MAX};
use crate::sys;

use connection::Connection;
pub use keeper::keep_sockets;
pub(crate) use shared::Listener;
use state::State;

/// Where and how ports are held.
#[derive(Debug, Clone)]
pub struct PortsConfig {
    /// An existing directory for the keeper's socket and the file with its process id.
    pub directory: PathBuf,
    /// What serves as the keeper; without one, what is held ends with this process.
    pub keeper: Option<KeeperCommand>,
}

/// A command that calls [`keep_sockets`] for the directory.
#[derive(Debug, Clone)]
pub struct KeeperCommand {
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<std::ffi::OsString>,
}

/// A wish for free ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Of which protocol.
    pub protocol: Protocol,
    /// At which addresses they must be free.
    pub address: HostAddress,
    /// How many in a row; at least one.
    pub count: u16,
    /// Where to look, lowest first; the host's range for ephemeral ports if nowhere.
    pub within: Option<PortRange>,
}

/// Why a port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody has it.
    #[error("{protocol} port {port} at {address} is taken{}", by(holder.as_deref()))]
    Taken {
        /// Its protocol.
        protocol: Protocol,
        /// Where it was wanted.
        address: HostAddress,
        /// The port, the first of those wanted that is taken.
        port: u16,
        /// Who has it, where that can be known.
        holder: Option<String>,
    },
    /// The host has no such address.
    #[error("this host has no address {address}")]
    NoSuchAddress {
        /// The address.
        address: HostAddress,
    },
    /// No such ports are free.
    #[error("there are no {count} free {protocol} ports in a row within {within} at {address}")]
    NoneFree {
        /// Their protocol.
        protocol: Protocol,
        /// Where they were wanted.
        address: HostAddress,
        /// How many were wanted.
        count: u16,
        /// Where they were looked for.
        within: PortRange,
    },
    /// More ports than can be held.
    #[error("no more than {limit} ports can be held by sockets")]
    TooMany {
        /// How many can.
        limit: usize,
    },
    /// The host's sockets cannot be read.
    #[error("cannot look for programs that use {protocol} ports {ports}")]
    Look {
        /// Of which protocol.
        protocol: Protocol,
        /// Among which ports.
        ports: PortRange,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket cannot be made or bound.
    #[error("cannot take {protocol} port {port} at {address}")]
    Other {
        /// Its protocol.
        protocol: Protocol,
        /// Where it was wanted.
        address: HostAddress,
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a message says of whoever has a port, where that is known.
pub(crate) fn by(holder: Option<&str>) -> String {
    holder
        .map(|holder| format!(" by {holder}"))
        .unwrap_or_default()
}

/// The ports that are held, in the network namespace of the thread that opened it; its methods must be called
/// from threads in that namespace.
#[derive(Debug)]
pub struct Ports {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    config: PortsConfig,
    state: Mutex<State>,
    /// The keeper, if it is a child of ours.
    child: Mutex<Option<Child>>,
    closing: AtomicBool,
}

impl Ports {
    /// Finds what an earlier daemon has left with the keeper, which is started if there is none. Without a keeper
    /// that answers, everything is held by this process instead, and the log says so.
    pub(crate) fn open(config: PortsConfig) -> Self {
        // Whatever the limit is then, binding says when it is reached.
        let _ = sys::ports::raise_open_files(KEPT_SOCKETS_MAX as u64);
        let shared = Arc::new(Shared {
            config,
            state: Mutex::new(State::new()),
            child: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let watched = shared.connect(&mut lock(&shared.state));
        let watcher = watched.and_then(|watched| {
            let shared = Arc::clone(&shared);
            let watcher = thread::Builder::new().name("ports".into());
            watcher.spawn(move || shared.watch(watched)).ok()
        });
        Self { shared, watcher }
    }

    /// Makes sure that these ports are held as wanted, and by us alone; what is so already stays. One that was
    /// held otherwise goes on to be held while it changes. The results are in the order of the wishes.
    pub(crate) fn reserve_all(
        &self,
        wishes: &[(&PortKey, PortSpec)],
    ) -> Vec<Result<(), PortError>> {
        lock(&self.shared.state).reserve_all(wishes)
    }

    /// Gives ports back; those that are not held are no error. Others may have them when this returns.
    pub(crate) fn release(&self, keys: &[&PortKey]) {
        lock(&self.shared.state).release(keys);
    }

    /// What is held.
    pub(crate) fn held(&self) -> Vec<(PortKey, PortSpec)> {
        lock(&self.shared.state).held()
    }

    /// Finds free ports and holds them until they are reserved, or given back by [`Self::release_parked`].
    /// A single port anywhere is the kernel's choice, which respects `ip_local_reserved_ports`.
    ///
    /// # Errors
    /// When none are free, or the host has no such address.
    pub fn pick(&self, pick: &Pick) -> Result<PortRange, PortError> {
        lock(&self.shared.state).pick(pick)
    }

    /// Gives back ports that were picked and are not reserved yet.
    pub fn release_parked(&self, ranges: &[(Protocol, HostAddress, PortRange)]) {
        lock(&self.shared.state).release_parked(ranges);
    }

    /// The socket at `port` of a reservation that is relayed: one that listens (TCP) or one that tells where each
    /// datagram was sent to (UDP). It does not block. `None` when no such port is held for a relay.
    pub fn listener(&self, key: &PortKey, port: u16) -> Option<OwnedFd> {
        lock(&self.shared.state).listener(key, port)
    }

    /// Keeps a socket of the daemon's own, so that it is there again after a restart, if ports are held then.
    ///
    /// # Errors
    /// When the name is longer than 254 bytes, or there are too many open files.
    pub fn keep(&self, name: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        let name = name::of_kept(name).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = socket.try_clone_to_owned()?;
        lock(&self.shared.state).keep(name, socket)
    }

    /// A copy of the socket that was kept under a name, by this process or an earlier one.
    pub fn kept(&self, name: &str) -> Option<OwnedFd> {
        lock(&self.shared.state).kept(&name::of_kept(name)?)
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        let state = lock(&self.shared.state);
        state.hang_up();
        let is_empty = state.is_empty();
        drop(state);
        if let Some(watcher) = self.watcher.take() {
            // It has told of its panic itself.
            drop(watcher.join());
        }
        if is_empty {
            self.shared.bury();
        }
    }
}

impl Shared {
    /// Puts the state in touch with a keeper; what shows that it has hung up.
    fn connect(&self, state: &mut State) -> Option<Arc<OwnedFd>> {
        let command = self.config.keeper.as_ref()?;
        let mut child = lock(&self.child);
        let connection = Connection::open(&self.config.directory, command, &mut child);
        let adopted = connection.and_then(|mut connection| {
            let kept = connection.list()?;
            let watched = connection.watched();
            state.adopt(connection, kept);
            Ok(watched)
        });
        match adopted {
            Ok(watched) => Some(watched),
            Err(error) => {
                let directory = self.config.directory.display();
                tracing::error!(%error, %directory, "no keeper; published ports are free and names unknown while the daemon is away");
                state.take_back();
                None
            }
        }
    }

    /// Finds another keeper whenever one has hung up, and takes what it held again at once.
    fn watch(&self, mut watched: Arc<OwnedFd>) {
        loop {
            let hung_up = sys::ports::await_hang_up(&watched);
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            if let Err(error) = hung_up {
                tracing::error!(%error, "cannot watch the keeper of ports");
                return;
            }
            tracing::warn!("the keeper of ports is gone; taking its ports again");
            let mut state = lock(&self.state);
            match self.connect(&mut state) {
                Some(next) => watched = next,
                None => return,
            }
        }
    }

    /// Waits for the end of a keeper that is a child of ours and about to end.
    fn bury(&self) {
        let mut child = lock(&self.child);
        let end = Instant::now() + KEEPER_START;
        while let Some(keeper) = &mut *child {
            match keeper.try_wait() {
                Ok(None) if Instant::now() < end => thread::sleep(KEEPER_LOOK_AGAIN),
                _ => *child = None,
            }
        }
    }
}
