//! TCP connections and Unix sockets.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::net::sockopt::set_socket_linger;

use super::*;
use crate::relay::{SetError, UnixError, try_unix_socket};

#[test]
fn both_directions_end_on_their_own() {
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let routes = vec![published.route(target)];
    relay.set("a", routes, published.listeners()).unwrap();
    let mut client = published.connect();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut inside = accept(&listener);
    let mut question = String::new();
    inside.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    inside.write_all(b"answer").unwrap();
    drop(inside);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    let counts = wait(&relay, |counts| counts.connections == 0);
    assert_eq!((counts.total, counts.refused), (1, 0));
}

#[test]
fn bulk_arrives_whole_both_ways_past_a_slow_reader() {
    const SIZE: usize = 8 << 20;
    let pattern = |seed: u8| -> Vec<u8> {
        let bytes = (0..SIZE).map(|n| (n % 251) as u8 ^ seed);
        bytes.collect()
    };
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let routes = vec![published.route(target)];
    relay.set("a", routes, published.listeners()).unwrap();
    let exchange = move |mut stream: TcpStream, own: u8, pause: Duration| {
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&pattern(own)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        thread::sleep(pause);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        received
    };
    let client = published.connect();
    let inside = accept(&listener);
    let pause = Duration::from_millis(200);
    let there = thread::spawn(move || exchange(inside, 1, Duration::ZERO));
    assert!(exchange(client, 2, pause) == pattern(1));
    assert!(there.join().unwrap() == pattern(2));
}

#[test]
fn resets_are_passed_on_and_so_is_a_refusal() {
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let routes = vec![published.route(target)];
    relay.set("a", routes, published.listeners()).unwrap();
    let reset = |mut stream: TcpStream| {
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    };
    for by_client in [true, false] {
        let mut client = published.connect();
        let mut inside = accept(&listener);
        say(&mut client, &mut inside, "here");
        let (gone, left) = if by_client {
            (client, inside)
        } else {
            (inside, client)
        };
        set_socket_linger(&gone, Some(Duration::ZERO)).unwrap();
        drop(gone);
        reset(left);
    }
    drop(listener);
    reset(published.connect());
}

#[test]
fn what_routes_no_longer_allow_is_closed_and_nothing_else() {
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let other = Published::tcp();
    let pair = |published: &Published| {
        let client = published.connect();
        (client, accept(&listener))
    };
    let route = published.route(target);
    relay
        .set("a", vec![route.clone()], published.listeners())
        .unwrap();
    let routes = vec![other.route(target)];
    relay.set("b", routes, other.listeners()).unwrap();
    let (mut client, mut inside) = pair(&published);
    let (mut bystander, mut beside) = pair(&other);
    say(&mut client, &mut inside, "both");

    let mut allowed = route.clone();
    allowed.from = vec!["127.0.0.0/8".parse().unwrap()];
    relay
        .set("a", vec![allowed], published.listeners())
        .unwrap();
    say(&mut client, &mut inside, "still");

    let mut filtered = route;
    filtered.from = vec!["192.0.2.0/24".parse().unwrap()];
    relay
        .set("a", vec![filtered], published.listeners())
        .unwrap();
    for mut end in [client, inside] {
        let error = end.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let error = published.connect().read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(relay.counts().refused, 1);
    say(&mut bystander, &mut beside, "untouched");
    relay.remove("b").unwrap();
    let error = bystander.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    wait(&relay, |counts| counts.connections == 0);
}

#[test]
fn a_port_is_free_when_its_owner_was_removed() {
    let (relay, (_listener, target)) = (relay(), server());
    for _ in 0..20 {
        let published = Published::tcp();
        let port = published.port;
        let routes = vec![published.route(target)];
        relay.set("a", routes, published.listeners()).unwrap();
        drop(published);
        TcpListener::bind((LOCALHOST, port)).unwrap_err();
        relay.remove("a").unwrap();
        TcpListener::bind((LOCALHOST, port)).unwrap();
    }
}

#[test]
fn another_socket_for_the_same_port_takes_the_place_of_the_first() {
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let routes = vec![published.route(target)];
    relay
        .set("a", routes.clone(), published.listeners())
        .unwrap();
    let mut second = Published::tcp();
    let port = second.port;
    (second.key, second.port) = (published.key.clone(), published.port);
    let mut elsewhere = routes[0].clone();
    elsewhere.entrance = Entrance::Ports {
        address: HostAddress::One(LOCALHOST),
        ports: PortRange::one(port).unwrap(),
    };
    let routes = vec![elsewhere];
    relay.set("a", routes, second.listeners()).unwrap();
    drop(published);
    TcpStream::connect((LOCALHOST, second.port)).unwrap_err();
    let mut client = TcpStream::connect((LOCALHOST, port)).unwrap();
    say(&mut client, &mut accept(&listener), "second");
}

#[test]
fn connections_beyond_the_limit_are_closed_and_silent_ones_hold_only_their_own() {
    let bounds = Bounds {
        connections: 2,
        ..Bounds::default()
    };
    let (relay, published) = (relay_within(bounds), Published::tcp());
    let (listener, target) = server();
    let routes = vec![published.route(target)];
    relay.set("a", routes, published.listeners()).unwrap();
    let silent = published.connect();
    let _held = accept(&listener);
    let mut second = published.connect();
    let mut inside = accept(&listener);
    say(&mut second, &mut inside, "served");
    let error = published.connect().read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(relay.counts().refused, 1);
    drop((silent, _held));
    wait(&relay, |counts| counts.connections == 1);
    let mut third = published.connect();
    say(&mut third, &mut accept(&listener), "room");
}

#[test]
fn one_busy_owner_leaves_something_to_the_others() {
    let bounds = Bounds {
        connections: 4,
        ..Bounds::default()
    };
    let (relay, busy, other) = (relay_within(bounds), Published::tcp(), Published::tcp());
    let (listener, target) = server();
    for (owner, published) in [("busy", &busy), ("other", &other)] {
        let routes = vec![published.route(target)];
        relay.set(owner, routes, published.listeners()).unwrap();
    }
    let silent: Vec<_> = (0..3)
        .map(|_| (busy.connect(), accept(&listener)))
        .collect();
    let error = busy.connect().read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut client = other.connect();
    say(&mut client, &mut accept(&listener), "served");
    drop(silent);
    wait(&relay, |counts| counts.connections == 1);
    let mut again = busy.connect();
    say(&mut again, &mut accept(&listener), "room");
}

#[test]
fn a_unix_socket_leads_inside_and_goes_with_its_route() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let (relay, (listener, target)) = (relay(), server());
    let entrance = Entrance::Unix(path.clone());
    let web = route(Protocol::Tcp, entrance, target);
    relay.set("a", vec![web.clone()], vec![]).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    let mut inside = accept(&listener);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    inside.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");

    // The socket stays while its route does, whatever else changes.
    relay.set("a", vec![web.clone()], vec![]).unwrap();
    inside.write_all(b"answer").unwrap();
    drop(inside);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");

    try_unix_socket(&path).unwrap_err();
    try_unix_socket(&folder.path().join("other.sock")).unwrap();
    let refused = relay.set("b", vec![web.clone()], vec![]);
    let in_use = matches!(refused, Err(SetError::Unix(UnixError::InUse(_))));
    assert!(in_use, "{refused:?}");
    std::fs::remove_file(&path).unwrap();
    relay.set("a", vec![web], vec![]).unwrap();
    UnixStream::connect(&path).unwrap();
    relay.set("a", vec![], vec![]).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_socket_that_cannot_be_had_keeps_nothing_open_and_nothing_shut() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(&bad, "mine").unwrap();
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let first = published.route(target);
    relay
        .set("a", vec![first.clone()], published.listeners())
        .unwrap();
    let [good_route, bad_route] =
        [&good, &bad].map(|path| route(Protocol::Tcp, Entrance::Unix(path.clone()), target));
    let routes = vec![good_route, bad_route];
    let refused = relay.set("a", routes, vec![]);
    let occupied = matches!(refused, Err(SetError::Unix(UnixError::Occupied(_))));
    assert!(occupied, "{refused:?}");
    // With this copy of the socket the last one goes.
    let port = published.port;
    drop(published);
    let again = TcpStream::connect(("127.0.0.1", port));
    assert!(again.is_err(), "taken back and still open");
    let mut client = UnixStream::connect(&good).unwrap();
    client.write_all(b"the other one").unwrap();
    let mut heard = [0; 13];
    accept(&listener).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"the other one");
}

#[test]
fn the_end_of_the_relay_is_the_end_of_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let (relay, published, (listener, target)) = (relay(), Published::tcp(), server());
    let unix = route(Protocol::Tcp, Entrance::Unix(path.clone()), target);
    let routes = vec![published.route(target), unix];
    relay.set("a", routes, published.listeners()).unwrap();
    let mut client = published.connect();
    let mut inside = accept(&listener);
    say(&mut client, &mut inside, "here");
    drop(relay);
    assert!(!path.exists());
    for mut end in [client, inside] {
        let error = end.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
