//! Network namespaces: made ahead of need, named by a mount in the run directory, entered for as long as it
//! takes to open a socket (namespaces(7)).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tombolo_netstate::Netns;

use crate::limits::{POOL_MAX, POOL_PAUSE};
use crate::netlink::socket::Protocol;
use crate::netlink::{ReadBuffer, Socket, link};
use crate::sys;

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("cannot open network namespace {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is another network namespace now (inode {found}, was {expected})", path.display())]
    Another {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("cannot enter network namespace {name}: {source}; it needs CAP_SYS_ADMIN")]
    Enter { name: String, source: io::Error },
    #[error("cannot open a socket in network namespace {name}")]
    Socket { name: String, source: io::Error },
}

impl NetnsError {
    /// Whether there is no such namespace any more.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Open { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Another { .. } => true,
            Self::Enter { .. } | Self::Socket { .. } => false,
        }
    }
}

/// Removes the files without a namespace that a process killed half-way has left behind.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && !sys::is_namespace(&entry.path())? {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The namespace in which the daemon runs, and the directory of those that we make.
#[derive(Debug)]
pub(crate) struct Namespaces {
    host: File,
    directory: PathBuf,
    pool: Pool,
}

impl Namespaces {
    /// Takes the calling thread's namespace for the host's; `directory` becomes a mount point, and `pool`
    /// namespaces are prepared ahead.
    pub(crate) fn open(directory: PathBuf, pool: usize) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        sys::mount_shared(&directory)?;
        sweep(&directory)?;
        Ok(Self {
            host: sys::current_netns()?,
            directory,
            pool: Pool::new(pool.min(POOL_MAX)),
        })
    }

    /// Where the namespace of that name lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The names of all namespaces that we made.
    pub(crate) fn names(&self) -> io::Result<Vec<Arc<str>>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_namespace = sys::is_namespace(&entry.path()).unwrap_or(false);
            if let (true, Some(name)) = (is_namespace, entry.file_name().to_str()) {
                names.push(Arc::from(name));
            }
        }
        Ok(names)
    }

    /// Whether there is a namespace of that name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        sys::is_namespace(&self.path(name)).unwrap_or(false)
    }

    /// Names a namespace, whose loopback interface is up.
    pub(crate) fn create(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        if self.exists(name) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        // A file without a namespace is what a process that was killed has left behind.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let named = self
            .pool
            .take()
            .and_then(|fresh| sys::mount_netns(fresh.as_raw_fd(), &path));
        if named.is_err() {
            // Without its mount the file means nothing; that it stays is harmless, and `named` says more.
            let _ = fs::remove_file(&path);
        }
        named
    }

    /// Takes the name away; one that is gone already counts as removed. The kernel destroys the namespace once
    /// nobody is in it.
    pub(crate) fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        if self.exists(name) {
            sys::unmount(&path)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens a namespace other than the host's.
    pub(crate) fn file(&self, netns: &Netns) -> Result<Option<File>, NetnsError> {
        let (path, inode) = match netns {
            Netns::Host => return Ok(None),
            // A file without a namespace is a name that was begun or given up.
            Netns::Owned(name) if !self.exists(name) => {
                let source = io::Error::from_raw_os_error(libc::ENOENT);
                return Err(NetnsError::Open {
                    path: self.path(name),
                    source,
                });
            }
            Netns::Owned(name) => (self.path(name), None),
            Netns::Adopted { path, inode } => (path.to_path_buf(), Some(*inode)),
        };
        let failed = |source| NetnsError::Open {
            path: path.clone(),
            source,
        };
        // Whatever somebody else has put there meanwhile, opening it must not wait.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&path)
            .map_err(failed)?;
        let found = file.metadata().map_err(failed)?.ino();
        match inode {
            Some(expected) if expected != found => Err(NetnsError::Another {
                path,
                expected,
                found,
            }),
            _ => Ok(Some(file)),
        }
    }

    /// A socket in a namespace. It keeps the namespace alive for as long as it is open.
    pub(crate) fn socket(&self, netns: &Netns) -> Result<Socket, NetnsError> {
        let failed = |source| NetnsError::Socket {
            name: netns.to_string(),
            source,
        };
        match self.file(netns)? {
            None => Socket::open(Protocol::Route).map_err(failed),
            Some(file) => self
                .within(netns, &file, || Socket::open(Protocol::Route))?
                .map_err(failed),
        }
    }

    /// Does `work` with the calling thread in another namespace. The way back cannot fail but for a broken
    /// system; a thread left in the wrong namespace would change somebody else's network, so the process ends.
    pub(crate) fn within<T>(
        &self,
        netns: &Netns,
        file: &File,
        work: impl FnOnce() -> T,
    ) -> Result<T, NetnsError> {
        sys::enter_netns(file.as_fd()).map_err(|source| NetnsError::Enter {
            name: netns.to_string(),
            source,
        })?;
        let back = Return(&self.host);
        let done = work();
        drop(back);
        Ok(done)
    }
}

/// Brings the thread back to the host's namespace, also when the work panics.
#[derive(Debug)]
struct Return<'a>(&'a File);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(error) = sys::enter_netns(self.0.as_fd()) {
            tracing::error!(%error, "cannot return to the host's network namespace");
            std::process::abort();
        }
    }
}

/// Namespaces made ahead of need by a thread of its own. They have no name, so that none outlives the process.
#[derive(Debug)]
struct Pool {
    ready: Option<Mutex<Receiver<File>>>,
    /// How many wait to be taken.
    stock: Arc<AtomicUsize>,
}

impl Pool {
    fn new(size: usize) -> Self {
        // The thread holds one more, ready to be handed over.
        let stock = Arc::new(AtomicUsize::new(0));
        let Some(kept) = size.checked_sub(1) else {
            return Self { ready: None, stock };
        };
        let (sender, receiver) = sync_channel(kept);
        let spawned = thread::Builder::new().name("netns-pool".into()).spawn({
            let stock = Arc::clone(&stock);
            move || fill(&sender, &stock, size)
        });
        Self {
            stock,
            ready: spawned.is_ok().then(|| Mutex::new(receiver)),
        }
    }

    /// A prepared namespace, or a new one when none is ready.
    fn take(&self) -> io::Result<File> {
        let prepared = self.ready.as_ref().and_then(|ready| {
            ready
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .try_recv()
                .ok()
        });
        match prepared {
            Some(file) => {
                self.stock.fetch_sub(1, Ordering::Relaxed);
                Ok(file)
            }
            None => thread::scope(|scope| {
                let made = scope.spawn(make).join();
                made.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EIO)))
            }),
        }
    }
}

/// Prepares namespaces until the pool is gone or making one fails; each is made by moving this thread, which
/// never returns to the host's.
fn fill(sender: &SyncSender<File>, stock: &AtomicUsize, size: usize) {
    loop {
        // Making one takes locks that the attach which has just taken one needs: let that finish first,
        // unless others wait in line.
        if stock.load(Ordering::Relaxed) * 2 >= size {
            thread::sleep(POOL_PAUSE);
        }
        let file = match make() {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "cannot prepare network namespaces; making them on demand");
                return;
            }
        };
        stock.fetch_add(1, Ordering::Relaxed);
        if sender.send(file).is_err() {
            return;
        }
    }
}

/// A new namespace with its loopback interface up; the calling thread is in it thereafter.
fn make() -> io::Result<File> {
    sys::new_netns()?;
    let socket = Socket::open(Protocol::Route)?;
    link::loopback_up(&socket, &mut ReadBuffer::new())
        .map_err(|refusal| io::Error::from_raw_os_error(refusal.errno.0))?;
    sys::current_netns()
}

/// Inode number of the namespace that `path` leads to, by which it is recognised.
///
/// # Errors
/// When there is no such file, or it is not a namespace.
pub fn netns_inode(path: &Path) -> io::Result<u64> {
    if !sys::is_namespace(path)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a namespace",
        ));
    }
    Ok(fs::metadata(path)?.ino())
}

/// Path and inode number of the network namespace of a process.
///
/// # Errors
/// When there is no such process, or we may not look.
pub fn netns_of_pid(pid: u32) -> io::Result<(PathBuf, u64)> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let inode = netns_inode(&path)?;
    Ok((path, inode))
}
