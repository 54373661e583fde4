//! Links of others: taken into a sandbox, repaired there, and given back.

use std::sync::Arc;

use tombolo_netstate::object::link::{KEPT_MAC, KEPT_MTU, LinkKind, LinkSpec};
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::{Action, Key, Mac, Objects, Spec};

use super::scenery::{
    address, assert_holds, link_key, must_apply, name, on_host, owned, plan, run, scope_of,
    succeeds_in,
};

/// A sandbox with a taken link and an address on it.
fn taken(mac: Mac) -> Objects {
    let mut objects = Objects::new();
    let sandbox = owned("sb1");
    objects.insert(
        Key::Netns(NetnsKey {
            name: Arc::from("sb1"),
        }),
        Spec::Netns(NetnsSpec),
    );
    let spec = LinkSpec {
        kind: LinkKind::Taken { from: name("vp1") },
        mac,
        mtu: KEPT_MTU,
        port: None,
        ipv6: true,
        link_local: false,
        alias: Arc::from("endpoint/e1"),
    };
    objects.insert(
        Key::Link(link_key(&sandbox, "eth0")),
        Spec::Link(Box::new(spec)),
    );
    address(&mut objects, &sandbox, "eth0", "10.9.0.2", 24);
    address(&mut objects, &sandbox, "eth0", "fd09::2", 64);
    objects
}

fn plugin_link() {
    run(
        "ip",
        &[
            "link", "add", "vh1", "mtu", "1400", "type", "veth", "peer", "name", "vp1", "mtu",
            "1400",
        ],
    );
    run("ip", &["link", "set", "vh1", "up"]);
}

fn host_has(link: &str) -> bool {
    run("ip", &["-o", "link"]).contains(&format!(" {link}@"))
}

#[test]
fn a_link_of_others_is_taken_repaired_and_given_back_netns() {
    for mac in [KEPT_MAC, Mac([2, 0, 0, 0, 9, 9])] {
        on_host(0, |kernel| {
            plugin_link();
            let wanted = taken(mac);
            must_apply(kernel, &wanted, &Objects::new());
            assert_holds(kernel, &wanted);
            assert!(!host_has("vp1"), "it is in the sandbox");
            let inside = format!("--net={}", kernel.netns_path("sb1").display());
            let shown = run("nsenter", &[&inside, "ip", "-d", "link", "show", "eth0"]);
            assert!(shown.contains("mtu 1400"), "{shown}");
            assert_eq!(mac != KEPT_MAC, shown.contains(&mac.to_string()), "{shown}");
            for damage in ["link set eth0 down", "addr flush dev eth0"] {
                let words: Vec<&str> = damage.split(' ').collect();
                run("nsenter", &[&[inside.as_str(), "ip"], &words[..]].concat());
                let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
                let repair = plan(&wanted, &seen);
                assert!(!repair.is_empty(), "`{damage}` went unnoticed");
                let report = kernel.apply(&repair);
                assert!(report.is_done(), "{:?}\n{repair}", report.failure(&repair));
                let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
                let again = kernel.apply(&plan(&wanted, &seen));
                assert!(again.is_done(), "{again:?}");
                assert_holds(kernel, &wanted);
            }
            // The namespace goes, and is left by the link first.
            let going = plan(&Objects::new(), &wanted);
            assert!(
                matches!(&going.ops[0].action, Action::Delete(Spec::Link(_))),
                "{going}"
            );
            let report = kernel.apply(&going);
            assert!(report.is_done(), "{:?}", report.failure(&going));
            assert!(host_has("vp1") && host_has("vh1"));
            let shown = run("ip", &["link", "show", "vp1"]);
            assert!(!shown.contains("alias"), "{shown}");
            assert!(
                kernel
                    .observe(&scope_of(&wanted))
                    .unwrap()
                    .objects
                    .is_empty()
            );
        });
    }
}

#[test]
fn what_cannot_be_taken_stays_where_it_is_netns() {
    on_host(0, |kernel| {
        let wanted = taken(KEPT_MAC);
        let all = plan(&wanted, &Objects::new());
        let report = kernel.apply(&all);
        let (_, error) = report.failure(&all).unwrap();
        assert!(error.contains("has no link vp1"), "{error}");
        plugin_link();
        // A link that is in the way, inside.
        let inside = format!("--net={}", kernel.netns_path("sb1").display());
        let dummy = ["ip", "link", "add", "eth0", "type", "bridge"];
        run("nsenter", &[&[inside.as_str()], &dummy[..]].concat());
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        let rest = plan(&wanted, &seen);
        let report = kernel.apply(&rest);
        let (_, error) = report.failure(&rest).unwrap();
        assert!(error.contains("EEXIST"), "{error}");
        assert!(host_has("vp1"));
        assert!(succeeds_in(kernel, "sb1", &["ip", "link", "show", "eth0"]));
        // One that a killed daemon left marked on the host, or moved and not renamed.
        run("nsenter", &[inside.as_str(), "ip", "link", "del", "eth0"]);
        run(
            "ip",
            &[
                "link",
                "set",
                "vp1",
                "alias",
                "tombolo:test:endpoint/e1 taken vp1",
            ],
        );
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        assert!(
            !seen.keys().any(|key| matches!(key, Key::Link(_))),
            "{seen:?}"
        );
        let netns = kernel.netns_path("sb1").display().to_string();
        run("ip", &["link", "set", "vp1", "netns", &netns]);
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        let left = Key::Link(link_key(&owned("sb1"), "vp1"));
        assert!(seen.contains_key(&left), "{seen:?}");
        let report = kernel.apply(&plan(&wanted, &seen));
        assert!(
            !report.is_done(),
            "one comes back before the other is taken"
        );
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        must_apply(kernel, &wanted, &seen);
        assert_holds(kernel, &wanted);
    });
}

#[test]
fn links_of_the_host_itself_are_not_taken_netns() {
    on_host(0, |kernel| {
        for from in ["lo", "tb0"] {
            run(
                "ip",
                &[
                    "link",
                    "add",
                    "tb0",
                    "alias",
                    "tombolo:test:network/n",
                    "type",
                    "bridge",
                ],
            );
            let mut wanted = taken(KEPT_MAC);
            let key = Key::Link(link_key(&owned("sb1"), "eth0"));
            if let Some(Spec::Link(spec)) = wanted.get_mut(&key) {
                spec.kind = LinkKind::Taken { from: name(from) };
            }
            let all = plan(&wanted, &Objects::new());
            let report = kernel.apply(&all);
            assert!(report.failure(&all).is_some(), "{from}");
            run("ip", &["link", "show", from]);
            run("ip", &["link", "del", "tb0"]);
            let left = plan(
                &Objects::new(),
                &kernel.observe(&scope_of(&wanted)).unwrap().objects,
            );
            assert!(kernel.apply(&left).is_done());
        }
    });
}
