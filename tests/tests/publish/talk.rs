//! Servers that say who they are and whom they see, and clients that ask them from a place.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tombolo_api::Protocol;
use tombolo_tests::Place;
use tombolo_tests::stage::PATIENCE;

/// Longest time for an answer to one question; a question is asked again where an answer is expected.
const ANSWER: Duration = Duration::from_millis(700);
/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// The protocols that are spoken here.
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Answers at ports of a place over TCP and UDP until it is dropped, which also ends its connections.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// A server at all addresses of a place.
    pub(crate) fn at(place: &Place, name: &str, ports: RangeInclusive<u16>) -> Self {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let addresses: Vec<SocketAddr> = ports.map(|port| SocketAddr::new(any, port)).collect();
        Self::bound(place, name, &addresses)
    }

    /// A server at these addresses of a place.
    pub(crate) fn bound(place: &Place, name: &str, addresses: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses.iter().copied() {
            let sockets = place.inside(|| io::Result::Ok((listen(address)?, hear(address)?)));
            let (tcp, udp) = sockets.unwrap_or_else(|error| panic!("{name} at {address}: {error}"));
            let face = Face {
                name: format!("{name} {}", address.port()),
                stop: Arc::clone(&stop),
            };
            let other = face.clone();
            threads.push(std::thread::spawn(move || face.accept(&tcp)));
            threads.push(std::thread::spawn(move || other.answer_datagrams(&udp)));
        }
        Self { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// What a server's threads know.
#[derive(Debug, Clone)]
struct Face {
    name: String,
    stop: Arc<AtomicBool>,
}

impl Face {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn line(&self, question: &str, peer: SocketAddr) -> String {
        let seen = peer.ip().to_canonical();
        format!("{} {} {seen}\n", question.trim(), self.name)
    }

    fn accept(&self, listener: &TcpListener) {
        std::thread::scope(|scope| {
            while self.goes_on() {
                if let Ok((stream, peer)) = listener.accept() {
                    scope.spawn(move || self.answer_stream(stream, peer));
                }
            }
        });
    }

    fn answer_stream(&self, stream: TcpStream, peer: SocketAddr) {
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let Ok(mut writer) = stream.try_clone() else {
            return;
        };
        let mut reader = BufReader::new(stream);
        let mut question = String::new();
        while self.goes_on() {
            match reader.read_line(&mut question) {
                Ok(0) => return,
                Ok(_) => {
                    if writer
                        .write_all(self.line(&question, peer).as_bytes())
                        .is_err()
                    {
                        return;
                    }
                    question.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn answer_datagrams(&self, socket: &UdpSocket) {
        let mut bytes = [0; 64];
        while self.goes_on() {
            if let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                let question = String::from_utf8_lossy(&bytes[..length]);
                // Whoever asked may have gone.
                drop(socket.send_to(self.line(&question, peer).as_bytes(), peer));
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    setsockopt(&listener, ReceiveTimeout, &time(LOOK))?;
    Ok(listener)
}

fn hear(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

fn time(duration: Duration) -> TimeVal {
    TimeVal::milliseconds(i64::try_from(duration.as_millis()).unwrap())
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The server's name.
    pub(crate) by: String,
    /// The port at which the server heard the question.
    pub(crate) port: u16,
    /// The address from which it saw the question come.
    pub(crate) seen: IpAddr,
}

/// A connection, or a flow of datagrams from one port to another.
#[derive(Debug)]
pub(crate) struct Talk {
    wire: Wire,
    number: u32,
    /// The client's own address.
    pub(crate) own: IpAddr,
}

#[derive(Debug)]
enum Wire {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
}

impl Talk {
    /// Connects from a place, and from an address of it if one is named.
    pub(crate) fn open(
        from: &Place,
        source: Option<IpAddr>,
        protocol: Protocol,
        to: SocketAddr,
    ) -> io::Result<Self> {
        let opened = from.inside(move || connected(source, protocol, to))?;
        let wire = match protocol {
            Protocol::Tcp => Wire::Tcp(BufReader::new(TcpStream::from(opened))),
            _ => Wire::Udp(UdpSocket::from(opened)),
        };
        let own = match &wire {
            Wire::Tcp(stream) => stream.get_ref().local_addr()?,
            Wire::Udp(socket) => socket.local_addr()?,
        };
        Ok(Self {
            wire,
            number: 0,
            own: own.ip(),
        })
    }

    /// Asks once more and waits for the answer; none if it does not come.
    pub(crate) fn ask(&mut self) -> Option<Answer> {
        self.number += 1;
        let question = format!("{}\n", self.number);
        match &mut self.wire {
            Wire::Tcp(stream) => {
                stream.get_mut().write_all(question.as_bytes()).ok()?;
                let mut line = String::new();
                stream.read_line(&mut line).ok()?;
                read(&line, self.number)
            }
            Wire::Udp(socket) => {
                let end = Instant::now() + ANSWER;
                socket.send(question.as_bytes()).ok()?;
                let mut bytes = [0; 256];
                while Instant::now() < end {
                    let length = socket.recv(&mut bytes).ok()?;
                    let line = String::from_utf8_lossy(&bytes[..length]);
                    if let Some(answer) = read(&line, self.number) {
                        return Some(answer);
                    }
                }
                None
            }
        }
    }
}

/// Reads `number name port seen`, unless it answers another question.
fn read(line: &str, number: u32) -> Option<Answer> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [asked, by, port, seen] = words[..] else {
        return None;
    };
    (asked.parse() == Ok(number)).then(|| Answer {
        by: by.to_owned(),
        port: port.parse().unwrap(),
        seen: seen.parse().unwrap(),
    })
}

fn connected(source: Option<IpAddr>, protocol: Protocol, to: SocketAddr) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        _ => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, SendTimeout, &time(ANSWER))?;
    setsockopt(&socket, ReceiveTimeout, &time(ANSWER))?;
    if let Some(source) = source {
        let address = SockaddrStorage::from(SocketAddr::new(source, 0));
        bind(socket.as_raw_fd(), &address)?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket)
}

/// One question over a new connection, and the client's own address.
pub(crate) fn ask(
    from: &Place,
    source: Option<IpAddr>,
    protocol: Protocol,
    to: SocketAddr,
) -> Option<(Answer, IpAddr)> {
    let mut talk = Talk::open(from, source, protocol, to).ok()?;
    Some((talk.ask()?, talk.own))
}

/// Whom a server sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sees {
    /// The client, by the address that the client takes for its own.
    Client,
    /// The host, by one of its addresses.
    Host,
    /// Nobody: the question does not arrive.
    Nobody,
}

/// A cell of the matrix: a question, and what becomes of it over each protocol.
#[derive(Debug, Clone)]
pub(crate) struct Way<'a> {
    /// Its name in failures.
    pub(crate) what: &'static str,
    /// Where the question starts.
    pub(crate) from: &'a Place,
    /// The address from which it is sent; any when not said.
    pub(crate) source: Option<IpAddr>,
    /// Where it is sent to.
    pub(crate) to: SocketAddr,
    /// Whom the server sees.
    pub(crate) sees: Sees,
}

impl Way<'_> {
    /// What is wrong with it over a protocol; nothing if it is as it should be. What should arrive may be late.
    fn fault(&self, protocol: Protocol, by: &str, host: &[IpAddr]) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = ask(self.from, self.source, protocol, self.to);
            let right = match (&found, self.sees) {
                (None, Sees::Nobody) => true,
                (Some((answer, own)), Sees::Client) => answer.by == by && answer.seen == *own,
                (Some((answer, own)), Sees::Host) => {
                    answer.by == by && answer.seen != *own && host.contains(&answer.seen)
                }
                _ => false,
            };
            if right {
                return None;
            }
            if found.is_some() || self.sees == Sees::Nobody || Instant::now() > end {
                let (what, to, sees) = (self.what, self.to, self.sees);
                return Some(format!(
                    "{what} -> {to}/{protocol}: should see {sees:?}, got {found:?}"
                ));
            }
        }
    }
}

/// Asserts that every way is as it says over TCP and UDP, all at the same time, where the server has this name
/// and the host these addresses.
#[track_caller]
pub(crate) fn assert_ways(ways: &[Way<'_>], by: &str, host: &[IpAddr]) {
    let faults: Vec<String> = std::thread::scope(|scope| {
        let tries: Vec<_> = ways
            .iter()
            .flat_map(|way| PROTOCOLS.map(|protocol| (way, protocol)))
            .map(|(way, protocol)| scope.spawn(move || way.fault(protocol, by, host)))
            .collect();
        let faults = tries
            .into_iter()
            .filter_map(|worker| worker.join().unwrap());
        faults.collect()
    });
    assert!(faults.is_empty(), "{faults:#?}");
}
