//! What can go wrong with an open store, by operation.

use std::io;
use std::path::PathBuf;

use crate::limits::{COMMIT_BYTES, COMMIT_WRITES, VALUE_BYTES, WATCHES};
use crate::{Expect, Key, Revision};

/// The store cannot be reached or can no longer be trusted.
#[derive(Debug, thiserror::Error)]
#[error("store {place} does not answer")]
pub struct Unavailable {
    /// Where the store is: a directory or an address.
    pub place: String,
    /// Why.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// One step of writing the log failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct LogError {
    /// What was tried, as a verb.
    pub step: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl LogError {
    /// Whether there is no room, so that freeing some helps.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

/// Why a key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a commit was refused; nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation did not hold: read the key again and decide anew.
    #[error("key {key} was expected {}, but is {}", wanted(*expected), state(*found))]
    Conflict {
        /// The first such key.
        key: Key,
        /// What was asked.
        expected: Expect,
        /// The commit that last put the key, or `None` when it is absent.
        found: Option<Revision>,
    },
    /// A key may be written once in a commit.
    #[error("key {key} is written twice in one commit")]
    DuplicateKey {
        /// That key.
        key: Key,
    },
    /// The most is [`COMMIT_WRITES`].
    #[error("commit has {count} writes, more than {COMMIT_WRITES}; split it")]
    TooManyWrites {
        /// Writes in the commit.
        count: usize,
    },
    /// The largest is [`VALUE_BYTES`].
    #[error("value of {key} has {bytes} bytes, more than {VALUE_BYTES}")]
    ValueTooLarge {
        /// Its key.
        key: Key,
        /// Its length.
        bytes: usize,
    },
    /// The largest is [`COMMIT_BYTES`].
    #[error("commit has {bytes} bytes, more than {COMMIT_BYTES}; split it")]
    TooLarge {
        /// Bytes of all its keys and values.
        bytes: usize,
    },
    /// The store holds as much as it may.
    #[error("store would hold {bytes} bytes, more than {limit}; remove something first")]
    StoreLimit {
        /// Bytes after the commit.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The disk, the quota or the allowed file size is used up.
    #[error("no room on disk for the commit; free some space and try again")]
    Full {
        /// The step that failed.
        source: LogError,
    },
    /// The disk refused for another reason.
    #[error("commit could not be written")]
    Write {
        /// The step that failed.
        source: LogError,
    },
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<LogError> for CommitError {
    fn from(source: LogError) -> Self {
        if source.is_full() {
            Self::Full { source }
        } else {
            Self::Write { source }
        }
    }
}

fn wanted(expected: Expect) -> String {
    match expected {
        Expect::Any => "in any state".into(),
        Expect::Absent => "absent".into(),
        Expect::At(revision) => format!("at revision {revision}"),
    }
}

fn state(found: Option<Revision>) -> String {
    found.map_or_else(
        || "absent".into(),
        |revision| format!("at revision {revision}"),
    )
}

/// Why a watch could not start.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The most is [`WATCHES`].
    #[error("{WATCHES} watches are open already; close one first")]
    TooMany,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why commits could not be made to survive a loss of power.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The disk refused; nothing is lost while this process lives.
    #[error("commits could not be flushed to disk")]
    Write {
        /// The step that failed.
        source: LogError,
    },
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
