//! Published ports as the rest of the world finds them: who has them, and who answers.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tombolo_api::{Protocol, Publication, PublicationSpec};
use tombolo_lab::node::wait_until;
use tombolo_tests::{Place, Stage};

use crate::scene::PATIENCE;

/// The ports of the host that the tests of this program publish with a socket for each.
pub(crate) const SOCKETS: std::ops::RangeInclusive<u16> = 8_080..=8_179;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(1_000);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Ports of a sandbox at these ports of the host.
pub(crate) fn tcp(host: &str, container: &str) -> PublicationSpec {
    PublicationSpec {
        host: Some(host.to_owned()),
        ..PublicationSpec::new(container)
    }
}

/// The same for UDP.
pub(crate) fn udp(host: &str, container: &str) -> PublicationSpec {
    PublicationSpec {
        protocol: Protocol::Udp,
        ..tcp(host, container)
    }
}

/// One of every form: a single port, a few with a socket each, many without, some for few, and datagrams.
pub(crate) fn every_form() -> Vec<PublicationSpec> {
    let here = |spec: PublicationSpec, address: &str| PublicationSpec {
        address: Some(address.to_owned()),
        ..spec
    };
    let from = ["192.0.2.0/29", "2001:db8::1"].map(str::to_owned);
    vec![
        tcp("8080", "80"),
        tcp("8090-8099", "8090-8099"),
        tcp("20000-20199", "30000-30199"),
        PublicationSpec {
            from: from.to_vec(),
            ..tcp("8081", "81")
        },
        udp("8080", "80"),
        here(udp("8082", "82"), "192.0.2.10"),
        here(tcp("8083", "83"), "2001:db8::10"),
        PublicationSpec {
            obey_host_firewall: Some(true),
            ..tcp("8084", "84")
        },
    ]
}

/// The ports of [`SOCKETS`] that a program on the node cannot have, and what the kernel gives to nobody.
pub(crate) fn taken(stage: &Stage) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    stage.here().inside(|| {
        for port in SOCKETS {
            if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_err() {
                taken.insert(format!("tcp {port}"));
            }
            if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).is_err() {
                taken.insert(format!("udp {port}"));
            }
        }
    });
    let reserved = stage.shell("cat /proc/sys/net/ipv4/ip_local_reserved_ports");
    taken.insert(format!("reserved {reserved}"));
    taken
}

/// Asserts that exactly these are taken, in the end.
#[track_caller]
pub(crate) fn assert_taken(stage: &Stage, expected: &BTreeSet<String>, what: &str) {
    let same = settles(|| taken(stage) == *expected);
    let now = taken(stage);
    let more: Vec<_> = now.difference(expected).collect();
    let less: Vec<_> = expected.difference(&now).collect();
    assert!(same, "{what}: also taken {more:?}, not taken {less:?}");
}

/// Looks less often than others: whoever looks has the ports for that moment.
fn settles(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The address from which a server at a port inside `at` sees a connection from `from` to `to`; bytes come
/// back before it counts.
pub(crate) fn tcp_seen(from: &Place, to: SocketAddr, at: &Place, port: u16) -> Option<IpAddr> {
    let server = at.inside(|| listen(port)).ok()?;
    let mut client = from
        .inside(|| TcpStream::connect_timeout(&to, ANSWER))
        .ok()?;
    let (mut stream, peer) = within(ANSWER, || server.accept())?;
    stream.set_nonblocking(false).ok()?;
    converse(&mut client, &mut stream).then(|| peer.ip().to_canonical())
}

/// The same for a datagram.
pub(crate) fn udp_seen(from: &Place, to: SocketAddr, at: &Place, port: u16) -> Option<IpAddr> {
    let server = at
        .inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
        .ok()?;
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let client = from.inside(|| UdpSocket::bind(any)).ok()?;
    client.connect(to).ok()?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(ANSWER)).ok()?;
    }
    client.send(b"ask").ok()?;
    let mut word = [0; 3];
    let (_, peer) = server.recv_from(&mut word).ok()?;
    server.send_to(&word, peer).ok()?;
    client.recv(&mut word).ok()?;
    (word == *b"ask").then(|| peer.ip().to_canonical())
}

/// A server of both families inside the namespace of this thread that does not block.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let server = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    server.set_nonblocking(true)?;
    Ok(server)
}

/// What `take` yields as soon as it yields something.
pub(crate) fn within<T>(patience: Duration, mut take: impl FnMut() -> io::Result<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Ok(taken) = take() {
            return Some(taken);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether bytes go both ways between the two ends of a connection.
pub(crate) fn converse(client: &mut TcpStream, server: &mut TcpStream) -> bool {
    let says = |from: &mut TcpStream, to: &mut TcpStream, word: &[u8; 4]| -> io::Result<bool> {
        to.set_read_timeout(Some(ANSWER * 5))?;
        let mut heard = [0; 4];
        from.write_all(word)?;
        to.read_exact(&mut heard)?;
        Ok(heard == *word)
    };
    says(client, server, b"ping").is_ok_and(|same| same)
        && says(server, client, b"pong").is_ok_and(|same| same)
}

/// Asserts that everything that a sandbox publishes leads into it from beyond the router, at its first and its
/// last port and in both families where it says so.
#[track_caller]
pub(crate) fn assert_published(stage: &Stage, name: &str) {
    let publications = stage.inspect(name).publications;
    let (far, here, inside) = (stage.far(), stage.here(), stage.place(name));
    for publication in &publications {
        assert!(publication.active, "{publication:?}");
        for to in entrances(publication, &here) {
            let seen = || {
                ends(publication).into_iter().all(|(host, container)| {
                    let to = SocketAddr::new(to, host);
                    match publication.protocol {
                        Protocol::Udp => udp_seen(&far, to, &inside, container),
                        _ => tcp_seen(&far, to, &inside, container),
                    }
                    .is_some()
                })
            };
            let answered = wait_until(PATIENCE, seen);
            assert!(answered, "no answer at {to} from {publication:?}");
        }
    }
}

/// The node's addresses at which a publication should be found.
fn entrances(publication: &Publication, here: &Place) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let at = |text: &str| publication.address.trim_matches(['[', ']']) == text;
    for (path, ip) in [(publication.ipv4, here.v4()), (publication.ipv6, here.v6())] {
        let is_here = at("*") || at("0.0.0.0") || at("::") || at(&ip.to_string());
        if path.is_some() && is_here {
            found.push(ip);
        }
    }
    found
}

/// The first and the last pair of ports.
fn ends(publication: &Publication) -> Vec<(u16, u16)> {
    let both = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        [first, last].map(|port| port.parse::<u16>().unwrap())
    };
    let host = both(publication.host.as_deref().expect("its ports are chosen"));
    let container = both(&publication.container);
    let mut pairs: Vec<(u16, u16)> = host.into_iter().zip(container).collect();
    pairs.dedup();
    pairs
}
