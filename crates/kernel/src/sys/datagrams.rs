//! Many datagrams by one system call (recvmmsg(2), sendmmsg(2)).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use super::check;

/// The address of the other side of a datagram.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

/// The heads of several datagrams, as the kernel wants them; only memory, which is used again.
pub(crate) struct Heads {
    parts: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

// SAFETY: what the heads point to is written anew before each system call and used by that call alone.
unsafe impl Send for Heads {}
// SAFETY: as above; nothing is read through a shared reference.
unsafe impl Sync for Heads {}

impl Address {
    pub(crate) fn none() -> Self {
        Self {
            // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
            storage: unsafe { zeroed() },
            length: size_of::<libc::sockaddr_storage>() as libc::socklen_t,
        }
    }

    pub(crate) fn of(address: SocketAddr) -> Self {
        let mut own = Self::none();
        let place = &raw mut own.storage;
        match address {
            SocketAddr::V4(address) => {
                own.length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                // SAFETY: a `sockaddr_storage` has room for every socket address and is aligned for it, and
                // all-zero bytes are a valid one.
                let to = unsafe { &mut *place.cast::<libc::sockaddr_in>() };
                to.sin_family = libc::AF_INET as libc::sa_family_t;
                to.sin_port = address.port().to_be();
                to.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            }
            SocketAddr::V6(address) => {
                own.length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
                // SAFETY: as above.
                let to = unsafe { &mut *place.cast::<libc::sockaddr_in6>() };
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_port = address.port().to_be();
                to.sin6_flowinfo = address.flowinfo();
                to.sin6_addr.s6_addr = address.ip().octets();
                to.sin6_scope_id = address.scope_id();
            }
        }
        own
    }

    /// The address as the kernel wrote it; `None` for another family.
    pub(crate) fn read(&self) -> Option<SocketAddr> {
        let place = &raw const self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that this is such an address; room and alignment are those of the storage.
                let from = unsafe { &*place.cast::<libc::sockaddr_in>() };
                let ip = from.sin_addr.s_addr.to_ne_bytes();
                let port = u16::from_be(from.sin_port);
                Some(SocketAddrV4::new(ip.into(), port).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let from = unsafe { &*place.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(from.sin6_addr.s6_addr);
                let port = u16::from_be(from.sin6_port);
                Some(SocketAddrV6::new(ip, port, from.sin6_flowinfo, from.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl Heads {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            parts: Vec::with_capacity(count),
            messages: Vec::with_capacity(count),
        }
    }

    fn clear(&mut self, count: usize) {
        self.parts.clear();
        self.messages.clear();
        // The heads point to the parts, which must not move.
        self.parts.reserve(count);
    }

    fn push(
        &mut self,
        (base, length): (*mut u8, usize),
        (storage, size): (*mut libc::sockaddr_storage, libc::socklen_t),
    ) {
        debug_assert!(self.parts.len() < self.parts.capacity());
        self.parts.push(libc::iovec {
            iov_base: base.cast(),
            iov_len: length,
        });
        // SAFETY: all-zero bytes are a valid `mmsghdr`.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_name = storage.cast();
        message.msg_hdr.msg_namelen = size;
        message.msg_hdr.msg_iovlen = 1;
        self.messages.push(message);
    }

    /// Lets the heads lead to their parts, once those stay where they are.
    fn join(&mut self) {
        for (message, part) in self.messages.iter_mut().zip(&mut self.parts) {
            message.msg_hdr.msg_iov = part;
        }
    }

    /// Reads what waits, without waiting, each datagram into the next `each` bytes; tells `took` of every one its
    /// length and whether that is all of it.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        (bytes, each): (&mut [u8], usize),
        addresses: &mut [Address],
        mut took: impl FnMut(usize, bool),
    ) -> io::Result<usize> {
        self.clear(addresses.len());
        for (bytes, address) in bytes.chunks_exact_mut(each).zip(addresses.iter_mut()) {
            address.length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let size = address.length;
            self.push((bytes.as_mut_ptr(), each), (&raw mut address.storage, size));
        }
        self.join();
        let count = self.messages.len() as libc::c_uint;
        let flags = libc::MSG_DONTWAIT;
        let received = loop {
            // SAFETY: there are `count` heads, which lead to one part and one address each; the parts lead to
            // separate writable bytes of the lengths given; all of them outlive the call.
            let received = check(unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.messages.as_mut_ptr(),
                    count,
                    flags as _,
                    null_mut(),
                )
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let received = usize::try_from(received).unwrap_or(0);
        for message in &self.messages[..received] {
            let is_whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            took(message.msg_len as usize, is_whole);
        }
        Ok(received)
    }

    /// Sends datagrams without waiting, the first ones as far as the kernel takes them; says how many those were.
    pub(crate) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: impl ExactSizeIterator<Item = (&'a [u8], &'a Address)>,
    ) -> io::Result<usize> {
        self.clear(datagrams.len());
        for (bytes, address) in datagrams {
            // The kernel only reads what it is to send.
            let storage = (&raw const address.storage).cast_mut();
            self.push(
                (bytes.as_ptr().cast_mut(), bytes.len()),
                (storage, address.length),
            );
        }
        self.join();
        let count = self.messages.len() as libc::c_uint;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        loop {
            // SAFETY: there are `count` heads, which lead to one part and one address each; these and the bytes
            // that the parts lead to outlive the call, which only reads them.
            let sent = check(unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.messages.as_mut_ptr(),
                    count,
                    flags as _,
                )
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|sent| usize::try_from(sent).unwrap_or(0)),
            }
        }
    }
}
