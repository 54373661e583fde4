//! Ports that lead past bridging, and bridges that route loopback addresses.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tombolo_netstate::object::link::LinkKind;
use tombolo_netstate::{Action, Key, Netns, Objects, Op, Plan, Spec};

use super::scenery::{
    address, assert_holds, bridge, endpoint, link_key, must_apply, name, network, on_host, owned,
    plan, run, scope_of, succeeds_in, veth,
};
use crate::netlink::link;
use crate::{Kernel, sys};

const PATIENCE: Duration = Duration::from_millis(400);

/// Runs `work` on a thread in a sandbox.
pub(super) fn inside<T: Send>(
    kernel: &Kernel,
    sandbox: &str,
    work: impl FnOnce() -> T + Send,
) -> T {
    let namespace = File::open(kernel.netns_path(sandbox)).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sys::enter_netns(namespace.as_fd()).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn set_direct(objects: &mut Objects, port: &str, direct: Option<&str>) {
    let key = Key::Link(link_key(&Netns::Host, port));
    let Some(Spec::Link(spec)) = objects.get_mut(&key) else {
        panic!("no {port}");
    };
    spec.port.as_mut().unwrap().direct = direct.map(name);
}

fn set_localnet(objects: &mut Objects, bridge: &str, wanted: bool) {
    let key = Key::Link(link_key(&Netns::Host, bridge));
    let Some(Spec::Link(spec)) = objects.get_mut(&key) else {
        panic!("no {bridge}");
    };
    let LinkKind::Bridge { localnet, .. } = &mut spec.kind else {
        panic!("{bridge} is no bridge");
    };
    *localnet = wanted;
}

/// A hub with endpoints 2 and 3.
fn hub(direct: Option<&str>) -> Objects {
    let mut objects = Objects::new();
    network(&mut objects, "tb0");
    for number in [2, 3] {
        endpoint(&mut objects, number, "tb0");
        set_direct(&mut objects, &format!("tv{number}"), direct);
    }
    objects
}

#[test]
fn direct_and_localnet_read_back_and_go_both_ways() {
    on_host(0, |kernel| {
        let mut there = Objects::new();
        for (direct, localnet) in [
            (Some("tb0"), true),
            (None, false),
            (Some("tb0"), false),
            (Some("tb0"), true),
            (None, true),
        ] {
            let mut wanted = hub(direct);
            set_localnet(&mut wanted, "tb0", localnet);
            must_apply(kernel, &wanted, &there);
            assert_holds(kernel, &wanted);
            let read = kernel.read_sysctl("net/ipv4/conf/tb0/route_localnet");
            assert_eq!(read.unwrap(), if localnet { "1" } else { "0" });
            there = wanted;
        }
    });
}

#[test]
fn a_port_is_led_to_another_bridge() {
    on_host(0, |kernel| {
        let mut wanted = hub(Some("tb0"));
        bridge(&mut wanted, "tb1");
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        let before = wanted.clone();
        set_direct(&mut wanted, "tv3", Some("tb1"));
        must_apply(kernel, &wanted, &before);
        assert_holds(kernel, &wanted);
    });
}

#[test]
fn spoilt_filters_are_seen_and_repaired() {
    on_host(0, |kernel| {
        let wanted = hub(Some("tb0"));
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        let hub = kernel
            .with_host(|socket, buffer| link::get_by_name(socket, name("tb0"), buffer))
            .unwrap()
            .unwrap();
        let block = hub.index.to_string();
        let damages: [&[&str]; 3] = [
            &["qdisc", "del", "dev", "tv2", "clsact"],
            &["filter", "del", "block", &block],
            &["qdisc", "replace", "dev", "tv3", "root", "pfifo"],
        ];
        for (damage, harmful) in damages.into_iter().zip([true, true, false]) {
            run("tc", damage);
            let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
            assert_eq!(seen != wanted, harmful, "{damage:?}");
            must_apply(kernel, &wanted, &seen);
            assert_holds(kernel, &wanted);
        }
    });
}

/// Answers every connection and datagram at port 80 with its name until told to stop.
fn serve(name: &str, ready: &AtomicBool, stop: &AtomicBool) {
    let listener = TcpListener::bind("[::]:80").unwrap();
    let socket = UdpSocket::bind("[::]:80").unwrap();
    listener.set_nonblocking(true).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    ready.store(true, Ordering::Relaxed);
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((mut stream, _)) = listener.accept() {
            let _gone = stream.write_all(name.as_bytes());
        }
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _gone = socket.send_to(name.as_bytes(), from);
        }
    }
}

/// What answers there, over TCP and over UDP.
fn answers(at: &str) -> [Option<String>; 2] {
    let at: SocketAddr = at.parse().unwrap();
    let tcp = TcpStream::connect_timeout(&at, PATIENCE)
        .ok()
        .and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        });
    let any = if at.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let udp = socket.send_to(b"?", at).ok().and_then(|_| {
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from, at, "the answer comes from where it was asked");
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    [tcp, udp]
}

/// Translation as it would be for a published port 8080 of endpoint 2.
const TRANSLATION: &str = "table inet published {
    chain pre { type nat hook prerouting priority dstnat;
        ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.9.0.2:80
        ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd09::2]:80
    }
    chain post { type nat hook postrouting priority srcnat;
        ip saddr 10.9.0.2 ip daddr 10.9.0.2 masquerade
        ip6 saddr fd09::2 ip6 daddr fd09::2 masquerade
    }
}";

fn set_bridge_netfilter(on: bool) {
    for family in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        match std::fs::write(&path, if on { "1" } else { "0" }) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.unwrap(),
        }
    }
}

/// A hub whose endpoint 2 has a published port, and a place outside.
fn published(kernel: &Kernel) -> Objects {
    let mut wanted = hub(None);
    bridge(&mut wanted, "tb9");
    address(&mut wanted, &Netns::Host, "tb9", "198.51.100.1", 24);
    veth(&mut wanted, 9, "tb9");
    address(&mut wanted, &owned("sb9"), "eth0", "198.51.100.2", 24);
    let port = Key::Link(link_key(&Netns::Host, "tv9"));
    if let Some(Spec::Link(spec)) = wanted.get_mut(&port) {
        spec.port.as_mut().unwrap().flood = true;
    }
    must_apply(kernel, &wanted, &Objects::new());
    for ip in ["192.0.2.1/32", "2001:db8::1/128"] {
        run("ip", &["addr", "add", ip, "dev", "lo"]);
    }
    run("nft", &[TRANSLATION]);
    wanted
}

#[test]
fn sandboxes_reach_a_published_port_of_their_own_bridge_whatever_bridge_netfilter_does() {
    on_host(0, |kernel| {
        let mut wanted = published(kernel);
        let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| inside(kernel, "sb2", || serve("two", &ready, &stop)));
            while !ready.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let all = |what: Option<&str>| [what.map(str::to_owned), what.map(str::to_owned)];
            let mut verdicts = Vec::new();
            for direct in [None, Some("tb0")] {
                let before = wanted.clone();
                for port in ["tv2", "tv3"] {
                    set_direct(&mut wanted, port, direct);
                }
                must_apply(kernel, &wanted, &before);
                for netfilter in [true, false] {
                    set_bridge_netfilter(netfilter);
                    for from in ["sb3", "sb2"] {
                        for at in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
                            let heard = inside(kernel, from, || answers(at));
                            let case = (direct, netfilter, from, at);
                            verdicts.push((case, heard == all(Some("two")), heard));
                        }
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            for ((direct, netfilter, from, at), reached, heard) in &verdicts {
                // Without it, the other end of a translation on the same bridge is not found.
                let works = direct.is_some() || !netfilter;
                assert_eq!(
                    *reached, works,
                    "direct {direct:?}, bridge netfilter {netfilter}, {from} to {at}: {heard:?}"
                );
            }
        });
    });
}

#[test]
fn ordinary_traffic_of_direct_ports_is_unharmed() {
    on_host(0, |kernel| {
        let before = published(kernel);
        let mut wanted = before.clone();
        for port in ["tv2", "tv3"] {
            set_direct(&mut wanted, port, Some("tb0"));
        }
        must_apply(kernel, &wanted, &before);
        for netfilter in [true, false] {
            set_bridge_netfilter(netfilter);
            for to in ["10.9.0.1", "fd09::1", "10.9.0.3", "fd09::3", "198.51.100.2"] {
                let ping = ["ping", "-c", "1", "-W", "1", to];
                assert!(succeeds_in(kernel, "sb2", &ping), "{to}, {netfilter}");
            }
            // Larger than the link: segments and fragments must pass as they would otherwise.
            for to in ["10.9.0.3", "fd09::3", "198.51.100.2"] {
                let ping = ["ping", "-c", "1", "-W", "1", "-s", "4000", to];
                assert!(succeeds_in(kernel, "sb2", &ping), "{to}, {netfilter}");
            }
            for place in ["sb3", "sb9"] {
                let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
                std::thread::scope(|scope| {
                    scope.spawn(|| inside(kernel, place, || serve(place, &ready, &stop)));
                    while !ready.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let at = if place == "sb3" {
                        "10.9.0.3:80"
                    } else {
                        "198.51.100.2:80"
                    };
                    let heard = inside(kernel, "sb2", || answers(at));
                    stop.store(true, Ordering::Relaxed);
                    let both = [Some(place.to_owned()), Some(place.to_owned())];
                    assert_eq!(heard, both, "{at}, {netfilter}");
                });
            }
        }
    });
}

#[test]
fn nothing_passes_a_closed_port() {
    for direct in [None, Some("tb0")] {
        on_host(0, |kernel| {
            let wanted = hub(direct);
            must_apply(kernel, &wanted, &Objects::new());
            let host = UdpSocket::bind("10.9.0.1:9000").unwrap();
            host.set_read_timeout(Some(PATIENCE)).unwrap();
            let arrives = || {
                inside(kernel, "sb2", || {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    socket.send_to(b"?", "10.9.0.1:9000").unwrap();
                });
                host.recv_from(&mut [0; 8]).is_ok()
            };
            assert!(arrives());
            let key = Key::Link(link_key(&Netns::Host, "tv2"));
            let action = Action::Close(wanted[&key].clone());
            let close = Plan {
                ops: vec![Op { key, action }],
                edges: Vec::new(),
            };
            assert!(kernel.apply(&close).is_done());
            assert!(!arrives(), "direct {direct:?}");
        });
    }
}

#[test]
fn attaching_a_direct_port_costs_little_more() {
    on_host(0, |kernel| {
        let mut there = Objects::new();
        network(&mut there, "tb0");
        must_apply(kernel, &there, &Objects::new());
        let mut times = [Vec::new(), Vec::new()];
        for number in 2..=120 {
            let before = there.clone();
            endpoint(&mut there, number, "tb0");
            let direct = number % 2 == 1;
            if direct {
                set_direct(&mut there, &format!("tv{number}"), Some("tb0"));
            }
            let make = plan(&there, &before);
            let begun = Instant::now();
            let report = kernel.apply(&make);
            times[usize::from(direct)].push(begun.elapsed());
            assert!(report.is_done(), "{:?}", report.failure(&make));
        }
        let medians = times.map(|mut times| {
            times.sort();
            times[times.len() / 2]
        });
        println!("attach: plain {:?}, direct {:?}", medians[0], medians[1]);
        // Generous: what must not be in it is a grace period of the kernel, which takes several milliseconds.
        assert!(
            medians[1] < medians[0] + Duration::from_millis(5),
            "{medians:?}"
        );
    });
}
