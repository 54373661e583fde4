//! Sockets that hold ports, and how they are handed from process to process (socket(7), unix(7)).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{check, check_size, set_option, socket};

/// Most descriptors that one message carries: `SCM_MAX_FD` (net/scm.h).
pub(crate) const DESCRIPTORS_MAX: usize = 253;
/// Bytes of ancillary data that hold so many.
const CONTROL_BYTES: usize = 16 + DESCRIPTORS_MAX * size_of::<i32>() + 4;
/// `BPF_PROG_LOAD`, `BPF_PROG_TYPE_SOCKET_FILTER` (linux/bpf.h).
const PROG_LOAD: libc::c_int = 5;
const SOCKET_FILTER: u32 = 1;
/// `r0 = 0; exit`: keep nothing of any packet (Documentation/bpf/standardization/instruction-set.rst).
const DROP_ALL: [u64; 2] = [0xb7, 0x95];

/// The head of `union bpf_attr` for loading a program.
#[repr(C)]
struct ProgramAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    rest: [u64; 6],
}

/// Ancillary data, aligned as `struct cmsghdr` must be.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// A socket of a family (`AF_*`), kind (`SOCK_*`) and protocol (`IPPROTO_*`).
pub(crate) fn open(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    socket(family, kind, protocol)
}

/// Sets an option whose value is a number (socket(7), ip(7), ipv6(7)).
pub(crate) fn set(fd: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option(fd, level, name, value)
}

/// Binds a socket to an address and port; port 0 leaves the choice to the kernel.
pub(crate) fn bind(fd: &OwnedFd, ip: IpAddr, port: u16) -> io::Result<()> {
    match ip {
        IpAddr::V4(ip) => {
            // SAFETY: all-zero bytes are a valid `sockaddr_in`.
            let mut address: libc::sockaddr_in = unsafe { zeroed() };
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            address.sin_port = port.to_be();
            address.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
            bind_to(fd, &address)
        }
        IpAddr::V6(ip) => {
            // SAFETY: all-zero bytes are a valid `sockaddr_in6`.
            let mut address: libc::sockaddr_in6 = unsafe { zeroed() };
            address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            address.sin6_port = port.to_be();
            address.sin6_addr.s6_addr = ip.octets();
            bind_to(fd, &address)
        }
    }
}

/// `T` is one of the kernel's socket addresses.
fn bind_to<T>(fd: &OwnedFd, address: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer leads to a socket address of `length` bytes that outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), length) })?;
    Ok(())
}

/// The port that a socket is bound to.
pub(crate) fn local_port(fd: &OwnedFd) -> io::Result<u16> {
    // SAFETY: all-zero bytes are a valid `sockaddr_in6`, which is the larger of the two families'.
    let mut address: libc::sockaddr_in6 = unsafe { zeroed() };
    let mut length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    let pointer = (&raw mut address).cast();
    // SAFETY: the pointer leads to `length` writable bytes that outlive the call.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), pointer, &raw mut length) })?;
    // The port lies at the same place in the addresses of both families.
    Ok(u16::from_be(address.sin6_port))
}

/// Lets a bound socket take connections.
pub(crate) fn listen(fd: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: `listen` takes numbers only.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// Ends the listening of a socket, which stays bound.
pub(crate) fn stop_listening(fd: &impl AsFd) -> io::Result<()> {
    // SAFETY: `shutdown` takes numbers only.
    check(unsafe { libc::shutdown(fd.as_fd().as_raw_fd(), libc::SHUT_RD) })?;
    Ok(())
}

/// Ends a connection in both directions, for every descriptor of it.
pub(crate) fn hang_up(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: `shutdown` takes numbers only.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) })?;
    Ok(())
}

/// Waits until the other side of a connection, or we ourselves, have hung up.
pub(crate) fn await_hang_up(fd: &OwnedFd) -> io::Result<()> {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    loop {
        // SAFETY: the pointer leads to one `pollfd` that outlives the call.
        match check(unsafe { libc::poll(&raw mut entry, 1, -1) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// A program for [`drop_all`], to be shared by all sockets.
pub(crate) fn load_drop_all() -> io::Result<OwnedFd> {
    let license = c"GPL";
    let attributes = ProgramAttributes {
        kind: SOCKET_FILTER,
        instructions: DROP_ALL.len() as u32,
        code: DROP_ALL.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 6],
    };
    // SAFETY: the attributes are of the size given; they and the instructions and text that they point to
    // outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<ProgramAttributes>(),
        )
    };
    let fd = check(fd as libc::c_int)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a socket drop whatever arrives, by a shared program or else by one of its own.
pub(crate) fn drop_all(fd: &OwnedFd, shared: Option<&OwnedFd>) -> io::Result<()> {
    if let Some(program) = shared {
        return set_option(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            program.as_raw_fd(),
        );
    }
    let mut code = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut code,
    };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let name = libc::SO_ATTACH_FILTER;
    // SAFETY: the value is a `sock_fprog` of `length` bytes; it and its one instruction outlive the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const program).cast(),
            length,
        )
    })?;
    Ok(())
}

/// Lets what a socket sends bear a mark (`SO_MARK`, socket(7)).
pub(crate) fn mark(fd: &OwnedFd, mark: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
}

/// Undoes [`drop_all`]; a socket that drops nothing stays as it is.
pub(crate) fn drop_nothing(fd: &OwnedFd) -> io::Result<()> {
    match set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn unix_address(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: all-zero bytes are a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // One byte stays zero and ends the path.
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    Ok(address)
}

/// A socket for whole messages at `path`, where there must be nothing yet.
pub(crate) fn seqpacket_listener(path: &Path) -> io::Result<OwnedFd> {
    let address = unix_address(path)?;
    let fd = socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0)?;
    bind_to(&fd, &address)?;
    listen(&fd, 1)?;
    Ok(fd)
}

/// Connects to a socket for whole messages; neither sending nor waiting for an answer takes longer than
/// `patience`.
pub(crate) fn seqpacket_connect(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let address = unix_address(path)?;
    let fd = socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0)?;
    let time = libc::timeval {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(patience.subsec_micros()),
    };
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let length = size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the value is a `timeval` of `length` bytes that outlives the call.
        check(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw const time).cast(),
                length,
            )
        })?;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the pointer leads to a `sockaddr_un` of `length` bytes that outlives the call.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

/// The next who connects.
pub(crate) fn accept(fd: &OwnedFd) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: without a place for the caller's address, `accept4` takes numbers only.
    let fd = check(unsafe {
        libc::accept4(
            fd.as_raw_fd(),
            none,
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends one message with at most [`DESCRIPTORS_MAX`] descriptors.
pub(crate) fn send_with(
    fd: &OwnedFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let payload = size_of_val(descriptors) as u32;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: `CMSG_SPACE` and `CMSG_LEN` only compute.
        let (space, length) = unsafe { (libc::CMSG_SPACE(payload), libc::CMSG_LEN(payload)) };
        message.msg_controllen = space as _;
        // SAFETY: `control` has room for a header and `DESCRIPTORS_MAX` numbers, is aligned for the header, and
        // there are no more descriptors than that.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = length as _;
            let numbers = libc::CMSG_DATA(header).cast::<i32>();
            for (place, descriptor) in descriptors.iter().enumerate() {
                numbers.add(place).write_unaligned(descriptor.as_raw_fd());
            }
        }
    }
    loop {
        // SAFETY: `message` points to the bytes and the ancillary data, which all outlive the call.
        let sent = check_size(unsafe {
            libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Reads one message and its descriptors; length 0 means that the other side has hung up. A message of which
/// something did not fit is an error (`EMSGSIZE`).
pub(crate) fn receive_with(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_BYTES as _;
    let length = loop {
        // SAFETY: `message` points to writable bytes of the lengths given, which all outlive the call.
        let got = check_size(unsafe {
            libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
        });
        match got {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    let descriptors = received_descriptors(&message);
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok((length, descriptors))
}

/// Takes the descriptors out of a message that the kernel has just filled in.
fn received_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: `message` is what `recvmsg` has left, so that its ancillary data is well formed; every number in
    // an `SCM_RIGHTS` part is a descriptor that the kernel has just given us and nobody else has.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let is_rights =
                (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
            if is_rights {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(header).cast::<i32>();
                for place in 0..bytes / size_of::<i32>() {
                    descriptors.push(OwnedFd::from_raw_fd(numbers.add(place).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    descriptors
}

/// Lets this process have at least `wanted` open files if it may, and as many as its hard limit allows
/// otherwise; how many it may have then.
pub(crate) fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer leads to an `rlimit` that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    for hard in [limit.rlim_max.max(wanted), limit.rlim_max] {
        let raised = libc::rlimit {
            rlim_cur: hard,
            rlim_max: hard,
        };
        // SAFETY: as above.
        if check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) }).is_ok() {
            return Ok(hard);
        }
    }
    Ok(limit.rlim_cur)
}

/// How many files this process may have open.
pub(crate) fn open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer leads to an `rlimit` that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit.rlim_cur)
}

/// Takes an exclusive lock of an open file without waiting; it ends with the last descriptor (flock(2)).
pub(crate) fn lock_file(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `flock` takes numbers only.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })?;
    Ok(())
}

/// Lets a command run in a session of its own, with no open files but its standard streams.
pub(crate) fn detach(command: &mut Command) -> &mut Command {
    let alone = || {
        // SAFETY: `setsid` takes nothing, and is safe between fork and exec.
        check(unsafe { libc::setsid() })?;
        // An old kernel has no such call; what we open ourselves is closed on exec in any case.
        // SAFETY: the call takes numbers only, is safe between fork and exec, and closes nothing before the exec.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3_u32,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        Ok(())
    };
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(alone) }
}

/// Lets this process have no more than `wanted` open files, for tests; how many it could have before.
#[cfg(test)]
pub(crate) fn lower_open_files(wanted: u64) -> io::Result<u64> {
    let before = open_files_limit()?;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer leads to an `rlimit` that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = wanted;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(before)
}
