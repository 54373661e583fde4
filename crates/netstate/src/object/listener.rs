//! Sockets at which the name resolver answers: one for datagrams and one for connections.
//!
//! Mark: the sockets are held for us by name. While they are open their namespace lives on without a name, and all
//! that is in it: they are closed before it is removed, and wherever it has lost its name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::write_place;
use crate::name::Netns;

/// Identity: a port at an address of a namespace, of UDP and of TCP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The namespace that the sockets are in.
    pub netns: Netns,
    /// The address, which need not be there yet.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// Listening has no settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSpec;

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.netns)?;
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

impl fmt::Display for ListenerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("udp and tcp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_called_by_place_address_and_port() {
        let key = |netns, address: &str| ListenerKey {
            netns,
            address: address.parse().unwrap(),
            port: 53,
        };
        let inside = key(Netns::Owned("sb1".into()), "127.0.0.11");
        assert_eq!(inside.to_string(), "sb1:127.0.0.11:53");
        let outside = key(Netns::Host, "fd00::1");
        assert_eq!(outside.to_string(), "[fd00::1]:53");
    }
}
