//! One socket that holds one port, so that nobody else gets it.
//!
//! Measured on Linux 6.18, a bound socket without `SO_REUSEADDR` refuses every other bind of its port, with and
//! without `SO_REUSEADDR` or `SO_REUSEPORT`; it need not listen, and a stray connection is refused at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use tombolo_netstate::object::port::{HostAddress, PortSpec, Protocol};

use crate::limits::RELAY_BACKLOG;
use crate::sys::ports as sys;

/// How sockets are made.
#[derive(Debug)]
pub(super) struct Sockets {
    /// A filter for all; without it each datagram socket has its own, which costs ten times as much.
    filter: Option<OwnedFd>,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Self {
            filter: sys::load_drop_all().ok(),
        }
    }

    /// Takes a port as `spec` wants it; port 0 leaves the choice to the kernel. `None` when the kernel has no
    /// sockets of that protocol, so that nobody else can take it either.
    pub(super) fn bind(
        &self,
        protocol: Protocol,
        address: HostAddress,
        port: u16,
        spec: PortSpec,
    ) -> io::Result<Option<OwnedFd>> {
        let Some((socket, ip)) = open(protocol, address)? else {
            return Ok(None);
        };
        match (protocol, spec == PortSpec::Relayed) {
            (Protocol::Tcp, true) => {
                reuse(&socket, true)?;
                sys::bind(&socket, ip, port)?;
                sys::listen(&socket, RELAY_BACKLOG)?;
            }
            (Protocol::Tcp, false) => match sys::bind(&socket, ip, port) {
                Err(error) if is_taken(&error) && port != 0 => {
                    bind_over_remains(&socket, ip, port)?;
                }
                other => other?,
            },
            (Protocol::Udp, true) => {
                tell_destination(&socket)?;
                sys::bind(&socket, ip, port)?;
            }
            (Protocol::Udp, false) => {
                sys::drop_all(&socket, self.filter.as_ref())?;
                sys::bind(&socket, ip, port)?;
            }
            (Protocol::Sctp, _) => sys::bind(&socket, ip, port)?,
        }
        Ok(Some(socket))
    }

    /// Makes of a socket that holds its port one that does so as `spec` wants; the port is ours all the time.
    pub(super) fn change(
        &self,
        protocol: Protocol,
        socket: &OwnedFd,
        spec: PortSpec,
    ) -> io::Result<()> {
        match (protocol, spec == PortSpec::Relayed) {
            (Protocol::Tcp, true) => {
                reuse(socket, true)?;
                sys::listen(socket, RELAY_BACKLOG)
            }
            (Protocol::Tcp, false) => {
                // One that does not listen is what it should be.
                match sys::stop_listening(socket) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOTCONN) => {
                        return Err(error);
                    }
                    _ => {}
                }
                reuse(socket, false)
            }
            (Protocol::Udp, true) => {
                tell_destination(socket)?;
                sys::drop_nothing(socket)
            }
            (Protocol::Udp, false) => sys::drop_all(socket, self.filter.as_ref()),
            (Protocol::Sctp, _) => Ok(()),
        }
    }
}

/// Whether the port belongs to somebody else.
pub(super) fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRINUSE)
}

/// Whether the host has no such address.
pub(super) fn is_nowhere(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}

/// A socket, and the address that it is to be bound to.
fn open(protocol: Protocol, address: HostAddress) -> io::Result<Option<(OwnedFd, IpAddr)>> {
    let (v4, v6) = (
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    );
    let opened = match address {
        HostAddress::AnyV4 => open_one(protocol, v4, false),
        HostAddress::AnyV6 => open_one(protocol, v6, true),
        HostAddress::One(ip) => open_one(protocol, ip, true),
        HostAddress::Any => match open_one(protocol, v6, false) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                open_one(protocol, v4, false)
            }
            other => other,
        },
    };
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) if protocol == Protocol::Sctp => {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

fn open_one(protocol: Protocol, ip: IpAddr, ipv6_only: bool) -> io::Result<(OwnedFd, IpAddr)> {
    let kind = match protocol {
        Protocol::Tcp | Protocol::Sctp => libc::SOCK_STREAM,
        Protocol::Udp => libc::SOCK_DGRAM,
    };
    let family = if ip.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // Whoever takes from a relayed socket polls it first, and must not wait for what has gone meanwhile.
    let socket = sys::open(
        family,
        kind | libc::SOCK_NONBLOCK,
        i32::from(protocol.number()),
    )?;
    if ip.is_ipv6() {
        // What it is without this is a setting of the host.
        sys::set(
            &socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            i32::from(ipv6_only),
        )?;
    }
    Ok((socket, ip))
}

fn reuse(socket: &OwnedFd, yes: bool) -> io::Result<()> {
    sys::set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, i32::from(yes))
}

/// Takes a TCP port at which connections of an earlier server still end (`TIME_WAIT`). Only with
/// `SO_REUSEADDR` is that allowed, and then a socket that never listened would let the next one in as well:
/// listening for a moment makes the kernel look for others and refuse them from then on.
fn bind_over_remains(socket: &OwnedFd, ip: IpAddr, port: u16) -> io::Result<()> {
    reuse(socket, true)?;
    sys::bind(socket, ip, port)?;
    sys::listen(socket, 0)?;
    sys::stop_listening(socket)?;
    reuse(socket, false)
}

/// With each datagram comes the address that it was sent to, from which the answer must go back.
fn tell_destination(socket: &OwnedFd) -> io::Result<()> {
    sys::set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    match sys::set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1) {
        // A socket of IPv4 knows nothing of IPv6.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
