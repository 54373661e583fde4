//! Each test in a host of its own: a thread in new network and mount namespaces. The keeper is this test program.

mod away;
mod limits;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tombolo_netstate::object::listener::ListenerSpec;
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec};
use tombolo_netstate::{Desired, Key, Objects, Outcome, Owner, Plan, Spec, diff};

use super::*;
use crate::ports::tests::away::Fixture;
use crate::ports::tests::{eventually, in_netns};
use crate::tests::scenery::run;
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

fn failure(kernel: &Kernel, wanted: &Objects, actual: &Objects) -> String {
    let plan = plan(wanted, actual);
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
        run("ip", &["address", "add", "10.9.0.1/32", "dev", "lo"]);
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

#[test]
fn a_port_that_somebody_has_is_refused_and_others_are_not_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let keys = [
            key(&owned("sb1"), RESOLVER),
            key(&owned("sb1"), "127.0.0.12"),
        ];
        let mut netns = Objects::new();
        put(&mut netns, &keys[0]);
        netns.retain(|key, _| matches!(key, Key::Netns(_)));
        must_apply(&kernel, &netns, &Objects::new());
        let mut wanted = Objects::new();
        keys.iter().for_each(|key| put(&mut wanted, key));
        let me = format!("(pid {})", std::process::id());
        let at = SocketAddr::new(keys[0].address, 53);
        let any: SocketAddr = "[::]:53".parse().unwrap();
        let refused = |protocol: &str| {
            let text = failure(&kernel, &wanted, &netns);
            let begin = format!(
                "cannot open listener sb1:127.0.0.11:53: {protocol} port 53 at 127.0.0.11 in the sandbox is taken by "
            );
            assert!(text.starts_with(&begin) && text.ends_with(&me), "{text}");
            let mut others = wanted.clone();
            others.remove(&Key::Listener(keys[0].clone()));
            assert_eq!(observe(&kernel), others);
            must_apply(&kernel, &netns, &others);
        };
        let udp = inside(&kernel, &keys[0].netns, || UdpSocket::bind(at).unwrap());
        refused("udp");
        drop(udp);
        let tcp = inside(&kernel, &keys[0].netns, || TcpListener::bind(at).unwrap());
        refused("tcp");
        drop(tcp);
        must_apply(&kernel, &wanted, &netns);
        for netns in [&keys[0].netns, &Netns::Host] {
            // Nobody joins a listener of ours, and in the host there is none.
            let is_free = *netns == Netns::Host;
            let bound = inside(&kernel, netns, || UdpSocket::bind(any).is_ok());
            assert_eq!(bound, is_free);
            let bound = inside(&kernel, netns, || TcpListener::bind(any).is_ok());
            assert_eq!(bound, is_free);
        }
    });
}

#[test]
fn a_published_port_is_named_as_the_holder_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let port = PortKey {
            protocol: Protocol::Tcp,
            address: HostAddress::AnyV4,
            ports: PortRange::one(53).unwrap(),
        };
        let held = kernel.ports().reserve_all(&[(&port, PortSpec::Held)]);
        held.into_iter().for_each(|held| held.unwrap());
        let mut wanted = Objects::new();
        put(&mut wanted, &key(&Netns::Host, "127.0.0.1"));
        assert_eq!(
            failure(&kernel, &wanted, &Objects::new()),
            "cannot open listener 127.0.0.1:53: tcp port 53 at 127.0.0.1 is taken by another published port \
             (0.0.0.0:53/tcp)"
        );
        // And the other way round.
        kernel.ports().release(&[&port]);
        must_apply(&kernel, &wanted, &Objects::new());
        let refused = kernel.ports().reserve_all(&[(&port, PortSpec::Held)]).pop();
        let text = refused.unwrap().unwrap_err().to_string();
        let begin = "tcp port 53 at 0.0.0.0 is taken by ";
        assert!(text.starts_with(begin), "{text}");
    });
}

#[test]
fn a_listener_without_its_namespace_is_skipped_or_refused_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let lost = key(&owned("gone"), RESOLVER);
        let mut wanted = Objects::new();
        wanted.insert(Key::Listener(lost), Spec::Listener(ListenerSpec));
        let text = failure(&kernel, &wanted, &Objects::new());
        let begin = "cannot open listener gone:127.0.0.11:53: cannot open network namespace";
        assert!(text.starts_with(begin), "{text}");
        // A directory in the way of the namespace's file.
        std::fs::create_dir(kernel.netns_path("sb1")).unwrap();
        let inside = key(&owned("sb1"), RESOLVER);
        let mut wanted = Objects::new();
        put(&mut wanted, &inside);
        let plan = plan(&wanted, &Objects::new());
        let report = kernel.apply(&plan);
        let because = match &report.outcomes[..] {
            [Outcome::Failed { .. }, Outcome::Skipped { because }] => because.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(because, "netns");
    });
}

#[test]
fn a_closed_listener_lets_its_namespace_go_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let changes = changes(&kernel);
        let key = key(&owned("sb1"), RESOLVER);
        let mut wanted = Objects::new();
        put(&mut wanted, &key);
        must_apply(&kernel, &wanted, &Objects::new());
        let sockets = next_opened(&changes, &key);
        let path = kernel.netns_path("sb1");
        let path = path.to_str().unwrap();
        run(
            "ip",
            &["link", "add", "out", "type", "veth", "peer", "name", "in"],
        );
        run("ip", &["link", "set", "in", "netns", path]);
        must_apply(&kernel, &Objects::new(), &wanted);
        assert_closed(&changes, &key);
        thread::sleep(Duration::from_millis(300));
        run("ip", &["link", "show", "out"]);
        // Only whoever was told still has the sockets, at which nothing arrives any more.
        let accepted = sockets.tcp.accept().unwrap_err();
        assert_eq!(accepted.kind(), io::ErrorKind::InvalidInput);
        drop(sockets);
        eventually("the namespace goes", || {
            !run("ip", &["-o", "link"]).contains("out")
        });
        assert_eq!(observe(&kernel), Objects::new());
    });
}

#[test]
fn a_namespace_that_somebody_removed_goes_once_that_is_seen_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let mut wanted = Objects::new();
        put(&mut wanted, &key(&owned("sb1"), RESOLVER));
        must_apply(&kernel, &wanted, &Objects::new());
        let path = kernel.netns_path("sb1");
        let path = path.to_str().unwrap();
        run(
            "ip",
            &["link", "add", "out", "type", "veth", "peer", "name", "in"],
        );
        run("ip", &["link", "set", "in", "netns", path]);
        run("umount", &[path]);
        thread::sleep(Duration::from_millis(300));
        run("ip", &["link", "show", "out"]);
        assert_eq!(observe(&kernel), Objects::new());
        eventually("the namespace goes", || {
            !run("ip", &["-o", "link"]).contains("out")
        });
    });
}

#[test]
fn the_next_one_need_not_wait_for_whoever_has_the_last_one_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let changes = changes(&kernel);
        for netns in [owned("sb1"), Netns::Host] {
            let mut wanted = Objects::new();
            let key = key(&netns, RESOLVER);
            put(&mut wanted, &key);
            let mut without = wanted.clone();
            without.remove(&Key::Listener(key.clone()));
            must_apply(&kernel, &wanted, &Objects::new());
            let mut before = Vec::new();
            for _ in 0..3 {
                before.push(next_opened(&changes, &key));
                must_apply(&kernel, &without, &wanted);
                assert_closed(&changes, &key);
                must_apply(&kernel, &wanted, &without);
            }
            let last = next_opened(&changes, &key);
            assert_answers(&kernel, &key, &last);
            for before in &before {
                let nothing = before.udp.recv_from(&mut [0]).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            }
            let at = SocketAddr::new(key.address, 53);
            assert!(inside(&kernel, &netns, || UdpSocket::bind(at)).is_err());
            must_apply(&kernel, &Objects::new(), &wanted);
            assert_closed(&changes, &key);
        }
    });
}

#[test]
fn in_a_namespace_that_is_made_anew_the_listener_is_too_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let changes = changes(&kernel);
        let key = key(&owned("sb1"), RESOLVER);
        let mut wanted = Objects::new();
        put(&mut wanted, &key);
        must_apply(&kernel, &wanted, &Objects::new());
        drop(next_opened(&changes, &key));
        // Somebody removes the namespace, which is seen.
        kernel.namespaces.delete("sb1").unwrap();
        assert_eq!(observe(&kernel), Objects::new());
        assert_closed(&changes, &key);
        must_apply(&kernel, &wanted, &Objects::new());
        assert_answers(&kernel, &key, &next_opened(&changes, &key));
        assert_eq!(observe(&kernel), wanted);
        // Somebody puts another one in its place.
        kernel.namespaces.delete("sb1").unwrap();
        kernel.namespaces.create("sb1").unwrap();
        let mut held = wanted.clone();
        held.retain(|key, _| matches!(key, Key::Netns(_)));
        assert_eq!(observe(&kernel), held);
        assert_closed(&changes, &key);
        must_apply(&kernel, &wanted, &held);
        assert_answers(&kernel, &key, &next_opened(&changes, &key));
        // Nobody has looked before it is made again.
        kernel.namespaces.delete("sb1").unwrap();
        must_apply(&kernel, &wanted, &Objects::new());
        assert_closed(&changes, &key);
        assert_answers(&kernel, &key, &next_opened(&changes, &key));
        assert_eq!(observe(&kernel), wanted);
    });
}

#[test]
fn others_are_asked_from_within_a_sandbox_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        kernel.namespaces.create("sb1").unwrap();
        let sandbox = owned("sb1");
        let server = inside(&kernel, &sandbox, || {
            UdpSocket::bind("127.0.0.1:53").unwrap()
        });
        let socket = kernel.socket_within(&sandbox, SocketKind::Datagram, false, None);
        let socket = UdpSocket::from(socket.unwrap());
        socket.send_to(b"hello", "127.0.0.1:53").unwrap();
        assert_eq!(server.recv(&mut [0; 8]).unwrap(), 5);
        let nothing = socket.recv(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        for netns in [&sandbox, &Netns::Host] {
            for kind in [SocketKind::Datagram, SocketKind::Stream] {
                for ipv6 in [false, true] {
                    let socket = kernel.socket_within(netns, kind, ipv6, None).unwrap();
                    let at = sys::netns_of_socket(socket.as_fd()).unwrap();
                    let inode = crate::netns_inode(&kernel.netns_path("sb1")).ok();
                    assert_eq!(Some(at) == inode, *netns == sandbox);
                }
            }
        }
        let gone = kernel.socket_within(&owned("gone"), SocketKind::Stream, true, None);
        let text = gone.unwrap_err().to_string();
        assert!(
            text.starts_with("cannot enter network namespace gone: "),
            "{text}"
        );
    });
}
