//! Tracked connections: those of former owners go, and only those.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tombolo_netstate::Objects;
use tombolo_netstate::object::port::{PortRange, Protocol};
use tombolo_netstate::plan::{Flows, Stale};

use super::direct::inside;
use super::scenery::{endpoint, must_apply, network, on_host, run};
use crate::Kernel;
use crate::conntrack::tracked;

/// The host's addresses outside of the network.
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OWNER: [&str; 2] = ["10.9.0.2", "fd09::2"];

/// Endpoints 2, 3 and 4, where 2 owns the ports 5000 and 5100 of both families.
fn with_owner(kernel: &Kernel) {
    let mut wanted = Objects::new();
    network(&mut wanted, "tb0");
    for number in [2, 3, 4] {
        endpoint(&mut wanted, number, "tb0");
    }
    must_apply(kernel, &wanted, &Objects::new());
    for ip in ["192.0.2.1/32", "2001:db8::1/128"] {
        run("ip", &["addr", "add", ip, "dev", "lo"]);
    }
    for family in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        let _absent_without_br_netfilter = std::fs::write(path, "0");
    }
}

fn publish() {
    run(
        "nft",
        &["table inet published { chain pre { type nat hook prerouting priority dstnat;
            ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport { 5000, 5100 } dnat ip to 10.9.0.2:80
            ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport { 5000, 5100 } dnat ip6 to [fd09::2]:80
            meta l4proto udp th dport 5300 redirect to :5301
        }
        }"],
    );
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Sends a datagram from a sandbox's port to each of `to`.
fn send(kernel: &Kernel, sandbox: &str, port: u16, to: &[SocketAddr]) {
    inside(kernel, sandbox, || {
        for ipv6 in [false, true] {
            let any: IpAddr = if ipv6 { [0; 16].into() } else { [0; 4].into() };
            let socket = UdpSocket::bind((any, port)).unwrap();
            for to in to.iter().filter(|to| to.is_ipv6() == ipv6) {
                // The error of an earlier datagram, to a port where nobody listens, is told here.
                let _first = socket
                    .send_to(b"?", to)
                    .or_else(|_| socket.send_to(b"?", to));
            }
        }
    });
}

fn forget(kernel: &Kernel, flows: &[&Flows]) {
    kernel.conntrack.forget(flows);
    kernel.conntrack.settle();
}

/// What is tracked of a protocol: original destination and who answers, in order.
fn seen(protocol: Protocol) -> Vec<(SocketAddr, SocketAddr)> {
    let mut seen: Vec<_> = tracked()
        .into_iter()
        .filter(|(number, ..)| *number == protocol.number())
        .map(|(_, to, owner)| (to, owner))
        .collect();
    seen.sort();
    seen
}

fn flows(protocol: Protocol, ipv6: bool, port: u16, stale: Stale) -> Flows {
    Flows {
        protocol,
        to: None,
        ipv6,
        ports: PortRange::one(port).unwrap(),
        from: None,
        stale,
    }
}

fn sorted(mut places: Vec<(SocketAddr, SocketAddr)>) -> Vec<(SocketAddr, SocketAddr)> {
    places.sort();
    places
}

#[test]
fn a_flow_that_began_before_its_port_was_published_is_forgotten_and_only_that() {
    on_host(0, |kernel| {
        with_owner(kernel);
        let to: Vec<SocketAddr> = HOST
            .into_iter()
            .zip(["10.9.0.3", "fd09::3"])
            .flat_map(|(host, neighbour)| [at(host, 5000), at(host, 5001), at(neighbour, 5000)])
            .collect();
        send(kernel, "sb4", 4000, &to);
        let all = sorted(to.iter().map(|to| (*to, *to)).collect());
        assert_eq!(seen(Protocol::Udp), all);
        for (host, ipv6) in HOST.into_iter().zip([false, true]) {
            let began = flows(Protocol::Udp, ipv6, 5000, Stale::Untranslated);
            let mut elsewhere = began.clone();
            elsewhere.to = Some(
                host.replace(":1", ":7")
                    .replace(".1", ".7")
                    .parse()
                    .unwrap(),
            );
            let count = seen(Protocol::Udp).len();
            forget(kernel, &[&elsewhere]);
            assert_eq!(seen(Protocol::Udp).len(), count, "another address");
            forget(kernel, &[&began]);
            let left = seen(Protocol::Udp);
            assert_eq!(left.len(), count - 1, "{left:?}");
            assert!(!left.contains(&(at(host, 5000), at(host, 5000))));
        }
        publish();
        send(kernel, "sb4", 4000, &[at(HOST[0], 5000)]);
        let led = (at(HOST[0], 5000), at(OWNER[0], 80));
        assert!(seen(Protocol::Udp).contains(&led), "now it is translated");
    });
}

#[test]
fn flows_to_the_former_owner_go_and_those_of_other_ports_and_clients_stay() {
    on_host(0, |kernel| {
        with_owner(kernel);
        publish();
        for (host, owner, ipv6) in [(HOST[0], OWNER[0], false), (HOST[1], OWNER[1], true)] {
            let to = [at(host, 5000), at(host, 5100), at(owner, 80)];
            send(kernel, "sb4", 4000, &to);
            send(kernel, "sb3", 4000, &to[..1]);
            let owner_at = at(owner, 80);
            let five_thousand = (at(host, 5000), owner_at);
            let others = sorted(vec![(at(host, 5100), owner_at), (owner_at, owner_at)]);
            let of_family = || -> Vec<_> {
                let all = seen(Protocol::Udp);
                all.into_iter()
                    .filter(|(to, _)| to.is_ipv6() == ipv6)
                    .collect()
            };
            let count = |seen: &[_]| seen.iter().filter(|one| **one == five_thousand).count();
            assert_eq!(count(&of_family()), 2, "{:?}", of_family());

            let mut stale = flows(
                Protocol::Udp,
                ipv6,
                5000,
                Stale::Towards(owner.parse().unwrap()),
            );
            let other = flows(
                Protocol::Udp,
                ipv6,
                5000,
                Stale::Towards(host.parse().unwrap()),
            );
            forget(kernel, &[&other]);
            assert_eq!(count(&of_family()), 2, "not its owner");
            let client = if ipv6 { "fd09::3/128" } else { "10.9.0.3/32" };
            stale.from = Some(client.parse().unwrap());
            forget(kernel, &[&stale]);
            assert_eq!(count(&of_family()), 1, "only of one client");
            stale.from = None;
            forget(kernel, &[&other, &stale]);
            assert_eq!(of_family(), others);
        }
    });
}

#[test]
fn an_established_connection_to_the_former_owner_ends() {
    on_host(0, |kernel| {
        with_owner(kernel);
        publish();
        let listener = inside(kernel, "sb2", || TcpListener::bind("[::]:80").unwrap());
        let open = |port| {
            inside(kernel, "sb4", || {
                TcpStream::connect(at(HOST[0], port)).unwrap()
            })
        };
        let (mut moved, mut kept) = (open(5000), open(5100));
        let _ends = [listener.accept().unwrap(), listener.accept().unwrap()];
        assert_eq!(seen(Protocol::Tcp).len(), 2);
        let owner = Stale::Towards(OWNER[0].parse().unwrap());
        forget(kernel, &[&flows(Protocol::Udp, false, 5000, owner)]);
        assert_eq!(seen(Protocol::Tcp).len(), 2, "another protocol");
        forget(kernel, &[&flows(Protocol::Tcp, false, 5000, owner)]);
        let left = seen(Protocol::Tcp);
        assert_eq!(left, [(at(HOST[0], 5100), at(OWNER[0], 80))]);
        for stream in [&mut moved, &mut kept] {
            let _either = stream.write_all(b"?");
        }
    });
}

#[test]
fn a_redirected_packet_tells_what_it_was_meant_for() {
    on_host(0, |kernel| {
        with_owner(kernel);
        publish();
        let relay = UdpSocket::bind("[::]:5301").unwrap();
        relay
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        for (host, gateway) in HOST.into_iter().zip(["10.9.0.1", "fd09::1"]) {
            let meant = at(host, 5300);
            send(kernel, "sb4", 4000, &[meant]);
            let mut buffer = [0; 8];
            // A client of the other family is shown as a mapped address, as the relay will see it.
            let (_, client) = relay.recv_from(&mut buffer).unwrap();
            let local = at(gateway, 5301);
            let found = kernel.original_destination(Protocol::Udp, client, local);
            assert_eq!(found.unwrap(), Some(meant));
            let mut stranger = client;
            stranger.set_port(4001);
            let found = kernel.original_destination(Protocol::Udp, stranger, local);
            assert_eq!(found.unwrap(), None);
            let found = kernel.original_destination(Protocol::Tcp, client, local);
            assert_eq!(found.unwrap(), None);
        }
        let mixed = kernel.original_destination(Protocol::Udp, at("::2", 1), at("10.0.0.1", 2));
        assert!(mixed.is_err());
    });
}

#[test]
fn more_flows_than_are_forgotten_together_all_go() {
    on_host(0, |kernel| {
        with_owner(kernel);
        publish();
        let quiet = Instant::now();
        let owner = Stale::Towards(OWNER[0].parse().unwrap());
        let stale = flows(Protocol::Udp, false, 5000, owner);
        forget(kernel, &[&stale]);
        let empty = quiet.elapsed();
        let count = crate::limits::FORGOTTEN_TOGETHER + 500;
        inside(kernel, "sb4", || {
            for port in 0..count {
                let socket = UdpSocket::bind(("0.0.0.0", 10_000 + port as u16)).unwrap();
                socket.send_to(b"?", at(HOST[0], 5000)).unwrap();
            }
        });
        send(kernel, "sb4", 4000, &[at(HOST[0], 5100)]);
        let there = seen(Protocol::Udp).len();
        assert_eq!(there, count + 1);
        let begun = Instant::now();
        forget(kernel, &[&stale]);
        println!("forgot {count} in {:?}; none in {empty:?}", begun.elapsed());
        assert_eq!(seen(Protocol::Udp).len(), 1);
    });
}
