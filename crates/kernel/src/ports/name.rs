//! The names under which sockets are kept: by them a daemon with no memory knows its reservations again.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec, Protocol};

use super::wire::NAME_BYTES_MAX;

/// First byte of the name of a reservation's socket.
const RESERVATION: u8 = b'p';
/// First byte of the name of a socket that is kept for somebody else in the daemon.
const KEPT: u8 = b'k';
/// First byte of the name of a listener's socket.
const LISTENER: u8 = b'l';
/// The port in the name of a reservation that has no sockets.
pub(super) const NO_PORT: u16 = 0;

/// The tag of a socket whose way of holding its port is being changed.
pub(super) const TAG_UNSURE: u8 = 0;

/// The name of the socket at `port` of a reservation.
pub(super) fn of_reservation(key: &PortKey, port: u16) -> Vec<u8> {
    let mut name = Vec::with_capacity(26);
    name.extend([RESERVATION, key.protocol.number()]);
    match key.address {
        HostAddress::Any => name.push(0),
        HostAddress::AnyV4 => name.push(1),
        HostAddress::AnyV6 => name.push(2),
        HostAddress::One(IpAddr::V4(ip)) => {
            name.push(4);
            name.extend(ip.octets());
        }
        HostAddress::One(IpAddr::V6(ip)) => {
            name.push(6);
            name.extend(ip.octets());
        }
    }
    for number in [key.ports.first(), key.ports.last(), port] {
        name.extend(number.to_be_bytes());
    }
    name
}

/// Whether a name is for a reservation.
pub(super) fn is_reservation(name: &[u8]) -> bool {
    name.first() == Some(&RESERVATION)
}

/// The reservation and port that a name is for, if it is for one.
pub(super) fn reservation(name: &[u8]) -> Option<(PortKey, u16)> {
    let (&[kind, protocol, family], rest) = name.split_first_chunk()?;
    if kind != RESERVATION {
        return None;
    }
    let (address, rest) = match family {
        0 => (HostAddress::Any, rest),
        1 => (HostAddress::AnyV4, rest),
        2 => (HostAddress::AnyV6, rest),
        4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (HostAddress::One(IpAddr::from(*ip)), rest)
        }
        6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            (HostAddress::One(IpAddr::from(*ip)), rest)
        }
        _ => return None,
    };
    let numbers: &[u8; 6] = rest.try_into().ok()?;
    let number = |at: usize| u16::from_be_bytes([numbers[at], numbers[at + 1]]);
    let key = PortKey {
        protocol: Protocol::from_number(protocol)?,
        address,
        ports: PortRange::new(number(0), number(2)).ok()?,
    };
    let port = number(4);
    (port == NO_PORT || key.ports.contains(port)).then_some((key, port))
}

/// The name of a socket that is no reservation; `None` when it is too long.
pub(super) fn of_kept(name: &str) -> Option<Vec<u8>> {
    let name = [&[KEPT], name.as_bytes()].concat();
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// The name of a listener's socket of a protocol; `None` when it is too long, as a path may make it.
pub(super) fn of_listener(key: &ListenerKey, protocol: Protocol) -> Option<Vec<u8>> {
    let mut name = vec![LISTENER, protocol.number()];
    match key.address {
        IpAddr::V4(ip) => {
            name.push(4);
            name.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            name.push(6);
            name.extend(ip.octets());
        }
    }
    name.extend(key.port.to_be_bytes());
    match &key.netns {
        Netns::Host => name.push(0),
        Netns::Owned(text) => {
            name.push(1);
            name.extend(text.as_bytes());
        }
        Netns::Adopted { path, inode } => {
            name.push(2);
            name.extend(inode.to_be_bytes());
            name.extend(path.as_os_str().as_bytes());
        }
    }
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// Whether a name is for a listener.
pub(super) fn is_listener(name: &[u8]) -> bool {
    name.first() == Some(&LISTENER)
}

/// The listener and protocol that a name is for, if it is for one.
pub(super) fn listener(name: &[u8]) -> Option<(ListenerKey, Protocol)> {
    let (&[kind, protocol, family], rest) = name.split_first_chunk()?;
    if kind != LISTENER {
        return None;
    }
    let (address, rest) = match family {
        4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::from(*ip), rest)
        }
        6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::from(*ip), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk()?;
    let (place, rest) = rest.split_first()?;
    let netns = match place {
        0 if rest.is_empty() => Netns::Host,
        1 => Netns::Owned(std::str::from_utf8(rest).ok()?.into()),
        2 => {
            let (inode, path) = rest.split_first_chunk()?;
            Netns::Adopted {
                path: Path::new(OsStr::from_bytes(path)).into(),
                inode: u64::from_be_bytes(*inode),
            }
        }
        _ => return None,
    };
    let key = ListenerKey {
        netns,
        address,
        port: u16::from_be_bytes(*port),
    };
    Some((key, Protocol::from_number(protocol)?))
}

/// How a reservation is held, as a tag.
pub(super) fn tag(spec: PortSpec) -> u8 {
    match spec {
        PortSpec::Held => 1,
        PortSpec::Checked => 2,
        PortSpec::Relayed => 3,
    }
}

/// What a tag says.
pub(super) fn spec(tag: u8) -> Option<PortSpec> {
    [PortSpec::Held, PortSpec::Checked, PortSpec::Relayed]
        .into_iter()
        .find(|spec| self::tag(*spec) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_for() {
        let addresses = [
            HostAddress::Any,
            HostAddress::AnyV4,
            HostAddress::AnyV6,
            HostAddress::One("192.0.2.1".parse().unwrap()),
            HostAddress::One("2001:db8::1".parse().unwrap()),
        ];
        for address in addresses {
            for protocol in Protocol::ALL {
                let ports = PortRange::new(80, 443).unwrap();
                let key = PortKey {
                    protocol,
                    address,
                    ports,
                };
                for port in [NO_PORT, 80, 443] {
                    let name = of_reservation(&key, port);
                    assert_eq!(reservation(&name), Some((key.clone(), port)));
                    assert_eq!(reservation(&name[..name.len() - 1]), None);
                }
                assert_eq!(reservation(&of_reservation(&key, 444)), None);
            }
        }
        assert_eq!(reservation(&of_kept("relay").unwrap()), None);
        assert_eq!(listener(&of_kept("relay").unwrap()), None);
        assert_eq!(of_kept(&"x".repeat(NAME_BYTES_MAX)), None);
    }
    #[test]
    fn a_listener_is_known_by_its_name_unless_that_is_too_long() {
        let adopted = |path: &str| Netns::Adopted {
            path: Path::new(path).into(),
            inode: 0x1234_5678_9abc,
        };
        let places = [
            Netns::Host,
            Netns::Owned("sb1".into()),
            adopted("/proc/17/ns/net"),
            adopted(&"x".repeat(NAME_BYTES_MAX - 30)),
        ];
        for netns in places {
            for address in ["127.0.0.11", "fd00::1"] {
                let key = ListenerKey {
                    netns: netns.clone(),
                    address: address.parse().unwrap(),
                    port: 53,
                };
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let name = of_listener(&key, protocol).unwrap();
                    assert!(is_listener(&name) && !is_reservation(&name));
                    assert_eq!(listener(&name), Some((key.clone(), protocol)));
                    assert_eq!(listener(&name[..8]), None);
                    assert_eq!(reservation(&name), None);
                }
            }
        }
        let key = ListenerKey {
            netns: adopted(&"x".repeat(NAME_BYTES_MAX - 29)),
            address: "fd00::1".parse().unwrap(),
            port: 53,
        };
        assert_eq!(of_listener(&key, Protocol::Udp), None);
    }
}
