//! The thread that searches tracked connections and forgets those that lead elsewhere than they should.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use tombolo_netstate::plan::{Flows, Stale};

use super::Errand;
use super::record::Record;
use super::request::{self, DELETE, GET, Search};
use crate::limits::{FORGET_PAUSE_MAX, FORGET_ROUNDS_MAX, FORGOTTEN_TOGETHER};
use crate::netlink::batch::Refusal;
use crate::netlink::{Batch, ReadBuffer, Socket, address, socket};

/// How many times longer than a search the pause after it is, so that searches take a fifth of one processor
/// at most.
const PAUSE_FACTOR: u32 = 4;

/// What the thread keeps.
#[derive(Debug)]
pub(super) struct Searcher {
    inbox: Receiver<Errand>,
    conntrack: Socket,
    route: Socket,
    buffer: ReadBuffer,
    /// Whether it was said already that the kernel cannot do this.
    complained: bool,
}

/// Flows that one search finds.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) search: Search,
    /// Those of one port each, by protocol and port.
    singles: BTreeMap<(u8, u16), Vec<&'a Flows>>,
    ranges: Vec<&'a Flows>,
}

impl Searcher {
    /// Opens sockets in the calling thread's network namespace.
    pub(super) fn open(inbox: Receiver<Errand>) -> io::Result<Self> {
        let conntrack = Socket::open(socket::Protocol::Netfilter)?;
        conntrack.enlarge()?;
        Ok(Self {
            inbox,
            conntrack,
            route: Socket::open(socket::Protocol::Route)?,
            buffer: ReadBuffer::new(),
            complained: false,
        })
    }

    /// Does what it is told until nobody can tell it anything any more.
    pub(super) fn run(&mut self) {
        let mut not_before = Instant::now();
        while let Ok(errand) = self.inbox.recv() {
            thread::sleep(not_before.saturating_duration_since(Instant::now()));
            let mut flows = Vec::new();
            let mut waiting = Vec::new();
            for errand in std::iter::once(errand).chain(self.inbox.try_iter()) {
                flows.extend(errand.flows);
                waiting.extend(errand.done);
            }
            let begun = Instant::now();
            match self.forget(&flows) {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "forgot connections"),
                Err(error) => self.complain(&error),
            }
            not_before = Instant::now() + pause_after(begun.elapsed());
            for sender in waiting {
                // Fails when nobody waits any more.
                let _gone = sender.send(());
            }
        }
    }

    /// How many connections were forgotten.
    fn forget(&mut self, flows: &[Flows]) -> io::Result<usize> {
        let local = self.local_addresses(flows)?;
        let mut forgotten = 0;
        for group in groups(flows) {
            forgotten += self.forget_group(&group, &local)?;
        }
        Ok(forgotten)
    }

    /// The host's own addresses, where they matter: what is published at every address is published at these.
    fn local_addresses(&mut self, flows: &[Flows]) -> io::Result<BTreeSet<IpAddr>> {
        let matter = |flows: &Flows| flows.stale == Stale::Untranslated && flows.to.is_none();
        if !flows.iter().any(matter) {
            return Ok(BTreeSet::new());
        }
        let addresses = address::dump(&self.route, &mut self.buffer)?;
        Ok(addresses.into_iter().map(|address| address.ip).collect())
    }

    /// Searches and forgets until nothing is found; how many there were.
    fn forget_group(&mut self, group: &Group<'_>, local: &BTreeSet<IpAddr>) -> io::Result<usize> {
        let gone = |result: &Result<(), Refusal>| {
            matches!(result, Err(refusal) if refusal.is(libc::ENOENT)) || result.is_ok()
        };
        let mut forgotten = 0;
        for _ in 0..FORGET_ROUNDS_MAX {
            let found = self.find(group, local)?;
            let more = found.len() == FORGOTTEN_TOGETHER;
            let mut batch = Batch::default();
            for body in &found {
                batch.push_bytes(DELETE, 0, body);
            }
            let results = batch.run(&self.conntrack, &mut self.buffer);
            let count = results.iter().filter(|result| gone(result)).count();
            forgotten += count;
            if let Some(Err(refusal)) = results.iter().find(|result| !gone(result)) {
                tracing::debug!(%refusal, "cannot forget a connection");
            }
            if !more || count == 0 {
                break;
            }
        }
        Ok(forgotten)
    }

    /// The bodies of the requests that forget what one search finds, as many as are forgotten together.
    fn find(&mut self, group: &Group<'_>, local: &BTreeSet<IpAddr>) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        let (socket, buffer) = (&self.conntrack, &mut self.buffer);
        let mut search = |body: &[u8]| {
            socket.dump(GET, body, buffer, |message| {
                let Some(message) = message else {
                    found.clear();
                    return;
                };
                if found.len() < FORGOTTEN_TOGETHER
                    && Record::read(message.body).is_some_and(|record| group.holds(&record, local))
                {
                    found.push(request::deletion(group.search.ipv6, message.body));
                }
            })
        };
        match search(&group.search.filtered()) {
            // A kernel that does not compare shows all connections (before Linux 5.8) or refuses.
            Err(error) if is_unknown(&error) => search(&request::head(group.search.ipv6))?,
            other => other?,
        }
        Ok(found)
    }

    /// Tells, but only once if that is for ever, that connections cannot be forgotten.
    fn complain(&mut self, error: &io::Error) {
        if !is_unknown(error) {
            tracing::warn!(%error, "cannot forget connections to former owners of published ports");
        } else if !std::mem::replace(&mut self.complained, true) {
            tracing::error!(
                %error,
                "connections to former owners of published ports cannot be forgotten; the kernel needs \
                 CONFIG_NF_CT_NETLINK"
            );
        }
    }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
    )
}

fn pause_after(search: Duration) -> Duration {
    (search * PAUSE_FACTOR).min(FORGET_PAUSE_MAX)
}

/// The flows by the search that finds them.
pub(super) fn groups(flows: &[Flows]) -> Vec<Group<'_>> {
    let mut by_search: BTreeMap<Search, Vec<&Flows>> = BTreeMap::new();
    for flows in flows {
        let (towards, protocol) = match flows.stale {
            Stale::Towards(IpAddr::V4(ip)) => (Some(ip), None),
            // Kernels compare IPv6 addresses the wrong way round and show all connections but those sought
            // (net/netfilter/nf_conntrack_netlink.c, `ctnetlink_filter_match_tuple`).
            Stale::Towards(IpAddr::V6(_)) | Stale::Untranslated => {
                (None, Some(flows.protocol.number()))
            }
        };
        let search = Search {
            ipv6: flows.ipv6,
            towards,
            protocol,
            port: None,
        };
        by_search.entry(search).or_default().push(flows);
    }
    by_search
        .into_iter()
        .map(|(search, flows)| Group::new(search, &flows))
        .collect()
}

impl<'a> Group<'a> {
    fn new(mut search: Search, flows: &[&'a Flows]) -> Self {
        if let ([one], Some(_)) = (flows, search.protocol) {
            search.port = one.ports.is_one().then(|| one.ports.first());
        }
        let mut singles: BTreeMap<(u8, u16), Vec<&Flows>> = BTreeMap::new();
        let mut ranges = Vec::new();
        for flows in flows {
            if flows.ports.is_one() {
                let key = (flows.protocol.number(), flows.ports.first());
                singles.entry(key).or_default().push(flows);
            } else {
                ranges.push(*flows);
            }
        }
        Self {
            search,
            singles,
            ranges,
        }
    }

    /// Whether a connection is one of these.
    fn holds(&self, record: &Record, local: &BTreeSet<IpAddr>) -> bool {
        let key = (record.protocol, record.original.destination.port());
        let singles = self.singles.get(&key).into_iter().flatten();
        singles
            .chain(&self.ranges)
            .any(|flows| is_stale(flows, record, local))
    }
}

/// Whether a connection is one of `flows`.
pub(super) fn is_stale(flows: &Flows, record: &Record, local: &BTreeSet<IpAddr>) -> bool {
    let to = record.original.destination;
    let source = record.original.source.ip();
    let arrived = record.protocol == flows.protocol.number()
        && to.is_ipv6() == flows.ipv6
        && flows.ports.contains(to.port())
        && flows.to.is_none_or(|ip| ip == to.ip())
        && flows.from.is_none_or(|net| net.contains(&source));
    let owner = record.reply.source;
    let at_host = || flows.to.is_some() || to.ip().is_loopback() || local.contains(&to.ip());
    arrived
        && match flows.stale {
            Stale::Towards(ip) => owner.ip() == ip && owner != to,
            Stale::Untranslated => owner == to && at_host(),
        }
}

/// All connections of the calling thread's namespace: protocol, what the first packet named, who answers.
#[cfg(test)]
pub(crate) fn tracked() -> Vec<(u8, std::net::SocketAddr, std::net::SocketAddr)> {
    let socket = Socket::open(socket::Protocol::Netfilter).unwrap();
    let mut found = Vec::new();
    socket
        .dump(
            GET,
            &[0; request::HEAD],
            &mut ReadBuffer::new(),
            |message| {
                if let Some(record) = message.and_then(|message| Record::read(message.body)) {
                    let to = record.original.destination;
                    found.push((record.protocol, to, record.reply.source));
                }
            },
        )
        .unwrap();
    found
}
