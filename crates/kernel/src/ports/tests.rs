//! Each test in a host of its own: a thread in a new network namespace. The keeper is this test program, told to
//! run `serves_as_keeper` alone.

pub(crate) mod away;

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::*;
use crate::limits::PORTS_HELD_MAX;
use crate::netlink::{ReadBuffer, Socket, link, socket};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` with ports in a network namespace, held by this process.
fn on_host(test: impl FnOnce(&Ports) + Send) {
    in_netns(|| {
        test(&Ports::open(PortsConfig {
            directory: "/nonexistent".into(),
            keeper: None,
        }));
    });
}

pub(crate) fn in_netns(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            sys::new_netns().unwrap();
            let socket = Socket::open(socket::Protocol::Route).unwrap();
            link::loopback_up(&socket, &mut ReadBuffer::new()).unwrap();
            test();
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

fn key(protocol: Protocol, address: HostAddress, first: u16, last: u16) -> PortKey {
    PortKey {
        protocol,
        address,
        ports: range(first, last),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn one(text: &str) -> HostAddress {
    HostAddress::One(ip(text))
}

fn reserve(ports: &Ports, key: &PortKey, spec: PortSpec) -> Result<(), PortError> {
    ports.reserve_all(&[(key, spec)]).pop().unwrap()
}

/// What another program gets that wants the port, with these options; TCP also listens.
fn bind(
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    options: &[i32],
    only_v6: bool,
) -> io::Result<OwnedFd> {
    let (family, kind) = (
        if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        },
        if protocol == Protocol::Tcp {
            libc::SOCK_STREAM
        } else {
            libc::SOCK_DGRAM
        },
    );
    let fd = sys::ports::open(family, kind, protocol.number().into())?;
    for option in options {
        sys::ports::set(&fd, libc::SOL_SOCKET, *option, 1)?;
    }
    if address.is_ipv6() {
        let value = i32::from(only_v6);
        sys::ports::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, value)?;
    }
    sys::ports::bind(&fd, address, port)?;
    Ok(fd)
}

/// Asserts that another program is refused the port wherever `held` reaches, and nowhere else.
fn assert_refused(protocol: Protocol, held: HostAddress, port: u16) {
    let options: [&[i32]; 4] = [
        &[],
        &[libc::SO_REUSEADDR],
        &[libc::SO_REUSEPORT],
        &[libc::SO_REUSEADDR, libc::SO_REUSEPORT],
    ];
    let others = [
        (ip("0.0.0.0"), false, HostAddress::AnyV4),
        (ip("127.0.0.1"), false, one("127.0.0.1")),
        (ip("::"), false, HostAddress::Any),
        (ip("::"), true, HostAddress::AnyV6),
        (ip("::1"), true, one("::1")),
    ];
    for (address, only_v6, wanted) in others {
        for options in options {
            let bound = bind(protocol, address, port, options, only_v6);
            let refused = bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
            let what = format!("{protocol} {wanted} {only_v6} {options:?} while {held} is held");
            assert_eq!(refused, held.overlaps(wanted), "{what}");
        }
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nobody_else_gets_a_port_that_is_held_netns() {
    on_host(|ports| {
        let addresses = [
            HostAddress::Any,
            HostAddress::AnyV4,
            HostAddress::AnyV6,
            one("127.0.0.1"),
            one("::1"),
        ];
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for address in addresses {
                for spec in [PortSpec::Held, PortSpec::Relayed] {
                    let key = key(protocol, address, 8080, 8080);
                    reserve(ports, &key, spec).unwrap();
                    assert_refused(protocol, address, 8080);
                    assert_eq!(ports.held(), [(key.clone(), spec)]);
                    ports.release(&[&key]);
                    drop(bind(protocol, ip("::"), 8080, &[], false).unwrap());
                }
            }
        }
    });
}

#[test]
fn nothing_arrives_at_a_port_until_it_is_relayed_netns() {
    on_host(|ports| {
        let tcp = key(Protocol::Tcp, HostAddress::Any, 80, 80);
        let udp = key(Protocol::Udp, HostAddress::Any, 80, 80);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to: SocketAddr = "127.0.0.1:80".parse().unwrap();
        for _ in 0..2 {
            reserve(ports, &tcp, PortSpec::Held).unwrap();
            reserve(ports, &udp, PortSpec::Held).unwrap();
            assert!(ports.listener(&tcp, 80).is_none());
            let refused = TcpStream::connect(to).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            client.send_to(b"lost", to).unwrap();

            reserve(ports, &tcp, PortSpec::Relayed).unwrap();
            reserve(ports, &udp, PortSpec::Relayed).unwrap();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_refused(protocol, HostAddress::Any, 80);
            }
            let mut caller = TcpStream::connect(to).unwrap();
            let listener = TcpListener::from(ports.listener(&tcp, 80).unwrap());
            drop(listener.accept().unwrap());
            assert_eq!(caller.read(&mut [0]).unwrap(), 0);
            client.send_to(b"found", to).unwrap();
            let relay = UdpSocket::from(ports.listener(&udp, 80).unwrap());
            let mut buffer = [0; 16];
            let (length, _) = relay.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"found");
            let nothing = relay.recv_from(&mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn who_has_a_port_is_named_netns() {
    on_host(|ports| {
        let tcp = TcpListener::bind("127.0.0.1:81").unwrap();
        let udp = UdpSocket::bind("[::1]:81").unwrap();
        let silent = bind(Protocol::Tcp, ip("0.0.0.0"), 91, &[], false).unwrap();
        let me = format!("(pid {})", std::process::id());
        for (protocol, port) in [
            (Protocol::Tcp, 81),
            (Protocol::Udp, 81),
            (Protocol::Tcp, 91),
        ] {
            let wanted = key(protocol, HostAddress::Any, port - 1, port);
            let refused = reserve(ports, &wanted, PortSpec::Held).unwrap_err();
            let text = refused.to_string();
            let begin = format!("{protocol} port {port} at * is taken by ");
            assert!(text.starts_with(&begin) && text.ends_with(&me), "{text}");
            assert!(matches!(refused, PortError::Taken { port: found, .. } if found == port));
        }
        assert_eq!(ports.held(), []);
        // What had been taken of the refused ranges is free again.
        drop(bind(Protocol::Tcp, ip("::"), 80, &[], false).unwrap());
        drop((tcp, udp, silent));
        let wanted = key(Protocol::Tcp, HostAddress::Any, 80, 91);
        reserve(ports, &wanted, PortSpec::Held).unwrap();
        let again = key(Protocol::Tcp, HostAddress::AnyV4, 82, 82);
        let refused = reserve(ports, &again, PortSpec::Held).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.ends_with("by another published port (*:80-91/tcp)"),
            "{text}"
        );
    });
}

#[test]
fn an_address_must_be_the_hosts_netns() {
    on_host(|ports| {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let wanted = key(Protocol::Udp, one(address), 53, 53);
            let refused = reserve(ports, &wanted, PortSpec::Held).unwrap_err();
            assert!(
                matches!(refused, PortError::NoSuchAddress { address: at } if at == one(address)),
                "{refused}"
            );
        }
        let pick = Pick {
            protocol: Protocol::Tcp,
            address: one("192.0.2.7"),
            count: 1,
            within: None,
        };
        assert!(matches!(
            ports.pick(&pick),
            Err(PortError::NoSuchAddress { .. })
        ));
    });
}

#[test]
fn a_server_that_has_just_ended_is_not_in_the_way_netns() {
    on_host(|ports| {
        let server = TcpListener::bind("127.0.0.1:83").unwrap();
        let mut client = TcpStream::connect("127.0.0.1:83").unwrap();
        // Whoever hangs up first keeps the connection in `TIME_WAIT`.
        drop(server.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, server));
        assert!(bind(Protocol::Tcp, ip("::"), 83, &[], false).is_err());
        let wanted = key(Protocol::Tcp, HostAddress::Any, 83, 83);
        reserve(ports, &wanted, PortSpec::Held).unwrap();
        assert_refused(Protocol::Tcp, HostAddress::Any, 83);
        let refused = TcpStream::connect("127.0.0.1:83").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_large_range_is_looked_up_netns() {
    on_host(|ports| {
        let wide = key(Protocol::Tcp, HostAddress::AnyV4, 1, 65_535);
        let other = TcpListener::bind("[::]:5000").unwrap();
        let refused = reserve(ports, &wide, PortSpec::Checked).unwrap_err();
        let me = format!("(pid {})", std::process::id());
        let text = refused.to_string();
        let begin = "tcp port 5000 at 0.0.0.0 is taken by ";
        assert!(text.starts_with(begin) && text.ends_with(&me), "{text}");
        drop(other);
        // Neither sockets of the other family, nor connections to elsewhere, nor ours are in the way.
        let _v6 = bind(Protocol::Tcp, ip("::"), 5001, &[], true).unwrap();
        let ours = key(Protocol::Tcp, HostAddress::AnyV4, 5002, 5003);
        reserve(ports, &ours, PortSpec::Held).unwrap();
        reserve(ports, &wide, PortSpec::Checked).unwrap();
        assert_eq!(ports.held().len(), 2);
        // The sockets of others are not kept away, but we know of our own.
        let inside = key(Protocol::Tcp, one("127.0.0.1"), 6000, 6000);
        let refused = reserve(ports, &inside, PortSpec::Held).unwrap_err();
        assert!(
            matches!(refused, PortError::Taken { port: 6000, .. }),
            "{refused}"
        );
        let mut pick = Pick {
            protocol: Protocol::Tcp,
            address: one("127.0.0.1"),
            count: 1,
            within: None,
        };
        let none = ports.pick(&pick).unwrap_err();
        assert!(matches!(none, PortError::NoneFree { .. }), "{none}");
        pick.address = HostAddress::AnyV6;
        ports.pick(&pick).unwrap();
        // Fewer ports become a socket each, and back.
        ports.release(&[&wide]);
        let small = key(Protocol::Tcp, HostAddress::Any, 7000, 7009);
        reserve(ports, &small, PortSpec::Checked).unwrap();
        drop(bind(Protocol::Tcp, ip("::"), 7005, &[], false).unwrap());
        reserve(ports, &small, PortSpec::Held).unwrap();
        assert_refused(Protocol::Tcp, HostAddress::Any, 7005);
        reserve(ports, &small, PortSpec::Checked).unwrap();
        drop(bind(Protocol::Tcp, ip("::"), 7005, &[], false).unwrap());
    });
}

#[test]
fn free_ports_are_picked_and_wait_netns() {
    on_host(|ports| {
        let setting = |name: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
        };
        setting("ip_local_port_range", "40000 40009");
        setting("ip_local_reserved_ports", "40000-40003,40006-40007");
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let pick = |address, count, within| {
                ports.pick(&Pick {
                    protocol,
                    address,
                    count,
                    within,
                })
            };
            // Two in a row first: 40004 and 40005, or 40008 and 40009.
            let pair = pick(HostAddress::Any, 2, None).unwrap();
            assert!(
                [40_004, 40_008].contains(&pair.first()) && pair.count() == 2,
                "{pair}"
            );
            let mut single: Vec<u16> = (0..2)
                .map(|_| pick(HostAddress::Any, 1, None).unwrap().first())
                .collect();
            single.sort_unstable();
            let left = if pair.first() == 40_004 {
                40_008
            } else {
                40_004
            };
            assert_eq!(single, [left, left + 1]);
            let none = pick(one("127.0.0.1"), 1, None).unwrap_err();
            assert!(
                matches!(none, PortError::NoneFree { count: 1, .. }),
                "{none}"
            );
            // It turns out that it is wanted at one address only.
            let at_one = key(protocol, one("127.0.0.1"), left, left);
            reserve(ports, &at_one, PortSpec::Held).unwrap();
            ports.release(&[&at_one]);
            ports.release_parked(&[(protocol, HostAddress::Any, range(left, left + 1))]);
            assert_eq!(pick(HostAddress::Any, 2, None).unwrap().first(), left);

            // What is picked goes over to whoever reserves it.
            let taken = key(protocol, HostAddress::Any, pair.first(), pair.last());
            reserve(ports, &taken, PortSpec::Relayed).unwrap();
            ports.release_parked(&[(protocol, HostAddress::Any, pair)]);
            assert!(pick(HostAddress::Any, 1, None).is_err());
            if protocol != Protocol::Sctp {
                assert_refused(protocol, HostAddress::Any, pair.first());
            }
        }
        let _other = TcpListener::bind("127.0.0.1:5001").unwrap();
        let within = Some(range(5000, 5004));
        let picked = ports.pick(&Pick {
            protocol: Protocol::Tcp,
            address: HostAddress::AnyV4,
            count: 3,
            within,
        });
        assert_eq!(picked.unwrap(), range(5002, 5004));
    });
}

#[test]
fn more_ports_than_can_be_held_are_refused_netns() {
    on_host(|ports| {
        let wide = key(Protocol::Tcp, one("127.0.0.1"), 1, 65_535);
        let few = key(Protocol::Tcp, one("::1"), 1, 2);
        // As after holding all ports of one address, but without as many sockets.
        lock(&ports.shared.state).pretend_held(&wide);
        let refused = reserve(ports, &few, PortSpec::Held).unwrap_err();
        assert!(
            matches!(
                refused,
                PortError::TooMany {
                    limit: PORTS_HELD_MAX
                }
            ),
            "{refused}"
        );
        let last = key(Protocol::Tcp, one("::1"), 1, 1);
        reserve(ports, &last, PortSpec::Held).unwrap();
    });
}
