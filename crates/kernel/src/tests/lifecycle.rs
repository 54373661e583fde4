use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tombolo_netstate::{Edge, Key, Netns, Objects, Outcome, Plan, Spec};

use super::scenery::{
    address, assert_holds, bridge, endpoint, endpoint_mac, link_key, must_apply, network, on_host,
    owned, plan, run, scope_of, succeeds_in, veth,
};
use crate::limits::GROUP_GRAVEYARD;
use crate::{Kernel, Scope};

fn wait_gone(
    kernel: &Kernel,
    gone: &std::sync::mpsc::Receiver<Vec<Key>>,
    count: usize,
) -> Vec<Key> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(gone.recv_timeout(Duration::from_secs(5)).unwrap());
    }
    assert!(kernel.gone().is_none(), "the receiver is handed out once");
    all
}

#[test]
fn what_was_applied_reads_back_equal_and_packets_flow_through_the_hub() {
    on_host(2, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        endpoint(&mut wanted, 11, "tb0");
        endpoint(&mut wanted, 12, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        // Both families at the first packet: nothing has to be learnt.
        for target in ["10.9.0.12", "fd09::12", "10.9.0.1", "fd09::1"] {
            let ping = ["ping", "-c1", "-W1", "-n", "-q", target];
            assert!(
                succeeds_in(kernel, "sb11", &ping),
                "{target} from the first endpoint"
            );
        }
        assert_holds(kernel, &wanted);
    });
}

#[test]
fn removal_leaves_nothing_and_says_so() {
    on_host(0, |kernel| {
        let gone = kernel.gone().unwrap();
        let before = (run("ip", &["-o", "link"]), run("nft", &["list", "ruleset"]));
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        endpoint(&mut wanted, 11, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let removal = plan(&Objects::new(), &wanted);
        let report = kernel.apply(&removal);
        assert!(report.is_done(), "{:?}", report.failure(&removal));
        assert!(report.outcomes.contains(&Outcome::Deferred), "{report:?}");
        let keys = wait_gone(kernel, &gone, 1);
        assert!(
            matches!(&keys[..], [Key::Link(key)] if key.name.as_str() == "tv11"),
            "{keys:?}"
        );
        let seen = kernel.observe(&scope_of(&wanted)).unwrap();
        // Settings are always shown, with the value of before.
        let left: Vec<&Key> = seen
            .objects
            .keys()
            .filter(|key| !matches!(key, Key::Sysctl(_)))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(kernel.read_sysctl("net/ipv4/ip_forward").unwrap(), "0");
        assert_eq!(
            (run("ip", &["-o", "link"]), run("nft", &["list", "ruleset"])),
            before
        );
        assert_eq!(std::fs::read_dir(kernel.netns_path("")).unwrap().count(), 0);
        // What is gone already counts as removed.
        assert!(kernel.apply(&removal).is_done());
    });
}

#[test]
fn forty_links_go_together() {
    on_host(0, |kernel| {
        let gone = kernel.gone().unwrap();
        let mut network = Objects::new();
        bridge(&mut network, "tb0");
        let mut wanted = network.clone();
        for number in 1..=40 {
            veth(&mut wanted, number, "tb0");
        }
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        let begun = Instant::now();
        must_apply(kernel, &network, &wanted);
        let replied = begun.elapsed();
        let mut keys = wait_gone(kernel, &gone, 40);
        let done = begun.elapsed();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 40);
        // One by one they would take some 40 times 16 ms.
        assert!(
            done < Duration::from_millis(500),
            "replied after {replied:?}, gone after {done:?}"
        );
        let group = GROUP_GRAVEYARD.to_string();
        assert_eq!(run("ip", &["-o", "link", "show", "group", &group]), "");
        assert_holds(kernel, &network);
    });
}

#[test]
fn a_replaced_port_is_made_anew_in_the_same_plan() {
    on_host(0, |kernel| {
        let mut first = Objects::new();
        bridge(&mut first, "tb0");
        let mut second = first.clone();
        veth(&mut first, 1, "tb0");
        veth(&mut first, 2, "tb0");
        must_apply(kernel, &first, &Objects::new());
        veth(&mut second, 1, "tb0");
        veth(&mut second, 2, "tb0");
        // The same name in the host, with the other end in another namespace.
        let moved = link_key(&Netns::Host, "tv1");
        let to = link_key(&owned("sb2"), "eth1");
        second.remove(&Key::Link(link_key(&owned("sb1"), "eth0")));
        let (mut outer, mut inner) = (None, None);
        for (key, spec) in &first {
            if let (Key::Link(key), Spec::Link(link)) = (key, spec) {
                if *key == moved {
                    outer = Some(link.clone());
                } else if key.netns == owned("sb1") {
                    inner = Some(link.clone());
                }
            }
        }
        let (mut outer, inner) = (outer.unwrap(), inner.unwrap());
        outer.kind = tombolo_netstate::object::link::LinkKind::Veth {
            peer: to.clone(),
            peer_mac: inner.mac,
        };
        second.insert(Key::Link(moved), Spec::Link(outer));
        second.insert(Key::Link(to), Spec::Link(inner));
        must_apply(kernel, &second, &first);
        assert_holds(kernel, &second);
    });
}

#[test]
fn a_prepared_namespace_is_as_good_as_a_new_one() {
    for pool in [0, 1, 3] {
        on_host(pool, |kernel| {
            let mut wanted = Objects::new();
            bridge(&mut wanted, "tb0");
            for number in 1..=5 {
                veth(&mut wanted, number, "tb0");
            }
            must_apply(kernel, &wanted, &Objects::new());
            assert_holds(kernel, &wanted);
            let own: std::collections::BTreeSet<u64> = (1..=5)
                .map(|number| {
                    crate::netns_inode(&kernel.netns_path(&format!("sb{number}"))).unwrap()
                })
                .collect();
            assert_eq!(own.len(), 5, "each is a namespace of its own");
            assert!(
                succeeds_in(kernel, "sb3", &["ping", "-c1", "-W1", "-q", "127.0.0.1"]),
                "lo is up"
            );
        });
    }
}

#[test]
fn the_host_alone_is_observed_with_what_is_remembered_of_sandboxes() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        veth(&mut wanted, 1, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let seen = kernel
            .observe(&Scope {
                host: true,
                ..Scope::default()
            })
            .unwrap();
        wanted.retain(|key, _| key.netns() == Netns::Host || matches!(key, Key::Netns(_)));
        assert_eq!(seen.objects, wanted);
    });
}

#[test]
fn attaching_does_not_wait_and_observing_is_quick() {
    on_host(4, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let mut times = Vec::new();
        for number in 2..=60 {
            let before = wanted.clone();
            endpoint(&mut wanted, number, "tb0");
            let plan = plan(&wanted, &before);
            let begun = Instant::now();
            let report = kernel.apply(&plan);
            times.push(begun.elapsed());
            assert!(report.is_done(), "{:?}", report.failure(&plan));
        }
        times.sort();
        let scope = scope_of(&wanted);
        let begun = Instant::now();
        let seen = kernel.observe(&scope).unwrap();
        let observed = begun.elapsed();
        assert_eq!(seen.objects, wanted);
        let median = times[times.len() / 2];
        println!("attach: median {median:?}; 59 sandboxes observed in {observed:?}");
        // Generous: a machine under load is slow, a synchronous wait in the way would be slower.
        assert!(median < Duration::from_millis(15), "{times:?}");
        assert!(observed < Duration::from_millis(500), "{observed:?}");
    });
}

#[test]
fn neighbours_learn_an_announced_address() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        for number in [11, 12] {
            veth(&mut wanted, number, "tb0");
            let inner = owned(&format!("sb{number}"));
            address(&mut wanted, &inner, "eth0", &format!("10.9.0.{number}"), 24);
            address(&mut wanted, &inner, "eth0", &format!("fd09::{number}"), 64);
        }
        // A plain network: everybody hears everybody.
        for spec in wanted.values_mut() {
            if let Spec::Link(link) = spec
                && let Some(port) = &mut link.port
            {
                port.isolated = false;
                port.flood = true;
            }
        }
        must_apply(kernel, &wanted, &Objects::new());
        for ip in ["10.9.0.11", "fd09::11"] {
            let stale = [
                "ip",
                "neigh",
                "add",
                ip,
                "lladdr",
                "02:00:00:00:99:99",
                "dev",
                "eth0",
                "nud",
                "stale",
            ];
            assert!(succeeds_in(kernel, "sb12", &stale));
            let mac = endpoint_mac(11);
            let edge = Edge::Announce {
                netns: owned("sb11"),
                link: super::scenery::name("eth0"),
                ip: ip.parse().unwrap(),
                mac,
            };
            let _report = kernel.apply(&Plan {
                ops: vec![],
                edges: vec![edge],
            });
            let asked = format!("ip neigh show {ip} | grep -q {mac}");
            let until = Instant::now() + Duration::from_secs(2);
            while !succeeds_in(kernel, "sb12", &["sh", "-c", &asked]) {
                assert!(
                    Instant::now() < until,
                    "{ip} is still thought to be elsewhere"
                );
            }
        }
        let here = std::fs::metadata("/proc/thread-self/ns/net").unwrap();
        let host = kernel.namespaces.file(&Netns::Host).unwrap();
        assert!(host.is_none());
        let first = run("stat", &["-L", "-c", "%i", "/proc/self/ns/net"]);
        assert_eq!(
            first.trim(),
            std::os::unix::fs::MetadataExt::ino(&here).to_string()
        );
    });
}

#[test]
fn several_threads_attach_and_detach_at_once() {
    on_host(2, |kernel| {
        let gone = kernel.gone().unwrap();
        let mut shared = Objects::new();
        network(&mut shared, "tb0");
        must_apply(kernel, &shared, &Objects::new());
        // A link that one thread has closed may go with the links of another, before its own removal.
        let deferred = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (shared, deferred) = (&shared, &deferred);
                scope.spawn(move || {
                    for round in 0..5 {
                        let mut mine = shared.clone();
                        endpoint(&mut mine, 10 + worker * 20 + round, "tb0");
                        must_apply(kernel, &mine, shared);
                        let down = plan(shared, &mine);
                        let report = kernel.apply(&down);
                        assert!(report.is_done(), "{:?}", report.failure(&down));
                        let count = report.outcomes.iter().filter(|o| **o == Outcome::Deferred);
                        deferred.fetch_add(count.count(), Ordering::Relaxed);
                    }
                });
            }
        });
        let _keys = wait_gone(kernel, &gone, deferred.into_inner());
        assert_holds(kernel, &shared);
    });
}
