//! The relay with real sockets, on loopback or in a network namespace of its own.

mod datagrams;
mod redirected;
mod streams;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, Protocol};

use super::flow::Bounds;
use super::{Counts, Entrance, Relay, Route};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn relay() -> Relay {
    relay_within(Bounds::default())
}

fn relay_within(bounds: Bounds) -> Relay {
    Relay::start_within(bounds, (Arc::default(), None), Box::new(|_, _| Ok(None))).unwrap()
}

/// A published port of `127.0.0.1` as the reservation would hold it.
struct Published {
    key: PortKey,
    port: u16,
    fd: OwnedFd,
}

impl Published {
    fn tcp() -> Self {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self::new(Protocol::Tcp, HostAddress::One(LOCALHOST), port, listener)
    }

    fn new(protocol: Protocol, address: HostAddress, port: u16, fd: impl Into<OwnedFd>) -> Self {
        let ports = PortRange::one(port).unwrap();
        let key = PortKey {
            protocol,
            address,
            ports,
        };
        let fd = fd.into();
        Self { key, port, fd }
    }

    fn listeners(&self) -> Vec<(PortKey, u16, OwnedFd)> {
        let fd = self.fd.try_clone().unwrap();
        vec![(self.key.clone(), self.port, fd)]
    }

    fn route(&self, target: u16) -> Route {
        let entrance = Entrance::Ports {
            address: self.key.address,
            ports: self.key.ports,
        };
        route(self.key.protocol, entrance, target)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }
}

fn route(protocol: Protocol, entrance: Entrance, target: u16) -> Route {
    Route {
        protocol,
        entrance,
        from: vec![],
        target_v4: Some(Ipv4Addr::LOCALHOST),
        target_v6: None,
        first: target,
    }
}

/// A server in place of the sandbox's.
fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn udp(address: impl Into<IpAddr>) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((address.into(), 0)).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Sends `text` and waits until the other end has it.
fn say(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).unwrap();
    let mut heard = vec![0; text.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, text.as_bytes());
}

/// Waits until the counts are as wanted.
fn wait(relay: &Relay, wanted: impl Fn(Counts) -> bool) -> Counts {
    let begin = Instant::now();
    loop {
        let counts = relay.counts();
        if wanted(counts) {
            return counts;
        }
        assert!(begin.elapsed() < LONG, "{counts:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
