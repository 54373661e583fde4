//! The resolver's thread: its sockets as they come and go, and what it remembers.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};
use tombolo_dns::answer::Question;
use tombolo_dns::cache::{Cache, Found, Key};
use tombolo_dns::exchange::{Asking, Form, Outgoing, RANDOM_BYTES, fingerprint};
use tombolo_dns::proto::op::Message;
use tombolo_dns::upstream::{Failure, Flights, Joined, Memory, Quirk, Step};
use tombolo_kernel::{ListenerChange, SocketKind};
use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;

use super::book::{Asker, Place, Server, Upstreams};
use super::datagram::{self, Buffers};
use super::forward::{Waiter, query_of};
use super::mdns::{Post, Responders};
use super::{Shared, call, stream};
use crate::limits::{NAMES_DRAIN, NAMES_DRAIN_LOOK};

/// Makes a socket in a network namespace.
pub(super) type SocketMaker = Box<dyn Fn(&Netns, SocketKind, bool) -> io::Result<OwnedFd> + Send>;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// A listener came or went.
    Listener(ListenerChange),
    /// Sockets for the host itself.
    Host(UdpSocket, TcpListener),
    /// Have multicast responders at these posts of a namespace, and no others.
    Multicast(Netns, Vec<Post>),
    /// Somebody asks by the API.
    Call(call::Call, oneshot::Sender<call::Answered>),
    /// Answer what was taken, take no more, and end.
    End,
}

/// What the tasks of the thread share.
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) buffers: RefCell<Buffers>,
    make_socket: SocketMaker,
    begun: Instant,
    turns: Cell<u32>,
    /// Counted apart, so that each remainder comes up.
    plans: Cell<u32>,
    cache: RefCell<Cache>,
    memory: RefCell<Memory<Server>>,
    flights: RefCell<Flights<Key, Waiter>>,
    /// Questions of ours that are under way, with how many there are of each.
    ours: RefCell<HashMap<u64, usize>>,
    /// Whether no more questions are to be taken.
    ending: watch::Sender<bool>,
}

/// A question of ours is under way for as long as this exists.
pub(super) struct Remembered<'a> {
    service: &'a Service,
    fingerprint: Option<u64>,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>, make_socket: SocketMaker, cache_bytes: usize) -> Self {
        Self {
            shared,
            buffers: RefCell::new(Buffers::new()),
            make_socket,
            begun: Instant::now(),
            turns: Cell::new(0),
            plans: Cell::new(0),
            cache: RefCell::new(Cache::new(cache_bytes)),
            memory: RefCell::default(),
            flights: RefCell::default(),
            ours: RefCell::default(),
            ending: watch::Sender::new(false),
        }
    }

    /// Returns when no more questions are to be taken.
    pub(super) async fn until_ending(&self) {
        // Fails only without a sender, and this is one.
        drop(self.ending.subscribe().wait_for(|ending| *ending).await);
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A number that is another one each time.
    pub(super) fn turn(&self) -> u32 {
        next(&self.turns)
    }

    pub(super) fn upstreams_of(&self, asker: &Asker) -> Arc<Upstreams> {
        self.shared.read().upstreams_of(asker)
    }

    pub(super) fn plan(&self, servers: &[Server]) -> Vec<Step<Server>> {
        let turn = next(&self.plans);
        self.memory.borrow().plan(servers, self.now(), turn)
    }

    pub(super) fn answered(&self, server: &Server, took: Duration) {
        self.memory.borrow_mut().answered(server, took, self.now());
    }

    pub(super) fn failed(&self, server: &Server, failure: Failure) {
        self.memory.borrow_mut().failed(server, failure, self.now());
    }

    pub(super) fn is_dead(&self, server: &Server) -> bool {
        self.memory.borrow().is_dead(server)
    }

    pub(super) fn found(&self, server: &Server, quirk: Quirk) {
        self.memory.borrow_mut().found(server, quirk, self.now());
    }

    pub(super) fn form(&self, server: &Server) -> Form {
        self.memory.borrow().form(server, self.now())
    }

    /// A query of our own for what a client asks. Whether data was validated is always asked for: the answer is
    /// kept, and each client told what it has asked for.
    pub(super) fn outgoing(&self, question: &Question, form: Form) -> io::Result<Outgoing> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        let asking = Asking {
            query: query_of(question),
            recursion_desired: true,
            checking_disabled: question.checking_disabled(),
            authentic_data: true,
            dnssec_ok: question.dnssec_ok(),
        };
        Ok(Outgoing::new(&asking, form, &random))
    }

    /// Lets a question of ours be recognised if it comes back.
    pub(super) fn remember(&self, outgoing: &Outgoing) -> Remembered<'_> {
        let fingerprint = outgoing.fingerprint();
        if let Some(known) = fingerprint {
            *self.ours.borrow_mut().entry(known).or_default() += 1;
        }
        Remembered {
            service: self,
            fingerprint,
        }
    }

    /// Whether a query is one that we have sent.
    pub(super) fn is_ours(&self, query: &[u8]) -> bool {
        let ours = self.ours.borrow();
        !ours.is_empty() && fingerprint(query).is_some_and(|known| ours.contains_key(&known))
    }

    pub(super) fn recall(&self, key: &Key) -> Option<Found> {
        self.cache.borrow_mut().get(key, self.now())
    }

    pub(super) fn recall_stale(&self, key: &Key) -> Option<Message> {
        self.cache.borrow_mut().get_stale(key, self.now())
    }

    /// Remembers an answer, or that there was none.
    pub(super) fn keep(&self, key: &Key, answer: Option<&Message>) {
        let mut cache = self.cache.borrow_mut();
        // For how long is the cache's business.
        match answer {
            Some(message) => drop(cache.insert(key.clone(), message, self.now())),
            None => drop(cache.insert_failure(key.clone(), self.now())),
        }
    }

    pub(super) fn join(&self, key: Key, asker: u64, waiter: Waiter) -> Joined<Waiter> {
        self.flights.borrow_mut().join(key, asker, waiter)
    }

    pub(super) fn finish(&self, key: &Key) -> Vec<Waiter> {
        self.flights.borrow_mut().finish(key)
    }

    /// A new socket in a namespace.
    pub(super) fn socket(
        &self,
        netns: &Netns,
        kind: SocketKind,
        ipv6: bool,
    ) -> io::Result<OwnedFd> {
        (self.make_socket)(netns, kind, ipv6)
    }

    fn is_idle(&self) -> bool {
        self.flights.borrow().is_empty()
    }
}

fn next(counter: &Cell<u32>) -> u32 {
    let number = counter.get();
    counter.set(number.wrapping_add(1));
    number
}

impl Drop for Remembered<'_> {
    fn drop(&mut self) {
        let Some(fingerprint) = self.fingerprint else {
            return;
        };
        let mut ours = self.service.ours.borrow_mut();
        if let Some(count) = ours.get_mut(&fingerprint) {
            *count -= 1;
            if *count == 0 {
                ours.remove(&fingerprint);
            }
        }
    }
}

/// The tasks of an open listener. What was taken is answered for as long as this exists.
struct Open {
    datagrams: JoinHandle<()>,
    streams: JoinHandle<()>,
    _udp: Arc<UdpSocket>,
}

impl Open {
    fn new(
        service: &Rc<Service>,
        place: &Place,
        udp: Arc<UdpSocket>,
        tcp: Arc<TcpListener>,
    ) -> Self {
        let datagrams = datagram::serve(Rc::clone(service), place.clone(), Arc::clone(&udp));
        let streams = stream::serve(Rc::clone(service), place.clone(), tcp);
        Self {
            datagrams: spawn_local(datagrams),
            streams: spawn_local(streams),
            _udp: udp,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.datagrams.abort();
        self.streams.abort();
    }
}

/// Serves until it is told to end.
pub(super) async fn serve(service: Rc<Service>, mut commands: UnboundedReceiver<Command>) {
    let mut open: BTreeMap<ListenerKey, Open> = BTreeMap::new();
    let mut host: Vec<Open> = Vec::new();
    let mut responders = Responders::default();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listener(ListenerChange::Opened { key, udp, tcp }) => {
                // Its namespace may be a new one of the same name.
                responders.open_again(&service, &key.netns);
                let place = Place::Listener(key.clone());
                open.insert(key, Open::new(&service, &place, udp, tcp));
            }
            Command::Listener(ListenerChange::Closed { key }) => drop(open.remove(&key)),
            Command::Host(udp, tcp) => {
                host.push(Open::new(
                    &service,
                    &Place::Host,
                    Arc::new(udp),
                    Arc::new(tcp),
                ));
            }
            Command::Multicast(netns, posts) => responders.set(&service, netns, posts),
            Command::Call(call, reply) => call::begin(&service, call, reply),
            Command::End => break,
        }
    }
    // What is not taken any more waits in the sockets for the daemon after us.
    service.ending.send_replace(true);
    let left: Vec<Open> = open.into_values().chain(host).collect();
    for one in &left {
        one.datagrams.abort();
    }
    drain(&service, &left).await;
}

/// Waits until what was taken is answered, but not for long.
async fn drain(service: &Service, left: &[Open]) {
    let end = Instant::now() + NAMES_DRAIN;
    let is_done = || service.is_idle() && left.iter().all(|one| one.streams.is_finished());
    while !is_done() && Instant::now() < end {
        sleep(NAMES_DRAIN_LOOK).await;
    }
}
