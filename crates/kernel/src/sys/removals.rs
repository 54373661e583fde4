//! Noticing that names vanish from a directory (inotify(7)).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::{check, check_size, path_text};

/// Bytes of `struct inotify_event` before the name.
const HEAD: usize = 16;
/// Bytes that are read at once; an event has a name of up to 256 of them.
const READ_BYTES: usize = 16 * 1024;

/// A directory that is watched.
#[derive(Debug)]
pub(crate) struct Removals {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Removals {
    pub(crate) fn watch(directory: &Path) -> io::Result<Self> {
        let directory = path_text(directory)?;
        // SAFETY: `inotify_init1` takes numbers only.
        let fd = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mask = libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_ONLYDIR;
        // SAFETY: the pointer leads to a zero-terminated string that outlives the call.
        check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), directory.as_ptr(), mask) })?;
        let buffer = vec![0; READ_BYTES];
        Ok(Self { fd, buffer })
    }

    /// What can be read when a name has vanished.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The names that have vanished; none where the kernel could not remember them all.
    pub(crate) fn read(&mut self) -> io::Result<Option<Vec<OsString>>> {
        // SAFETY: pointer and length are those of a vector that outlives the call.
        let length = check_size(unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                self.buffer.as_mut_ptr().cast(),
                self.buffer.len(),
            )
        })?;
        let mut rest = &self.buffer[..length];
        let mut names = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
            let number = |at: usize| {
                u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            if number(4) & libc::IN_Q_OVERFLOW != 0 {
                return Ok(None);
            }
            let (name, after) = after.split_at(after.len().min(number(12) as usize));
            let end = name.iter().position(|byte| *byte == 0);
            let name = &name[..end.unwrap_or(name.len())];
            names.push(OsString::from_vec(name.to_vec()));
            rest = after;
        }
        Ok(Some(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_vanish_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["a".to_owned(), "b".repeat(255)];
        for name in &names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let mut removals = Removals::watch(directory.path()).unwrap();
        let nothing = removals.read().unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        std::fs::write(directory.path().join("c"), "").unwrap();
        for name in &names {
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
        let told = removals.read().unwrap().unwrap();
        assert_eq!(told, names.map(OsString::from));
        assert!(Removals::watch(Path::new("/nonexistent")).is_err());
    }
}
