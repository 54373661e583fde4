//! UDP sessions: for each client and destination a socket of its own towards the sandbox, by which the answers
//! find their way back.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};

use rustix::net::{SendFlags, send};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};
use tombolo_netstate::object::port::Protocol;

use super::flow::{Kind, Origin, Service};
use super::packet::{self, Ends};
use crate::limits::RELAY_DATAGRAMS_AT_ONCE;

/// A socket at which clients' datagrams arrive.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) socket: UdpSocket,
    /// Tells the sockets apart.
    pub(super) id: u64,
    pub(super) port: u16,
    /// Whether datagrams were sent to another port and are redirected to this one.
    pub(super) redirected: bool,
}

/// Sessions by client, and by how long they were silent.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    next: u64,
    open: BTreeMap<Key, Entry>,
    /// By when each was last known to be used; brought up to date only when the oldest is looked for.
    by_age: BTreeMap<(Instant, u64), Key>,
}

type Key = (u64, Ends);

#[derive(Debug)]
struct Entry {
    id: u64,
    filed: Instant,
    session: Rc<Session>,
    abort: AbortHandle,
}

#[derive(Debug)]
struct Session {
    /// Not what keeps the socket open: that ends when its owner says so.
    inbound: Weak<Inbound>,
    ends: Ends,
    destination: SocketAddr,
    upstream: UdpSocket,
    used: Cell<Instant>,
    answered: Cell<bool>,
}

/// Takes the session out of the list when its task ends.
struct Listed {
    service: Rc<Service>,
    key: Key,
    id: u64,
}

/// Takes what arrives at a socket, for as long as it runs.
pub(super) async fn receive(service: Rc<Service>, inbound: Rc<Inbound>) {
    let mut pause = crate::pause::Pause::default();
    loop {
        let received = inbound.socket.async_io(tokio::io::Interest::READABLE, || {
            packet::receive(&inbound.socket, &mut service.buffer.borrow_mut())
        });
        match received.await {
            Ok((length, ends)) => {
                pause.reset();
                pass(&service, &inbound, length, ends);
            }
            Err(error) => pause.after(&error).await,
        }
    }
}

/// Sends the first `length` bytes of the buffer on. What cannot be sent is lost, as datagrams are.
fn pass(service: &Rc<Service>, inbound: &Rc<Inbound>, length: usize, ends: Ends) {
    let key = (inbound.id, ends);
    let known = service.sessions.borrow().get(&key);
    let session = match known.filter(|session| session.is_current(service, inbound)) {
        Some(session) => session,
        None => match open(service, inbound, ends) {
            Ok(Some(session)) => session,
            Ok(None) => return,
            Err(error) => {
                service.shared.refuse();
                tracing::debug!(client = %ends.client, %error, "a datagram cannot be relayed");
                return;
            }
        },
    };
    session.used.set(Instant::now());
    let buffer = service.buffer.borrow();
    if let Err(error) = send(&session.upstream, &buffer[..length], SendFlags::DONTWAIT) {
        tracing::trace!(client = %ends.client, %error, "a relayed datagram was lost");
    }
}

/// Begins a session if the client has a route; nothing if not.
fn open(
    service: &Rc<Service>,
    inbound: &Rc<Inbound>,
    ends: Ends,
) -> io::Result<Option<Rc<Session>>> {
    let Some(destination) = destination(service, inbound, ends)? else {
        service.shared.refuse();
        return Ok(None);
    };
    let origin = Origin::Address {
        protocol: Protocol::Udp,
        destination,
        client: ends.client.ip(),
    };
    let admitted = service.shared.admit(&origin, Kind::Session, usize::MAX);
    let Some(admission) = admitted else {
        return Ok(None);
    };
    let mut sessions = service.sessions.borrow_mut();
    if sessions.open.len() >= service.bounds.sessions {
        sessions.evict();
    }
    let upstream = upstream(admission.target())?;
    let session = Rc::new(Session {
        inbound: Rc::downgrade(inbound),
        ends,
        destination,
        upstream,
        used: Cell::new(Instant::now()),
        answered: Cell::new(false),
    });
    let key = (inbound.id, ends);
    let listed = Listed {
        service: Rc::clone(service),
        key,
        id: sessions.number(),
    };
    let id = listed.id;
    let work = answers(listed, Rc::clone(&session));
    let abort = service.carry(admission, origin, work);
    sessions.insert(key, id, Rc::clone(&session), abort);
    Ok(Some(session))
}

/// Where the client sent it: here, or what connection tracking remembers.
fn destination(service: &Service, inbound: &Inbound, ends: Ends) -> io::Result<Option<SocketAddr>> {
    let here = SocketAddr::new(ends.local, inbound.port);
    if !inbound.redirected {
        return Ok(Some(here));
    }
    let original = (service.lookup)(ends.client, here)?;
    Ok(original.filter(|original| *original != here))
}

fn upstream(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Carries answers back until the session was silent for too long.
async fn answers(listed: Listed, session: Rc<Session>) {
    let service = &listed.service;
    loop {
        let end = session.end(service);
        tokio::select! {
            ready = session.upstream.readable() => {
                if ready.is_err() || !drain(service, &session) {
                    return;
                }
                consume_budget().await;
            }
            () = sleep_until(end) => {
                if session.end(service) <= Instant::now() {
                    return;
                }
            }
        }
    }
}

/// Carries the answers that wait; whether there is still a socket to answer from.
fn drain(service: &Service, session: &Session) -> bool {
    let Some(inbound) = session.inbound.upgrade() else {
        return false;
    };
    let mut buffer = service.buffer.borrow_mut();
    for _ in 0..RELAY_DATAGRAMS_AT_ONCE {
        let length = match session.upstream.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // Nobody listens in the sandbox now, which may change.
            Err(_) => continue,
        };
        session.used.set(Instant::now());
        session.answered.set(true);
        let sent = packet::answer(&inbound.socket, &buffer[..length], &session.ends);
        if let Err(error) = sent {
            tracing::trace!(client = %session.ends.client, %error, "a relayed answer was lost");
        }
    }
    true
}

impl Session {
    fn end(&self, service: &Service) -> Instant {
        let patience = if self.answered.get() {
            service.bounds.idle
        } else {
            service.bounds.unanswered
        };
        self.used.get() + patience
    }

    /// Whether a datagram that arrives now belongs to it. A redirected client's port may, after a silence, be
    /// on its way to another destination.
    fn is_current(&self, service: &Service, inbound: &Inbound) -> bool {
        if !inbound.redirected || self.used.get().elapsed() < service.bounds.recheck {
            return true;
        }
        matches!(
            destination(service, inbound, self.ends),
            Ok(Some(now)) if now == self.destination
        )
    }
}

impl Sessions {
    fn get(&self, key: &Key) -> Option<Rc<Session>> {
        self.open.get(key).map(|entry| Rc::clone(&entry.session))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn insert(&mut self, key: Key, id: u64, session: Rc<Session>, abort: AbortHandle) {
        let filed = session.used.get();
        let entry = Entry {
            id,
            filed,
            session,
            abort,
        };
        if let Some(old) = self.open.insert(key, entry) {
            self.by_age.remove(&(old.filed, old.id));
            old.abort.abort();
        }
        self.by_age.insert((filed, id), key);
    }

    fn remove(&mut self, key: &Key, id: u64) {
        if self.open.get(key).is_some_and(|entry| entry.id == id)
            && let Some(entry) = self.open.remove(key)
        {
            self.by_age.remove(&(entry.filed, id));
        }
    }

    /// Ends the session that was silent longest.
    fn evict(&mut self) {
        while let Some(((filed, id), key)) = self.by_age.pop_first() {
            let Some(entry) = self.open.get_mut(&key) else {
                continue;
            };
            let used = entry.session.used.get();
            if used > filed {
                entry.filed = used;
                self.by_age.insert((used, id), key);
                continue;
            }
            entry.abort.abort();
            self.open.remove(&key);
            return;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut sessions = self.service.sessions.borrow_mut();
        sessions.remove(&self.key, self.id);
    }
}
