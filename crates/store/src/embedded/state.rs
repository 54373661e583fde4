//! The keys in memory, their recent past, and who watches them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::record::ENTRY_BYTES;
use crate::limits::{HISTORY_BYTES, HISTORY_CHANGES, WATCHES};
use crate::watch::{Feed, Watch};
use crate::{Change, CommitError, Expect, Key, Prefix, Revision, Versioned, WatchError, Write};

/// Everything that is known, as of one revision.
#[derive(Debug, Default)]
pub(super) struct State {
    entries: BTreeMap<Key, Versioned>,
    revision: Revision,
    live_bytes: u64,
    history: History,
    feeds: Vec<Feed>,
}

/// The latest changes: all those after `floor`.
#[derive(Debug, Default)]
struct History {
    changes: VecDeque<Change>,
    bytes: usize,
    floor: Revision,
}

impl State {
    /// The state that a snapshot of `revision` starts from.
    pub(super) fn at(revision: Revision) -> Self {
        let history = History {
            floor: revision,
            ..History::default()
        };
        Self {
            revision,
            history,
            ..Self::default()
        }
    }

    /// The entries alone. Values are shared, so this costs little.
    pub(super) fn snapshot(&self) -> Self {
        let Self {
            ref entries,
            revision,
            live_bytes,
            ..
        } = *self;
        Self {
            entries: entries.clone(),
            live_bytes,
            ..Self::at(revision)
        }
    }

    /// Takes an entry of a snapshot; false if it cannot be part of it.
    #[must_use]
    pub(super) fn restore(&mut self, key: Key, versioned: Versioned) -> bool {
        let fits = versioned.revision <= self.revision;
        self.live_bytes += live_bytes(&key, versioned.value.len());
        fits && self.entries.insert(key, versioned).is_none()
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes that a snapshot of all entries needs, without the framing of its records.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn entries(&self) -> &BTreeMap<Key, Versioned> {
        &self.entries
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Versioned> {
        self.entries.get(key)
    }

    pub(super) fn list(&self, prefix: &Prefix) -> Vec<(Key, Versioned)> {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let found = self.entries.range::<str, _>(from);
        let below = found.take_while(|(key, _)| prefix.holds(key));
        below
            .map(|(key, versioned)| (key.clone(), versioned.clone()))
            .collect()
    }

    /// The changes that `writes` make as the next commit, if all their expectations hold.
    pub(super) fn changes(&self, writes: Vec<Write>) -> Result<Vec<Change>, CommitError> {
        for write in &writes {
            self.check(write.key(), write.expect())?;
        }
        let revision = Revision(self.revision.0 + 1);
        let change = |write| match write {
            Write::Put { key, value, .. } => Some(Change {
                key,
                value: Some(value.into()),
                revision,
            }),
            Write::Delete { key, .. } if self.entries.contains_key(&key) => Some(Change {
                key,
                value: None,
                revision,
            }),
            Write::Delete { .. } => None,
        };
        Ok(writes.into_iter().filter_map(change).collect())
    }

    fn check(&self, key: &Key, expected: Expect) -> Result<(), CommitError> {
        let found = self.entries.get(key).map(|versioned| versioned.revision);
        let holds = match expected {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::At(revision) => found == Some(revision),
        };
        if holds {
            Ok(())
        } else {
            Err(CommitError::Conflict {
                key: key.clone(),
                expected,
                found,
            })
        }
    }

    /// [`Self::live_bytes`] after `changes`.
    pub(super) fn live_bytes_after(&self, changes: &[Change]) -> u64 {
        changes.iter().fold(self.live_bytes, |bytes, change| {
            let before = self.entries.get(&change.key);
            let before = before.map_or(0, |found| live_bytes(&change.key, found.value.len()));
            let after = change
                .value
                .as_ref()
                .map_or(0, |value| live_bytes(&change.key, value.len()));
            bytes - before + after
        })
    }

    /// Makes `changes` visible as the commit `revision` and tells the watchers.
    pub(super) fn apply(&mut self, revision: Revision, changes: Vec<Change>) {
        self.live_bytes = self.live_bytes_after(&changes);
        self.revision = revision;
        for change in changes {
            match change.value.clone() {
                Some(value) => {
                    self.entries
                        .insert(change.key.clone(), Versioned { value, revision });
                }
                None => {
                    self.entries.remove(&change.key);
                }
            }
            self.feeds.retain(|feed| feed.offer(&change));
            self.history.push(change);
        }
    }

    /// Starts a watch; see [`crate::Store::watch`].
    pub(super) fn watch(&mut self, prefix: &Prefix, from: Revision) -> Result<Watch, WatchError> {
        self.feeds.retain(Feed::is_watched);
        if self.feeds.len() >= WATCHES {
            return Err(WatchError::TooMany);
        }
        let (feed, watch) = Feed::open(prefix.clone());
        if from < self.history.floor || from > self.revision {
            feed.mark_lagged();
            return Ok(watch);
        }
        let mut missed = self
            .history
            .changes
            .iter()
            .filter(|change| change.revision > from);
        if missed.all(|change| feed.offer(change)) {
            self.feeds.push(feed);
        }
        Ok(watch)
    }
}

impl History {
    fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push_back(change);
        while self.changes.len() > HISTORY_CHANGES || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
        }
    }
}

fn live_bytes(key: &Key, value_bytes: usize) -> u64 {
    (ENTRY_BYTES + key.as_str().len() + value_bytes) as u64
}
