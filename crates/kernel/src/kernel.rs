//! The kernel as one object: what is kept open for the life of the process.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::object::port;
use tombolo_netstate::{Key, Mac, Netns, Plan, Report};

use crate::bpf::Programs;
use crate::conntrack::Conntrack;
use crate::facts::ForeignMemory;
use crate::limits::{GROUP_GRAVEYARD, GROUP_NURSERY, IDLE_SOCKETS_MAX, IFINDEX_BASE};
use crate::listeners::{ListenerChange, Listeners};
use crate::netlink::link::LinkRecord;
use crate::netlink::socket::Protocol;
use crate::netlink::{ReadBuffer, Socket, link};
use crate::netns::{Namespaces, NetnsError};
use crate::nft::NftSocket;
use crate::nft::user::{self, UserRules};
use crate::ports::{Ports, PortsConfig};
use crate::reaper::{Burial, Reaper};
use crate::{apply, facts, observe, watch};

/// How the kernel is used.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// Our directory under `/run`; namespaces that we make are named in its folder `netns`.
    pub run_dir: PathBuf,
    /// Tells our links from those of another instance on the same host; part of their `ifalias`.
    pub instance: String,
    /// How many network namespaces are made ahead of need; 0 for none.
    pub pool: usize,
    /// How published ports are held; by this process alone if it is not said.
    pub ports: Option<PortsConfig>,
}

/// Why the kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory of namespaces cannot be made a mount point.
    #[error("cannot prepare {} for network namespaces; it needs CAP_SYS_ADMIN", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The links of the host cannot be read.
    #[error("cannot read the host's links")]
    Links(#[source] io::Error),
}

/// The kernel's network objects, in the namespace of the thread that opened it (the host) and in those of
/// sandboxes. All methods block, and must be called from threads that are in the host's namespace.
#[derive(Debug)]
pub struct Kernel {
    /// What `ifalias` of every link of ours begins with.
    pub(crate) mark: String,
    pub(crate) namespaces: Namespaces,
    pub(crate) nft: NftSocket,
    ports: Ports,
    pub(crate) listeners: Arc<Listeners>,
    /// The user's own rules, to be put back when our table vanishes.
    user_rules: Mutex<UserRules>,
    /// What was last found of the rules of others.
    pub(crate) foreign_memory: Mutex<ForeignMemory>,
    pub(crate) conntrack: Conntrack,
    /// Those that hand packets to bridges.
    pub(crate) programs: Programs,
    /// Whether the kernel has IPv6 at all.
    pub(crate) ipv6: bool,
    /// Whether addresses have a protocol (Linux 5.18).
    pub(crate) address_protocol: bool,
    pub(crate) features: OnceLock<facts::Features>,
    /// Netlink ports of our host-side sockets, by which notifications name their cause.
    pub(crate) netlink_ports: Arc<Mutex<Vec<u32>>>,
    idle: Mutex<Vec<(Socket, ReadBuffer)>>,
    next_index: AtomicU32,
    /// The other ends of our veths by the number of the end in the host, for observing the host alone.
    twins: Mutex<BTreeMap<u32, (LinkKey, Mac)>>,
    burials: Sender<Burial>,
    gone: Mutex<Option<Receiver<Vec<Key>>>>,
}

impl Kernel {
    /// Opens sockets and prepares the run directory. Links that an earlier process was removing, or had begun
    /// and not finished, are removed in the background.
    ///
    /// # Errors
    /// Without the privileges of a network administrator, or when the run directory cannot be used.
    pub fn open(config: KernelConfig) -> Result<Self, OpenError> {
        let path = config.run_dir.join("netns");
        let namespaces = Namespaces::open(path.clone(), config.pool)
            .map_err(|source| OpenError::RunDir { path, source })?;
        let ports = Ports::open(config.ports.unwrap_or(PortsConfig {
            directory: config.run_dir,
            keeper: None,
        }));
        let listeners = Listeners::adopt(&namespaces, &ports);
        let (burials, gone) = Reaper::start().map_err(OpenError::Socket)?;
        let kernel = Self {
            mark: format!("tombolo:{}:", config.instance),
            namespaces,
            nft: NftSocket::open().map_err(OpenError::Socket)?,
            ports,
            listeners: Arc::new(listeners),
            user_rules: Mutex::default(),
            foreign_memory: Mutex::default(),
            conntrack: Conntrack::open().map_err(OpenError::Socket)?,
            programs: Programs::default(),
            ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            address_protocol: facts::kernel_release().is_none_or(|release| release >= (5, 18)),
            features: OnceLock::new(),
            netlink_ports: Arc::default(),
            idle: Mutex::default(),
            next_index: AtomicU32::new(IFINDEX_BASE),
            twins: Mutex::default(),
            burials,
            gone: Mutex::new(Some(gone)),
        };
        let links = kernel
            .with_host(link::dump)
            .and_then(|links| links)
            .map_err(OpenError::Links)?;
        kernel.take_over(&links);
        Ok(kernel)
    }

    /// Carries out a plan and says what became of each operation. Operations that do not depend on a failed
    /// one go on; nothing is undone.
    pub fn apply(&self, plan: &Plan) -> Report {
        apply::apply(self, plan)
    }

    /// Reads back everything of ours within `scope`, as the specs that would have made it.
    ///
    /// # Errors
    /// When the kernel cannot be read; a sandbox namespace that is gone merely holds nothing.
    pub fn observe(
        &self,
        scope: &observe::Scope,
    ) -> Result<observe::Observed, observe::ObserveError> {
        observe::observe(self, scope)
    }

    /// Where objects whose removal was deferred are told when they are gone. Handed out once.
    pub fn gone(&self) -> Option<Receiver<Vec<Key>>> {
        lock(&self.gone).take()
    }

    /// Watches the host's namespace for changes that may need repair.
    ///
    /// # Errors
    /// When the kernel refuses a socket or a subscription.
    pub fn watch(&self) -> Result<watch::Watch, watch::WatchError> {
        watch::Watch::open(self)
    }

    /// What the drivers must know of the host.
    ///
    /// # Errors
    /// When links, routes or addresses cannot be read.
    pub fn host_facts(&self) -> Result<facts::HostFacts, facts::FactsError> {
        facts::host_facts(self)
    }

    /// What may stand in the way of our networks.
    ///
    /// # Errors
    /// When the rules of the host cannot be read.
    pub fn diagnose(&self) -> Result<facts::Diagnosis, facts::FactsError> {
        facts::diagnose(self)
    }

    /// The host's ports that are held.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Tells `subscriber` of all listeners that there are, and then of every one that is opened or closed, in that
    /// order; whoever was told before is told no more. It is called with a lock held: it must be quick, and ask
    /// nothing of the kernel.
    pub fn on_listeners(&self, subscriber: Box<dyn Fn(ListenerChange) + Send + Sync>) {
        self.listeners.subscribe(subscriber);
    }

    /// The value of a kernel setting, without the final newline; `path` is below `/proc/sys`.
    ///
    /// # Errors
    /// When there is no such setting or it cannot be read.
    pub fn read_sysctl(&self, path: &str) -> io::Result<String> {
        facts::read_sysctl(path)
    }

    /// The user's own rules as they stand in our table. None where that says nothing of what the user wants:
    /// the table was removed or emptied, and will be made anew with what is remembered.
    ///
    /// # Errors
    /// When the rules cannot be read, or are too many to be kept.
    pub fn read_user_rules(&self) -> io::Result<Option<UserRules>> {
        user::save(&self.nft)
    }

    /// The rules that are put back when our table vanishes.
    pub fn user_rules(&self) -> UserRules {
        lock(&self.user_rules).clone()
    }

    /// Remembers the rules that are put back when our table vanishes.
    pub fn remember_user_rules(&self, rules: UserRules) {
        *lock(&self.user_rules) = rules;
    }

    /// What a packet of `protocol` was meant for that a rule of the host redirected: `client` is its source,
    /// and `local` the address and port at which it was received. None where no such connection is tracked.
    ///
    /// # Errors
    /// When the kernel cannot be asked (`CONFIG_NF_CT_NETLINK`), or the two are not of one family.
    pub fn original_destination(
        &self,
        protocol: port::Protocol,
        client: SocketAddr,
        local: SocketAddr,
    ) -> io::Result<Option<SocketAddr>> {
        self.conntrack.original_destination(protocol, client, local)
    }

    /// The names of all namespaces that we made.
    ///
    /// # Errors
    /// When their directory cannot be read.
    pub fn netns_names(&self) -> io::Result<Vec<Arc<str>>> {
        self.namespaces.names()
    }

    /// Where the namespace that we make under that name lies.
    pub fn netns_path(&self, name: &str) -> PathBuf {
        self.namespaces.path(name)
    }

    /// A socket for the rules of a namespace that is not the host's.
    pub(crate) fn nft_in(&self, netns: &Netns) -> Result<NftSocket, NetnsError> {
        let failed = |source| NetnsError::Socket {
            name: netns.to_string(),
            source,
        };
        match self.namespaces.file(netns)? {
            None => NftSocket::open().map_err(failed),
            Some(file) => self
                .namespaces
                .within(netns, &file, NftSocket::open)?
                .map_err(failed),
        }
    }

    /// Lends a socket in the host's namespace to `work`.
    pub(crate) fn with_host<T>(
        &self,
        work: impl FnOnce(&Socket, &mut ReadBuffer) -> T,
    ) -> io::Result<T> {
        let (socket, mut buffer) = self.checkout()?;
        let done = work(&socket, &mut buffer);
        self.checkin(socket, buffer);
        Ok(done)
    }

    /// A socket in the host's namespace, to be given back with [`Self::checkin`].
    pub(crate) fn checkout(&self) -> io::Result<(Socket, ReadBuffer)> {
        if let Some(idle) = lock(&self.idle).pop() {
            return Ok(idle);
        }
        let socket = Socket::open(Protocol::Route)?;
        socket.enlarge()?;
        lock(&self.netlink_ports).push(socket.port());
        Ok((socket, ReadBuffer::new()))
    }

    pub(crate) fn checkin(&self, socket: Socket, buffer: ReadBuffer) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_SOCKETS_MAX {
            idle.push((socket, buffer));
        } else {
            lock(&self.netlink_ports).retain(|port| *port != socket.port());
        }
    }

    /// Numbers for the two ends of a new link: even in its namespace, odd for the other end.
    pub(crate) fn new_indexes(&self) -> (u32, u32) {
        let index = self.next_index.fetch_add(2, Ordering::Relaxed);
        (index, index + 1)
    }

    pub(crate) fn remember_twin(&self, index: u32, twin: LinkKey, mac: Mac) {
        lock(&self.twins).insert(index, (twin, mac));
    }

    pub(crate) fn forget_twin(&self, index: u32) {
        lock(&self.twins).remove(&index);
    }

    pub(crate) fn twin_of(&self, index: u32) -> Option<(LinkKey, Mac)> {
        lock(&self.twins).get(&index).cloned()
    }

    pub(crate) fn bury(&self, burial: Burial) {
        if self.burials.send(burial).is_err() {
            tracing::error!("the thread that removes links is gone");
        }
    }

    /// Whether a link bears our mark, or is on its way to or from bearing it.
    pub(crate) fn owns(&self, link: &LinkRecord) -> bool {
        link.owned_alias(&self.mark).is_some() || is_passing(link)
    }

    /// Numbers begin above all that are in use, and what was left half done is cleared away.
    fn take_over(&self, links: &[LinkRecord]) {
        let highest = links
            .iter()
            .flat_map(|link| [Some(link.index), link.link])
            .flatten()
            .max()
            .unwrap_or(0);
        let first = IFINDEX_BASE.max(highest.saturating_add(2) & !1);
        self.next_index.store(first, Ordering::Relaxed);
        let unfinished: Vec<u32> = links
            .iter()
            .filter(|link| link.group == GROUP_NURSERY)
            .map(|link| link.index)
            .collect();
        if !unfinished.is_empty() {
            self.bury(Burial::Unfinished(unfinished));
        }
        if links.iter().any(|link| link.group == GROUP_GRAVEYARD) {
            self.bury(Burial::Leftover);
        }
    }
}

/// Whether a link is being made or removed.
pub(crate) fn is_passing(link: &LinkRecord) -> bool {
    matches!(link.group, GROUP_NURSERY | GROUP_GRAVEYARD)
}

/// Locks, also when another thread has panicked with the lock: what we keep is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
