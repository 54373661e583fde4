//! Answers of upstream servers, kept for as long as their records allow.
//!
//! An answer is kept whole, under its question, as the bytes of its message: what they take is
//! known to the byte. Nothing of one answer is ever used to answer another question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::RecordType;

use crate::exchange::wire_name;
use crate::limits;

mod lifetime;
#[cfg(test)]
mod tests;

/// The question that an answer belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// As in a message, in lower case.
    name: Box<[u8]>,
    kind: u16,
    class: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
    scope: u64,
}

/// What is known about a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// An answer that is still true, each record with the time that is left for the whole, with
    /// id 0, the question in lower case and without EDNS.
    Answer(Message),
    /// No server could answer a moment ago: do not ask, answer from [`Cache::get_stale`] or with
    /// SERVFAIL.
    Failed,
}

/// Answers and failures, bounded in memory; the least recently used go first.
#[derive(Debug)]
pub struct Cache {
    bytes_max: usize,
    bytes: usize,
    /// Counts uses; the entry with the lowest number was used least recently.
    uses: u64,
    entries: BTreeMap<Arc<Key>, Entry>,
    by_use: BTreeMap<u64, Arc<Key>>,
    by_end: BTreeSet<(Duration, Arc<Key>)>,
}

#[derive(Debug)]
struct Entry {
    last_use: u64,
    answer: Option<Answer>,
    /// Beside an answer that has ended: it may still be served when its servers fail.
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Answer {
    message: Box<[u8]>,
    since: Duration,
    until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    until: Duration,
    wait: Duration,
}

/// What the allocator adds to an allocation.
const ALLOCATION_BYTES: usize = 16;
/// What an entry takes beside its name and its message. The nodes of the three trees are at least
/// half full, so each slot counts twice.
const ENTRY_BYTES: usize = {
    let key = size_of::<Key>() + 2 * size_of::<usize>() + ALLOCATION_BYTES;
    let slots =
        3 * size_of::<Arc<Key>>() + size_of::<Entry>() + size_of::<u64>() + size_of::<Duration>();
    key + 2 * slots + 2 * ALLOCATION_BYTES
};

impl Key {
    /// The key of `query`, asked with these two flags of servers that `scope` numbers: networks
    /// that ask different servers do not share answers.
    #[must_use]
    pub fn new(query: &Query, dnssec_ok: bool, checking_disabled: bool, scope: u64) -> Self {
        let mut name = wire_name(&query.name);
        name.make_ascii_lowercase();
        Self {
            name: name.into(),
            kind: query.query_type.into(),
            class: query.query_class.into(),
            dnssec_ok,
            checking_disabled,
            scope,
        }
    }

    /// Whether a message has this question.
    fn is_of(&self, message: &Message) -> bool {
        let Self {
            dnssec_ok,
            checking_disabled,
            scope,
            ..
        } = *self;
        match message.queries.as_slice() {
            [query] => *self == Self::new(query, dnssec_ok, checking_disabled, scope),
            _ => false,
        }
    }
}

impl Default for Cache {
    /// An empty cache of [`limits::CACHE_BYTES`].
    fn default() -> Self {
        Self::new(limits::CACHE_BYTES)
    }
}

impl Cache {
    /// An empty cache that never takes more than about `bytes_max`; with 0 it keeps nothing.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            uses: 0,
            entries: BTreeMap::new(),
            by_use: BTreeMap::new(),
            by_end: BTreeSet::new(),
        }
    }

    /// Keeps what a server answered at `now`, and says for how long it holds; `None` if it is not
    /// kept. A proper answer takes the place of what was known even if it is not kept; a failure or
    /// an answer to another question changes nothing.
    pub fn insert(&mut self, key: Key, message: &Message, now: Duration) -> Option<Duration> {
        if !lifetime::is_proper(message) || !key.is_of(message) {
            return None;
        }
        self.remove(&key);
        let life = lifetime::of(message, RecordType::from(key.kind))?;
        let message = lifetime::bytes_to_keep(message, &key.name)?;
        let answer = Answer {
            message,
            since: now,
            until: now.saturating_add(life),
        };
        self.put(key, Some(answer), None, now).then_some(life)
    }

    /// Remembers that at `now` no server could answer, and says for how long it holds: longer with
    /// each failure in a row (RFC 9520). An answer that has ended is kept beside it.
    pub fn insert_failure(&mut self, key: Key, now: Duration) -> Duration {
        let earlier = self.entries.get(&key).and_then(|entry| entry.failure);
        let wait = match earlier {
            // Several asked at once: that is one failure.
            Some(failure) if now < failure.until => return failure.until.saturating_sub(now),
            Some(failure) if !failure.is_forgotten(now) => {
                (failure.wait * 2).min(limits::CACHE_FAILURE_MAX)
            }
            _ => limits::CACHE_FAILURE_MIN,
        };
        let failure = Failure {
            until: now.saturating_add(wait),
            wait,
        };
        let answer = self.remove(&key).and_then(|entry| entry.answer);
        let answer = answer.filter(|answer| !answer.is_useless(now));
        self.put(key, answer, Some(failure), now);
        wait
    }

    /// What is known at `now` about a question; `None` means ask.
    pub fn get(&mut self, key: &Key, now: Duration) -> Option<Found> {
        let entry = self.entries.get(key)?;
        if let Some(answer) = entry.answer.as_ref().filter(|answer| now < answer.until) {
            let message = answer.read(now);
            return self.used(key, message).map(Found::Answer);
        }
        if entry.failure.is_some_and(|failure| now < failure.until) {
            return self.used(key, Some(Found::Failed));
        }
        if entry.is_useless(now) {
            self.remove(key);
        }
        None
    }

    /// An answer that may have ended, to be given only because no server answers (RFC 8767); its
    /// records live [`limits::CACHE_STALE_TTL`].
    pub fn get_stale(&mut self, key: &Key, now: Duration) -> Option<Message> {
        let answer = self.entries.get(key)?.answer.as_ref()?;
        if answer.is_useless(now) {
            return None;
        }
        let message = answer.read(now);
        self.used(key, message)
    }

    /// How many questions something is known about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory taken, with what the trees and the allocator add.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.bytes_max);
    }

    /// Moves `key` behind all others in the order of leaving, and hands `found` through. Without
    /// it, the message could not be read again, and the entry is dropped.
    fn used<T>(&mut self, key: &Key, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        let shared = self.by_use.remove(&entry.last_use)?;
        entry.last_use = self.uses;
        self.by_use.insert(self.uses, shared);
        found
    }

    /// Adds an entry that is not there yet, after making room for it.
    fn put(
        &mut self,
        key: Key,
        answer: Option<Answer>,
        failure: Option<Failure>,
        now: Duration,
    ) -> bool {
        self.uses += 1;
        let entry = Entry {
            last_use: self.uses,
            answer,
            failure,
        };
        let cost = entry.cost(&key);
        if cost > self.bytes_max {
            return false;
        }
        while self.bytes + cost > self.bytes_max && self.evict(now) {}
        let key = Arc::new(key);
        self.bytes += cost;
        self.by_use.insert(entry.last_use, Arc::clone(&key));
        self.by_end.insert((entry.end(), Arc::clone(&key)));
        self.entries.insert(key, entry);
        true
    }

    /// Drops the entry that has ended first, or else the one used least recently.
    fn evict(&mut self, now: Duration) -> bool {
        let ended = self.by_end.first().filter(|(end, _)| *end <= now);
        let unused = || self.by_use.first_key_value().map(|(_, key)| key);
        let Some(key) = ended.map(|(_, key)| key).or_else(unused).cloned() else {
            return false;
        };
        self.remove(&key).is_some()
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.bytes -= entry.cost(&key);
        self.by_use.remove(&entry.last_use);
        self.by_end.remove(&(entry.end(), key));
        Some(entry)
    }
}

impl Entry {
    fn cost(&self, key: &Key) -> usize {
        let message = self
            .answer
            .as_ref()
            .map_or(0, |answer| answer.message.len());
        ENTRY_BYTES + key.name.len() + message
    }

    /// When it says nothing any more without being stretched.
    fn end(&self) -> Duration {
        let answer = self.answer.as_ref().map(|answer| answer.until);
        let failure = self.failure.map(|failure| failure.until);
        answer.max(failure).unwrap_or_default()
    }

    fn is_useless(&self, now: Duration) -> bool {
        self.answer
            .as_ref()
            .is_none_or(|answer| answer.is_useless(now))
            && self.failure.is_none_or(|failure| failure.is_forgotten(now))
    }
}

impl Answer {
    /// Whether not even failing servers make it worth giving.
    fn is_useless(&self, now: Duration) -> bool {
        now >= self.until.saturating_add(limits::CACHE_STALE_MAX)
    }

    /// The message with the time that its records have left at `now`.
    fn read(&self, now: Duration) -> Option<Message> {
        let mut message = Message::from_vec(&self.message).ok()?;
        let ttl = if now < self.until {
            // What is left, rounded up: while it may be given, it is worth a second.
            let age = now.saturating_sub(self.since).as_secs();
            self.until
                .saturating_sub(self.since)
                .saturating_sub(Duration::from_secs(age))
        } else {
            limits::CACHE_STALE_TTL
        };
        lifetime::set_ttls(&mut message, ttl);
        Some(message)
    }
}

impl Failure {
    /// Whether the next failure is the first of a new run.
    fn is_forgotten(&self, now: Duration) -> bool {
        now >= self.until.saturating_add(limits::CACHE_FAILURE_MAX)
    }
}
