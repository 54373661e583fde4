//! What is lent to other engines, and what we have in namespaces that they made.

use std::collections::BTreeSet;
use std::sync::Arc;

use tombolo_netstate::object::detour::DetourKey;
use tombolo_netstate::object::link::{LinkKind, LinkSpec, Port};
use tombolo_netstate::object::nft::ruleset::{
    Base, Chain, ChainKind, Condition, Family, Hook, Rule, Selector, Verdict,
};
use tombolo_netstate::object::nft::{BaseSpec, Ruleset};
use tombolo_netstate::{Key, Mac, Netns, Objects, Spec};

use super::scenery::{
    assert_holds, bridge, link_key, must_apply, name, on_host, plan, run, scope_of,
};
use crate::netns_inode;
use crate::watch::Change;

const MARK: u32 = 0x746f_6d62;

fn lent(objects: &mut Objects, number: u8, on: &str) {
    let spec = LinkSpec {
        kind: LinkKind::Lent {
            name: name(&format!("tp{number}")),
        },
        mac: Mac([2, 0, 0, 0, 1, number]),
        mtu: 1450,
        port: Some(Port {
            bridge: name(on),
            isolated: true,
            flood: false,
            hairpin: false,
            direct: None,
        }),
        ipv6: false,
        link_local: false,
        alias: Arc::from(format!("endpoint/e{number}")),
    };
    let key = link_key(&Netns::Host, &format!("tv{number}"));
    objects.insert(Key::Link(key), Spec::Link(Box::new(spec)));
}

/// A namespace that somebody else made.
fn theirs(file: &str) -> Netns {
    let path = format!("/tmp/{file}-{}", std::process::id());
    run(
        "sh",
        &[
            "-c",
            &format!(": >{path}; unshare --net={path} ip link set lo up"),
        ],
    );
    let inode = netns_inode(std::path::Path::new(&path)).unwrap();
    let path = std::path::PathBuf::from(path).into();
    Netns::Adopted { path, inode }
}

fn path_of(netns: &Netns) -> String {
    let Netns::Adopted { path, .. } = netns else {
        panic!("somebody else's");
    };
    path.display().to_string()
}

fn inside(netns: &Netns, line: &str) -> String {
    let net = format!("--net={}", path_of(netns));
    run("nsenter", &[&net, "--", "sh", "-c", line])
}

fn removed(netns: &Netns) {
    run(
        "sh",
        &["-c", &format!("umount {0}; rm {0}", path_of(netns))],
    );
}

#[test]
fn netns_a_lent_link_is_known_wherever_its_other_end_is() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        lent(&mut wanted, 11, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        let other = run("ip", &["-o", "link", "show", "tp11"]);
        assert!(
            other.contains("mtu 1450") && !other.contains(",UP"),
            "{other}"
        );
        let mut watch = kernel.watch().unwrap();
        let stopper = watch.stopper();
        let engine = theirs("lent");
        run(
            "ip",
            &[
                "link",
                "set",
                "tp11",
                "netns",
                &path_of(&engine),
                "name",
                "eth0",
                "up",
            ],
        );
        assert_eq!(watch.next(), Some(Change::LinkGone(name("tp11"))));
        assert_holds(kernel, &wanted);
        // A change of ours reaches the host's end alone.
        let mut other_mtu = wanted.clone();
        for spec in other_mtu.values_mut() {
            if let Spec::Link(link) = spec {
                link.mtu = 1400;
            }
        }
        must_apply(kernel, &other_mtu, &wanted);
        assert_holds(kernel, &other_mtu);
        must_apply(kernel, &wanted, &other_mtu);
        // Given back, under the name that it was taken by.
        inside(&engine, "ip link set eth0 netns 1 name tp11 || true");
        let removal = plan(&Objects::new(), &wanted);
        assert!(kernel.apply(&removal).is_done());
        let seen = kernel.observe(&scope_of(&wanted)).unwrap();
        assert!(seen.objects.is_empty(), "{:?}", seen.objects);
        stopper.stop();
        removed(&engine);
    });
}

#[test]
fn netns_a_lent_link_that_its_engine_destroyed_is_made_anew() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        bridge(&mut wanted, "tb0");
        lent(&mut wanted, 11, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        run("ip", &["link", "delete", "tp11"]);
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        let repair = plan(&wanted, &seen);
        assert_eq!(repair.ops.len(), 1, "{repair}");
        assert!(kernel.apply(&repair).is_done());
        assert_holds(kernel, &wanted);
        run("ip", &["link", "show", "tp11"]);
    });
}

fn table() -> BaseSpec {
    let rule = Rule {
        when: vec![
            Condition::Family(Family::V4),
            Condition::Within(
                Selector::Destination(Family::V4),
                "127.0.0.11/32".parse().unwrap(),
            ),
            Condition::ToPort(53),
            Condition::Unmarked(MARK),
        ],
        verdict: Verdict::Untracked,
    };
    let base = Base {
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: -300,
    };
    let chain = Chain {
        name: "names",
        base: Some(base),
        rules: vec![rule],
    };
    let ruleset = Arc::new(Ruleset {
        sets: vec![],
        chains: vec![chain],
    });
    BaseSpec {
        digest: ruleset.digest(),
        ruleset,
    }
}

/// The rules by which an engine leads questions to its own resolver, and how many it has led there.
const ENGINES: &str = "nft -f - <<'EOF'
table ip nat {
  chain output { type nat hook output priority -100; ip daddr 127.0.0.11 udp dport 53 counter dnat to 127.0.0.11:5353; }
}
EOF";

fn led_away(netns: &Netns) -> bool {
    !inside(netns, "nft list chain ip nat output").contains("counter packets 0 ")
}

fn ask(netns: &Netns, mark: u32) {
    let program = format!(
        "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, 36, {mark}); s.sendto(b'x', ('127.0.0.11', 53))"
    );
    inside(netns, &format!("python3 -c \"{program}\""));
}

#[test]
fn netns_a_detour_leads_questions_past_an_engines_rules() {
    on_host(0, |kernel| {
        let engine = theirs("detour");
        inside(&engine, ENGINES);
        let key = DetourKey {
            netns: engine.clone(),
        };
        let wanted = Objects::from([(Key::Detour(key), Spec::Detour(table()))]);
        must_apply(kernel, &wanted, &Objects::new());
        assert_holds(kernel, &wanted);
        let listed = inside(&engine, "nft list table inet tombolo-names");
        let rule = "ip daddr 127.0.0.11 th dport 53 meta mark != 0x746f6d62 notrack";
        assert!(listed.contains(rule), "{listed}");
        ask(&engine, 0);
        assert!(!led_away(&engine), "it passes untranslated");
        ask(&engine, MARK);
        assert!(led_away(&engine), "ours to the engine's resolver do not");
        // A daemon whose host this is has a table of its own, which is left alone.
        inside(&engine, "nft add table inet tombolo");
        assert_holds(kernel, &wanted);
        // Damage is seen and mended.
        inside(&engine, "nft flush table inet tombolo-names");
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        let repair = plan(&wanted, &seen);
        assert_eq!(repair.ops.len(), 1, "{repair}");
        assert!(kernel.apply(&repair).is_done());
        assert_holds(kernel, &wanted);
        assert!(kernel.apply(&plan(&Objects::new(), &wanted)).is_done());
        let left = inside(&engine, "nft list tables");
        let others = ["table inet tombolo", "table ip nat"];
        let left: BTreeSet<&str> = left.lines().collect();
        assert_eq!(left, BTreeSet::from(others), "others' stay");
        removed(&engine);
        // In a namespace that is gone nothing is left to remove.
        assert!(kernel.apply(&plan(&Objects::new(), &wanted)).is_done());
        let seen = kernel.observe(&scope_of(&wanted)).unwrap();
        assert!(seen.objects.is_empty());
    });
}
