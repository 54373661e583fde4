//! A netlink socket: requests are carried out by the kernel within `send`, so that all answers but those of a
//! dump are there when it returns.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::Emitable;

use super::attribute::{Message, Messages};
use super::batch::{Batch, refusal};
use super::{HEADER_BYTES, ReadBuffer, align};
use crate::limits::{DUMP_TRIES_MAX, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES};
use crate::sys;

/// `NETLINK_ADD_MEMBERSHIP`, `NETLINK_CAP_ACK`, `NETLINK_EXT_ACK`, `NETLINK_GET_STRICT_CHK` (netlink(7)).
const ADD_MEMBERSHIP: i32 = 1;
const CAP_ACK: i32 = 10;
const EXT_ACK: i32 = 11;
const GET_STRICT_CHK: i32 = 12;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: what was dumped changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `NETLINK_ROUTE`.
    Route,
    /// `NETLINK_NETFILTER`.
    Netfilter,
    /// `NETLINK_SOCK_DIAG`.
    SockDiag,
}

/// An open socket, in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: AtomicU32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Protocol) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
            Protocol::SockDiag => libc::NETLINK_SOCK_DIAG,
        };
        let (fd, port) = sys::netlink_socket(number)?;
        sys::set_netlink_option(&fd, CAP_ACK, 1)?;
        sys::set_netlink_option(&fd, EXT_ACK, 1)?;
        if protocol == Protocol::Route {
            sys::set_netlink_option(&fd, GET_STRICT_CHK, 1)?;
        }
        Ok(Self {
            fd,
            port,
            sequence: AtomicU32::new(1),
        })
    }

    /// Room for large transactions and for bursts of notifications.
    pub(crate) fn enlarge(&self) -> io::Result<()> {
        sys::set_buffers(&self.fd, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES)
    }

    /// The number by which notifications name the socket that caused them.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Subscribes to a group of notifications.
    pub(crate) fn join(&self, group: u32) -> io::Result<()> {
        let group = i32::try_from(group).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        sys::set_netlink_option(&self.fd, ADD_MEMBERSHIP, group)
    }

    /// Sequence numbers for `count` requests; the first of them.
    pub(crate) fn next_sequences(&self, count: usize) -> u32 {
        self.sequence
            .fetch_add(u32::try_from(count).unwrap_or(1), Ordering::Relaxed)
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sys::send(&self.fd, bytes)
    }

    /// Reads what is there, without waiting, and shows each message to `see`.
    pub(crate) fn drain(
        &self,
        buffer: &mut ReadBuffer,
        mut see: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        loop {
            match sys::receive(&self.fd, &mut buffer.0, false) {
                Ok(length) => Messages(&buffer.0[..length]).for_each(&mut see),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one request of the route family and waits for its end.
    pub(crate) fn request(
        &self,
        kind: u16,
        flags: u16,
        message: &impl Emitable,
        buffer: &mut ReadBuffer,
    ) -> Result<(), super::batch::Refusal> {
        let mut batch = Batch::default();
        batch.push(kind, flags, message);
        batch.run(self, buffer).pop().unwrap_or(Ok(()))
    }

    /// Asks for all objects of a kind and shows each message to `see`. A dump that was interrupted by a change
    /// begins anew: `see` is told so with `None` and must forget what it saw.
    pub(crate) fn dump(
        &self,
        kind: u16,
        body: &[u8],
        buffer: &mut ReadBuffer,
        mut see: impl FnMut(Option<Message<'_>>),
    ) -> io::Result<()> {
        for _ in 0..DUMP_TRIES_MAX {
            see(None);
            match self.dump_once(kind, body, buffer, &mut |message| see(Some(message))) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// Whether the dump is consistent.
    fn dump_once(
        &self,
        kind: u16,
        body: &[u8],
        buffer: &mut ReadBuffer,
        see: &mut dyn FnMut(Message<'_>),
    ) -> io::Result<bool> {
        let sequence = self.next_sequences(1);
        let length = HEADER_BYTES + body.len();
        let mut bytes = Vec::with_capacity(align(length));
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&DUMP.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(body);
        bytes.resize(align(length), 0);
        self.send(&bytes)?;
        let mut consistent = true;
        loop {
            let length = sys::receive(&self.fd, &mut buffer.0, true)?;
            for message in Messages(&buffer.0[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    DONE => {
                        return match refusal(0, message.body) {
                            Some(refusal) => Err(io::Error::from_raw_os_error(refusal.errno.0)),
                            None => Ok(consistent),
                        };
                    }
                    ERROR => {
                        if let Some(refusal) = refusal(0, message.body) {
                            return Err(io::Error::from_raw_os_error(refusal.errno.0));
                        }
                    }
                    _ => see(message),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
