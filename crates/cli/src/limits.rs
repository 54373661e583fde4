//! Every bound of the commands in one place.

use std::time::Duration;

/// Largest environment file, in bytes.
pub(crate) const ENV_FILE_BYTES: u64 = 1 << 20;
/// How long a daemon started by a command may take to answer.
pub(crate) const DAEMON_START: Duration = Duration::from_secs(5);
/// Pause between two attempts to reach a daemon that is starting.
pub(crate) const DAEMON_POLL: Duration = Duration::from_millis(20);
/// How long after the end of a started daemon another one, started elsewhere, may answer in its place.
pub(crate) const DAEMON_RIVAL: Duration = Duration::from_millis(500);
/// Most processes that are stopped at the same time.
pub(crate) const STOP_AT_ONCE: usize = 32;
/// Longest command shown in a table, in characters.
pub(crate) const COMMAND_CHARS: usize = 32;
/// Longest text of one published port, exposed port or link, in bytes.
pub(crate) const PUBLICATION_BYTES: usize = 8192;
/// Longest path of a Unix socket, in bytes (unix(7), without the terminating zero).
pub(crate) const SOCKET_PATH_BYTES: usize = 107;
/// Largest file that is looked at as one that we may have written for Docker's engine, in bytes.
pub(crate) const INSTALLED_FILE_BYTES: u64 = 64 << 10;
/// Length of a shortened id in a table, in characters.
pub(crate) const ID_CHARS: usize = 12;
