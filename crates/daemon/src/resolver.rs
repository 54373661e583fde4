//! The resolver: answers questions for names in every sandbox, about our own names at once and about all others by
//! asking servers. A thread of its own, so that names delay nothing else and nothing delays names.
//!
//! Its sockets are objects like any other (`listener`): the kernel crate opens, keeps and closes them, and tells
//! of each. Where a socket is says who asks.

mod book;
mod call;
mod datagram;
mod forward;
mod mdns;
mod records;
mod service;
mod stream;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;
use tombolo_core::id::SandboxId;
use tombolo_dns::names::{Zone, ZoneId};
use tombolo_dns::view::Settings;
use tombolo_kernel::ListenerChange;
use tombolo_netstate::Netns;

use book::Book;
use mdns::Post;
use service::{Command, Service, SocketMaker};

pub(crate) use book::Upstreams;
pub(crate) use call::{Answered, Call, Source};
pub(crate) use records::{entry, shared_upstreams, zones};

/// The resolver of a host. Ends with this; its sockets stay where they are kept.
#[derive(Debug)]
pub(crate) struct Resolver {
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// What the resolver's thread and its owner both see.
#[derive(Debug)]
struct Shared {
    book: RwLock<Book>,
    /// Told when a sandbox may have left.
    left: Notify,
}

/// Why the resolver cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// No event loop.
    #[error("cannot make the event loop of the resolver")]
    Runtime(#[source] std::io::Error),
    /// No thread.
    #[error("cannot start the thread of the resolver")]
    Thread(#[source] std::io::Error),
}

/// Why the host itself cannot ask at an address.
#[derive(Debug, thiserror::Error)]
#[error("names cannot be asked for at {address}")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

impl Resolver {
    /// Begins; questions are taken as listeners are told of.
    pub(crate) fn start(
        settings: Settings,
        upstreams: Upstreams,
        make_socket: SocketMaker,
        cache_bytes: usize,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            book: RwLock::new(Book::new(settings, upstreams)),
            left: Notify::new(),
        });
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Runtime)?;
        let (commands, received) = unbounded_channel();
        let seen = Arc::clone(&shared);
        let run = move || {
            let service = Rc::new(Service::new(seen, make_socket, cache_bytes));
            LocalSet::new().block_on(&runtime, service::serve(service, received));
        };
        let thread = std::thread::Builder::new().name("resolver".to_owned());
        let thread = thread.spawn(run).map_err(StartError::Thread)?;
        Ok(Self {
            shared,
            commands,
            thread: Some(thread),
        })
    }

    /// What is to be told of listeners that come and go.
    pub(crate) fn subscriber(&self) -> impl Fn(ListenerChange) + Send + Sync + 'static {
        let commands = self.commands.clone();
        // Fails only when the resolver ends, which closes its copies of them all.
        move |change| drop(commands.send(Command::Listener(change)))
    }

    /// Lets the host itself ask at an address, for our own names alone.
    pub(crate) fn listen(&self, address: SocketAddr) -> Result<(), ListenError> {
        let open = || {
            let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        };
        let (udp, tcp) = open().map_err(|source| ListenError { address, source })?;
        drop(self.commands.send(Command::Host(udp, tcp)));
        Ok(())
    }

    /// Replaces what is known of a sandbox.
    pub(crate) fn set(&self, id: SandboxId, mut entry: book::Entry) {
        let posts = std::mem::take(&mut entry.posts);
        let netns = entry.asker.as_ref().map(|(netns, _)| netns.clone());
        let before = self.shared.write().set(id, entry);
        self.shared.left.notify_waiters();
        if let Some(before) = before.filter(|before| netns.as_ref() != Some(before)) {
            self.respond(before, Vec::new());
        }
        if let Some(netns) = netns {
            self.respond(netns, posts);
        }
    }

    /// Forgets a sandbox.
    pub(crate) fn remove(&self, id: SandboxId) {
        let before = self.shared.write().remove(id);
        self.shared.left.notify_waiters();
        if let Some(before) = before {
            self.respond(before, Vec::new());
        }
    }

    /// Has multicast responders at these posts of a namespace, and no others.
    fn respond(&self, netns: Netns, posts: Vec<Post>) {
        drop(self.commands.send(Command::Multicast(netns, posts)));
    }

    /// Replaces all networks.
    pub(crate) fn set_zones(&self, zones: Vec<(ZoneId, Zone)>) {
        self.shared.write().set_zones(zones);
    }

    /// Replaces the servers of those who have none of their own.
    pub(crate) fn set_upstreams(&self, upstreams: Upstreams) {
        self.shared.write().upstreams = Arc::new(upstreams);
    }

    /// Asks as a sandbox, or as the host, would.
    pub(crate) fn call(&self, call: Call, reply: oneshot::Sender<Answered>) {
        // If the resolver has ended, whoever waits sees that the sender is gone.
        drop(self.commands.send(Command::Call(call, reply)));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        drop(self.commands.send(Command::End));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the resolver's thread panicked");
        }
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the sandbox with that namespace has left: an open socket would keep the namespace from going.
    async fn until_left(&self, netns: &Netns) {
        if *netns == Netns::Host {
            return std::future::pending().await;
        }
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if !self.read().has(netns) {
                return;
            }
            left.await;
        }
    }
}
