//! The relay's thread: where clients come in, and how that changes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use rustix::fs::fstat;
use rustix::net::sockopt::ipv6_original_dst;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener};
use tokio::task::coop::consume_budget;
use tokio::task::{JoinHandle, spawn_local};
use tombolo_netstate::object::port::{PortKey, Protocol};

use super::Sockets;
use super::flow::{Kind, Origin, Service};
use super::packet;
use super::session::{self, Inbound};
use super::stream::{self, End};
use crate::pause::Pause;

/// A socket of an owner's at which clients come in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// A port of a reservation.
    Port(PortKey, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What stands open at a door.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
    Unix(StdUnixListener),
}

/// All doors of an owner from now on. One without a listener stays as it is.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) owner: Arc<str>,
    pub(super) doors: Vec<(Door, Option<Listener>)>,
    /// Told when what is to be closed is closed.
    pub(super) done: SyncSender<()>,
}

/// A door that is open.
#[derive(Debug)]
struct Open {
    inode: u64,
    task: JoinHandle<()>,
}

/// Runs the relay until nobody can command it any more.
pub(super) async fn serve(
    service: Rc<Service>,
    commands: Receiver<Command>,
    redirected: Option<Sockets>,
) -> io::Result<()> {
    if let Some(Sockets { tcp, udp }) = redirected {
        let listener = TcpListener::from_std(tcp)?;
        spawn_local(accept(Rc::clone(&service), listener, true));
        let inbound = inbound(udp, true)?;
        spawn_local(session::receive(Rc::clone(&service), inbound));
    }
    let mut doors = BTreeMap::new();
    loop {
        match commands.try_recv() {
            Ok(command) => {
                change(&service, &mut doors, command).await;
                consume_budget().await;
            }
            Err(TryRecvError::Empty) => service.shared.wake.notified().await,
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// Opens and closes doors of one owner; what its routes no longer allow ends.
async fn change(
    service: &Rc<Service>,
    all: &mut BTreeMap<Arc<str>, BTreeMap<Door, Open>>,
    command: Command,
) {
    let mut before = all.remove(&command.owner).unwrap_or_default();
    let mut after = BTreeMap::new();
    for (door, listener) in command.doors {
        let known = before.remove(&door);
        let Some(listener) = listener else {
            after.extend(known.map(|open| (door, open)));
            continue;
        };
        let inode = listener.inode();
        if let Some(open) = known {
            if open.inode == inode {
                after.insert(door, open);
                continue;
            }
            open.close().await;
        }
        match listener.open(service, &door) {
            Ok(task) => {
                after.insert(door, Open { inode, task });
            }
            Err(error) => tracing::error!(?door, %error, "nothing can be taken at a socket"),
        }
    }
    for open in before.into_values() {
        open.close().await;
    }
    service.review(&command.owner);
    if !after.is_empty() {
        all.insert(command.owner, after);
    }
    // Whoever does not wait does not mind.
    let _ = command.done.try_send(());
}

impl Open {
    /// Closes the door: afterwards its socket is gone.
    async fn close(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Listener {
    /// What tells one socket from another, however many descriptors it has.
    fn inode(&self) -> u64 {
        let fd = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        fstat(fd).map_or(0, |stat| stat.st_ino)
    }

    fn open(self, service: &Rc<Service>, door: &Door) -> io::Result<JoinHandle<()>> {
        let service = Rc::clone(service);
        Ok(match self {
            Self::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                spawn_local(accept(service, listener, false))
            }
            Self::Udp(socket) => spawn_local(session::receive(service, inbound(socket, false)?)),
            Self::Unix(listener) => {
                let path = match door {
                    Door::Unix(path) => path.clone(),
                    Door::Port(..) => return Err(io::ErrorKind::InvalidInput.into()),
                };
                let listener = UnixListener::from_std(listener)?;
                spawn_local(accept_unix(service, listener, path))
            }
        })
    }
}

fn inbound(socket: std::net::UdpSocket, redirected: bool) -> io::Result<Rc<Inbound>> {
    let address = socket.local_addr()?;
    packet::tell_destinations(&socket, address.is_ipv6())?;
    let id = fstat(&socket)?.st_ino;
    Ok(Rc::new(Inbound {
        socket: UdpSocket::from_std(socket)?,
        id,
        port: address.port(),
        redirected,
    }))
}

async fn accept(service: Rc<Service>, listener: TcpListener, redirected: bool) {
    let mut pause = Pause::default();
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                pause.reset();
                let destination = destination(&stream, redirected);
                let origin = destination.map(|destination| Origin::Address {
                    protocol: Protocol::Tcp,
                    destination,
                    client: client.ip(),
                });
                take(&service, End::Tcp(stream), origin);
            }
            Err(error) => pause.after(&error).await,
        }
    }
}

async fn accept_unix(service: Rc<Service>, listener: UnixListener, path: PathBuf) {
    let mut pause = Pause::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                pause.reset();
                let origin = Some(Origin::Unix(path.clone()));
                take(&service, End::Unix(stream), origin);
            }
            Err(error) => pause.after(&error).await,
        }
    }
}

/// Carries a client's connection, or resets it if there is nowhere to go.
fn take(service: &Rc<Service>, client: End, origin: Option<Origin>) {
    let most = service.bounds.connections;
    let Some(origin) = origin else {
        service.shared.refuse();
        return;
    };
    match service.shared.admit(&origin, Kind::Connection, most) {
        Some(admission) => {
            let work = stream::relay(Rc::clone(service), client, admission.target());
            service.carry(admission, origin, work);
        }
        None => {
            // It is closed all the same if it cannot be reset.
            let _ = client.reset_when_closed(true);
        }
    }
}

/// Where a connection was meant to go. Nobody is meant to go to the relay's own port.
fn destination(stream: &TcpStream, redirected: bool) -> Option<std::net::SocketAddr> {
    let here = stream.local_addr().ok()?;
    if !redirected {
        return Some(here);
    }
    let original = ipv6_original_dst(stream).ok()?;
    let original = std::net::SocketAddr::V6(original);
    (original.port() != here.port() || original.ip() != here.ip()).then_some(original)
}
