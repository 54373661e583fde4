//! What the relay carries at the moment: who is counted, and who is closed when routes change.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tombolo_netstate::object::port::Protocol;

use super::routes::{Found, Routes};
use super::session::Sessions;
use crate::limits;

/// Where a redirected datagram was sent to, by its client and the address that it arrived at.
pub(super) type Lookup =
    Box<dyn Fn(SocketAddr, SocketAddr) -> io::Result<Option<SocketAddr>> + Send>;

/// Bounds of one relay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) sessions: usize,
    pub(super) connect: Duration,
    pub(super) idle: Duration,
    pub(super) unanswered: Duration,
    pub(super) recheck: Duration,
}

/// What a relay has done and does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// TCP connections now, those from Unix sockets among them.
    pub(crate) connections: u64,
    /// UDP sessions now.
    pub(crate) sessions: u64,
    /// Connections and sessions ever begun.
    pub(crate) total: u64,
    /// Connections and datagrams refused: no route, not an allowed source, or too many at once.
    pub(crate) refused: u64,
}

/// What the relay's thread and its owner both see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    routes: Mutex<Routes>,
    /// How much runs for each owner.
    owned: Mutex<BTreeMap<(Arc<str>, Kind), u64>>,
    connections: AtomicU64,
    sessions: AtomicU64,
    total: AtomicU64,
    refused: AtomicU64,
    /// Told when a command waits.
    pub(super) wake: Notify,
}

/// How a client came in.
#[derive(Debug)]
pub(super) enum Origin {
    /// By an address of the host.
    Address {
        protocol: Protocol,
        destination: SocketAddr,
        client: IpAddr,
    },
    /// By a Unix socket.
    Unix(PathBuf),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Connection,
    Session,
}

/// The state of the relay's thread.
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) bounds: Bounds,
    pub(super) lookup: Lookup,
    pub(super) sessions: RefCell<Sessions>,
    /// Where data is put on its way; never borrowed while anything is awaited.
    pub(super) buffer: RefCell<Box<[u8]>>,
    flows: RefCell<Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    next: u64,
    running: BTreeMap<(Arc<str>, u64), Flow>,
}

#[derive(Debug)]
struct Flow {
    origin: Origin,
    target: SocketAddr,
    abort: AbortHandle,
}

/// Leave to carry something, counted for as long as it exists.
#[derive(Debug)]
pub(super) struct Admission {
    shared: Arc<Shared>,
    kind: Kind,
    found: Found,
}

/// The place of a flow among those that run; given back when its task ends, however that comes about.
struct Slot {
    service: Rc<Service>,
    key: (Arc<str>, u64),
    _admission: Admission,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::RELAY_CONNECTIONS_MAX,
            sessions: limits::RELAY_SESSIONS_MAX,
            connect: limits::RELAY_CONNECT_TIMEOUT,
            idle: limits::RELAY_SESSION_IDLE,
            unanswered: limits::RELAY_SESSION_UNANSWERED,
            recheck: limits::RELAY_SESSION_RECHECK,
        }
    }
}

impl Shared {
    /// The routes. What changes them counts flows only after it let go of them, and whoever begins a flow
    /// counts it before: so that none that a change concerns is missed.
    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is carried.
    pub(super) fn is_idle(&self) -> bool {
        let counts = self.counts();
        counts.connections == 0 && counts.sessions == 0
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Counts {
            connections: read(&self.connections),
            sessions: read(&self.sessions),
            total: read(&self.total),
            refused: read(&self.refused),
        }
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn owned(&self) -> MutexGuard<'_, BTreeMap<(Arc<str>, Kind), u64>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client in that has a route, while fewer than `most` run, and no more than three quarters of them for
    /// one owner: whoever keeps one port busy leaves the others something. Counts it as refused else.
    pub(super) fn admit(
        self: &Arc<Self>,
        origin: &Origin,
        kind: Kind,
        most: usize,
    ) -> Option<Admission> {
        let routes = self.routes();
        let running = self.count(kind);
        let full = running.load(Ordering::SeqCst) >= most as u64;
        let found = if full { None } else { origin.find(&routes) };
        let share = (most - most / 4) as u64;
        let mut owned = self.owned();
        let has_share = |found: &Found| {
            let key = (Arc::clone(&found.owner), kind);
            owned.get(&key).is_none_or(|count| *count < share)
        };
        let Some(found) = found.filter(has_share) else {
            self.refuse();
            return None;
        };
        *owned.entry((Arc::clone(&found.owner), kind)).or_default() += 1;
        running.fetch_add(1, Ordering::SeqCst);
        self.total.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(self);
        Some(Admission {
            shared,
            kind,
            found,
        })
    }

    fn count(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Session => &self.sessions,
        }
    }
}

impl Origin {
    fn find(&self, routes: &Routes) -> Option<Found> {
        match self {
            Self::Address {
                protocol,
                destination,
                client,
            } => routes.find(*protocol, *destination, *client),
            Self::Unix(path) => routes.find_unix(path),
        }
    }
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>, bounds: Bounds, lookup: Lookup) -> Self {
        Self {
            shared,
            bounds,
            lookup,
            sessions: RefCell::default(),
            buffer: RefCell::new(vec![0; limits::RELAY_BUFFER_BYTES].into_boxed_slice()),
            flows: RefCell::default(),
        }
    }

    /// Runs what was admitted, until it ends or its route does.
    pub(super) fn carry<F>(
        self: &Rc<Self>,
        admission: Admission,
        origin: Origin,
        work: F,
    ) -> AbortHandle
    where
        F: Future<Output = ()> + 'static,
    {
        let Found { owner, target } = admission.found.clone();
        let mut flows = self.flows.borrow_mut();
        flows.next += 1;
        let key = (owner, flows.next);
        let slot = Slot {
            service: Rc::clone(self),
            key: key.clone(),
            _admission: admission,
        };
        let task = spawn_local(async move {
            let _slot = slot;
            work.await;
        });
        let abort = task.abort_handle();
        let flow = Flow {
            origin,
            target,
            abort: abort.clone(),
        };
        flows.running.insert(key, flow);
        abort
    }

    /// Ends what the owner's routes no longer allow, or now lead elsewhere.
    pub(super) fn review(&self, owner: &Arc<str>) {
        let routes = self.shared.routes();
        let flows = self.flows.borrow();
        let own = (Arc::clone(owner), 0)..=(Arc::clone(owner), u64::MAX);
        for (_, flow) in flows.running.range(own) {
            let stays = flow
                .origin
                .find(&routes)
                .is_some_and(|found| found.owner == *owner && found.target == flow.target);
            if !stays {
                flow.abort.abort();
            }
        }
    }
}

impl Admission {
    /// Where it leads.
    pub(super) fn target(&self) -> SocketAddr {
        self.found.target
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.count(self.kind).fetch_sub(1, Ordering::SeqCst);
        let mut owned = self.shared.owned();
        let key = (Arc::clone(&self.found.owner), self.kind);
        if let Some(count) = owned.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                owned.remove(&key);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.service.flows.borrow_mut().running.remove(&self.key);
    }
}
