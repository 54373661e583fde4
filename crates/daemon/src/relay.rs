//! The relay: carries what the kernel cannot translate. One for the whole host, on a thread of its own, so that
//! carried bytes delay nobody else.
//!
//! Clients come in at three kinds of sockets: those to which nftables redirects IPv6 connections (to sandboxes
//! that have IPv4 alone, or from the host's own `::1`), published ports themselves where the host's firewall is
//! to be obeyed, and Unix sockets of the host. A sandbox sees the host as its client.

mod flow;
mod packet;
mod routes;
mod service;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod unix;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ipnet::IpNet;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tombolo_netstate::object::port::{PortKey, Protocol};

use crate::limits::{RELAY_CLOSE_TIMEOUT, RELAY_COMMANDS_MAX, RELAY_PORTS};
use flow::{Bounds, Lookup, Service, Shared};
use service::{Command, Door, Listener};
use unix::SocketFile;

pub(crate) use flow::Counts;
pub(crate) use routes::{Entrance, Route};
pub(crate) use unix::UnixError;

/// The sockets to which connections are redirected: TCP and UDP at the same port of every IPv6 address.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Listens.
    pub(crate) tcp: TcpListener,
    /// Bound.
    pub(crate) udp: UdpSocket,
}

/// The relay of a host. Ends with this, and with it what it carries and its Unix sockets.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    held: Mutex<BTreeMap<Arc<str>, Held>>,
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

/// What an owner has besides routes.
#[derive(Debug, Default)]
struct Held {
    ports: Vec<Door>,
    files: BTreeMap<PathBuf, SocketFile>,
}

/// Why the relay cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The sockets for redirected connections cannot be used.
    #[error("cannot use the sockets of the relay")]
    Sockets(#[source] io::Error),
    /// No event loop.
    #[error("cannot make the event loop of the relay")]
    Runtime(#[source] io::Error),
    /// No thread.
    #[error("cannot start the thread of the relay")]
    Thread(#[source] io::Error),
}

/// Why an owner's routes cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    /// A Unix socket cannot be made.
    #[error("cannot publish at a Unix socket")]
    Unix(#[from] UnixError),
    /// The socket of a reservation cannot be used.
    #[error("cannot take what arrives at port {port} of {key}")]
    Listener {
        /// The reservation.
        key: PortKey,
        /// Which of its ports.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Only TCP and UDP are carried.
    #[error("{0} cannot be relayed; publish it without obeying the host's firewall")]
    Protocol(Protocol),
    /// The thread of the relay is gone.
    #[error("the relay does not run")]
    Stopped,
}

impl Sockets {
    /// Sockets at a port that is free for both protocols; none where the host has no IPv6.
    pub(crate) fn bind() -> io::Result<Option<Self>> {
        let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
        // Not a port of the kernel's choice: it may lie where somebody wants to publish a range.
        for port in RELAY_PORTS.chain([0]) {
            let bound = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).and_then(|tcp| {
                let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, tcp.local_addr()?.port()))?;
                Ok(Self { tcp, udp })
            });
            match bound {
                Ok(sockets) => return Ok(Some(sockets)),
                Err(error) if lacks_ipv6(&error) => return Ok(None),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The sockets that an earlier daemon made with [`Sockets::bind`]; none if they are not such.
    pub(crate) fn kept(tcp: OwnedFd, udp: OwnedFd) -> Option<Self> {
        let (tcp, udp) = (TcpListener::from(tcp), UdpSocket::from(udp));
        let ports = (tcp.local_addr().ok()?, udp.local_addr().ok()?);
        let fit = ports.0.is_ipv6() && ports.1.is_ipv6() && ports.0.port() == ports.1.port();
        fit.then_some(Self { tcp, udp })
    }

    /// The port of both.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.tcp.local_addr()?.port())
    }
}

impl Relay {
    /// Begins to relay, with the routes of each owner that hold from the first connection on: some may wait since
    /// the daemon before us. `lookup` tells where a redirected datagram was sent to, by its client and the address
    /// that it arrived at; it is asked on the relay's thread, for the first of each session.
    pub(crate) fn start<F>(
        redirected: Option<Sockets>,
        routes: impl IntoIterator<Item = (String, Vec<Route>)>,
        lookup: F,
    ) -> Result<Self, StartError>
    where
        F: Fn(SocketAddr, SocketAddr) -> io::Result<Option<SocketAddr>> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        for (owner, routes) in routes {
            shared.routes().set(&Arc::from(owner), routes);
        }
        Self::start_within(Bounds::default(), (shared, redirected), Box::new(lookup))
    }

    fn start_within(
        bounds: Bounds,
        (shared, redirected): (Arc<Shared>, Option<Sockets>),
        lookup: Lookup,
    ) -> Result<Self, StartError> {
        if let Some(sockets) = &redirected {
            let ready = sockets.tcp.set_nonblocking(true);
            let ready = ready.and_then(|()| sockets.udp.set_nonblocking(true));
            ready.map_err(StartError::Sockets)?;
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Runtime)?;
        let (commands, received) = sync_channel(RELAY_COMMANDS_MAX);
        let seen = Arc::clone(&shared);
        let run = move || {
            let service = Rc::new(Service::new(seen, bounds, lookup));
            let local = LocalSet::new();
            let ended = local.block_on(&runtime, service::serve(service, received, redirected));
            if let Err(error) = ended {
                tracing::error!(%error, "the relay cannot use its sockets");
            }
        };
        let thread = std::thread::Builder::new().name("relay".to_owned());
        let thread = thread.spawn(run).map_err(StartError::Thread)?;
        Ok(Self {
            shared,
            held: Mutex::default(),
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// What it has done and does.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Replaces all routes of an owner, and with them its Unix sockets and the sockets of its reservations,
    /// each given by its port. A socket that it has already may be given again, by any descriptor.
    ///
    /// Routes hold when this returns, and sockets that are no longer wanted are closed; connections that the
    /// routes no longer allow end a moment later. A socket that cannot be had is told, and the rest holds all the
    /// same: nothing that was taken back may stay open because of it.
    pub(crate) fn set(
        &self,
        owner: &str,
        routes: Vec<Route>,
        listeners: Vec<(PortKey, u16, OwnedFd)>,
    ) -> Result<(), SetError> {
        let owner: Arc<str> = owner.into();
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = Ok(());
        let mut doors = Vec::with_capacity(listeners.len());
        for (key, port, fd) in listeners {
            match listener(&key, port, fd) {
                Ok(listener) => doors.push((Door::Port(key, port), Some(listener))),
                Err(error) => refused = Err(error),
            }
        }
        let ports: Vec<Door> = doors.iter().map(|(door, _)| door.clone()).collect();
        let none = Held::default();
        let before = all.get(&owner).unwrap_or(&none);
        let mut made = BTreeMap::new();
        let mut kept = Vec::new();
        for route in &routes {
            let Entrance::Unix(path) = &route.entrance else {
                continue;
            };
            let door = Door::Unix(path.clone());
            if before.files.get(path).is_some_and(SocketFile::is_there) {
                kept.push(path.clone());
                doors.push((door, None));
            } else if !made.contains_key(path) {
                match SocketFile::make(path) {
                    Ok((file, listener)) => {
                        made.insert(path.clone(), file);
                        doors.push((door, Some(Listener::Unix(listener))));
                    }
                    Err(error) => refused = Err(error.into()),
                }
            }
        }
        let had_doors = !before.ports.is_empty() || !before.files.is_empty();
        self.shared.routes().set(&owner, routes);
        if had_doors || !doors.is_empty() || !self.shared.is_idle() {
            self.tell(Arc::clone(&owner), doors, had_doors)?;
        }
        let mut files = all.remove(&owner).unwrap_or_default().files;
        files.retain(|path, _| kept.contains(path));
        files.extend(made);
        if !ports.is_empty() || !files.is_empty() {
            all.insert(owner, Held { ports, files });
        }
        refused
    }

    /// Names the subnets whose endpoints have no way to other networks, and none through the relay.
    pub(crate) fn keep_in(&self, internal: Vec<IpNet>) {
        self.shared.routes().keep_in(internal);
    }

    /// Ends all that an owner has.
    pub(crate) fn remove(&self, owner: &str) -> Result<(), SetError> {
        self.set(owner, Vec::new(), Vec::new())
    }

    fn tell(
        &self,
        owner: Arc<str>,
        doors: Vec<(Door, Option<Listener>)>,
        wait: bool,
    ) -> Result<(), SetError> {
        let commands = self.commands.as_ref().ok_or(SetError::Stopped)?;
        let (done, closed): (_, Receiver<()>) = sync_channel(1);
        let command = Command { owner, doors, done };
        commands.send(command).map_err(|_| SetError::Stopped)?;
        self.shared.wake.notify_one();
        if wait && closed.recv_timeout(RELAY_CLOSE_TIMEOUT).is_err() {
            tracing::error!("the relay is slow to close its sockets");
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.commands = None;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the relay's thread panicked");
        }
    }
}

/// Whether a Unix socket can be had at `path`: makes it, in place of a stale one, and takes it away again.
pub(crate) fn try_unix_socket(path: &Path) -> Result<(), UnixError> {
    SocketFile::make(path).map(drop)
}

fn listener(key: &PortKey, port: u16, fd: OwnedFd) -> Result<Listener, SetError> {
    let ready = match key.protocol {
        Protocol::Tcp => {
            let listener = TcpListener::from(fd);
            let ready = listener.set_nonblocking(true);
            ready.map(|()| Listener::Tcp(listener))
        }
        Protocol::Udp => {
            let socket = UdpSocket::from(fd);
            let ready = socket.set_nonblocking(true);
            ready.map(|()| Listener::Udp(socket))
        }
        Protocol::Sctp => return Err(SetError::Protocol(key.protocol)),
    };
    let key = || key.clone();
    ready.map_err(|source| SetError::Listener {
        key: key(),
        port,
        source,
    })
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}
