//! The system calls that the standard library lacks, each behind a safe function.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(crate) mod datagrams;
pub(crate) mod ports;
pub(crate) mod removals;

/// `SOL_NETLINK` (linux/socket.h).
const SOL_NETLINK: i32 = 270;
/// `NSFS_MAGIC` (linux/magic.h): the file system of namespace files.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// `SIOCGSKNS` (linux/sockios.h).
const SOCKET_NETNS: libc::c_ulong = 0x894c;

/// An error number of the kernel, with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The constant's name for the numbers that netlink returns.
    pub(crate) fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::ESRCH => "ESRCH",
            libc::EINTR => "EINTR",
            libc::EIO => "EIO",
            libc::ENXIO => "ENXIO",
            libc::EBADF => "EBADF",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::EXDEV => "EXDEV",
            libc::ENODEV => "ENODEV",
            libc::ENOTDIR => "ENOTDIR",
            libc::EISDIR => "EISDIR",
            libc::EINVAL => "EINVAL",
            libc::ENFILE => "ENFILE",
            libc::EMFILE => "EMFILE",
            libc::EFBIG => "EFBIG",
            libc::ENOSPC => "ENOSPC",
            libc::EROFS => "EROFS",
            libc::EMLINK => "EMLINK",
            libc::ERANGE => "ERANGE",
            libc::ELOOP => "ELOOP",
            libc::EXFULL => "EXFULL",
            libc::EOVERFLOW => "EOVERFLOW",
            libc::EMSGSIZE => "EMSGSIZE",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EAFNOSUPPORT => "EAFNOSUPPORT",
            libc::EADDRINUSE => "EADDRINUSE",
            libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
            libc::ENETDOWN => "ENETDOWN",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::ENOBUFS => "ENOBUFS",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::EHOSTUNREACH => "EHOSTUNREACH",
            libc::ENOTEMPTY => "ENOTEMPTY",
            libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
            libc::ENOTUNIQ => "ENOTUNIQ",
            _ => return None,
        })
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        match self.name() {
            Some(name) => write!(f, "{name}: {text}"),
            None => write!(f, "error {}: {text}", self.0),
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes numbers only.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A netlink socket bound to a port number of the kernel's choice; returns that number too.
pub(crate) fn netlink_socket(protocol: i32) -> io::Result<(OwnedFd, u32)> {
    let fd = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
    // SAFETY: all-zero bytes are a valid `sockaddr_nl`.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    let pointer = (&raw mut address).cast::<libc::sockaddr>();
    // SAFETY: `pointer` leads to a `sockaddr_nl` of `length` bytes that outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), pointer, length) })?;
    // SAFETY: as above; the kernel writes at most `length` bytes.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), pointer, &raw mut length) })?;
    Ok((fd, address.nl_pid))
}

fn set_option(fd: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is an `i32` that outlives the call, and `length` is its size.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    })?;
    Ok(())
}

/// Sets an option of a netlink socket (netlink(7)).
pub(crate) fn set_netlink_option(fd: &OwnedFd, name: i32, value: i32) -> io::Result<()> {
    set_option(fd, SOL_NETLINK, name, value)
}

/// Enlarges a socket's buffers past the limit of ordinary users where we may, else up to it.
pub(crate) fn set_buffers(fd: &OwnedFd, receive: i32, send: i32) -> io::Result<()> {
    for (force, name, value) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send),
    ] {
        if set_option(fd, libc::SOL_SOCKET, force, value).is_err() {
            set_option(fd, libc::SOL_SOCKET, name, value)?;
        }
    }
    Ok(())
}

/// Sends `bytes` as one message to the kernel.
pub(crate) fn send(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    loop {
        // SAFETY: pointer and length are those of a slice that outlives the call.
        let sent = check_size(unsafe {
            libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Reads one message into `buffer`. A message that does not fit is an error (`EMSGSIZE`).
pub(crate) fn receive(fd: &OwnedFd, buffer: &mut [u8], block: bool) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | if block { 0 } else { libc::MSG_DONTWAIT };
    loop {
        // SAFETY: pointer and length are those of a slice that outlives the call.
        let got = check_size(unsafe {
            libc::recv(
                fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
            )
        });
        match got {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(length) if length > buffer.len() => {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            other => return other,
        }
    }
}

/// Waits until one of `fds` can be read, at most `timeout_ms` (negative: for ever); says which.
pub(crate) fn poll(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> io::Result<Vec<bool>> {
    let mut entries: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    loop {
        // SAFETY: pointer and count are those of a vector that outlives the call.
        let ready = check(unsafe {
            libc::poll(
                entries.as_mut_ptr(),
                entries.len() as libc::nfds_t,
                timeout_ms,
            )
        });
        match ready {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(entries.iter().map(|entry| entry.revents != 0).collect()),
        }
    }
}

/// An event counter for waking a thread in [`poll`] (eventfd(2)).
pub(crate) fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: `eventfd` takes numbers only.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an event counter.
pub(crate) fn signal(fd: &OwnedFd) -> io::Result<()> {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: pointer and length are those of an array that outlives the call.
    check_size(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) })?;
    Ok(())
}

/// `BPF_PROG_LOAD`, `BPF_PROG_TYPE_SCHED_CLS` (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// The part of `union bpf_attr` that loading a program needs.
#[repr(C)]
struct ProgramAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// Loads a program for classifying packets; it goes when nobody refers to it any more (bpf(2)).
pub(crate) fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = ProgramAttributes {
        program_type: BPF_PROG_TYPE_SCHED_CLS,
        instruction_count: u32::try_from(instructions.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    // SAFETY: the attributes are of the size given and lead to a slice with that many instructions and to a
    // zero-terminated string; all of them outlive the call, which only reads them.
    let fd = check_size(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<ProgramAttributes>(),
        ) as libc::ssize_t
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))?;
    // SAFETY: the kernel has just given us this descriptor, closed on exec; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_netns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `setns` takes numbers only; that code of this thread then runs elsewhere is the caller's wish.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Puts the calling thread into a new network namespace.
pub(crate) fn new_netns() -> io::Result<()> {
    // SAFETY: `unshare` takes numbers only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Puts the calling thread into a mount namespace of its own, from which nothing gets out.
#[cfg(test)]
pub(crate) fn new_private_mounts() -> io::Result<()> {
    // SAFETY: `unshare` takes numbers only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)
}

/// The namespace in which the calling thread is.
pub(crate) fn current_netns() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Inode number of the network namespace that a socket is in.
pub(crate) fn netns_of_socket(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: the request takes no argument; it only makes a descriptor.
    let fd = check(unsafe { libc::ioctl(socket.as_raw_fd(), SOCKET_NETNS as _) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(std::os::unix::fs::MetadataExt::ino(&file.metadata()?))
}

fn path_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn mount(source: Option<&OsStr>, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map(|text| path_text(Path::new(text))).transpose()?;
    let target = path_text(target)?;
    let source = source
        .as_ref()
        .map_or(std::ptr::null(), |text| text.as_ptr());
    let none = std::ptr::null();
    // SAFETY: all pointers are null or lead to zero-terminated strings that outlive the call.
    check(unsafe { libc::mount(source, target.as_ptr(), none, flags, std::ptr::null()) })?;
    Ok(())
}

/// Makes `directory` a mount point of its own whose mounts and unmounts reach every copy of it, as
/// ip-netns(8) does: a copy in another mount namespace would otherwise keep a removed namespace alive.
pub(crate) fn mount_shared(directory: &Path) -> io::Result<()> {
    let shared = libc::MS_SHARED | libc::MS_REC;
    match mount(None, directory, shared) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount(
                Some(directory.as_os_str()),
                directory,
                libc::MS_BIND | libc::MS_REC,
            )?;
            mount(None, directory, shared)
        }
        other => other,
    }
}

/// Gives the open namespace `namespace` the name `target`, an existing file.
pub(crate) fn mount_netns(namespace: RawFd, target: &Path) -> io::Result<()> {
    let source = format!("/proc/thread-self/fd/{namespace}");
    mount(Some(OsStr::new(&source)), target, libc::MS_BIND)
}

/// Takes a mount away at once; it ends when its last user leaves it.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let target = path_text(target)?;
    let flags = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    // SAFETY: the pointer leads to a zero-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) })?;
    Ok(())
}

/// Whether `path` is a namespace file.
pub(crate) fn is_namespace(path: &Path) -> io::Result<bool> {
    let path = path_text(path)?;
    // SAFETY: all-zero bytes are a valid `statfs`.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a zero-terminated string and `facts` a `statfs`; both outlive the call.
    check(unsafe { libc::statfs(path.as_ptr(), &raw mut facts) })?;
    Ok(facts.f_type as i64 == NSFS_MAGIC)
}

/// A raw socket for whole Ethernet frames of `ethertype`, to be sent from interface `index`.
pub(crate) fn send_frame(
    index: u32,
    ethertype: u16,
    to: [u8; 6],
    payload: &[u8],
) -> io::Result<()> {
    let fd = socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex =
        i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    // SAFETY: the payload is a slice and the address a `sockaddr_ll` of the size given; both outlive the call.
    check_size(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            payload.as_ptr().cast(),
            payload.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(())
}
