//! Each test in a host of its own: a thread in new network and mount namespaces. The keeper is this test program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tombolo_netstate::object::listener::ListenerSpec;
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::{Desired, Key, Objects, Outcome, Owner, Plan, Spec, diff};

use super::*;
use crate::ports::tests::away::Fixture;
use crate::ports::tests::{eventually, in_netns};
use crate::{Kernel, KernelConfig, Scope, SocketKind};

const RESOLVER: &str = "127.0.0.11";

fn open(fixture: &Fixture) -> Kernel {
    let config = KernelConfig {
        run_dir: fixture.directory().to_owned(),
        instance: "test".into(),
        pool: 0,
        ports: Some(fixture.config()),
    };
    Kernel::open(config).unwrap()
}

/// Runs `test` in a host with a directory for keeper and namespaces.
fn on_host(test: impl FnOnce(&Fixture) + Send) {
    in_netns(|| {
        sys::new_private_mounts().unwrap();
        test(&Fixture::new());
    });
}

fn owned(name: &str) -> Netns {
    Netns::Owned(name.into())
}

fn key(netns: &Netns, address: &str) -> ListenerKey {
    ListenerKey {
        netns: netns.clone(),
        address: address.parse().unwrap(),
        port: 53,
    }
}

fn put(objects: &mut Objects, key: &ListenerKey) {
    if let Netns::Owned(name) = &key.netns {
        let netns = NetnsKey { name: name.clone() };
        objects.insert(Key::Netns(netns), Spec::Netns(NetnsSpec));
    }
    objects.insert(Key::Listener(key.clone()), Spec::Listener(ListenerSpec));
}

fn plan(wanted: &Objects, actual: &Objects) -> Plan {
    let mut desired = Desired::default();
    drop(desired.set(&Owner("test".into()), wanted.clone()).unwrap());
    diff(wanted.keys().chain(actual.keys()), &desired, actual)
}

fn must_apply(kernel: &Kernel, wanted: &Objects, actual: &Objects) {
    let plan = plan(wanted, actual);
    let report = kernel.apply(&plan);
    assert!(report.is_done(), "{:?}\n{plan}", report.failure(&plan));
}

fn observe(kernel: &Kernel) -> Objects {
    let scope = Scope {
        host: true,
        ..Scope::default()
    };
    kernel.observe(&scope).unwrap().objects
}

/// Does `work` in a sandbox.
fn inside<T>(kernel: &Kernel, netns: &Netns, work: impl FnOnce() -> T) -> T {
    match kernel.namespaces.file(netns).unwrap() {
        None => work(),
        Some(file) => kernel.namespaces.within(netns, &file, work).unwrap(),
    }
}

/// Asks from within the sandbox, without waiting for an answer.
fn ask(kernel: &Kernel, key: &ListenerKey, text: &str) -> UdpSocket {
    inside(kernel, &key.netns, || {
        let any = if key.address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        let to = SocketAddr::new(key.address, key.port);
        socket.send_to(text.as_bytes(), to).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    })
}

fn call(kernel: &Kernel, key: &ListenerKey) -> io::Result<TcpStream> {
    let to = SocketAddr::new(key.address, key.port);
    inside(kernel, &key.netns, || TcpStream::connect(to))
}

fn changes(kernel: &Kernel) -> Receiver<ListenerChange> {
    let (sender, receiver) = channel();
    kernel.on_listeners(Box::new(move |change| drop(sender.send(change))));
    receiver
}

/// The sockets of the next change, which must be that this one is opened.
fn next_opened(changes: &Receiver<ListenerChange>, wanted: &ListenerKey) -> Listener {
    match changes.try_recv() {
        Ok(ListenerChange::Opened { key, udp, tcp }) if key == *wanted => Listener { udp, tcp },
        other => panic!("{other:?} instead of {wanted}"),
    }
}

fn assert_closed(changes: &Receiver<ListenerChange>, wanted: &ListenerKey) {
    match changes.try_recv() {
        Ok(ListenerChange::Closed { key }) if key == *wanted => {}
        other => panic!("{other:?} instead of the end of {wanted}"),
    }
}

/// Answers one question and one call.
fn assert_answers(kernel: &Kernel, key: &ListenerKey, sockets: &Listener) {
    let asker = ask(kernel, key, "who?");
    assert_answered(sockets, &asker, "who?");
    let mut caller = call(kernel, key).unwrap();
    let (mut accepted, _) = sockets.tcp.accept().unwrap();
    accepted.write_all(b"me").unwrap();
    let mut answer = [0; 2];
    caller.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"me");
}

fn assert_answered(sockets: &Listener, asker: &UdpSocket, text: &str) {
    let mut bytes = [0; 64];
    let (length, from) = sockets.udp.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], text.as_bytes());
    sockets.udp.send_to(b"me", from).unwrap();
    assert_eq!(asker.recv(&mut bytes).unwrap(), 2);
}

fn failure(kernel: &Kernel, wanted: &Objects) -> String {
    let plan = plan(wanted, &Objects::new());
    let report = kernel.apply(&plan);
    let (_, text) = report.failure(&plan).unwrap();
    text.to_owned()
}

#[test]
fn questions_are_asked_inside_and_at_the_hosts_addresses_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let changes = changes(&kernel);
        let keys = [
            key(&owned("sb1"), RESOLVER),
            key(&owned("sb1"), "::1"),
            // Its address is not there yet.
            key(&Netns::Host, "10.9.0.1"),
        ];
        let mut wanted = Objects::new();
        keys.iter().for_each(|key| put(&mut wanted, key));
        must_apply(&kernel, &wanted, &Objects::new());
        assert_eq!(observe(&kernel), wanted);
        crate::tests::scenery::run("ip", &["address", "add", "10.9.0.1/32", "dev", "lo"]);
        let mut opened: Vec<_> = Vec::new();
        let mut sorted = keys.to_vec();
        sorted.sort();
        for key in sorted {
            opened.push((key.clone(), next_opened(&changes, &key)));
        }
        for (key, sockets) in &opened {
            assert_answers(&kernel, key, sockets);
        }
        // Whoever comes later is told of all.
        let later = self::changes(&kernel);
        assert_eq!(later.try_iter().count(), keys.len());
        assert!(changes.try_recv().is_err());
        drop(opened);
        must_apply(&kernel, &Objects::new(), &wanted);
        assert_eq!(later.try_iter().count(), keys.len());
        assert_eq!(observe(&kernel), Objects::new());
        assert!(call(&kernel, &keys[2]).is_err());
    });
}
