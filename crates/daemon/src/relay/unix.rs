//! Unix sockets of the host at which something is published.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::limits::RELAY_BACKLOG;

/// Permissions of a socket's file: whoever may use it is put in its group by the host's administrator.
const MODE: u32 = 0o660;

/// Why a Unix socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnixError {
    /// The place of a relative path is the daemon's, not the user's.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// A file, folder or link that is not ours to replace.
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    Occupied(PathBuf),
    /// A socket at which something listens.
    #[error("{} is in use by a program or by another publication; choose another path", .0.display())]
    InUse(PathBuf),
    /// What is there cannot be examined or taken away.
    #[error("cannot look at what is at {}", path.display())]
    Examine {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file of a listening socket; removed with this, unless somebody put another in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// A listening socket at `path`, in place of a stale one if there is one there. Nobody else can connect
    /// before its permissions are right.
    pub(crate) fn make(path: &Path) -> Result<(Self, UnixListener), UnixError> {
        if !path.is_absolute() {
            return Err(UnixError::Relative(path.to_owned()));
        }
        let failed = |source: io::Error| {
            let path = path.to_owned();
            UnixError::Listen { path, source }
        };
        let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
        clear(path, &address)?;
        let socket = stream_socket().map_err(failed)?;
        bind(&socket, &address).map_err(|e| failed(e.into()))?;
        let file = Self {
            identity: identity(path).map_err(failed)?,
            path: path.to_owned(),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        listen(&socket, RELAY_BACKLOG).map_err(|e| failed(e.into()))?;
        Ok((file, UnixListener::from(socket)))
    }

    /// Whether it is still the file at its path.
    pub(crate) fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|now| now == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remove the socket of a publication");
        }
    }
}

/// Device and inode of what is at `path`, links not followed.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Makes room at `path`: a socket at which nobody listens any more is taken away, anything else is refused.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), UnixError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        UnixError::Examine { path, source }
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.file_type().is_socket() {
        return Err(UnixError::Occupied(path.to_owned()));
    }
    // Not to wait where a listener's queue is full.
    let probe = stream_socket().map_err(failed)?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(failed),
        _ => Err(UnixError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_file_comes_with_its_permissions_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let (file, _listener) = SocketFile::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        UnixStream::connect(&path).unwrap();
        assert!(file.is_there());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_file, _listener) = SocketFile::make(&path).unwrap();
        let second = SocketFile::make(&path);
        assert!(matches!(second, Err(UnixError::InUse(_))), "{second:?}");

        let plain = folder.path().join("plain");
        fs::write(&plain, "mine").unwrap();
        let link = folder.path().join("link");
        symlink(folder.path().join("nowhere"), &link).unwrap();
        for taken in [&plain, &link, &folder.path().to_owned()] {
            let refused = SocketFile::make(taken);
            assert!(
                matches!(refused, Err(UnixError::Occupied(_))),
                "{refused:?}"
            );
        }
        assert_eq!(fs::read_to_string(&plain).unwrap(), "mine");
    }

    #[test]
    fn what_somebody_else_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let (file, _listener) = SocketFile::make(&path).unwrap();
        fs::rename(&path, folder.path().join("aside")).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(!file.is_there());
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn bad_paths_are_refused() {
        let relative = SocketFile::make(Path::new("web.sock"));
        assert!(matches!(relative, Err(UnixError::Relative(_))));
        let long = SocketFile::make(Path::new(&format!("/tmp/{}", "x".repeat(200))));
        assert!(matches!(long, Err(UnixError::Listen { .. })), "{long:?}");
        let lost = SocketFile::make(Path::new("/nonexistent/folder/web.sock"));
        assert!(matches!(lost, Err(UnixError::Listen { .. })), "{lost:?}");
    }
}
