//! The resolver at work on loopback: its sockets are made here instead of by the kernel crate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tombolo_core::id::SandboxId;
use tombolo_dns::names::{Registration, Zone, ZoneId};
use tombolo_dns::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use tombolo_dns::proto::rr::{Name, RData, Record, RecordType};
use tombolo_dns::view::{Settings, View};
use tombolo_kernel::{ListenerChange, SocketKind};
use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;

use super::book::{Asker, Entry, Server, Upstreams};
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const ZONE: ZoneId = ZoneId(7);

/// A resolver with one sandbox, and where that asks.
struct Scene {
    resolver: Option<Resolver>,
    key: ListenerKey,
    udp: Weak<UdpSocket>,
    tcp: Weak<TcpListener>,
    at: SocketAddr,
}

fn loopback() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)
}

/// Sockets at one port for both protocols.
fn sockets() -> (Arc<UdpSocket>, Arc<TcpListener>) {
    loop {
        let tcp = TcpListener::bind(loopback()).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            udp.set_nonblocking(true).unwrap();
            tcp.set_nonblocking(true).unwrap();
            return (Arc::new(udp), Arc::new(tcp));
        }
    }
}

fn plain_socket(_: &Netns, kind: SocketKind, _: bool) -> std::io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let kind = match kind {
        SocketKind::Datagram => SocketType::DGRAM,
        SocketKind::Stream => SocketType::STREAM,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::INET, kind, flags, None)?)
}

impl Scene {
    fn new(upstream: Option<SocketAddr>) -> Self {
        let server = upstream.map(|address| Server {
            address,
            via: Netns::Host,
        });
        let upstreams = Upstreams::new(server);
        let resolver = Resolver::start(
            Settings::default(),
            upstreams,
            Box::new(plain_socket),
            1 << 20,
        )
        .unwrap();
        let netns = Netns::Owned("box".into());
        let zone = Zone {
            name: "net".parse().unwrap(),
            subnets: vec![],
        };
        resolver.set_zones(vec![(ZONE, zone)]);
        let registration = Registration {
            zone: ZONE,
            canonical: "web".parse().unwrap(),
            names: vec![],
            addresses: vec!["10.0.0.2".parse().unwrap()],
            services: vec![],
        };
        let view = View {
            zones: vec![ZONE],
            forwards: true,
            ..View::default()
        };
        let asker = Asker {
            id: 1,
            view,
            upstreams: None,
        };
        let entry = Entry {
            registrations: vec![registration],
            asker: Some((netns.clone(), asker)),
            sources: vec![],
            posts: vec![],
        };
        resolver.set(SandboxId(1), entry);
        let (udp, tcp) = sockets();
        let at = udp.local_addr().unwrap();
        let key = ListenerKey {
            netns,
            address: at.ip(),
            port: at.port(),
        };
        let (weak_udp, weak_tcp) = (Arc::downgrade(&udp), Arc::downgrade(&tcp));
        resolver.subscriber()(ListenerChange::Opened {
            key: key.clone(),
            udp,
            tcp,
        });
        Self {
            resolver: Some(resolver),
            key,
            udp: weak_udp,
            tcp: weak_tcp,
            at,
        }
    }

    fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind(loopback()).unwrap();
        client.connect(self.at).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn ask(&self, name: &str) -> Message {
        let client = self.client();
        client.send(&query(9, name)).unwrap();
        hear(&client)
    }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn hear(client: &UdpSocket) -> Message {
    let mut bytes = [0; 1_500];
    let length = client.recv(&mut bytes).expect("an answer");
    Message::from_vec(&bytes[..length]).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let answers = message.answers.iter();
    answers.map(|record| record.data.to_string()).collect()
}

/// A server that answers every question with one address, after a while.
fn upstream(after: Duration) -> SocketAddr {
    let socket = UdpSocket::bind(loopback()).unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let asked = Message::from_vec(&bytes[..length]).unwrap();
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            let name = asked.queries[0].name.clone();
            answer.add_queries(asked.queries.clone());
            let data = RData::A("192.0.2.9".parse().unwrap());
            answer.add_answer(Record::from_rdata(name, 60, data));
            let (socket, answer) = (socket.try_clone().unwrap(), answer.to_vec().unwrap());
            thread::spawn(move || {
                thread::sleep(after);
                drop(socket.send_to(&answer, from));
            });
        }
    });
    at
}

fn eventually(holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn own_names_are_answered_by_datagrams_and_over_connections() {
    let scene = Scene::new(None);
    assert_eq!(addresses(&scene.ask("web.")), ["10.0.0.2"]);
    let mut stream = TcpStream::connect(scene.at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Two questions at once, in pieces.
    let framed = |id| {
        let bytes = query(id, "web.net.");
        [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
    };
    for byte in [framed(1), framed(2)].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    for id in [1, 2] {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, id);
        assert_eq!(addresses(&answer), ["10.0.0.2"]);
    }
}

#[test]
fn more_questions_than_a_batch_are_all_answered() {
    let scene = Scene::new(None);
    let client = scene.client();
    let many = 3 * crate::limits::NAMES_BATCH as u16 + 5;
    for id in 0..many {
        client.send(&query(id, "web.")).unwrap();
    }
    let mut heard: Vec<u16> = (0..many).map(|_| hear(&client).metadata.id).collect();
    heard.sort_unstable();
    assert!(heard.into_iter().eq(0..many));
}

#[test]
fn a_question_of_many_is_asked_once_and_its_answer_kept() {
    let scene = Scene::new(Some(upstream(Duration::from_millis(30))));
    let clients: Vec<UdpSocket> = (0..20).map(|_| scene.client()).collect();
    for client in &clients {
        client.send(&query(3, "www.example.org.")).unwrap();
    }
    for client in &clients {
        assert_eq!(addresses(&hear(client)), ["192.0.2.9"]);
    }
    let begun = Instant::now();
    assert_eq!(addresses(&scene.ask("WWW.example.org.")), ["192.0.2.9"]);
    assert!(
        begun.elapsed() < Duration::from_millis(30),
        "it was asked again"
    );
}

#[test]
fn without_servers_others_names_fail_at_once() {
    let scene = Scene::new(None);
    let answer = scene.ask("www.example.org.");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn a_closed_listener_is_let_go_with_its_connections() {
    let scene = Scene::new(None);
    let stream = TcpStream::connect(scene.at).unwrap();
    assert_eq!(addresses(&scene.ask("web.")), ["10.0.0.2"]);
    let resolver = scene.resolver.as_ref().unwrap();
    let key = scene.key.clone();
    resolver.subscriber()(ListenerChange::Closed { key });
    let gone = || scene.udp.strong_count() + scene.tcp.strong_count() == 0;
    assert!(eventually(gone), "the sockets are held");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ended = (&stream).read(&mut [0; 1]);
    assert!(matches!(ended, Ok(0) | Err(_)), "the connection goes on");
}

#[test]
fn what_was_taken_is_answered_before_the_end() {
    let mut scene = Scene::new(Some(upstream(Duration::from_millis(200))));
    let client = scene.client();
    client.send(&query(5, "late.example.org.")).unwrap();
    // Taken: it waits in no socket any more.
    thread::sleep(Duration::from_millis(50));
    scene.resolver = None;
    assert_eq!(addresses(&hear(&client)), ["192.0.2.9"]);
}
