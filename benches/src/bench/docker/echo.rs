//! Hears the first packet of a container: an echo request to its gateway, which is the host.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Longest wait for a packet.
const PATIENCE: Duration = Duration::from_secs(60);
/// Type of an echo request (RFC 792).
const ECHO_REQUEST: u8 = 8;
/// Bytes of a packet that are looked at.
const LOOK: usize = 128;

/// Hears the echo requests that arrive in the namespace in which it was opened.
pub(super) struct Echo(UdpSocket);

impl Echo {
    /// Listens in the calling thread's namespace.
    pub(super) fn open() -> anyhow::Result<Self> {
        let raw = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Icmp,
        )
        .context("cannot listen for echo requests")?;
        // The type stands for the calls alone, which are the same for every socket of datagrams.
        let socket = UdpSocket::from(raw);
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Forgets what has arrived.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        self.0.set_nonblocking(true)?;
        let mut bytes = [0; LOOK];
        while self.0.recv(&mut bytes).is_ok() {}
        self.0.set_nonblocking(false)?;
        Ok(())
    }

    /// Waits for an echo request to an address.
    pub(super) fn hear(&self, to: Ipv4Addr) -> anyhow::Result<()> {
        let mut bytes = [0; LOOK];
        loop {
            let length = self.0.recv(&mut bytes).context("no packet arrives")?;
            if asked(&bytes[..length]) == Some(to) {
                return Ok(());
            }
        }
    }
}

/// Whom an IPv4 packet asks for an echo.
fn asked(packet: &[u8]) -> Option<Ipv4Addr> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet.get(length)? == &ECHO_REQUEST).then(|| to.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_echo_requests_count() {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 210, 0, 1]);
        assert_eq!(asked(&packet), None, "a reply");
        packet[20] = ECHO_REQUEST;
        assert_eq!(asked(&packet), Some(Ipv4Addr::new(10, 210, 0, 1)));
        assert_eq!(asked(&packet[..20]), None);
        assert_eq!(asked(&[]), None);
    }
}
