//! Published ports: elements that survive reading back, and packets that arrive where they should.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use tombolo_netstate::object::foreign::{AcceptKey, AcceptSpec};
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::nft::ruleset::Family;
use tombolo_netstate::object::nft::{Field, SetName};
use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec, Protocol};
use tombolo_netstate::{Key, Objects, Outcome, Spec};

use super::scenery::{
    assert_holds, element, endpoint, must_apply, name, network, on_host, owned, plan, run,
};
use crate::Kernel;

/// How long a packet may take that arrives.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one is waited for that must not.
const GLANCE: Duration = Duration::from_millis(200);
/// Addresses of the host towards the outside, and of who is there.
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const CLIENT: &str = "192.0.2.2";
/// The maps of ranges, everybody, and endpoint 11.
const RANGES: [(SetName, &str, &str); 2] = [
    (SetName::PublishRange4, "0.0.0.0/0", "10.9.0.11"),
    (SetName::PublishRange6, "::/0", "fd09::11"),
];
/// The sandbox of those outside.
const OUTSIDE: &str = "out";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn net(text: &str) -> Field {
    Field::Net(text.parse().unwrap())
}

fn ports(text: &str) -> Field {
    Field::Ports(text.parse().unwrap())
}

const TCP: Field = Field::Protocol(Protocol::Tcp);
const UDP: Field = Field::Protocol(Protocol::Udp);
const SCTP: Field = Field::Protocol(Protocol::Sctp);

fn target(address: &str, least: u16, greatest: u16) -> Vec<Field> {
    vec![
        Field::Address(ip(address)),
        Field::Port(least),
        Field::Port(greatest),
    ]
}

fn one(address: &str, port: u16) -> Vec<Field> {
    vec![Field::Address(ip(address)), Field::Port(port)]
}

/// Does `work` in a sandbox.
fn inside<T>(kernel: &Kernel, sandbox: &str, work: impl FnOnce() -> T) -> T {
    let file = File::open(kernel.netns_path(sandbox)).unwrap();
    kernel
        .namespaces
        .within(&owned(sandbox), &file, work)
        .unwrap()
}

/// A network with endpoint 11, and an uplink to a sandbox outside.
fn host_with_endpoint() -> Objects {
    let mut wanted = Objects::new();
    network(&mut wanted, "tb0");
    endpoint(&mut wanted, 11, "tb0");
    let key = NetnsKey {
        name: OUTSIDE.into(),
    };
    wanted.insert(Key::Netns(key), Spec::Netns(NetnsSpec));
    wanted
}

fn add_uplink(kernel: &Kernel) {
    let outside = kernel.netns_path(OUTSIDE).display().to_string();
    let ip = |arguments: &str| {
        run("ip", &arguments.split(' ').collect::<Vec<&str>>());
    };
    ip("link add up0 type veth peer name eth0");
    ip(&format!("link set eth0 netns {outside}"));
    ip("link set up0 up");
    ip("addr add 192.0.2.1/24 dev up0");
    ip("addr add 2001:db8::1/64 dev up0 nodad");
    inside(kernel, OUTSIDE, || {
        ip("link set eth0 up");
        ip("addr add 192.0.2.2/24 dev eth0");
        ip("addr add 2001:db8::2/64 dev eth0 nodad");
        // The carrier comes from a worker of the kernel.
        for host in HOST {
            run("ping", &["-c1", "-w5", "-i0.2", "-n", "-q", host]);
        }
    });
}

/// Whether a connection to `to` arrives at `listener`, and from whom.
fn arrives(listener: &TcpListener, connect: impl FnOnce() -> io::Result<TcpStream>) -> SocketAddr {
    let stream = connect().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (_accepted, from) = listener
        .accept()
        .unwrap_or_else(|error| panic!("{stream:?} went elsewhere: {error}"));
    from
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE)
}

fn is_open(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, GLANCE).is_ok()
}

/// A listener in endpoint 11 for each of these ports.
fn listeners(kernel: &Kernel, ports: impl Iterator<Item = u16>) -> Vec<TcpListener> {
    inside(kernel, "sb11", || {
        ports
            .map(|port| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap())
            .collect()
    })
}

#[test]
fn elements_of_every_set_read_back_as_they_were_written() {
    on_host(0, |kernel| {
        let mut wanted = host_with_endpoint();
        every_set(&mut wanted);
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        let without = host_with_endpoint();
        must_apply(kernel, &without, &wanted);
        assert_holds(kernel, &without);
    });
}

fn every_set(objects: &mut Objects) {
    for (v4, here, everywhere, there) in [
        (true, HOST[0], "0.0.0.0/0", "10.9.0.11"),
        (false, HOST[1], "::/0", "fd09::11"),
    ] {
        let of = |four, six| if v4 { four } else { six };
        let (here, all) = (ip(here), net(everywhere));
        let here_net = Field::Net(here.into());
        for protocol in [TCP, UDP, SCTP] {
            let port = Field::Port(8080);
            let any = of(SetName::PublishAny4, SetName::PublishAny6);
            element(objects, any, vec![protocol, port], one(there, 80));
            let at = of(SetName::PublishAt4, SetName::PublishAt6);
            let fields = vec![protocol, Field::Address(here), port];
            element(objects, at, fields, one(there, 80));
        }
        for (source, protocol, to, range_ports) in [
            (all, TCP, all, "8000-8009"),
            (here_net, UDP, here_net, "9000"),
            (all, SCTP, here_net, "1-65535"),
        ] {
            let range = of(SetName::PublishRange4, SetName::PublishRange6);
            let fields = vec![source, protocol, to, ports(range_ports)];
            element(objects, range, fields, target(there, 0, 65535));
        }
        for set in [
            of(SetName::Links4, SetName::Links6),
            of(SetName::RoutedRange4, SetName::RoutedRange6),
        ] {
            let some = vec![here_net, all, UDP, ports("53-54")];
            element(objects, set, some, vec![]);
            element(objects, set, vec![all, all, TCP, ports("1-65535")], vec![]);
        }
        let plain = of(SetName::Plain4, SetName::Plain6);
        element(objects, plain, vec![here_net, all], vec![]);
        let there = Field::Address(ip(there));
        let hairpin = of(SetName::Hairpin4, SetName::Hairpin6);
        element(objects, hairpin, vec![there, there], vec![]);
        let routed = of(SetName::Routed4, SetName::Routed6);
        let port = vec![there, SCTP, Field::Port(5000)];
        element(objects, routed, port, vec![]);
    }
    sets_without_families(objects);
    for set in SetName::ALL {
        let has = |key: &Key| matches!(key, Key::Element(key) if key.set == set);
        assert!(objects.keys().any(has), "{set:?} is left out");
    }
}

fn sets_without_families(objects: &mut Objects) {
    let relay = vec![Field::Port(40_000), Field::Port(40_000)];
    let port = vec![TCP, Field::Port(8081)];
    element(objects, SetName::Relay, vec![UDP], relay);
    element(objects, SetName::RelayAny6, port, vec![]);
    let fields = vec![net("::/0"), UDP, net("::1/128"), ports("8100-8199")];
    element(objects, SetName::RelayRange6, fields, vec![]);
    let bridge = Field::Name(name("tb0"));
    element(objects, SetName::Apart, vec![bridge, bridge], vec![]);
    for set in [
        SetName::Internal,
        SetName::Others,
        SetName::Leaves,
        SetName::Echo4,
        SetName::Echo6,
        SetName::Open4,
        SetName::Open6,
    ] {
        element(objects, set, vec![bridge], vec![]);
    }
}

#[test]
fn what_arrives_goes_to_the_port_that_its_element_says() {
    on_host(0, |kernel| {
        let mut wanted = host_with_endpoint();
        for (any, at_set, here, there) in [
            (
                SetName::PublishAny4,
                SetName::PublishAt4,
                HOST[0],
                "10.9.0.11",
            ),
            (
                SetName::PublishAny6,
                SetName::PublishAt6,
                HOST[1],
                "fd09::11",
            ),
        ] {
            element(
                &mut wanted,
                any,
                vec![TCP, Field::Port(8080)],
                one(there, 80),
            );
            let fields = vec![TCP, Field::Address(ip(here)), Field::Port(8081)];
            element(&mut wanted, at_set, fields, one(there, 81));
        }
        must_apply(kernel, &wanted, &Objects::new());
        add_uplink(kernel);
        let inner = listeners(kernel, 80..=81);
        for host in HOST {
            for (port, listener) in [(8080, &inner[0]), (8081, &inner[1])] {
                let from = arrives(listener, || {
                    inside(kernel, OUTSIDE, || connect(at(host, port)))
                });
                assert!(
                    is_client(from.ip()),
                    "{from} is not the client's own address"
                );
                // From the host itself.
                arrives(listener, || connect(at(host, port)));
            }
            for port in [80, 8082] {
                let open = inside(kernel, OUTSIDE, || is_open(at(host, port)));
                assert!(!open, "{host}:{port} is open");
            }
        }
        // The address of a bridge is one of the host, too, and not the one that 8081 is published at.
        arrives(&inner[0], || connect(at("10.9.0.1", 8080)));
        assert!(!is_open(at("10.9.0.1", 8081)));
        must_apply(kernel, &host_with_endpoint(), &wanted);
        let open = inside(kernel, OUTSIDE, || is_open(at(HOST[0], 8080)));
        assert!(!open, "what was removed is open");
    });
}

/// Listeners of both families tell IPv4 addresses in IPv6 form.
fn is_client(address: IpAddr) -> bool {
    [CLIENT, "2001:db8::2"].contains(&address.to_canonical().to_string().as_str())
}

#[test]
fn each_port_of_a_range_goes_to_its_own() {
    on_host(0, |kernel| {
        // The host's ports, where the first of them leads, and the range that leads there: its least port and
        // the rest that the host's port leaves when it is divided by the count.
        let ranges = [
            (8000..=8009, 80, (80, 89)),
            (8100..=8106, 2001, (2001, 2010)),
            (8200..=8203, 8200, (0, 65_535)),
            (8300..=8302, 22, (22, 8321)),
            (8405..=8407, 30, (25, 124)),
        ];
        let mut wanted = host_with_endpoint();
        for (set, everywhere, there) in RANGES {
            for (host, _, (least, greatest)) in &ranges {
                let range = ports(&format!("{}-{}", host.start(), host.end()));
                let fields = vec![net(everywhere), TCP, net(everywhere), range];
                element(&mut wanted, set, fields, target(there, *least, *greatest));
            }
        }
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        add_uplink(kernel);
        for (outer, first, _) in ranges {
            let listeners = listeners(kernel, (first..).zip(outer.clone()).map(|(port, _)| port));
            for (port, listener) in outer.zip(&listeners) {
                for host in HOST {
                    arrives(listener, || {
                        inside(kernel, OUTSIDE, || connect(at(host, port)))
                    });
                    arrives(listener, || connect(at(host, port)));
                }
            }
        }
        for port in [7999, 8010, 8107, 8404] {
            let open = inside(kernel, OUTSIDE, || is_open(at(HOST[0], port)));
            assert!(!open, "{port} is open");
        }
    });
}

#[test]
fn datagrams_of_a_range_are_answered_from_the_port_they_were_sent_to() {
    on_host(0, |kernel| {
        let mut wanted = host_with_endpoint();
        for (set, everywhere, there) in RANGES {
            let fields = vec![net(everywhere), UDP, net(everywhere), ports("5000-5002")];
            element(&mut wanted, set, fields, target(there, 53, 62));
        }
        must_apply(kernel, &wanted, &Objects::new());
        add_uplink(kernel);
        for (host, any) in HOST.into_iter().zip(["0.0.0.0", "::"]) {
            for (outer, inner) in (5000..).zip(53..=55) {
                let server = inside(kernel, "sb11", || UdpSocket::bind(at(any, inner)).unwrap());
                let client = inside(kernel, OUTSIDE, || UdpSocket::bind(at(any, 0)).unwrap());
                for socket in [&server, &client] {
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                }
                client.connect(at(host, outer)).unwrap();
                client.send(b"ask").unwrap();
                let mut buffer = [0; 8];
                let (_, from) = server.recv_from(&mut buffer).unwrap();
                assert!(is_client(from.ip()), "{from}");
                server.send_to(b"tell", from).unwrap();
                let length = client.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"tell");
            }
        }
    });
}

#[test]
fn only_the_allowed_source_reaches_a_filtered_port() {
    on_host(0, |kernel| {
        let mut wanted = host_with_endpoint();
        for (set, allowed, other, everywhere, there) in [
            (
                SetName::PublishRange4,
                "192.0.2.0/30",
                "198.51.100.0/24",
                "0.0.0.0/0",
                "10.9.0.11",
            ),
            (
                SetName::PublishRange6,
                "2001:db8::2/128",
                "2001:db8:1::/48",
                "::/0",
                "fd09::11",
            ),
        ] {
            for (source, port) in [(allowed, 8080), (other, 8081)] {
                let range = ports(&port.to_string());
                let fields = vec![net(source), TCP, net(everywhere), range];
                element(&mut wanted, set, fields, target(there, 80, 80));
            }
        }
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        add_uplink(kernel);
        let inner = listeners(kernel, 80..=80);
        for host in HOST {
            arrives(&inner[0], || {
                inside(kernel, OUTSIDE, || connect(at(host, 8080)))
            });
            let open = inside(kernel, OUTSIDE, || is_open(at(host, 8081)));
            assert!(!open, "{host}:8081 is open");
        }
    });
}

#[test]
fn where_no_translation_leads_the_relay_of_the_host_takes_it() {
    on_host(0, |kernel| {
        let mut wanted = host_with_endpoint();
        let relay = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let relay_port = Field::Port(relay.local_addr().unwrap().port());
        let port = vec![relay_port, relay_port];
        element(&mut wanted, SetName::Relay, vec![TCP], port);
        let any = vec![TCP, Field::Port(8080)];
        element(&mut wanted, SetName::RelayAny6, any, vec![]);
        let fields = vec![net("::/0"), TCP, net("2001:db8::1/128"), ports("8100-8109")];
        element(&mut wanted, SetName::RelayRange6, fields, vec![]);
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        add_uplink(kernel);
        arrives(&relay, || connect(at("::1", 8080)));
        for port in [8080, 8100, 8109] {
            arrives(&relay, || connect(at(HOST[1], port)));
            let from = arrives(&relay, || {
                inside(kernel, OUTSIDE, || connect(at(HOST[1], port)))
            });
            assert!(is_client(from.ip()), "{from}");
        }
        let open = inside(kernel, OUTSIDE, || is_open(at(HOST[1], 8110)));
        assert!(!open, "8110 is open");
    });
}

fn port_key(port: u16) -> PortKey {
    PortKey {
        protocol: Protocol::Tcp,
        address: HostAddress::Any,
        ports: PortRange::one(port).unwrap(),
    }
}

#[test]
fn a_port_that_somebody_has_is_not_published_and_others_are() {
    on_host(0, |kernel| {
        let _theirs = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap();
        let mut wanted = host_with_endpoint();
        for port in [8080, 8081] {
            wanted.insert(Key::Port(port_key(port)), Spec::Port(PortSpec::Held));
            let fields = vec![TCP, Field::Port(port)];
            element(
                &mut wanted,
                SetName::PublishAny4,
                fields,
                one("10.9.0.11", 80),
            );
        }
        let plan = plan(&wanted, &Objects::new());
        let report = kernel.apply(&plan);
        for (op, outcome) in plan.ops.iter().zip(&report.outcomes) {
            match (op.key.to_string().as_str(), outcome) {
                ("port *:8080/tcp", Outcome::Failed { error, exists }) => {
                    let me = format!("pid {}", std::process::id());
                    assert!(error.contains("8080") && error.contains(&me), "{error}");
                    assert!(!exists, "it is not ours");
                }
                ("element publish_any4 { tcp . 8080 }", Outcome::Skipped { because }) => {
                    assert_eq!(**because, Key::Port(port_key(8080)));
                }
                (key, outcome) => {
                    assert_eq!(outcome, &Outcome::Done, "{key}");
                    assert!(!key.contains("8080"), "{key}");
                }
            }
        }
        wanted.retain(|key, _| !key.to_string().contains("8080"));
        assert_holds(kernel, &wanted);
    });
}

#[test]
fn a_reservation_changes_its_way_and_goes_with_what_it_was_for() {
    on_host(0, |kernel| {
        let without = host_with_endpoint();
        let mut held = without.clone();
        held.insert(Key::Port(port_key(8080)), Spec::Port(PortSpec::Held));
        must_apply(kernel, &held, &Objects::new());
        assert_holds(kernel, &held);
        let address = (Ipv6Addr::UNSPECIFIED, 8080);
        assert!(TcpListener::bind(address).is_err(), "it is not held");
        let mut relayed = held.clone();
        relayed.insert(Key::Port(port_key(8080)), Spec::Port(PortSpec::Relayed));
        must_apply(kernel, &relayed, &held);
        assert_holds(kernel, &relayed);
        assert!(is_open(at("127.0.0.1", 8080)), "nobody listens");
        must_apply(kernel, &without, &relayed);
        assert_holds(kernel, &without);
        assert!(TcpListener::bind(address).is_ok(), "it is still held");
    });
}

#[test]
fn permissions_in_a_chain_of_others_come_and_go_with_the_bridge() {
    on_host(0, |kernel| {
        run("nft", &["add", "table", "ip", "filter"]);
        let chain = "{ type filter hook forward priority 0; policy drop; }";
        run("nft", &["add", "chain", "ip", "filter", "FORWARD", chain]);
        let before = run("nft", &["list", "table", "ip", "filter"]);
        let without = host_with_endpoint();
        let mut wanted = without.clone();
        let key = AcceptKey {
            family: Family::V4,
            table: "filter".into(),
            chain: "FORWARD".into(),
            bridge: name("tb0"),
        };
        wanted.insert(Key::Accept(key), Spec::Accept(AcceptSpec));
        let any = vec![TCP, Field::Port(8080)];
        element(&mut wanted, SetName::PublishAny4, any, one("10.9.0.11", 80));
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        add_uplink(kernel);
        let inner = listeners(kernel, 80..=80);
        arrives(&inner[0], || {
            inside(kernel, OUTSIDE, || connect(at(HOST[0], 8080)))
        });
        must_apply(kernel, &without, &wanted);
        assert_holds(kernel, &without);
        assert_eq!(run("nft", &["list", "table", "ip", "filter"]), before);
    });
}
