//! Tracked connections (ctnetlink, linux/netfilter/nfnetlink_conntrack.h): forgetting those that lead to a
//! port's former owner, and asking what a redirected packet was meant for.
//!
//! A search walks the kernel's whole table, whose size follows the host's memory: 10 ms for the 262,144 slots
//! of a host with 24 GiB, however few connections there are. So searches have a thread of their own, and one
//! search serves all that was asked for meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tombolo_netstate::object::port::Protocol;
use tombolo_netstate::plan::Flows;

use crate::kernel::lock;
use crate::limits::FORGET_QUEUE_MAX;
use crate::netlink::{Batch, ReadBuffer, Socket, socket};

mod record;
mod request;
mod search;
#[cfg(test)]
mod tests;

use record::Record;
use request::{GET, GET_STATS};
use search::Searcher;
#[cfg(test)]
pub(crate) use search::tracked;

/// What the thread is told.
#[derive(Debug)]
struct Errand {
    /// To be forgotten.
    flows: Vec<Flows>,
    /// Told when that, and all that was asked before, is done.
    done: Option<Sender<()>>,
}

/// A socket for questions about single connections, and the thread that forgets.
#[derive(Debug)]
pub(crate) struct Conntrack {
    asking: Mutex<(Socket, ReadBuffer)>,
    errands: Option<SyncSender<Errand>>,
    searcher: Option<JoinHandle<()>>,
}

impl Conntrack {
    /// Opens sockets in the calling thread's network namespace and starts the thread.
    pub(crate) fn open() -> io::Result<Self> {
        let (errands, inbox) = sync_channel(FORGET_QUEUE_MAX);
        let mut searcher = Searcher::open(inbox)?;
        let searcher = thread::Builder::new()
            .name("conntrack".into())
            .spawn(move || searcher.run())?;
        let asking = Socket::open(socket::Protocol::Netfilter)?;
        Ok(Self {
            asking: Mutex::new((asking, ReadBuffer::new())),
            errands: Some(errands),
            searcher: Some(searcher),
        })
    }

    /// Forgets all connections of `flows` soon, and only those; returns at once. What cannot be forgotten is
    /// told in the log: it ends by itself when nobody uses it any more.
    pub(crate) fn forget(&self, flows: &[&Flows]) {
        if flows.is_empty() || self.entries() == Some(0) {
            return;
        }
        self.tell(Errand {
            flows: flows.iter().copied().cloned().collect(),
            done: None,
        });
    }

    /// See [`Kernel::original_destination`](crate::Kernel::original_destination).
    pub(crate) fn original_destination(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        local: SocketAddr,
    ) -> io::Result<Option<SocketAddr>> {
        let Some(body) = request::by_reply(protocol, local, client) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let found = self.ask(GET, &body, |shown| {
            Record::read(shown).map(|record| record.original.destination)
        });
        match found {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            other => other,
        }
    }

    /// How many connections the namespace tracks, where the kernel says so.
    fn entries(&self) -> Option<u32> {
        self.ask(GET_STATS, &request::head(false), record::read_entries)
            .ok()?
    }

    fn ask<T>(
        &self,
        kind: u16,
        body: &[u8],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut batch = Batch::default();
        batch.push_bytes(kind, 0, body);
        let mut guard = lock(&self.asking);
        let (socket, buffer) = &mut *guard;
        let mut found = None;
        let results = batch.run_seeing(socket, buffer, &mut |message| found = read(message.body));
        match results.into_iter().next() {
            Some(Err(refusal)) => Err(io::Error::from_raw_os_error(refusal.errno.0)),
            _ => Ok(found),
        }
    }

    fn tell(&self, errand: Errand) {
        let told = self.errands.as_ref().map(|errands| errands.send(errand));
        if !matches!(told, Some(Ok(()))) {
            tracing::error!("the thread that forgets connections is gone");
        }
    }

    /// Waits until all that was to be forgotten is forgotten.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let (sender, answer) = std::sync::mpsc::channel();
        self.tell(Errand {
            flows: Vec::new(),
            done: Some(sender),
        });
        answer.recv().unwrap();
    }
}

impl Drop for Conntrack {
    /// What was asked for is done first.
    fn drop(&mut self) {
        self.errands = None;
        if let Some(searcher) = self.searcher.take()
            && searcher.join().is_err()
        {
            tracing::error!("the thread that forgets connections has panicked");
        }
    }
}
