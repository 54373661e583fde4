//! Connections that nftables redirects, in a network namespace that lives as long as the test's thread.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, Shutdown};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::*;
use crate::relay::Sockets;

/// Ports 8000 to 8009 of the host lead to the relay, as seen from itself and from others.
const RULES: &str = "table inet t {
    chain own {
        type nat hook output priority -100
        ip6 daddr ::1 meta l4proto { tcp, udp } th dport 8000-8009 redirect to :PORT
    }
    chain others {
        type nat hook prerouting priority -100
        meta nfproto ipv6 meta l4proto { tcp, udp } th dport 8000-8009 redirect to :PORT
    }
}";

type Original = Arc<Mutex<Option<SocketAddr>>>;

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Runs a test on a thread of its own in a namespace of its own, which ends with it.
fn in_namespace(test: fn()) {
    let run_test = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", &["link", "set", "lo", "up"], "");
        test();
    };
    thread::spawn(run_test).join().unwrap();
}

/// A relay to which connections are redirected, and what datagrams are said to have been sent to.
fn redirecting() -> (Relay, u16, Original) {
    let sockets = Sockets::bind().unwrap().unwrap();
    let port = sockets.port().unwrap();
    run(
        "nft",
        &["-f", "-"],
        &RULES.replace("PORT", &port.to_string()),
    );
    let original = Original::default();
    let told = Arc::clone(&original);
    let bounds = Bounds {
        recheck: Duration::from_millis(200),
        ..Bounds::default()
    };
    let lookup = move |_, local: SocketAddr| {
        assert_eq!(local.port(), port);
        Ok(*told.lock().unwrap())
    };
    let relay =
        Relay::start_within(bounds, (Arc::default(), Some(sockets)), Box::new(lookup)).unwrap();
    (relay, port, original)
}

/// Whether the other end is closed, in whatever way.
fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(LONG)).unwrap();
    match stream.read(&mut [0; 8]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn ports(protocol: Protocol, target: u16) -> Route {
    let entrance = Entrance::Ports {
        address: HostAddress::Any,
        ports: PortRange::new(8000, 8009).unwrap(),
    };
    let mut route = route(protocol, entrance, target - 5);
    route.from = vec!["::1/128".parse().unwrap()];
    route
}

#[test]
fn a_connection_finds_where_it_was_meant_to_go() {
    in_namespace(|| {
        let (relay, port, _) = redirecting();
        let (listener, target) = server();
        let routes = vec![ports(Protocol::Tcp, target)];
        relay.set("a", routes, vec![]).unwrap();
        let connect = |port: u16| TcpStream::connect(("::1", port)).unwrap();
        let mut client = connect(8005);
        let mut inside = accept(&listener);
        say(&mut client, &mut inside, "question");
        say(&mut inside, &mut client, "answer");
        // Another port of the range leads elsewhere, where nobody listens.
        assert!(is_closed(connect(8004)));
        assert_eq!(relay.counts().refused, 0);
        // The relay's own port leads nowhere, in either family.
        assert!(is_closed(connect(port)));
        assert!(is_closed(TcpStream::connect((LOCALHOST, port)).unwrap()));
        assert_eq!(relay.counts().refused, 2);
        relay.remove("a").unwrap();
        assert!(is_closed(client));
        assert!(is_closed(connect(8005)));
    });
}

/// What a client on another host does.
fn visit(ready: &mpsc::Sender<u32>, go: &mpsc::Receiver<()>) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ready.send(gettid().as_raw().cast_unsigned()).unwrap();
    go.recv().unwrap();
    run(
        "ip",
        &["-b", "-"],
        "addr add 2001:db8::2/64 dev v1 nodad\nlink set v1 up",
    );
    let mut stream = TcpStream::connect("[2001:db8::1]:8005").unwrap();
    stream.write_all(b"from afar").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "welcome");
    let (socket, _) = udp(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let asked: SocketAddr = "[2001:db8::1]:8005".parse().unwrap();
    socket.send_to(b"from afar", asked).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"welcome"[..], asked));
}

#[test]
fn a_client_of_another_host_reaches_a_sandbox_that_has_ipv4_alone() {
    in_namespace(|| {
        let ((ready, thread_id), (go, wait_for_it)) = (mpsc::channel(), mpsc::channel());
        let visitor = thread::spawn(move || visit(&ready, &wait_for_it));
        let id = thread_id.recv().unwrap();
        let link = format!("link add v0 type veth peer name v1 netns {id}\n");
        let up = "addr add 2001:db8::1/64 dev v0 nodad\nlink set v0 up";
        run("ip", &["-b", "-"], &(link + up));
        let (relay, _, original) = redirecting();
        *original.lock().unwrap() = Some("[2001:db8::1]:8005".parse().unwrap());
        let (listener, target) = server();
        let inside = UdpSocket::bind((LOCALHOST, target)).unwrap();
        let routes = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let mut route = ports(protocol, target);
            route.from = vec!["2001:db8::2/128".parse().unwrap()];
            route
        });
        relay.set("a", routes.into(), vec![]).unwrap();
        go.send(()).unwrap();
        let mut question = String::new();
        let mut stream = accept(&listener);
        stream.read_to_string(&mut question).unwrap();
        assert_eq!(question, "from afar");
        stream.write_all(b"welcome").unwrap();
        drop(stream);
        let (_, upstream) = inside.recv_from(&mut [0; 16]).unwrap();
        inside.send_to(b"welcome", upstream).unwrap();
        visitor.join().unwrap();
        assert_eq!(relay.counts().refused, 0);
    });
}

#[test]
fn datagrams_are_answered_from_the_port_that_was_asked() {
    in_namespace(redirected_datagrams);
}

fn redirected_datagrams() {
    let (relay, port, original) = redirecting();
    let (inside, target) = udp(LOCALHOST);
    let (other, elsewhere) = udp(LOCALHOST);
    let asked: SocketAddr = "[::1]:8005".parse().unwrap();
    let second = Route {
        entrance: Entrance::Ports {
            address: HostAddress::AnyV6,
            ports: PortRange::one(9000).unwrap(),
        },
        ..route(
            Protocol::Udp,
            Entrance::Unix("/unused".into()),
            elsewhere.port(),
        )
    };
    let routes = vec![ports(Protocol::Udp, target.port()), second];
    relay.set("a", routes, vec![]).unwrap();
    let (client, _) = udp("::1".parse::<IpAddr>().unwrap());
    let mut buffer = [0; 16];

    client.send_to(b"unknown", asked).unwrap();
    wait(&relay, |counts| counts.refused == 1);
    *original.lock().unwrap() = Some(SocketAddr::new(asked.ip(), port));
    client.send_to(b"loop", asked).unwrap();
    wait(&relay, |counts| counts.refused == 2);

    *original.lock().unwrap() = Some(asked);
    client.send_to(b"question", asked).unwrap();
    let (length, upstream) = inside.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    inside.send_to(b"answer", upstream).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], asked));

    // After a silence the same client's datagrams may be for another port.
    *original.lock().unwrap() = Some("[::1]:9000".parse().unwrap());
    client.send_to(b"soon", asked).unwrap();
    assert_eq!(inside.recv_from(&mut buffer).unwrap().1, upstream);
    thread::sleep(Duration::from_millis(250));
    client.send_to(b"later", asked).unwrap();
    let (length, _) = other.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"later");
    wait(&relay, |counts| counts.sessions == 1 && counts.total == 2);
}

#[test]
fn kept_sockets_are_taken_again_if_they_belong_together() {
    let made = Sockets::bind().unwrap().unwrap();
    let port = made.port().unwrap();
    let again = Sockets::kept(made.tcp.into(), made.udp.into()).unwrap();
    assert_eq!(again.port().unwrap(), port);
    let other = Sockets::bind().unwrap().unwrap();
    assert!(Sockets::kept(other.tcp.into(), again.udp.into()).is_none());
}
