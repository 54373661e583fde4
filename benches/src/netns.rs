//! Network namespaces that are held open.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};

use crate::floor;

/// A thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace; it stays as long as this does.
#[derive(Debug)]
pub(crate) struct Netns(File);

/// A namespace with a name in the file system, as programs that are given a path need it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) netns: Netns,
    pub(crate) path: PathBuf,
}

impl Netns {
    /// A new one, whose loopback is up. The calling thread is in it afterwards.
    pub(crate) fn enter_new() -> anyhow::Result<Self> {
        floor::enter_new_host()?;
        Self::current()
    }

    /// The one that the calling thread is in.
    pub(crate) fn current() -> anyhow::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The one at a path.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path);
        Ok(Self(file.with_context(|| {
            format!("no namespace at {}", path.display())
        })?))
    }

    /// Moves the calling thread, and what it starts from now on, into it.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")
    }

    /// Does something on a thread of its own inside. Sockets that it opens stay there.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                self.enter()?;
                work()
            });
            worker.join().ok().context("a thread panicked")?
        })
    }

    /// The number by which it is known: equal for files of the same namespace.
    pub(crate) fn number(&self) -> anyhow::Result<u64> {
        Ok(self.0.metadata()?.ino())
    }
}

impl Named {
    /// A new one at a path that is free. The calling thread returns to `home`.
    pub(crate) fn create(path: PathBuf, home: &Netns) -> anyhow::Result<Self> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let netns = Netns::enter_new()?;
        let none = None::<&str>;
        mount(Some(OWN), &path, none, MsFlags::MS_BIND, none)?;
        home.enter()?;
        Ok(Self { netns, path })
    }

    /// Takes the name away; the namespace goes when nobody holds it any more.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        umount2(&self.path, MntFlags::MNT_DETACH)?;
        fs::remove_file(&self.path)?;
        Ok(())
    }
}
