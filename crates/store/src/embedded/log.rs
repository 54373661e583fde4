//! The file that keeps the commits.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{ENTRY_BYTES, Header, push_commit, push_snapshot};
use super::state::State;
use crate::limits::{COMPACT_BYTES, COMPACT_FACTOR, COMPACT_RETRY_BYTES, SNAPSHOT_CHUNK_BYTES};
use crate::{Change, Durability, LogError, Revision};

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    file: Arc<File>,
    /// End of the last good record; anything behind it is to be overwritten.
    len: u64,
    /// Bytes that survive a loss of power.
    synced: u64,
    /// Counts the files that had the name, to tell a late sync of an earlier one.
    generation: u64,
    /// After a failed sync the system forgets which pages it lost, and a second sync succeeds
    /// without them; so the file must be written anew from memory.
    distrusted: bool,
    /// Length below which no compaction is tried, after one has failed.
    compact_from: u64,
    /// End of the room that the file system keeps for the file.
    room_until: u64,
    buffer: Vec<u8>,
}

/// A sync that is to be done without the log being held.
#[derive(Debug)]
pub(super) struct PendingSync {
    pub(super) file: Arc<File>,
    len: u64,
    generation: u64,
}

/// The path of the log in `directory`.
pub(super) fn log_path(directory: &Path) -> PathBuf {
    directory.join("store.log")
}

/// The path of a log that is being written; without meaning until it gets the name of the log.
pub(super) fn draft_path(directory: &Path) -> PathBuf {
    directory.join("store.log.new")
}

impl Log {
    /// Takes over a file of which the first `len` bytes are good and synced.
    pub(super) fn new(directory: PathBuf, file: File, len: u64) -> Self {
        Self {
            directory,
            file: Arc::new(file),
            len,
            synced: len,
            generation: 0,
            distrusted: false,
            compact_from: 0,
            room_until: len,
            buffer: Vec::new(),
        }
    }

    /// Makes an empty log.
    pub(super) fn create(directory: PathBuf) -> Result<Self, LogError> {
        let (file, len) = write_draft(&directory, &State::default())?;
        publish_draft(&directory)?;
        sync_directory(&directory)?;
        Ok(Self::new(directory, file, len))
    }

    /// Sees to it that so many bytes can be appended, by having the file system keep room for them; one that
    /// cannot keep any is taken at its word.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), LogError> {
        let wanted = self.len + bytes;
        if wanted <= self.room_until {
            return Ok(());
        }
        // Twice as much, so that it is asked for once in a while only.
        for bytes in [2 * bytes, bytes] {
            match keep_room(&self.file, self.len, bytes) {
                Ok(()) => {
                    self.room_until = self.len + bytes;
                    return Ok(());
                }
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
                Err(errno) if bytes == wanted - self.len => {
                    return Err(self.error("make room for", errno.into()));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Appends a commit. After an error the log is as before.
    pub(super) fn append(
        &mut self,
        revision: Revision,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), LogError> {
        debug_assert!(!self.distrusted, "a distrusted log is rewritten first");
        self.buffer.clear();
        self.buffer.shrink_to(SNAPSHOT_CHUNK_BYTES);
        push_commit(&mut self.buffer, self.len, self.synced, revision, changes);
        if let Err(source) = self.file.write_all_at(&self.buffer, self.len) {
            // Bytes behind the end would be in the way of the next record if they are longer.
            self.distrusted = self.file.set_len(self.len).is_err();
            self.room_until = self.len;
            return Err(self.error("append to", source));
        }
        if durability == Durability::Power
            && let Err(source) = self.file.sync_data()
        {
            self.distrusted = true;
            // Best effort: a refused commit should not come back if we die before the rewrite.
            let _ = self.file.set_len(self.len);
            self.room_until = self.len;
            return Err(self.error("sync", source));
        }
        self.len += self.buffer.len() as u64;
        if durability == Durability::Power {
            self.synced = self.len;
        }
        Ok(())
    }

    /// Whether some commit would not survive a loss of power.
    pub(super) fn needs_sync(&self) -> bool {
        self.distrusted || self.synced < self.len
    }

    /// Whether only [`Self::rewrite`] can help.
    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted
    }

    /// The sync that is needed; its result goes to [`Self::settle`].
    pub(super) fn pending_sync(&self) -> Option<PendingSync> {
        let Self {
            len, generation, ..
        } = *self;
        (self.synced < len).then(|| PendingSync {
            file: Arc::clone(&self.file),
            len,
            generation,
        })
    }

    /// Takes note of the result of a pending sync.
    pub(super) fn settle(
        &mut self,
        pending: &PendingSync,
        result: io::Result<()>,
    ) -> Result<(), LogError> {
        // A file that was replaced meanwhile does not matter: its successor is synced.
        if pending.generation != self.generation {
            return Ok(());
        }
        match result {
            Ok(()) => {
                self.synced = self.synced.max(pending.len);
                Ok(())
            }
            Err(source) => {
                self.distrusted = true;
                Err(self.error("sync", source))
            }
        }
    }

    /// Whether most of the log is past, given the size of what lives.
    pub(super) fn is_compaction_due(&self, live_bytes: u64) -> bool {
        self.len
            > (COMPACT_FACTOR * live_bytes)
                .max(COMPACT_BYTES)
                .max(self.compact_from)
    }

    /// Replaces the log by a snapshot. A failure costs only space; it is tried again later.
    pub(super) fn compact(&mut self, state: &State) {
        if let Err(error) = self.rewrite(state) {
            self.compact_from = self.len + COMPACT_RETRY_BYTES;
            tracing::warn!(%error, cause = %error.source, bytes = self.len, "log not compacted");
        }
    }

    /// Writes the log anew from `state`. At every instant the name stands for a complete log.
    pub(super) fn rewrite(&mut self, state: &State) -> Result<(), LogError> {
        let (file, len) = write_draft(&self.directory, state)?;
        publish_draft(&self.directory)?;
        self.file = Arc::new(file);
        self.room_until = len;
        self.len = len;
        self.synced = len;
        self.generation += 1;
        self.compact_from = 0;
        let named = sync_directory(&self.directory);
        self.distrusted = named.is_err();
        named
    }

    /// Length of the log in bytes.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Puts `file` in the place of the log, as a disk that fails.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = Arc::new(file);
    }

    fn error(&self, step: &'static str, source: io::Error) -> LogError {
        LogError {
            step,
            path: log_path(&self.directory),
            source,
        }
    }
}

/// Writes a complete, synced log with the content of `state` under the draft name.
fn write_draft(directory: &Path, state: &State) -> Result<(File, u64), LogError> {
    let path = draft_path(directory);
    let error = |step| {
        let path = path.clone();
        move |source| LogError { step, path, source }
    };
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600);
    let file = options.open(&path).map_err(error("create"))?;
    let written = write_snapshot(&file, state)
        .map_err(error("write"))
        .and_then(|len| file.sync_all().map_err(error("sync")).map(|()| len));
    match written {
        Ok(len) => Ok((file, len)),
        Err(failure) => {
            // Best effort: what stays is overwritten or removed by the next attempt.
            let _ = fs::remove_file(&path);
            Err(failure)
        }
    }
}

fn write_snapshot(file: &File, state: &State) -> io::Result<u64> {
    let header = Header {
        revision: state.revision(),
        entries: state.entries().len() as u64,
    };
    let mut buffer = header.encode().to_vec();
    let mut offset = 0;
    let mut chunk = Vec::new();
    let mut chunk_bytes = 0;
    let mut entries = state.entries().iter().peekable();
    while let Some((key, versioned)) = entries.next() {
        chunk.push((key, versioned));
        chunk_bytes += ENTRY_BYTES + key.as_str().len() + versioned.value.len();
        if chunk_bytes >= SNAPSHOT_CHUNK_BYTES || entries.peek().is_none() {
            let place = offset + buffer.len() as u64;
            push_snapshot(&mut buffer, place, &chunk);
            file.write_all_at(&buffer, offset)?;
            offset += buffer.len() as u64;
            buffer.clear();
            chunk.clear();
            chunk_bytes = 0;
        }
    }
    file.write_all_at(&buffer, offset)?;
    Ok(offset + buffer.len() as u64)
}

/// Has the file system keep `bytes` behind `from` for the file, whose length stays as it is.
fn keep_room(file: &File, from: u64, bytes: u64) -> Result<(), Errno> {
    let number = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
    let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, number(from)?, number(bytes)?)
}

fn publish_draft(directory: &Path) -> Result<(), LogError> {
    let draft = draft_path(directory);
    fs::rename(&draft, log_path(directory)).map_err(|source| LogError {
        step: "rename",
        path: draft,
        source,
    })
}

/// Makes the names in `directory` survive a loss of power.
pub(super) fn sync_directory(directory: &Path) -> Result<(), LogError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| LogError {
            step: "sync",
            path: directory.into(),
            source,
        })
}
