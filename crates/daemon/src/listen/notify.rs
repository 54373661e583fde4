//! Telling the service manager how far we are (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It answers calls.
    Ready,
    /// It is ending.
    Stopping,
}

/// Tells the service manager, if the environment names one in `NOTIFY_SOCKET`. Tells whether it did.
pub fn notify(progress: Progress) -> io::Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) => notify_at(&name, progress).map(|()| true),
        None => Ok(false),
    }
}

/// Tells whoever listens at a path, or at an abstract name after `@`.
pub(super) fn notify_at(name: &OsStr, progress: Progress) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let words: &[u8] = match progress {
        Progress::Ready => b"READY=1",
        Progress::Stopping => b"STOPPING=1",
    };
    UnixDatagram::unbound()?.send_to_addr(words, &address)?;
    Ok(())
}
