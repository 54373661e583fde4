//! Removal of links at the kernel's pace: one message removes all that have gathered, for the price of one
//! (16 to 28 ms), while their names stay taken until it is done.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use tombolo_netstate::Key;

use crate::limits::{GROUP_GRAVEYARD, GROUP_NURSERY, NURSERY_AGE, REAP_GATHER};
use crate::netlink::socket::Protocol;
use crate::netlink::{Batch, ReadBuffer, Socket, link};

/// What the reaper is told.
#[derive(Debug)]
pub(crate) enum Burial {
    /// A link of this number, which is in the graveyard group, and the object it was.
    Link(u32, Key),
    /// Links of the graveyard that an earlier process has left.
    Leftover,
    /// Links that were begun and bear no mark; those that have not changed after a while are removed.
    Unfinished(Vec<u32>),
}

/// The reaper's thread ends when its sender is dropped.
#[derive(Debug)]
pub(crate) struct Reaper {
    inbox: Receiver<Burial>,
    gone: Sender<Vec<Key>>,
    socket: Socket,
    buffer: ReadBuffer,
    unfinished: Vec<(Instant, Vec<u32>)>,
}

impl Reaper {
    /// Starts the thread; returns where to send links to, and where the removed objects are told.
    pub(crate) fn start() -> io::Result<(Sender<Burial>, Receiver<Vec<Key>>)> {
        let (sender, inbox) = channel();
        let (gone, receiver) = channel();
        let socket = Socket::open(Protocol::Route)?;
        let mut reaper = Self {
            inbox,
            gone,
            socket,
            buffer: ReadBuffer::new(),
            unfinished: Vec::new(),
        };
        thread::Builder::new()
            .name("reaper".into())
            .spawn(move || reaper.run())?;
        Ok((sender, receiver))
    }

    fn run(&mut self) {
        let mut open = true;
        while open {
            let first = match self.next_deadline() {
                None => self
                    .inbox
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self
                    .inbox
                    .recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let mut links = BTreeMap::new();
            let mut sweep = false;
            let mut next = match first {
                Ok(burial) => Some(burial),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let until = Instant::now() + REAP_GATHER;
            while let Some(burial) = next {
                match burial {
                    Burial::Link(index, key) => {
                        links.insert(index, key);
                    }
                    Burial::Leftover => sweep = true,
                    Burial::Unfinished(indexes) => {
                        self.unfinished
                            .push((Instant::now() + NURSERY_AGE, indexes));
                    }
                }
                next = match self
                    .inbox
                    .recv_timeout(until.saturating_duration_since(Instant::now()))
                {
                    Ok(burial) => Some(burial),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => {
                        open = false;
                        None
                    }
                };
            }
            if sweep || !links.is_empty() {
                self.bury(links);
            }
            self.remove_unfinished();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.unfinished.iter().map(|(at, _)| *at).min()
    }

    /// Removes the whole group, and one by one what the kernel would not remove so. A link that is gone already
    /// went with its namespace.
    fn bury(&mut self, links: BTreeMap<u32, Key>) {
        let mut batch = Batch::default();
        link::delete_group(&mut batch, GROUP_GRAVEYARD);
        let refused = batch
            .run(&self.socket, &mut self.buffer)
            .pop()
            .unwrap_or(Ok(()))
            .err();
        let mut gone: Vec<Key> = Vec::with_capacity(links.len());
        if refused
            .as_ref()
            .is_none_or(|refusal| refusal.is(libc::ENODEV))
        {
            gone.extend(links.into_values());
        } else {
            let mut batch = Batch::default();
            for index in links.keys() {
                link::delete(&mut batch, *index);
            }
            for (result, (index, key)) in batch
                .run(&self.socket, &mut self.buffer)
                .into_iter()
                .zip(links)
            {
                match result {
                    Err(refusal) if !refusal.is(libc::ENODEV) => {
                        tracing::warn!(index, %key, %refusal, "cannot remove a link");
                    }
                    _ => gone.push(key),
                }
            }
        }
        if !gone.is_empty() && self.gone.send(gone).is_err() {
            tracing::debug!("nobody waits for removed links");
        }
    }

    /// A link that was in the nursery when we started, and still is, has no maker any more.
    fn remove_unfinished(&mut self) {
        let now = Instant::now();
        let due: Vec<u32> = self
            .unfinished
            .extract_if(.., |(at, _)| *at <= now)
            .flat_map(|(_, indexes)| indexes)
            .collect();
        for index in due {
            let found = link::get_by_index(&self.socket, index, &mut self.buffer);
            if found.is_none_or(|link| link.group != GROUP_NURSERY) {
                continue;
            }
            let mut batch = Batch::default();
            link::delete(&mut batch, index);
            if let Some(Err(refusal)) = batch.run(&self.socket, &mut self.buffer).pop() {
                tracing::warn!(index, %refusal, "cannot remove a link that was left unfinished");
            }
        }
    }
}
