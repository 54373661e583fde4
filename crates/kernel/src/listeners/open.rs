//! Opening the two sockets of a listener in its namespace.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::port::{HostAddress, Protocol};

use super::ListenError;
use crate::limits::{LISTENER_BACKLOG, LISTENER_BUFFER_BYTES, LISTENER_FILES_SPARE};
use crate::netns::{Namespaces, NetnsError};
use crate::ports::{Listener, Ports, holder};
use crate::sys::ports as sys;

/// What is to be done about a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is there.
    Stay,
    /// There are too many.
    Refuse,
    /// Nobody else may have the port.
    Open,
    /// Only sockets that are being closed may.
    OpenBeside,
}

/// A namespace to open sockets in.
#[derive(Debug)]
pub(super) struct Place<'a> {
    namespaces: &'a Namespaces,
    netns: &'a Netns,
    /// Its file and number; none is the host's.
    file: Option<(File, u64)>,
}

/// A socket that could not be had.
#[derive(Debug)]
struct Refusal {
    protocol: Protocol,
    source: io::Error,
}

impl Refusal {
    fn is_taken(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EADDRINUSE)
    }
}

impl<'a> Place<'a> {
    pub(super) fn find(namespaces: &'a Namespaces, netns: &'a Netns) -> Result<Self, NetnsError> {
        let file = match namespaces.file(netns)? {
            None => None,
            Some(file) => match file.metadata() {
                Ok(facts) => Some((file, facts.ino())),
                Err(source) => {
                    let name = netns.to_string();
                    return Err(NetnsError::Enter { name, source });
                }
            },
        };
        Ok(Self {
            namespaces,
            netns,
            file,
        })
    }

    /// The namespace's number; none is the host's.
    pub(super) fn inode(&self) -> Option<u64> {
        self.file.as_ref().map(|(_, inode)| *inode)
    }

    /// Opens those that are not there, in the order of the keys; none for one that stays.
    pub(super) fn open_all(
        &self,
        ports: &Ports,
        keys: &[&ListenerKey],
        ways: &[Way],
    ) -> Vec<Result<Option<Listener>, ListenError>> {
        let work = || {
            let wishes = keys.iter().zip(ways);
            wishes
                .map(|(key, way)| self.open(ports, key, *way))
                .collect()
        };
        let Some((file, _)) = &self.file else {
            return work();
        };
        match self.namespaces.within(self.netns, file, work) {
            Ok(opened) => opened,
            Err(error) => {
                let reason = failure(&error);
                let refused = |_| {
                    let reason = reason.clone();
                    Err(ListenError::Netns { reason })
                };
                keys.iter().map(refused).collect()
            }
        }
    }

    /// With the thread in the namespace.
    fn open(
        &self,
        ports: &Ports,
        key: &ListenerKey,
        way: Way,
    ) -> Result<Option<Listener>, ListenError> {
        let beside = match way {
            Way::Stay => return Ok(None),
            Way::Refuse => return Err(ListenError::TooMany),
            Way::Open => false,
            Way::OpenBeside => true,
        };
        let mut opened = both(key, beside);
        if opened.as_ref().is_err_and(Refusal::is_taken) {
            // Perhaps by the keeper, which is just closing the last ones.
            ports.await_unshared();
            opened = both(key, beside);
        }
        let (udp, tcp) = opened.map_err(|refusal| self.explain(ports, key, refusal))?;
        // Numbers of files are given out from below. The last ones are for what else must go on.
        let limit = sys::open_files_limit().unwrap_or(u64::MAX);
        let highest = udp.as_raw_fd().max(tcp.as_raw_fd());
        if u64::from(highest.unsigned_abs()) + LISTENER_FILES_SPARE >= limit {
            return Err(ListenError::TooManyFiles { limit });
        }
        Ok(Some(Listener {
            udp: Arc::new(udp.into()),
            tcp: Arc::new(tcp.into()),
        }))
    }

    fn explain(&self, ports: &Ports, key: &ListenerKey, refusal: Refusal) -> ListenError {
        let is_taken = refusal.is_taken();
        let Refusal { protocol, source } = refusal;
        let (address, port) = (key.address, key.port);
        match source.raw_os_error() {
            _ if is_taken => {
                let at = HostAddress::One(address);
                let (place, holder) = match self.netns {
                    Netns::Host => ("", ports.holder(protocol, at, port)),
                    Netns::Owned(_) | Netns::Adopted { .. } => {
                        (" in the sandbox", holder::holder(protocol, at, port))
                    }
                };
                ListenError::Taken {
                    protocol,
                    address,
                    port,
                    place,
                    holder,
                }
            }
            Some(libc::EMFILE) => ListenError::TooManyFiles {
                limit: sys::open_files_limit().unwrap_or(u64::MAX),
            },
            _ => ListenError::Other {
                protocol,
                address,
                port,
                source,
            },
        }
    }
}

fn both(key: &ListenerKey, beside: bool) -> Result<(OwnedFd, OwnedFd), Refusal> {
    Ok((datagrams(key, beside)?, connections(key)?))
}

/// Lets nothing arrive any more at a listener that is being closed, whoever else still has its sockets open, and
/// lets the next one have its port.
pub(super) fn shut(listener: &Listener) {
    // One that does not listen any more is what it should be.
    let _ = sys::stop_listening(&*listener.tcp);
    let _ = sys::set(&*listener.udp, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
}

/// What is wrong with a namespace, in one line.
pub(super) fn failure(error: &NetnsError) -> String {
    let source = std::error::Error::source(error);
    let source = source.map_or(String::new(), |source| format!(": {source}"));
    format!("{error}{source}")
}

/// A bound socket for datagrams, which nobody else's can join: with `SO_REUSEADDR` the last one that is bound would
/// be asked. `beside` lets it join one that was shut.
fn datagrams(key: &ListenerKey, beside: bool) -> Result<OwnedFd, Refusal> {
    let open = || {
        let socket = open_one(key.address, libc::SOCK_DGRAM)?;
        sys::set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            i32::from(beside),
        )?;
        // Without the privilege, or on a host with a small limit, fewer questions wait.
        let (force, plain) = (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
        if sys::set(&socket, libc::SOL_SOCKET, force, LISTENER_BUFFER_BYTES).is_err() {
            let _ = sys::set(&socket, libc::SOL_SOCKET, plain, LISTENER_BUFFER_BYTES);
        }
        sys::bind(&socket, key.address, key.port)?;
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0)?;
        Ok(socket)
    };
    open().map_err(|source| Refusal {
        protocol: Protocol::Udp,
        source,
    })
}

/// A socket that listens. `SO_REUSEADDR` lets it have a port at which earlier connections still end; two that
/// listen are refused all the same.
fn connections(key: &ListenerKey) -> Result<OwnedFd, Refusal> {
    let open = || {
        let socket = open_one(key.address, libc::SOCK_STREAM)?;
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        sys::bind(&socket, key.address, key.port)?;
        sys::listen(&socket, LISTENER_BACKLOG)?;
        Ok(socket)
    };
    open().map_err(|source| Refusal {
        protocol: Protocol::Tcp,
        source,
    })
}

/// A socket that may be bound to an address which is not there yet: a bridge's is only tentative without a running
/// port, and the loopback interface of somebody else's namespace may still be down.
fn open_one(address: IpAddr, kind: i32) -> io::Result<OwnedFd> {
    let (family, level, free) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_IP, libc::IP_FREEBIND),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    };
    let socket = sys::open(family, kind | libc::SOCK_NONBLOCK, 0)?;
    if address.is_ipv6() {
        sys::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    sys::set(&socket, level, free, 1)?;
    Ok(socket)
}
