//! Datagrams with the address that they were sent to, and answers from that address (RFC 3542 section 6,
//! ip(7) `IP_PKTINFO`).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};

/// The two ends of a datagram, and where it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends {
    /// Who sent it, as the socket says it (IPv4 addresses are mapped ones at an IPv6 socket).
    pub(super) client: SocketAddr,
    /// The address that it was sent to, never a mapped one.
    pub(super) local: IpAddr,
    /// Index of the interface that it came in at if the address means something there only (RFC 4007), else 0:
    /// the way back is the routes' to choose.
    pub(super) interface: u32,
}

/// Makes the socket tell the addresses that datagrams are sent to.
pub(super) fn tell_destinations(socket: &impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Takes a datagram: how many bytes of `buffer` it fills, and its ends. Does not wait.
pub(super) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    let mut control = cmsg_space!(in6_pktinfo, in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut arrival = None;
    for part in message.cmsgs()? {
        arrival = match part {
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = IpAddr::from(info.ipi6_addr.s6_addr).to_canonical();
                Some((ip, info.ipi6_ifindex))
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let ip = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                Some((IpAddr::V4(ip), info.ipi_ifindex.cast_unsigned()))
            }
            _ => arrival,
        };
    }
    let client = message.address.and_then(|address| {
        let v4 = address
            .as_sockaddr_in()
            .map(|a| SocketAddr::V4((*a).into()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|a| SocketAddr::V6((*a).into()))
        })
    });
    let (Some(client), Some((local, interface))) = (client, arrival) else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    let ends = Ends {
        client,
        local,
        interface: scope(local, interface),
    };
    Ok((message.bytes, ends))
}

/// Sends an answer to `ends.client` from `ends.local`. Does not wait.
pub(super) fn answer(socket: &impl AsRawFd, data: &[u8], ends: &Ends) -> io::Result<()> {
    let to = SockaddrStorage::from(ends.client);
    let parts = [IoSlice::new(data)];
    let send = |control| {
        sendmsg(
            socket.as_raw_fd(),
            &parts,
            &[control],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )
    };
    match (ends.local, ends.client) {
        (IpAddr::V4(ip), SocketAddr::V4(_)) => {
            let s_addr = u32::from_ne_bytes(ip.octets());
            send(ControlMessage::Ipv4PacketInfo(&in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr },
                ipi_addr: in_addr { s_addr: 0 },
            }))?;
        }
        (local, _) => {
            let ip = match local {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            send(ControlMessage::Ipv6PacketInfo(&in6_pktinfo {
                ipi6_addr: in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: ends.interface,
            }))?;
        }
    }
    Ok(())
}

fn scope(local: IpAddr, interface: u32) -> u32 {
    match local {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => interface,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Sends to `target` at a socket bound to `bound`; what the client sees as the answer's source.
    fn there_and_back(bound: &str, target: &str) -> (Ends, SocketAddr) {
        let server = UdpSocket::bind(bound).unwrap();
        let address = server.local_addr().unwrap();
        tell_destinations(&server, address.is_ipv6()).unwrap();
        let target = SocketAddr::new(target.parse().unwrap(), address.port());
        let any = if target.is_ipv6() {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let client = UdpSocket::bind(any).unwrap();
        client.send_to(b"question", target).unwrap();
        let mut buffer = [0; 64];
        let (length, ends) = receive(&server, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"question");
        answer(&server, b"answer", &ends).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"answer");
        (ends, from)
    }

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        for (bound, target) in [
            ("0.0.0.0:0", "127.0.0.7"),
            ("127.0.0.8:0", "127.0.0.8"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.9"),
        ] {
            let (ends, from) = there_and_back(bound, target);
            assert_eq!(ends.local.to_string(), target);
            assert_eq!(from.ip().to_string(), target);
        }
    }

    #[test]
    fn a_socket_with_nothing_to_give_does_not_wait() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = receive(&server, &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
