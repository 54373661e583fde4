//! A process named so that a reused pid is never mistaken for it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A pid together with the time its process started: the pair is unique since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Pid as seen by the host.
    pub pid: i32,
    /// Start in clock ticks since boot: field 22 of `/proc/PID/stat`, proc_pid_stat(5).
    pub start: u64,
}

impl ProcessRef {
    /// The process that has this pid now, or `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let (start, _) = stat(pid)?;
        Some(Self { pid, start })
    }

    /// Whether that very process still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        stat(self.pid)
            .is_some_and(|(start, state)| start == self.start && !matches!(state, 'Z' | 'X'))
    }

    /// A stable handle on that very process, or `None` when it is gone.
    pub fn open(self) -> io::Result<Option<ProcessHandle>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The pidfd pins whoever has the pid now; only the start time tells whether it is ours.
        Ok(self.is_alive().then_some(ProcessHandle { fd }))
    }
}

/// A handle that keeps meaning the same process.
#[derive(Debug)]
pub struct ProcessHandle {
    fd: OwnedFd,
}

impl ProcessHandle {
    /// Sends a signal; `false` when the process has already ended.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the end of the process; `false` when `timeout` passed first.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        wait_readable(&self.fd, Some(timeout))
    }
}

/// Waits until `fd` is readable or hung up; `false` when `timeout` passed first.
pub(super) fn wait_readable(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|end| {
            let left = end.saturating_duration_since(std::time::Instant::now());
            timespec(left)
        });
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A duration in the kernel's form.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn stat(pid: i32) -> Option<(u64, char)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(u64, char)> {
    // The command name may hold spaces and parentheses: fields are counted from its last one.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_odd_name_is_read() {
        let line = "7 (a) b) c) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2";
        assert_eq!(parse_stat(line), Some((4242, 'S')));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessRef::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        let other = ProcessRef {
            start: me.start + 1,
            ..me
        };
        assert!(!other.is_alive());
        assert!(other.open().unwrap().is_none());
        assert!(me.open().unwrap().is_some());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let child_ref = ProcessRef::of(i32::try_from(child.id()).unwrap());
        let handle = child_ref.and_then(|child| child.open().unwrap());
        if let Some(handle) = handle {
            assert!(handle.wait(Duration::from_secs(5)).unwrap());
        }
        assert!(!child_ref.is_some_and(ProcessRef::is_alive));
        child.wait().unwrap();
    }
}
