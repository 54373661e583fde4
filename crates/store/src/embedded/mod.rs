//! The store of one host: everything in memory, and one append-only log.

mod lock;
mod log;
mod record;
mod replay;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::lock::{DirectoryLock, LockFault};
use self::log::{Log, draft_path, log_path};
pub use self::record::RecordFault;
use self::replay::replay;
pub use self::replay::{Recovery, ReplayError, Torn};
use self::state::State;
use crate::limits::{COMMIT_BYTES, COMMIT_WRITES, LIVE_BYTES, VALUE_BYTES};
use crate::{
    Change, CommitError, Durability, FlushError, Key, LogError, Prefix, ReadError, Revision, Store,
    Unavailable, Versioned, Watch, WatchError, Write,
};

/// Keys of one host in one directory, open in one process at a time.
///
/// A commit of [`Durability::Process`] is one `pwrite(2)`; call [`Store::flush`] now and then.
/// Readers never wait for the disk.
pub struct Embedded {
    directory: PathBuf,
    recovery: Recovery,
    live_limit: u64,
    /// One sync at a time: the system tells a lost write to one caller only. Taken before `log`.
    sync_turn: Mutex<()>,
    /// Held through a whole commit. Taken before `state`.
    log: Mutex<Log>,
    state: RwLock<State>,
    _lock: DirectoryLock,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is missing and cannot be made.
    #[error("cannot create directory {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("store {} is in use by {}", directory.display(), holder(*pid))]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The other process, if it could be told.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log cannot be opened.
    #[error("cannot open {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log cannot be used as it is.
    #[error("cannot use {}", path.display())]
    Replay {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        source: ReplayError,
    },
    /// The directory cannot be put in order.
    #[error("cannot prepare store {}", directory.display())]
    Prepare {
        /// The directory.
        directory: PathBuf,
        /// The step that failed.
        source: LogError,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("an earlier call panicked half way; restart the daemon")]
struct Poisoned;

impl Embedded {
    /// Opens the store in `directory`, which is made if missing. An end of the log that was never
    /// written completely is cut off; [`Self::recovery`] tells of it.
    ///
    /// # Errors
    /// When another process has it open, when the log is damaged, or when the disk refuses.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let directory = directory.into();
        if let Err(source) = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
        {
            return Err(OpenError::Directory { directory, source });
        }
        let lock = take_lock(&directory)?;
        remove_draft(&directory).map_err(|source| OpenError::Prepare {
            directory: directory.clone(),
            source,
        })?;
        let (log, state, recovery) = open_log(&directory)?;
        if let Some(torn) = recovery.torn {
            let Torn { offset, bytes } = torn;
            tracing::warn!(path = %log_path(&directory).display(), offset, bytes, "incomplete end of the log cut off");
        }
        Ok(Self {
            directory,
            recovery,
            live_limit: LIVE_BYTES,
            sync_turn: Mutex::new(()),
            log: Mutex::new(log),
            state: RwLock::new(state),
            _lock: lock,
        })
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    fn hold_log(&self) -> Result<MutexGuard<'_, Log>, Unavailable> {
        self.log.lock().map_err(|_| self.poisoned())
    }

    fn read_state(&self) -> Result<RwLockReadGuard<'_, State>, Unavailable> {
        self.state.read().map_err(|_| self.poisoned())
    }

    fn write_state(&self) -> Result<RwLockWriteGuard<'_, State>, Unavailable> {
        self.state.write().map_err(|_| self.poisoned())
    }

    fn poisoned(&self) -> Unavailable {
        Unavailable {
            place: self.directory.display().to_string(),
            source: Box::new(Poisoned),
        }
    }

    /// Writes to the log, then to memory. The log is held, so that no other commit comes between;
    /// the state is not, so that readers never wait for the disk.
    fn commit_held(
        &self,
        log: &mut Log,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Revision, CommitError> {
        let (changes, present) = self.allowed_changes(writes)?;
        if log.is_distrusted() {
            log.rewrite(&self.snapshot()?)?;
        }
        let Some(revision) = changes.first().map(|change| change.revision) else {
            if durability == Durability::Power
                && let Some(pending) = log.pending_sync()
            {
                log.settle(&pending, pending.file.sync_data())?;
            }
            return Ok(present);
        };
        log.append(revision, &changes, durability)?;
        let live_bytes = {
            let mut state = self.write_state()?;
            state.apply(revision, changes);
            state.live_bytes()
        };
        if log.is_compaction_due(live_bytes) {
            log.compact(&self.snapshot()?);
        }
        Ok(revision)
    }

    /// The changes that `writes` make, if they may, and the present revision.
    fn allowed_changes(&self, writes: Vec<Write>) -> Result<(Vec<Change>, Revision), CommitError> {
        let state = self.read_state()?;
        let changes = state.changes(writes)?;
        let bytes = state.live_bytes_after(&changes);
        if bytes > self.live_limit && bytes > state.live_bytes() {
            return Err(CommitError::StoreLimit {
                bytes,
                limit: self.live_limit,
            });
        }
        Ok((changes, state.revision()))
    }

    fn snapshot(&self) -> Result<State, Unavailable> {
        Ok(self.read_state()?.snapshot())
    }
}

impl Store for Embedded {
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        Ok(self.read_state()?.get(key).cloned())
    }

    fn list(&self, prefix: &Prefix) -> Result<(Vec<(Key, Versioned)>, Revision), ReadError> {
        let state = self.read_state()?;
        Ok((state.list(prefix), state.revision()))
    }

    fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<Revision, CommitError> {
        check_limits(&writes)?;
        let _turn = match durability {
            Durability::Process => None,
            Durability::Power => Some(self.sync_turn.lock().map_err(|_| self.poisoned())?),
        };
        self.commit_held(&mut *self.hold_log()?, writes, durability)
    }

    fn make_room(&self, bytes: u64) -> Result<(), CommitError> {
        let mut log = self.hold_log()?;
        if log.is_distrusted() {
            log.rewrite(&self.snapshot()?)?;
        }
        Ok(log.make_room(bytes)?)
    }

    fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Watch, WatchError> {
        self.write_state()?.watch(prefix, from)
    }

    fn flush(&self) -> Result<(), FlushError> {
        let _turn = self.sync_turn.lock().map_err(|_| self.poisoned())?;
        let pending = {
            let mut log = self.hold_log()?;
            if log.is_distrusted() {
                let state = self.snapshot()?;
                return log
                    .rewrite(&state)
                    .map_err(|source| FlushError::Write { source });
            }
            log.pending_sync()
        };
        let Some(pending) = pending else {
            return Ok(());
        };
        // Commits that need no sync go on meanwhile.
        let result = pending.file.sync_data();
        let settled = self.hold_log()?.settle(&pending, result);
        settled.map_err(|source| FlushError::Write { source })
    }

    fn needs_flush(&self) -> bool {
        self.hold_log().is_ok_and(|log| log.needs_sync())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, store = %self.directory.display(), "closed without a flush");
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

fn check_limits(writes: &[Write]) -> Result<(), CommitError> {
    if writes.len() > COMMIT_WRITES {
        return Err(CommitError::TooManyWrites {
            count: writes.len(),
        });
    }
    let mut keys = BTreeSet::new();
    let mut bytes = 0;
    for write in writes {
        let key = write.key();
        if write.value_bytes() > VALUE_BYTES {
            let bytes = write.value_bytes();
            return Err(CommitError::ValueTooLarge {
                key: key.clone(),
                bytes,
            });
        }
        if !keys.insert(key) {
            return Err(CommitError::DuplicateKey { key: key.clone() });
        }
        bytes += key.as_str().len() + write.value_bytes();
    }
    if bytes > COMMIT_BYTES {
        Err(CommitError::TooLarge { bytes })
    } else {
        Ok(())
    }
}

fn take_lock(directory: &Path) -> Result<DirectoryLock, OpenError> {
    let path = directory.join("lock");
    DirectoryLock::take(&path).map_err(|fault| match fault {
        LockFault::Held(pid) => OpenError::InUse {
            directory: directory.into(),
            pid,
        },
        LockFault::Io(source) => OpenError::Lock { path, source },
    })
}

/// A draft is what a crash left of a rewrite; the log itself is complete without it.
fn remove_draft(directory: &Path) -> Result<(), LogError> {
    let path = draft_path(directory);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LogError {
            step: "remove",
            path,
            source,
        }),
        _ => Ok(()),
    }
}

fn open_log(directory: &Path) -> Result<(Log, State, Recovery), OpenError> {
    let path = log_path(directory);
    let prepare = |source| OpenError::Prepare {
        directory: directory.into(),
        source,
    };
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let log = Log::create(directory.into()).map_err(prepare)?;
            return Ok((
                log,
                State::default(),
                Recovery {
                    commits: 0,
                    torn: None,
                },
            ));
        }
        Err(source) => return Err(OpenError::Log { path, source }),
    };
    let replayed = replay(&file).map_err(|source| OpenError::Replay {
        path: path.clone(),
        source,
    })?;
    settle_file(&file, replayed.len, replayed.recovery.torn.is_some())
        .map_err(|(step, source)| prepare(LogError { step, path, source }))?;
    log::sync_directory(directory).map_err(prepare)?;
    let log = Log::new(directory.into(), file, replayed.len);
    Ok((log, replayed.state, replayed.recovery))
}

/// Cuts a torn end off and syncs: the last process may have died before it did.
fn settle_file(file: &File, len: u64, torn: bool) -> Result<(), (&'static str, io::Error)> {
    if torn {
        file.set_len(len).map_err(|source| ("truncate", source))?;
    }
    file.sync_data().map_err(|source| ("sync", source))
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}
