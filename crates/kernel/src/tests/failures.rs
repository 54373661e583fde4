use std::sync::Arc;

use tombolo_netstate::object::link::{LinkKey, LinkKind};
use tombolo_netstate::object::nft::{Field, SetName};
use tombolo_netstate::{Key, Netns, Objects, Outcome, Plan, Report, Spec};

use super::scenery::{
    assert_holds, bridge, element, endpoint, link_key, must_apply, name, network, on_host, owned,
    plan, run, scope_of, veth,
};
use crate::limits::{GROUP_GRAVEYARD, GROUP_NURSERY, NURSERY_AGE};

fn outcome<'a>(plan: &Plan, report: &'a Report, key: &Key) -> &'a Outcome {
    let place = plan.ops.iter().position(|op| op.key == *key).unwrap();
    &report.outcomes[place]
}

fn failed(outcome: &Outcome) -> (&str, bool) {
    match outcome {
        Outcome::Failed { error, exists } => (error, *exists),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_foreign_link_is_left_alone_and_what_builds_on_ours_is_skipped() {
    on_host(0, |kernel| {
        run("ip", &["link", "add", "tb0", "type", "bridge"]);
        let before = run("ip", &["-d", "-o", "link", "show", "tb0"]);
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        endpoint(&mut wanted, 1, "tb0");
        let plan = plan(&wanted, &Objects::new());
        let report = kernel.apply(&plan);
        let bridge = Key::Link(link_key(&Netns::Host, "tb0"));
        let (error, exists) = failed(outcome(&plan, &report, &bridge));
        assert_eq!(
            error,
            "cannot create link tb0: EEXIST: a link of that name exists and is not ours"
        );
        assert!(!exists);
        let port = Key::Link(link_key(&Netns::Host, "tv1"));
        assert_eq!(
            outcome(&plan, &report, &port),
            &Outcome::Skipped {
                because: Box::new(bridge)
            }
        );
        let peer = Key::Link(link_key(&owned("sb1"), "eth0"));
        assert_eq!(
            outcome(&plan, &report, &peer),
            &Outcome::Skipped {
                because: Box::new(port)
            }
        );
        let done = plan
            .ops
            .iter()
            .zip(&report.outcomes)
            .filter(|(_, outcome)| outcome.is_done());
        let kinds: Vec<&str> = done.map(|(op, _)| op.key.kind()).collect();
        assert!(
            kinds.contains(&"netns") && kinds.contains(&"nft-base") && kinds.contains(&"element")
        );
        assert!(
            !kinds.contains(&"address") && !kinds.contains(&"route"),
            "{kinds:?}"
        );
        assert_eq!(run("ip", &["-d", "-o", "link", "show", "tb0"]), before);
        // What was made is removed again, and the foreign link outlives that too.
        let mut believed = Objects::new();
        let _leaving = report.record(&plan, &mut believed);
        must_apply(kernel, &Objects::new(), &believed);
        assert_eq!(run("ip", &["-d", "-o", "link", "show", "tb0"]), before);
    });
}

#[test]
fn a_name_taken_inside_the_sandbox_is_told() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        veth(&mut wanted, 1, "tb0");
        let (netns, rest): (Objects, Objects) = wanted
            .into_iter()
            .partition(|(key, _)| matches!(key, Key::Netns(_)));
        must_apply(kernel, &netns, &Objects::new());
        let inside = format!("--net={}", kernel.netns_path("sb1").display());
        run(
            "nsenter",
            &[&inside, "ip", "link", "add", "eth0", "type", "bridge"],
        );
        let plan = plan(&rest, &Objects::new());
        let report = kernel.apply(&plan);
        let (error, exists) = failed(outcome(
            &plan,
            &report,
            &Key::Link(link_key(&Netns::Host, "tv1")),
        ));
        assert_eq!(
            error,
            "cannot create link tv1: EEXIST: a link sb1:eth0 exists and is not ours"
        );
        assert!(!exists);
    });
}

#[test]
fn a_namespace_that_became_another_is_refused_and_counts_as_gone() {
    on_host(0, |kernel| {
        let path = kernel.netns_path("sb1");
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        veth(&mut wanted, 1, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let adopted = Netns::Adopted {
            path: Arc::from(path.as_path()),
            inode: 1,
        };
        let mut other = Objects::new();
        super::scenery::address(&mut other, &adopted, "eth0", "10.9.0.9", 32);
        let make = plan(&other, &Objects::new());
        let report = kernel.apply(&make);
        let (error, exists) = failed(&report.outcomes[0]);
        assert!(
            error.contains("is another network namespace now") && !exists,
            "{error}"
        );
        assert!(kernel.apply(&plan(&Objects::new(), &other)).is_done());
        let inode = crate::netns_inode(&path).unwrap();
        let adopted = Netns::Adopted {
            path: Arc::from(path.as_path()),
            inode,
        };
        let mut right = Objects::new();
        super::scenery::address(&mut right, &adopted, "eth0", "10.9.0.9", 32);
        must_apply(kernel, &right, &Objects::new());
    });
}

#[test]
fn one_bad_element_does_not_keep_out_the_others() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        let good = wanted.clone();
        // Overlaps a subnet that is there.
        let overlap = Field::Net("10.9.0.128/25".parse().unwrap());
        element(&mut wanted, SetName::Masquerade4, vec![overlap], vec![]);
        // Not of the set's type.
        let strange = Field::Net("fd00::/64".parse().unwrap());
        element(&mut wanted, SetName::Snat4, vec![strange], vec![strange]);
        let plan = plan(&wanted, &Objects::new());
        let report = kernel.apply(&plan);
        let errors: Vec<&str> = report
            .outcomes
            .iter()
            .filter(|outcome| !outcome.is_done())
            .map(|outcome| failed(outcome).0)
            .collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(
            errors
                .iter()
                .any(|error| error.contains("the fields are not those of the set"))
        );
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        let there = |(key, _): &(&Key, &Spec)| seen.contains_key(key);
        assert!(
            good.iter().filter(there).count() >= good.len() - 1,
            "{seen:?}"
        );
    });
}

#[test]
fn what_an_earlier_process_left_half_done_does_not_stand_in_the_way() {
    on_host(0, |kernel| {
        for (link, group) in [("tb0", GROUP_NURSERY), ("tv1", GROUP_GRAVEYARD)] {
            run("ip", &["link", "add", link, "type", "bridge"]);
            run("ip", &["link", "set", link, "group", &group.to_string()]);
        }
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        veth(&mut wanted, 1, "tb0");
        std::fs::write(kernel.netns_path("sb1"), "").unwrap();
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
    });
}

#[test]
fn numbers_taken_by_others_are_passed_over() {
    on_host(0, |kernel| {
        let (next, _) = kernel.new_indexes();
        for n in 1..=3 {
            let index = (next + 2 * n).to_string();
            run(
                "ip",
                &[
                    "link",
                    "add",
                    &format!("d{n}"),
                    "index",
                    &index,
                    "type",
                    "bridge",
                ],
            );
        }
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        assert!(!run("ip", &["-d", "-o", "link", "show", "d1"]).contains("tombolo:"));
    });
}

#[test]
fn a_foreign_link_in_our_name_is_not_removed() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        run("ip", &["link", "del", "tb0"]);
        run("ip", &["link", "add", "tb0", "type", "bridge"]);
        must_apply(kernel, &Objects::new(), &wanted);
        assert!(run("ip", &["-o", "link"]).contains("tb0"));
    });
}

#[test]
fn a_veth_within_the_host_joins_two_bridges() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        bridge(&mut wanted, "tb1");
        veth(&mut wanted, 1, "tb1");
        let inner = Key::Link(link_key(&owned("sb1"), "eth0"));
        let Some(Spec::Link(mut peer)) = wanted.remove(&inner) else {
            panic!("no other end")
        };
        wanted.retain(|key, _| !matches!(key, Key::Netns(_)));
        let peer_key = LinkKey {
            netns: Netns::Host,
            name: name("tu1"),
        };
        let Some(Spec::Link(outer)) = wanted.get_mut(&Key::Link(link_key(&Netns::Host, "tv1")))
        else {
            panic!("no veth")
        };
        outer.kind = LinkKind::Veth {
            peer: peer_key.clone(),
            peer_mac: peer.mac,
        };
        peer.port = outer.port.clone();
        if let Some(port) = &mut peer.port {
            port.bridge = name("tb0");
            port.isolated = false;
        }
        peer.ipv6 = false;
        wanted.insert(Key::Link(peer_key), Spec::Link(peer));
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
    });
}

#[test]
fn what_an_earlier_process_left_half_done_is_cleared_away() {
    on_host(0, |_| {
        for (link, group) in [
            ("left1", GROUP_NURSERY),
            ("left2", GROUP_GRAVEYARD),
            ("other", 7),
        ] {
            run("ip", &["link", "add", link, "type", "bridge"]);
            run("ip", &["link", "set", link, "group", &group.to_string()]);
        }
        let directory = tempfile::tempdir().unwrap();
        let config = crate::KernelConfig {
            run_dir: directory.path().to_owned(),
            instance: "next".into(),
            pool: 0,
            ports: None,
        };
        let next = crate::Kernel::open(config).unwrap();
        let until = std::time::Instant::now() + 3 * NURSERY_AGE;
        loop {
            let links = run("ip", &["-o", "link"]);
            assert!(links.contains("other"), "{links}");
            if !links.contains("left1") && !links.contains("left2") {
                break;
            }
            assert!(std::time::Instant::now() < until, "{links}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        crate::sys::unmount(&next.netns_path("")).unwrap();
    });
}
