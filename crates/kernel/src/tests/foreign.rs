//! Beside the firewalls of others: permissions in their chains, what is seen of them, and the user's own rules.

use std::sync::Arc;
use std::time::Instant;

use tombolo_netstate::object::foreign::AcceptKey;
use tombolo_netstate::object::nft::ruleset::Family;
use tombolo_netstate::{Key, Objects, Spec};

use super::rules::nft_file;
use super::scenery::{base, must_apply, name, on_host, run};
use crate::kernel::lock;
use crate::limits::FILTER_MEMORY;
use crate::nft::foreign;
use crate::{ForeignChain, Kernel, UserRules};

fn only_base() -> Objects {
    Objects::from([(Key::NftBase, Spec::NftBase(base()))])
}

fn accept(family: Family, chain: &str, bridge: &str) -> AcceptKey {
    AcceptKey {
        family,
        table: Arc::from("filter"),
        chain: Arc::from(chain),
        bridge: name(bridge),
    }
}

fn forward_chain(family: Family, chain: &str) -> ForeignChain {
    ForeignChain {
        family,
        table: "filter".to_owned(),
        chain: chain.to_owned(),
    }
}

fn add(kernel: &Kernel, keys: &[&AcceptKey]) {
    assert!(foreign::add(&kernel.nft, keys).iter().all(Result::is_ok));
}

fn user_chain() -> String {
    let shown = run(
        "nft",
        &["-s", "list", "chain", "inet", "tombolo", "tombolo-user"],
    );
    shown
        .lines()
        .filter(|line| line.starts_with("\t\t"))
        .map(|line| format!("{}\n", line.trim()))
        .collect()
}

/// What the daemon does with news of the user's rules.
fn remember(kernel: &Kernel) -> bool {
    let Some(rules) = kernel.read_user_rules().unwrap() else {
        return false;
    };
    kernel.remember_user_rules(rules);
    true
}

#[test]
fn permissions_read_as_those_of_iptables_and_foreign_rules_stay() {
    on_host(0, |kernel| {
        run("iptables-nft", &["-P", "FORWARD", "DROP"]);
        run(
            "iptables-nft",
            &["-A", "FORWARD", "-i", "tb0", "-j", "ACCEPT"],
        );
        run("ip6tables-nft", &["-P", "FORWARD", "DROP"]);
        let keys = [
            accept(Family::V4, "FORWARD", "tb0"),
            accept(Family::V4, "FORWARD", "tombolo-long-15"),
            accept(Family::V6, "FORWARD", "tb0"),
        ];
        let all: Vec<&AcceptKey> = keys.iter().collect();
        add(kernel, &all);
        assert_eq!(foreign::observe(&kernel.nft).unwrap(), keys);
        let comment = "-m comment --comment \"tombolo network\"";
        let shown = run("iptables-nft", &["-S", "FORWARD"]);
        let expected = [
            "-P FORWARD DROP".to_owned(),
            format!("-A FORWARD -i tombolo-long-15 {comment} -j ACCEPT"),
            format!("-A FORWARD -o tombolo-long-15 {comment} -j ACCEPT"),
            format!("-A FORWARD -i tb0 {comment} -j ACCEPT"),
            format!("-A FORWARD -o tb0 {comment} -j ACCEPT"),
            "-A FORWARD -i tb0 -j ACCEPT".to_owned(),
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
        add(kernel, &all);
        assert_eq!(
            run("iptables-nft", &["-S", "FORWARD"]).lines().count(),
            6,
            "once is enough"
        );

        assert!(foreign::remove(&kernel.nft, &all).iter().all(Result::is_ok));
        assert!(
            foreign::remove(&kernel.nft, &all).iter().all(Result::is_ok),
            "gone already"
        );
        let left = run("iptables-nft", &["-S", "FORWARD"]);
        assert_eq!(left, "-P FORWARD DROP\n-A FORWARD -i tb0 -j ACCEPT\n");
        assert_eq!(foreign::observe(&kernel.nft).unwrap(), []);
    });
}

#[test]
fn half_a_permission_is_none_and_is_made_whole() {
    on_host(0, |kernel| {
        run("iptables-nft", &["-N", "DOCKER-USER"]);
        let key = accept(Family::V4, "DOCKER-USER", "tb0");
        add(kernel, &[&key]);
        run("iptables-nft", &["-D", "DOCKER-USER", "1"]);
        assert_eq!(foreign::observe(&kernel.nft).unwrap(), []);
        add(kernel, &[&key]);
        assert_eq!(
            foreign::observe(&kernel.nft).unwrap(),
            [accept(Family::V4, "DOCKER-USER", "tb0")]
        );
        assert_eq!(
            run("iptables-nft", &["-S", "DOCKER-USER"]).lines().count(),
            3
        );
        let missing = accept(Family::V6, "DOCKER-USER", "tb0");
        let results = foreign::add(&kernel.nft, &[&missing, &key]);
        assert!(
            results[0]
                .as_ref()
                .is_err_and(|refusal| refusal.is(libc::ENOENT)),
            "{results:?}"
        );
        assert!(results[1].is_ok(), "{results:?}");
    });
}

#[test]
fn permissions_that_somebody_saved_and_restored_are_still_known() {
    on_host(0, |kernel| {
        run("iptables-nft", &["-N", "DOCKER-USER"]);
        let key = accept(Family::V4, "DOCKER-USER", "tb0");
        add(kernel, &[&key]);
        let saved = run("iptables-nft-save", &[]);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rules");
        std::fs::write(&file, saved).unwrap();
        run("nft", &["flush", "ruleset"]);
        run("iptables-nft-restore", &[file.to_str().unwrap()]);
        assert_eq!(
            foreign::observe(&kernel.nft).unwrap(),
            [accept(Family::V4, "DOCKER-USER", "tb0")]
        );
        assert!(
            foreign::remove(&kernel.nft, &[&key])
                .iter()
                .all(Result::is_ok)
        );
        assert_eq!(
            run("iptables-nft", &["-S", "DOCKER-USER"]),
            "-N DOCKER-USER\n"
        );
    });
}

#[test]
fn a_permission_is_needed_where_others_drop_or_leave_a_place() {
    on_host(0, |kernel| {
        let needed = || kernel.host_facts().unwrap().forward_chains;
        assert_eq!(needed(), []);
        run(
            "iptables-nft",
            &["-A", "FORWARD", "-i", "x", "-j", "ACCEPT"],
        );
        assert_eq!(needed(), [], "a policy that accepts");
        run("iptables-nft", &["-P", "FORWARD", "DROP"]);
        run("ip6tables-nft", &["-P", "FORWARD", "DROP"]);
        let v6 = forward_chain(Family::V6, "FORWARD");
        assert_eq!(needed(), [forward_chain(Family::V4, "FORWARD"), v6.clone()]);
        run("iptables-nft", &["-N", "DOCKER-USER"]);
        assert_eq!(needed(), [forward_chain(Family::V4, "DOCKER-USER"), v6]);
    });
}

#[test]
fn the_hosts_own_packets_count_as_filtered_when_some_rule_can_refuse_them() {
    let input = |rules: &str| {
        format!(
            "table inet f {{ set s {{ type ipv4_addr; }}\n chain deep {{ {rules}\n }}\n \
             chain in {{ type filter hook input priority 0; ip saddr 192.0.2.0/24 goto deep; }}\n }}"
        )
    };
    let filtered = [
        "drop",
        "tcp dport 22 reject",
        "tcp dport vmap { 22 : accept, 23 : drop }",
    ];
    let open = [
        "",
        "tcp dport 22 accept",
        "tcp dport vmap { 22 : accept, 23 : return }",
        "ip saddr @s counter",
    ];
    on_host(0, move |kernel| {
        let is_filtered = || foreign::look(&kernel.nft).unwrap().input_filtered;
        assert!(!is_filtered());
        must_apply(kernel, &only_base(), &Objects::new());
        assert!(!is_filtered(), "our own table does not count");
        for (rules, expected) in filtered
            .map(|r| (r, true))
            .into_iter()
            .chain(open.map(|r| (r, false)))
        {
            nft_file(&input(rules));
            assert_eq!(is_filtered(), expected, "{rules}");
            run("nft", &["delete", "table", "inet", "f"]);
        }
        nft_file("table ip f { chain out { type filter hook output priority 0; policy drop; }\n }");
        assert!(!is_filtered(), "another hook");
        run(
            "iptables-nft",
            &["-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "REJECT"],
        );
        assert!(is_filtered(), "iptables");
        run("iptables-nft", &["-F", "INPUT"]);
        assert!(!is_filtered());
        run("iptables-nft", &["-P", "INPUT", "DROP"]);
        assert!(is_filtered(), "policy");
    });
}

#[test]
fn a_filter_that_vanishes_counts_as_there_for_a_while() {
    on_host(0, |kernel| {
        let is_filtered = || kernel.host_facts().unwrap().input_filtered;
        assert!(!is_filtered());
        run("iptables-nft", &["-P", "INPUT", "DROP"]);
        assert!(is_filtered());
        run("nft", &["flush", "ruleset"]);
        assert!(is_filtered(), "it may be back in a moment");
        let long_ago = Instant::now().checked_sub(FILTER_MEMORY);
        lock(&kernel.foreign_memory).vanished = long_ago;
        assert!(!is_filtered());
        run("iptables-nft", &["-P", "INPUT", "DROP"]);
        assert!(is_filtered());
        // However long nobody looked: what counts is when it was missed.
        std::thread::sleep(FILTER_MEMORY / 100);
        run("nft", &["flush", "ruleset"]);
        assert!(is_filtered(), "missed a moment ago");
    });
}

const USERS_RULES: &str = r#"table inet tombolo {
  set bad { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.7, 198.51.100.3-198.51.100.9 } }
  set ports { type inet_proto . inet_service; flags interval; elements = { tcp . 80-90, udp . 53 } }
  set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
  map places { type ipv4_addr : verdict; elements = { 10.3.0.1 : drop, 10.3.0.2 : accept } }
  chain tombolo-user {
    ip saddr { 10.1.1.1, 10.2.2.2 } drop comment "mine"
    ip saddr 10.10.10.0/24 tcp dport { 80-90, 443, 1000-2000 } counter accept
    ip saddr @bad drop
    meta l4proto . th dport @ports counter accept
    add @seen { ip saddr limit rate over 5/second } drop
    ip saddr . tcp dport vmap { 1.1.1.1 . 80 : accept, 2.2.2.2 . 81 : drop }
    ip saddr vmap @places
    iifname @bridges tcp dport 25 log prefix "mail " reject
    limit rate 10/second accept
    ct state vmap { established : accept, related : accept }
    quota over 10 mbytes drop
    tcp dport 22 ct count over 5 reject with tcp reset
    ip6 saddr { fd00::/8, 2001:db8::1-2001:db8::5 } ip6 daddr != fd00::1 drop
  }
}"#;

#[test]
fn the_users_rules_survive_our_rewriting_and_a_flush() {
    on_host(0, |kernel| {
        must_apply(kernel, &only_base(), &Objects::new());
        nft_file(USERS_RULES);
        let written = user_chain();
        assert_eq!(written.lines().count(), 13, "{written}");
        assert!(remember(kernel));
        let first = kernel.user_rules();
        assert_eq!(first.count(), 13);

        run("nft", &["flush", "chain", "inet", "tombolo", "forward"]);
        must_apply(kernel, &only_base(), &Objects::new());
        assert_eq!(user_chain(), written, "rewritten");
        assert!(remember(kernel));
        assert_eq!(kernel.user_rules(), first, "what is read again is the same");

        run("nft", &["flush", "ruleset"]);
        assert!(
            !remember(kernel),
            "a flush says nothing of what the user wants"
        );
        let stored = UserRules::from_bytes(&kernel.user_rules().to_bytes()).unwrap();
        kernel.remember_user_rules(stored);
        must_apply(kernel, &only_base(), &Objects::new());
        assert_eq!(user_chain(), written, "restored");
        let bad = run("nft", &["list", "set", "inet", "tombolo", "bad"]);
        assert!(bad.contains("10.0.0.0/8, 192.0.2.7"), "{bad}");
        assert!(bad.contains("198.51.100.3-198.51.100.9"), "{bad}");
        let ports = run("nft", &["list", "set", "inet", "tombolo", "ports"]);
        assert!(ports.contains("tcp . 80-90"), "{ports}");

        run("nft", &["flush", "table", "inet", "tombolo"]);
        assert!(
            !remember(kernel),
            "neither does a table whose chains are all empty"
        );
        must_apply(kernel, &only_base(), &Objects::new());
        assert_eq!(user_chain(), written, "restored into an emptied table");
    });
}

#[test]
fn what_the_user_removes_stays_removed() {
    on_host(0, |kernel| {
        must_apply(kernel, &only_base(), &Objects::new());
        nft_file("add rule inet tombolo tombolo-user ip saddr 10.1.1.1 drop");
        assert!(remember(kernel));
        run(
            "nft",
            &["flush", "chain", "inet", "tombolo", "tombolo-user"],
        );
        assert!(
            remember(kernel),
            "an empty chain in a whole table is an answer"
        );
        run("nft", &["flush", "ruleset"]);
        must_apply(kernel, &only_base(), &Objects::new());
        assert_eq!(user_chain(), "");
    });
}

#[test]
fn a_rule_that_cannot_be_put_back_keeps_no_other_from_it() {
    on_host(0, |kernel| {
        must_apply(kernel, &only_base(), &Objects::new());
        nft_file(
            "table inet tombolo { chain own { counter\n }\n chain tombolo-user {\n\
             ip saddr 10.1.1.1 drop\n ip saddr { 10.1.1.2, 10.1.1.3 } jump own\n \
             ip saddr { 10.1.1.4, 10.1.1.5 } drop\n }\n }",
        );
        assert!(remember(kernel));
        run("nft", &["flush", "ruleset"]);
        must_apply(kernel, &only_base(), &Objects::new());
        let expected = "ip saddr 10.1.1.1 drop\nip saddr { 10.1.1.4, 10.1.1.5 } drop\n";
        assert_eq!(user_chain(), expected);
    });
}

#[test]
fn a_look_at_a_big_foreign_ruleset_is_cheap() {
    on_host(0, |kernel| {
        let mut text = String::from(
            "table ip nat { chain DOCKER { }\n chain p { type nat hook prerouting priority -100; }\n }\n",
        );
        text.push_str("table ip filter { chain INPUT { type filter hook input priority 0; }\n chain DOCKER-USER { }\n chain DOCKER { }\n chain FORWARD { type filter hook forward priority 0; policy drop; }\n }\n");
        for n in 0..5_000 {
            let (a, b) = (n / 250, n % 250);
            text.push_str(&format!(
                "add rule ip filter DOCKER ip daddr 172.17.{a}.{b} tcp dport 80 accept\n"
            ));
            text.push_str(&format!(
                "add rule ip nat DOCKER tcp dport {} dnat to 172.17.{a}.{b}:80\n",
                n + 1
            ));
        }
        nft_file(&text);
        let begin = Instant::now();
        let found = foreign::look(&kernel.nft).unwrap();
        let took = begin.elapsed();
        assert_eq!(
            found.forward_chains,
            [forward_chain(Family::V4, "DOCKER-USER")]
        );
        assert!(took.as_millis() < 20, "{took:?}");
    });
}
