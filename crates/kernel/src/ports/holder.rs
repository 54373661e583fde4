//! Who has a port: the host's sockets (sock_diag(7)), and the processes that have them open (proc(5)).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

use crate::netlink::attribute::{Attributes, Message, read_ip, read_u32};
use crate::netlink::{ReadBuffer, Socket, socket};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_SKV6ONLY` (linux/inet_diag.h).
const V6_ONLY: u16 = 11;
/// Bytes of `struct inet_diag_req_v2` and of `struct inet_diag_msg`.
const REQUEST_BYTES: usize = 56;
const ANSWER_BYTES: usize = 72;
/// Where the socket's number lies in an answer.
const INODE_AT: usize = 68;
/// States in which new traffic is taken, as bits: `TCP_CLOSE` (a datagram socket without a peer), `TCP_LISTEN`,
/// `TCP_BOUND_INACTIVE` (bound and neither listening nor connected; told since Linux 6.8).
const TAKING: u32 = 1 << 7 | 1 << 10 | 1 << 13;

/// A socket of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    address: HostAddress,
    port: u16,
    /// 0 when no process has it any more.
    inode: u32,
}

/// The first port of `ports` at which a socket of the host takes traffic for `address`, unless `is_ours`.
///
/// # Errors
/// When the host's sockets cannot be read.
pub(super) fn first_taken(
    protocol: Protocol,
    address: HostAddress,
    ports: PortRange,
    is_ours: impl Fn(u16, HostAddress) -> bool,
) -> io::Result<Option<u16>> {
    let sockets = sockets(protocol, ports, TAKING)?;
    let in_the_way =
        |socket: &&Bound| socket.address.overlaps(address) && !is_ours(socket.port, socket.address);
    Ok(sockets.iter().filter(in_the_way).map(|s| s.port).min())
}

/// The process that has a port of the thread's namespace, as `nginx (pid 123)`; `None` when the kernel or our privileges do not say.
pub(crate) fn holder(protocol: Protocol, address: HostAddress, port: u16) -> Option<String> {
    let ports = PortRange::one(port).ok()?;
    // Whoever takes new traffic first; else what remains of a connection.
    let inode = [TAKING, u32::MAX].into_iter().find_map(|states| {
        let sockets = sockets(protocol, ports, states).ok()?;
        let mut in_the_way = sockets
            .iter()
            .filter(|socket| socket.address.overlaps(address) && socket.inode != 0);
        in_the_way.next().map(|socket| socket.inode)
    })?;
    process_with(inode)
}

fn sockets(protocol: Protocol, ports: PortRange, states: u32) -> io::Result<Vec<Bound>> {
    if protocol == Protocol::Sctp {
        // The kernel tells of these by associations, not by ports; a bind is what finds them.
        return Ok(Vec::new());
    }
    let socket = Socket::open(socket::Protocol::SockDiag)?;
    let mut buffer = ReadBuffer::new();
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0_u8; REQUEST_BYTES];
        request[0] = family as u8;
        request[1] = protocol.number();
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        if ports.is_one() {
            request[8..10].copy_from_slice(&ports.first().to_be_bytes());
        }
        let before = sockets.len();
        socket.dump(BY_FAMILY, &request, &mut buffer, |message| match message {
            None => sockets.truncate(before),
            Some(message) => {
                sockets.extend(bound(&message).filter(|found| ports.contains(found.port)));
            }
        })?;
    }
    Ok(sockets)
}

fn bound(message: &Message<'_>) -> Option<Bound> {
    let body = message.body.get(..ANSWER_BYTES)?;
    let bytes = if i32::from(body[0]) == libc::AF_INET {
        &body[8..12]
    } else {
        &body[8..24]
    };
    let ip = read_ip(bytes)?.to_canonical();
    let v6_only = Attributes::after(message.body, ANSWER_BYTES).find(V6_ONLY) == Some(&[1]);
    let address = match ip {
        ip if !ip.is_unspecified() => HostAddress::One(ip),
        IpAddr::V4(_) => HostAddress::AnyV4,
        IpAddr::V6(_) if v6_only => HostAddress::AnyV6,
        IpAddr::V6(_) => HostAddress::Any,
    };
    Some(Bound {
        address,
        port: u16::from_be_bytes([body[4], body[5]]),
        inode: read_u32(&body[INODE_AT..])?,
    })
}

/// The first process that has a socket open.
fn process_with(inode: u32) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        // Processes end while we look, and some may not be looked at.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let has_it = files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&wanted)));
        if has_it {
            let program = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!("{} (pid {pid})", program.trim()));
        }
    }
    None
}
