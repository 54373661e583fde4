//! Static entries of a bridge's forwarding database in the host's namespace (`NUD_NOARP`, `NTF_MASTER`,
//! and `NTF_STICKY` so that a frame with a borrowed source address cannot move them).
//!
//! Mark: the port is a link of ours.

use std::fmt;

use crate::name::{IfName, Mac};

/// Identity: a hardware address on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbKey {
    /// The bridge.
    pub bridge: IfName,
    /// The hardware address.
    pub mac: Mac,
}

/// Behind which port the address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbSpec {
    /// A port of the bridge.
    pub port: IfName,
}

impl fmt::Display for FdbKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.bridge, self.mac)
    }
}

impl fmt::Display for FdbSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.port)
    }
}
