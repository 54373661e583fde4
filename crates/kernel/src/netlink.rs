//! Talking to the kernel over netlink (netlink(7), Documentation/userspace-api/netlink/intro.rst): sockets,
//! batches with one acknowledgement, dumps, and one file for each kind of object with what is sent to make it
//! and what is read back.
//!
//! Messages of the route family are encoded with `netlink-packet-route`. What the kernel sends is read by the
//! small reader in `attribute.rs`: it looks at the few attributes that our objects have, so that an attribute
//! of somebody else's driver cannot spoil a dump, and a dump of a thousand links allocates next to nothing.

pub(crate) mod address;
pub(crate) mod attribute;
pub(crate) mod batch;
pub(crate) mod fdb;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod route;
pub(crate) mod socket;
pub(crate) mod tc;

pub(crate) use batch::Batch;
pub(crate) use socket::Socket;

/// Bytes of `struct nlmsghdr` (linux/netlink.h).
pub(crate) const HEADER_BYTES: usize = 16;

/// Rounds up to the four bytes to which messages and attributes are aligned.
pub(crate) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Mutable state that the caller hands from dump to dump so that nothing is allocated anew.
#[derive(Debug)]
pub(crate) struct ReadBuffer(pub(crate) Box<[u8]>);

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self(vec![0; crate::limits::READ_BYTES].into_boxed_slice())
    }
}
