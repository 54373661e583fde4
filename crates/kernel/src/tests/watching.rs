use std::time::{Duration, Instant};

use tombolo_netstate::object::listener::{ListenerKey, ListenerSpec};
use tombolo_netstate::{Key, Objects, Spec};

use super::scenery::{endpoint, must_apply, name, network, on_host, owned, run};
use crate::{Change, Kernel, Watch};

/// Collects what a watch tells until `enough` is content, on a thread of its own.
fn told(mut watch: Watch, act: impl FnOnce(), wanted: &[Change]) {
    let stopper = watch.stopper();
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for change in watch.by_ref() {
            if sender.send(change).is_err() {
                return;
            }
        }
    });
    act();
    let until = Instant::now() + Duration::from_secs(3);
    let mut seen = Vec::new();
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if wanted.iter().all(|change| seen.contains(change)) {
            break;
        }
        seen.extend(receiver.recv_timeout(left));
    }
    stopper.stop();
    reader.join().unwrap();
    for change in wanted {
        assert!(seen.contains(change), "{change:?} is not among {seen:?}");
    }
}

fn with_network(kernel: &Kernel) -> Objects {
    let mut wanted = Objects::new();
    network(&mut wanted, "tb0");
    endpoint(&mut wanted, 11, "tb0");
    must_apply(kernel, &wanted, &Objects::new());
    wanted
}

#[test]
fn a_removed_namespace_with_a_listener_is_told() {
    on_host(0, |kernel| {
        let before = with_network(kernel);
        let mut wanted = before.clone();
        let key = ListenerKey {
            netns: owned("sb11"),
            address: "127.0.0.11".parse().unwrap(),
            port: 53,
        };
        wanted.insert(Key::Listener(key), Spec::Listener(ListenerSpec));
        must_apply(kernel, &wanted, &before);
        let path = kernel.netns_path("sb11");
        let path = path.to_str().unwrap();
        let act = || {
            run("umount", &[path]);
            run("rm", &[path]);
        };
        let change = Change::NetnsGone("sb11".into());
        told(kernel.watch().unwrap(), act, &[change]);
        // The veth goes once the listener is closed, and is made anew.
        let act = || drop(kernel.observe(&super::scenery::scope_of(&wanted)).unwrap());
        let change = Change::LinkGone(name("tv11"));
        told(kernel.watch().unwrap(), act, &[change]);
        let seen = kernel.observe(&super::scenery::scope_of(&wanted)).unwrap();
        must_apply(kernel, &wanted, &seen.objects);
        super::scenery::assert_holds(kernel, &wanted);
    });
}

#[test]
fn what_others_break_is_told() {
    on_host(0, |kernel| {
        with_network(kernel);
        let cases: [(&str, Change); 8] = [
            (
                "ip neigh del 10.9.0.11 dev tb0",
                Change::NeighbourGone(name("tb0"), "10.9.0.11".parse().unwrap()),
            ),
            (
                "ip addr del fd09::1/64 dev tb0",
                Change::AddressGone(name("tb0"), "fd09::1".parse().unwrap()),
            ),
            (
                "bridge fdb del 02:00:00:00:02:0b dev tv11 master",
                Change::FdbGone(name("tb0"), "02:00:00:00:02:0b".parse().unwrap()),
            ),
            ("ip link set tb0 mtu 1400", Change::LinkChanged(name("tb0"))),
            ("ip link del tv11", Change::LinkGone(name("tv11"))),
            (
                "nft delete table inet tombolo",
                Change::NftChanged { by_us: false },
            ),
            ("ip link add d0 type bridge", Change::RoutesChanged),
            ("ip link del tb0", Change::LinkGone(name("tb0"))),
        ];
        for (damage, change) in cases {
            let act = || {
                let words: Vec<&str> = damage.split(' ').collect();
                run(words[0], &words[1..]);
                if damage.contains("add d0") {
                    run("ip", &["link", "set", "d0", "up"]);
                }
            };
            told(kernel.watch().unwrap(), act, &[change]);
        }
    });
}

#[test]
fn our_own_attach_and_detach_are_not_taken_for_damage() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let mut watch = kernel.watch().unwrap();
        let stopper = watch.stopper();
        let before = wanted.clone();
        endpoint(&mut wanted, 11, "tb0");
        must_apply(kernel, &wanted, &before);
        must_apply(kernel, &before, &wanted);
        must_apply(kernel, &Objects::new(), &before);
        stopper.stop();
        let seen: Vec<Change> = watch.by_ref().collect();
        let tells_of_port =
            |change: &Change| matches!(change, Change::LinkGone(link) if link.as_str() == "tv11");
        assert!(!seen.iter().any(tells_of_port), "{seen:?}");
        assert!(
            seen.contains(&Change::NftChanged { by_us: true }),
            "{seen:?}"
        );
        assert!(
            !seen.contains(&Change::NftChanged { by_us: false }),
            "{seen:?}"
        );
    });
}

#[test]
fn facts_of_a_host_name_its_uplink_and_its_obstacles() {
    on_host(0, |kernel| {
        with_network(kernel);
        run(
            "ip",
            &["link", "add", "up0", "mtu", "1400", "type", "bridge"],
        );
        run("ip", &["addr", "add", "192.0.2.2/24", "dev", "up0"]);
        run("ip", &["link", "set", "up0", "up"]);
        run("ip", &["route", "add", "default", "via", "192.0.2.1"]);
        run("nft", &["add", "table", "ip", "other"]);
        let chain = "{ type filter hook forward priority -5 ; policy drop ; }";
        run("nft", &["add", "chain", "ip", "other", "through", chain]);
        let facts = kernel.host_facts().unwrap();
        let uplink = facts.uplinks[0];
        assert_eq!(
            (uplink.name, uplink.mtu, uplink.v4, uplink.v6),
            (name("up0"), 1400, true, false)
        );
        assert!(
            facts
                .routes
                .iter()
                .any(|route| route.destination.to_string() == "192.0.2.0/24")
        );
        assert!(
            facts
                .addresses
                .iter()
                .any(|address| address.net.to_string() == "192.0.2.2/24")
        );
        let bridge = facts
            .links
            .iter()
            .find(|link| link.name == name("tb0"))
            .unwrap();
        assert!(bridge.bridge && bridge.ours && bridge.up);
        assert!(facts.ipv6 && facts.boot_id.len() == 36 && facts.features.nft_nat);
        assert!(
            facts.features.veth && facts.features.bridge,
            "{:?}",
            facts.features
        );
        let diagnosis = kernel.diagnose().unwrap();
        let [chain] = &diagnosis.base_chains[..] else {
            panic!("{diagnosis:?}")
        };
        assert_eq!(
            (chain.family, chain.table.as_str(), chain.hook),
            ("ip", "other", "forward")
        );
        assert!(chain.drops && chain.priority == -5);
        // The limits are those of the whole machine, and shown in its first namespace alone.
        let shown = std::path::Path::new("/proc/sys/net/ipv4/neigh/default/gc_thresh3").exists();
        assert_eq!(
            diagnosis.neighbour_limits.is_empty(),
            !shown,
            "{diagnosis:?}"
        );
        let (path, inode) = crate::netns_of_pid(std::process::id()).unwrap();
        assert_eq!(crate::netns_inode(&path).unwrap(), inode);
        assert!(crate::netns_inode(std::path::Path::new("/etc/passwd")).is_err());
    });
}
