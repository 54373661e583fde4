//! A Unix socket of our own.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use rustix::fs::{FlockOperation, flock};

use super::{Kind, ListenError, Listener};

/// Owner and group may connect, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// The file of a socket that is ours; removed with it, unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Held for as long as the socket is ours.
    _lock: File,
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            // A file that cannot be removed is found stale by the next daemon.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Listens on a Unix socket that owner and group may use. Makes its directory; takes the place of a socket
/// on which nobody answers. Must be called inside a runtime.
pub fn unix(path: &Path, group: Option<&str>) -> Result<Listener, ListenError> {
    let failed = |step| {
        move |source| ListenError::Socket {
            step,
            path: path.to_owned(),
            source,
        }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(failed("make the directory of"))?;
    let lock = lock(path)?;
    refuse_if_alive(path)?;
    let group = group.map(|name| group_id(name, path)).transpose()?;

    // The socket takes its final name only once its mode and group are right, so that nobody slips in before.
    let staging = directory.join(format!(".{}", std::process::id()));
    remove_staging(&staging).map_err(failed("clear the way for"))?;
    DirBuilder::new()
        .mode(0o700)
        .create(&staging)
        .map_err(failed("prepare"))?;
    let listener = stage(&staging.join("s"), group)
        .and_then(|listener| fs::rename(staging.join("s"), path).map(|()| listener))
        .map_err(failed("listen on"));
    let cleared = remove_staging(&staging).map_err(failed("clear up after"));
    let listener = listener?;
    cleared?;

    let found = fs::symlink_metadata(path).map_err(failed("look at"))?;
    let file = SocketFile {
        path: path.to_owned(),
        device: found.dev(),
        inode: found.ino(),
        _lock: lock,
    };
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed("listen on"))?;
    Ok(Listener(Kind::Unix {
        listener,
        file: Some(file),
    }))
}

/// Makes sure that of two daemons that start together one only takes the socket.
fn lock(path: &Path) -> Result<File, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |source| ListenError::Socket {
        step: "lock",
        path: name.clone(),
        source,
    };
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&name)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ListenError::Taken {
            path: path.to_owned(),
        }),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn refuse_if_alive(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Socket {
        step: "look at",
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Taken {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn group_id(name: &str, path: &Path) -> Result<u32, ListenError> {
    let found = Group::from_name(name).map_err(|errno| ListenError::Socket {
        step: "look up the group of",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    match found {
        Some(group) => Ok(group.gid.as_raw()),
        None => Err(ListenError::UnknownGroup {
            name: name.to_owned(),
            path: path.to_owned(),
        }),
    }
}

fn stage(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    chown(path, None, group)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

fn remove_staging(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
