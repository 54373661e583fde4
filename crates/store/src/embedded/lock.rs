//! One process at a time in a directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// An exclusive `flock(2)` that lasts as long as this value or the process.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _held: Flock<File>,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(super) enum LockFault {
    /// Another holds it, with this process id if it could be read.
    Held(Option<u32>),
    Io(io::Error),
}

impl DirectoryLock {
    /// Takes the lock without waiting, and writes down who has it.
    pub(super) fn take(path: &Path) -> Result<Self, LockFault> {
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let held = match Flock::lock(
            open.map_err(LockFault::Io)?,
            FlockArg::LockExclusiveNonblock,
        ) {
            Ok(held) => held,
            Err((file, Errno::EWOULDBLOCK)) => return Err(LockFault::Held(holder(file))),
            Err((_, errno)) => return Err(LockFault::Io(errno.into())),
        };
        // The id only makes another's error clearer, so a full disk does not keep us from starting.
        let noted = held
            .set_len(0)
            .and_then(|()| held.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
        if let Err(error) = noted {
            tracing::warn!(path = %path.display(), %error, "process id not written to the lock");
        }
        Ok(Self { _held: held })
    }
}

fn holder(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
