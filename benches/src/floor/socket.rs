//! A route socket in the namespace of the thread that opens it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use super::wire::{
    Batch, DELETE_LINK, DUMP, GET_LINK, HEADER, Message, NEW_ADDRESS, NEW_LINK, attribute,
    messages, read_u32,
};

/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// The group of link news, as a bit.
pub(crate) const LINK_NEWS: u32 = 1;
/// The group of IPv6 address news, as a bit.
pub(crate) const IPV6_ADDRESS_NEWS: u32 = 1 << 8;
/// Room for news that are read late, in bytes.
const NEWS_BYTES: usize = 8 << 20;
/// The kernel fills at most 32 KiB per read.
const READ_BYTES: usize = 64 << 10;
/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// `IFA_F_TENTATIVE`.
const TENTATIVE: u32 = 0x40;

/// A route socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket that also hears the news of `groups`.
    pub(crate) fn open(groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self {
            fd,
            sequence: 1,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Makes room for a burst of news.
    pub(crate) fn enlarge(&self) -> io::Result<()> {
        Ok(setsockopt(&self.fd, sockopt::RcvBufForce, &NEWS_BYTES)?)
    }

    /// Sends the requests at once and waits for the one acknowledgement; `see` is shown all else that comes.
    pub(crate) fn run(&mut self, batch: Batch, see: &mut dyn FnMut(Message<'_>)) -> io::Result<()> {
        let (bytes, last) = batch.finish(self.sequence, true);
        let first = self.sequence;
        self.sequence = last.wrapping_add(1);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for message in messages(&self.buffer[..length]) {
                if message.kind != ERROR || message.sequence < first {
                    see(message);
                    continue;
                }
                match read_u32(message.body, 0).unwrap_or(0).cast_signed() {
                    0 if message.sequence == last => return Ok(()),
                    0 => {}
                    code => {
                        let cause = io::Error::from_raw_os_error(code.wrapping_neg());
                        let text =
                            format!("request {} of a batch: {cause}", message.sequence - first);
                        return Err(io::Error::new(cause.kind(), text));
                    }
                }
            }
        }
    }

    /// Shows `see` all news until it says that it has seen enough, or until `deadline`; says which.
    pub(crate) fn listen(
        &mut self,
        deadline: Instant,
        see: &mut dyn FnMut(Message<'_>) -> bool,
    ) -> io::Result<bool> {
        loop {
            match recv(
                self.fd.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(length) => {
                    for message in messages(&self.buffer[..length]) {
                        if see(message) {
                            return Ok(true);
                        }
                    }
                }
                Err(Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
                    let timeout = PollTimeout::from(millis.max(1));
                    let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
                    poll(&mut fds, timeout)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until an IPv6 address of that link is usable.
    pub(crate) fn await_usable(&mut self, index: u32, ip: IpAddr) -> io::Result<()> {
        let usable = &mut |message: Message<'_>| is_usable(message, index, ip);
        if self.listen(Instant::now() + PATIENCE, usable)? {
            return Ok(());
        }
        let text = format!("{ip} did not become usable");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    /// The names of the links of the namespace.
    pub(crate) fn link_names(&mut self) -> io::Result<Vec<String>> {
        let mut batch = Batch::default();
        batch.push(GET_LINK, DUMP, &[0; 16], |_| {});
        let (bytes, sequence) = batch.finish(self.sequence, false);
        self.sequence = sequence.wrapping_add(1);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut names = Vec::new();
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for message in messages(&self.buffer[..length]) {
                match message.kind {
                    DONE | ERROR if message.sequence == sequence => return Ok(names),
                    NEW_LINK if message.sequence == sequence => names.extend(link_name(message)),
                    _ => {}
                }
            }
        }
    }
}

/// Whether the news says that the address is usable.
pub(crate) fn is_usable(message: Message<'_>, index: u32, ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    message.kind == NEW_ADDRESS
        && read_u32(message.body, 4) == Some(index)
        && attribute(message.body, 8, 1) == Some(&ip.octets())
        && attribute(message.body, 8, 8)
            .and_then(|flags| read_u32(flags, 0))
            .is_some_and(|flags| flags & TENTATIVE == 0)
}

/// The link that is gone, if the news says so; news of bridge ports do not.
pub(crate) fn removed_link(message: Message<'_>) -> Option<String> {
    let whole = message.kind == DELETE_LINK && message.body.first() == Some(&0);
    whole.then(|| link_name(message)).flatten()
}

fn link_name(message: Message<'_>) -> Option<String> {
    let name = attribute(message.body, HEADER, 3)?;
    let text = std::str::from_utf8(name.split(|byte| *byte == 0).next()?).ok()?;
    Some(text.to_owned())
}
