//! How a child that is not yet the user's program tells its parent why it failed.
//!
//! A pipe is handed down by number. The child re-opens it close-on-exec, so that the parent reads either a failure or,
//! when the user's program has taken over, the end of the file.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

/// Exit code when the process' world could not be made.
pub const SETUP_FAILED: i32 = 125;
/// Exit code when the program is there but cannot be executed.
pub const NOT_EXECUTABLE: i32 = 126;
/// Exit code when there is no such program.
pub const NOT_FOUND: i32 = 127;

/// Why a program did not get to run, and the exit code that stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// 125, 126 or 127, with Docker's meanings.
    pub code: i32,
    /// What failed, on what and why.
    pub message: String,
}

impl Failure {
    /// A setup failure with the whole chain of causes in its message.
    pub(super) fn setup(error: &dyn Error) -> Self {
        Self {
            code: SETUP_FAILED,
            message: chain(error),
        }
    }
}

/// The parent's half: pass [`ReportPipe::number`] to the child, spawn it, then [`ReportPipe::read`].
#[derive(Debug)]
pub(super) struct ReportPipe {
    reader: PipeReader,
    writer: OwnedFd,
}

impl ReportPipe {
    /// A pipe whose writing end the next child inherits.
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let writer = OwnedFd::from(writer);
        fcntl_setfd(&writer, FdFlags::empty())?;
        Ok(Self { reader, writer })
    }

    /// The descriptor the child finds the pipe at.
    pub(super) fn number(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// Waits until the child's program runs (`None`), or the child says why it does not.
    pub(super) fn read(self) -> Option<Failure> {
        let Self { mut reader, writer } = self;
        drop(writer);
        let mut text = Vec::new();
        let outcome = reader.read_to_end(&mut text);
        if text.is_empty() && outcome.is_ok() {
            return None;
        }
        Some(serde_json::from_slice(&text).unwrap_or_else(|_| Failure {
            code: SETUP_FAILED,
            message: format!("unreadable failure {:?}", String::from_utf8_lossy(&text)),
        }))
    }
}

/// The child's half.
#[derive(Debug)]
pub(super) struct Reporter {
    file: File,
}

impl Reporter {
    /// Takes over the inherited descriptor; it no longer passes to programs executed from here.
    pub(super) fn inherit(number: RawFd) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{number}");
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_CLOEXEC)
            .open(path)?;
        nix::unistd::close(number)?;
        Ok(Self { file })
    }

    /// Says why the program cannot run.
    pub(super) fn fail(mut self, failure: &Failure) {
        if let Ok(text) = serde_json::to_vec(failure) {
            // With the parent gone nobody is left to be told.
            let _ = self.file.write_all(&text);
        }
    }

    /// Whether the parent still listens.
    pub(super) fn is_heard(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        !matches!(poll(&mut fds, Some(&now)), Ok(1) if fds[0].revents().contains(PollFlags::ERR))
    }
}

/// An error and all its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
