//! Sockets in the namespaces of sandboxes, from which others are asked on their behalf.

use std::io;
use std::os::fd::OwnedFd;

use tombolo_netstate::Netns;

use crate::kernel::Kernel;
use crate::sys;

/// What a socket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// UDP.
    Datagram,
    /// TCP.
    Stream,
}

/// Why there is no socket in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The namespace is gone or cannot be entered.
    #[error("cannot enter network namespace {netns}: {reason}")]
    Namespace {
        /// The namespace.
        netns: Netns,
        /// What the kernel said.
        reason: String,
    },
    /// The socket cannot be made.
    #[error("cannot open a socket in network namespace {netns}")]
    Socket {
        /// The namespace.
        netns: Netns,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Kernel {
    /// A socket in a namespace, neither bound nor connected, that does not block; what it sends bears the mark, if
    /// one is given (`SO_MARK`, socket(7)). It keeps the namespace alive for as long as it is open.
    ///
    /// # Errors
    /// When the namespace is gone or another one by now, or there are too many open files.
    pub fn socket_within(
        &self,
        netns: &Netns,
        kind: SocketKind,
        ipv6: bool,
        mark: Option<u32>,
    ) -> Result<OwnedFd, SocketError> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = match kind {
            SocketKind::Datagram => libc::SOCK_DGRAM,
            SocketKind::Stream => libc::SOCK_STREAM,
        };
        let open = || {
            let socket = sys::ports::open(family, kind | libc::SOCK_NONBLOCK, 0)?;
            if let Some(mark) = mark {
                sys::ports::mark(&socket, mark)?;
            }
            Ok(socket)
        };
        let refused = |error: crate::netns::NetnsError| SocketError::Namespace {
            netns: netns.clone(),
            reason: error.to_string(),
        };
        let opened = match self.namespaces.file(netns).map_err(refused)? {
            None => open(),
            Some(file) => self
                .namespaces
                .within(netns, &file, open)
                .map_err(refused)?,
        };
        opened.map_err(|source| SocketError::Socket {
            netns: netns.clone(),
            source,
        })
    }
}
