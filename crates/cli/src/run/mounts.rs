//! The file systems a process sees, made in its own mount namespace.
//!
//! Order matters: what comes from the host is first cloned into mounts that hang nowhere, then the root is changed and the
//! host's tree let go, and only then anything is mounted by paths of the new root. So no symbolic link in the new root, and
//! no `..`, ever leads to the host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mountinfo;
use super::spec::{ProcessSpec, sysctl_path};

/// Files of [`ProcessSpec::files`], shown in `/etc`.
const ETC_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];
/// Nodes of the host's `/dev` that a root directory of its own gets.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Kernel files hidden from a process, as Docker does.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Kernel files a process may only read, as in Docker.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why the file systems of a process cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    #[error("cannot keep mounts from reaching the host")]
    Isolate(#[source] Errno),
    #[error("cannot open {path}", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot make {path} the root", path = path.display())]
    Root { path: PathBuf, source: Errno },
    #[error("cannot make {path}", path = path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("{path} does not exist on the host's root, where nothing is made for a bind; make it or use a root directory", path = path.display())]
    NoTarget { path: PathBuf },
    #[error("cannot mount {path}", path = path.display())]
    Mount { path: PathBuf, source: Errno },
    #[error("cannot read the mount table")]
    Table(#[source] io::Error),
    #[error("cannot set sysctl {key} to {value:?}")]
    Sysctl {
        key: String,
        value: String,
        source: io::Error,
    },
    #[error(transparent)]
    Spec(#[from] super::spec::SpecError),
    #[error("cannot bind at {path}", path = path.display())]
    Attach { path: PathBuf, source: io::Error },
}

/// Something of the host that the process will see at `target`.
struct Source {
    fd: OwnedFd,
    is_dir: bool,
    target: PathBuf,
    flags: MsFlags,
}

/// Makes the file systems of the process; must run as pid 1 of its pid namespace and in its network namespace.
pub(super) fn make_world(spec: &ProcessSpec) -> Result<(), MountError> {
    // A slave, not private: nothing gets out, but what the host unmounts is not kept busy here.
    let isolate = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, isolate, None::<&str>).map_err(MountError::Isolate)?;
    let own_root = spec.rootfs.is_some();
    let mut sources = Vec::new();
    if own_root {
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            sources.push(open_source(&path, path.clone(), MsFlags::empty())?);
        }
    }
    sources.extend(etc_sources(spec)?);
    for bind in &spec.binds {
        let mut flags = MsFlags::empty();
        flags.set(MsFlags::MS_RDONLY, bind.read_only);
        // A device node bound by name is meant to work; one found or made in a directory is not.
        flags.set(
            MsFlags::MS_NODEV,
            own_root && !spec.privileged && bind.host.is_dir(),
        );
        sources.push(open_source(&bind.host, bind.container.clone(), flags)?);
    }
    if let Some(path) = &spec.rootfs {
        enter_root(path, spec.privileged)?;
    }
    mount_kernel_files(own_root, spec.privileged)?;
    for source in sources {
        let flags = source.flags;
        let target = attach_source(source, own_root)?;
        if !flags.is_empty() {
            restrict(&target, flags)?;
        }
    }
    set_sysctls(spec)?;
    if !spec.privileged {
        hide_kernel_files()?;
    }
    Ok(())
}

/// Shows the terminal of the process as `/dev/console` of a root directory of its own.
pub(super) fn bind_console(terminal: &Path) -> Result<(), MountError> {
    let console = Path::new("/dev/console");
    make_file(console)?;
    mount_at(console, Some(terminal), None, MsFlags::MS_BIND, None)
}

fn etc_sources(spec: &ProcessSpec) -> Result<Vec<Source>, MountError> {
    let Some(dir) = &spec.files else {
        return Ok(Vec::new());
    };
    let mut sources = Vec::new();
    for name in ETC_FILES {
        let target = Path::new("/etc").join(name);
        // On the host's root nothing is made: a file it lacks stays lacking.
        let wanted = spec.rootfs.is_some() || target.exists();
        if wanted && dir.join(name).exists() {
            sources.push(open_source(&dir.join(name), target, MsFlags::empty())?);
        }
    }
    Ok(sources)
}

fn open_source(path: &Path, target: PathBuf, flags: MsFlags) -> Result<Source, MountError> {
    let open = || -> io::Result<Source> {
        let clone = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let fd = open_tree(CWD, path, clone)?;
        let is_dir = fs::metadata(path)?.is_dir();
        Ok(Source {
            fd,
            is_dir,
            target,
            flags,
        })
    };
    open().map_err(|source| MountError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Makes `path` the root and lets the host's tree go.
fn enter_root(path: &Path, privileged: bool) -> Result<(), MountError> {
    let failed = |source| MountError::Root {
        path: path.to_owned(),
        source,
    };
    let open = |path: &Path| {
        File::open(path).map_err(|source| MountError::Open {
            path: path.to_owned(),
            source,
        })
    };
    let host = open(Path::new("/"))?;
    let canonical = path.canonicalize().map_err(|source| MountError::Open {
        path: path.to_owned(),
        source,
    })?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount_at(&canonical, Some(&canonical), None, bind, None)?;
    if !privileged {
        // There is no device control group: without this, mknod would open the host's disks.
        restrict(&canonical, MsFlags::MS_NODEV)?;
    }
    let root = open(&canonical)?;
    nix::unistd::fchdir(&root).map_err(failed)?;
    // The old root lands on top of the new one, which spares a directory for it. Nothing may be looked up before it is gone:
    // a step up to the root would end in it.
    nix::unistd::pivot_root(".", ".").map_err(failed)?;
    nix::unistd::fchdir(&host).map_err(failed)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed)?;
    nix::unistd::chdir("/").map_err(failed)
}

fn mount_kernel_files(own_root: bool, privileged: bool) -> Result<(), MountError> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let quiet_tty = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mut sys = safe;
    sys.set(MsFlags::MS_RDONLY, !privileged);
    if own_root {
        ["/proc", "/sys", "/dev"]
            .iter()
            .try_for_each(|path| make_dir(Path::new(path)))?;
    }
    mount_new("/proc", "proc", safe, None)?;
    match mount_new("/sys", "sysfs", sys, None) {
        // In the host's network namespace it is what is mounted there already.
        Err(MountError::Mount {
            source: Errno::EBUSY,
            ..
        }) => {
            let path = Path::new("/sys");
            mount_at(path, Some(path), None, MsFlags::MS_BIND, None)?;
            restrict(path, sys)?;
        }
        outcome => outcome?,
    }
    if own_root {
        mount_new(
            "/dev",
            "tmpfs",
            quiet_tty | MsFlags::MS_NODEV,
            Some("mode=755,size=64k"),
        )?;
        let dirs = ["/dev/pts", "/dev/shm", "/dev/mqueue"];
        dirs.iter().try_for_each(|path| make_dir(Path::new(path)))?;
        make_device_links()?;
    }
    let optional = |path: &str| own_root || Path::new(path).is_dir();
    if optional("/dev/pts") {
        let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
        mount_new("/dev/pts", "devpts", quiet_tty, Some(options))?;
    }
    if optional("/dev/shm") {
        mount_new("/dev/shm", "tmpfs", safe, Some("mode=1777"))?;
    }
    if Path::new("/dev/mqueue").is_dir() {
        match mount_new("/dev/mqueue", "mqueue", safe, None) {
            // A kernel without POSIX message queues has nothing to separate.
            Ok(())
            | Err(MountError::Mount {
                source: Errno::ENODEV,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn make_device_links() -> Result<(), MountError> {
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    links.iter().try_for_each(|(to, path)| {
        symlink(to, path).map_err(|source| MountError::Make {
            path: path.into(),
            source,
        })
    })
}

/// Attaches a source at its target, and returns where that really is once links are followed.
fn attach_source(source: Source, own_root: bool) -> Result<PathBuf, MountError> {
    let target = &source.target;
    if own_root {
        if source.is_dir {
            make_dir(target)?
        } else {
            make_file(target)?
        }
    } else if !target.exists() {
        return Err(MountError::NoTarget {
            path: target.clone(),
        });
    }
    let real = target.canonicalize().map_err(|source| MountError::Open {
        path: target.clone(),
        source,
    })?;
    move_mount(
        &source.fd,
        "",
        CWD,
        &real,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| MountError::Attach {
        path: real.clone(),
        source: errno.into(),
    })?;
    Ok(real)
}

fn set_sysctls(spec: &ProcessSpec) -> Result<(), MountError> {
    for (key, value) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(sysctl_path(key)?);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|source| MountError::Sysctl {
                key: key.clone(),
                value: value.clone(),
                source,
            })?;
    }
    Ok(())
}

fn hide_kernel_files() -> Result<(), MountError> {
    for path in MASKED.map(Path::new) {
        if path.is_dir() {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount_at(path, None, Some("tmpfs"), flags, Some("size=4k"))?;
        } else if path.exists() {
            mount_at(
                path,
                Some(Path::new("/dev/null")),
                None,
                MsFlags::MS_BIND,
                None,
            )?;
        }
    }
    for path in READ_ONLY
        .map(Path::new)
        .into_iter()
        .filter(|path| path.exists())
    {
        mount_at(
            path,
            Some(path),
            None,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None,
        )?;
        restrict(path, MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

/// Adds flags to the mount at `path` and to all below it.
fn restrict(path: &Path, flags: MsFlags) -> Result<(), MountError> {
    let table = fs::read("/proc/self/mountinfo").map_err(MountError::Table)?;
    for (mounted, held) in mountinfo::below(&table, path) {
        let all = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | held | flags;
        match mount_at(&mounted, None, None, all, None) {
            // It is covered by a later mount, so nothing of it can be seen.
            Err(MountError::Mount {
                source: Errno::EINVAL | Errno::ENOENT,
                ..
            }) if mounted != path => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn mount_new(path: &str, kind: &str, flags: MsFlags, data: Option<&str>) -> Result<(), MountError> {
    mount_at(
        Path::new(path),
        Some(Path::new(kind)),
        Some(kind),
        flags,
        data,
    )
}

fn mount_at(
    path: &Path,
    from: Option<&Path>,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<(), MountError> {
    mount(from, path, kind, flags, data).map_err(|source| MountError::Mount {
        path: path.to_owned(),
        source,
    })
}

fn make_dir(path: &Path) -> Result<(), MountError> {
    fs::create_dir_all(path).map_err(|source| MountError::Make {
        path: path.to_owned(),
        source,
    })
}

/// Makes an empty file with its directories, where a dangling link points if there is one.
fn make_file(path: &Path) -> Result<(), MountError> {
    if path.exists() {
        return Ok(());
    }
    if let Ok(link) = fs::read_link(path) {
        // A loop of links is caught by the open below: only one step is followed here.
        let to = path.parent().unwrap_or(Path::new("/")).join(link);
        if let Some(parent) = to.parent() {
            make_dir(parent)?;
        }
    } else if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
        .map_err(|source| MountError::Make {
            path: path.to_owned(),
            source,
        })
}
