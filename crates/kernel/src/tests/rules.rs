use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tombolo_netstate::object::nft::{BaseSpec, Field, SetName};
use tombolo_netstate::{Key, Objects, Spec};

use crate::limits::TRANSACTION_ELEMENTS_MAX;

use super::scenery::{
    assert_holds, base, element, must_apply, name, network, on_host, plan, run, scope_of,
};

pub(super) fn nft_file(text: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "nft refused:\n{text}");
}

fn only_base() -> Objects {
    Objects::from([(Key::NftBase, Spec::NftBase(base()))])
}

/// The rules without those verdicts that nft(8) has no words for: packets and expressions are their test.
fn with_words() -> BaseSpec {
    let mut ruleset = (*base().ruleset).clone();
    let count = ruleset.rule_count();
    for chain in &mut ruleset.chains {
        chain.rules.retain(|rule| rule.verdict.has_words());
    }
    assert!(ruleset.rule_count() > count / 2);
    BaseSpec {
        digest: ruleset.digest(),
        ruleset: Arc::new(ruleset),
    }
}

#[test]
fn the_kernel_has_the_rules_that_nft_makes_of_the_same_text() {
    on_host(0, |kernel| {
        let spec = with_words();
        let table = Objects::from([(Key::NftBase, Spec::NftBase(spec.clone()))]);
        must_apply(kernel, &table, &Objects::new());
        let ours = run("nft", &["list", "ruleset"]);
        must_apply(kernel, &Objects::new(), &table);
        assert_eq!(run("nft", &["list", "ruleset"]), "");
        nft_file(&spec.ruleset.to_string());
        assert_eq!(ours, run("nft", &["list", "ruleset"]));
        for rule in [
            "snat ip6 to ip6 saddr map @snat6",
            "jump tombolo-user",
            "ip saddr 127.0.0.0/8 masquerade",
            "ip6 saddr fe80::/10 return",
            "fib daddr type != local return",
            "dnat ip to meta l4proto . th dport map @publish_any4",
            "dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish_at6",
            "iifname != \"lo\" ip daddr 127.0.0.0/8 return",
            "ip6 saddr . ip6 daddr . meta l4proto . th dport @links6 accept",
        ] {
            assert!(ours.contains(rule), "{rule} in\n{ours}");
        }
    });
}

#[test]
fn what_nft_has_no_words_for_says_in_a_comment_what_it_does() {
    on_host(0, |kernel| {
        must_apply(kernel, &only_base(), &Objects::new());
        let shown = run("nft", &["list", "table", "inet", "tombolo"]);
        let rules = base().ruleset;
        let verdicts = rules.chains.iter().flat_map(|chain| &chain.rules);
        let mut count = 0;
        for verdict in verdicts.map(|rule| &rule.verdict) {
            if !verdict.has_words() {
                let comment = format!("comment \"{verdict}\"");
                assert!(shown.contains(&comment), "{comment} in\n{shown}");
                count += 1;
            }
        }
        assert_eq!(count, 13);
    });
}

/// Whoever saves the list of all rules for the next boot must be able to load it.
#[test]
fn what_nft_lists_can_be_loaded_again() {
    on_host(0, |kernel| {
        must_apply(kernel, &only_base(), &Objects::new());
        let saved = run("nft", &["list", "ruleset"]);
        assert!(saved.contains("chain publish-own"), "{saved}");
        must_apply(kernel, &Objects::new(), &only_base());
        nft_file(&saved);
    });
}

#[test]
fn elements_are_what_nft_shows() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        let shown = run("nft", &["list", "ruleset"]);
        for text in [
            "elements = { \"tb0\" }",
            "elements = { \"tb0\" . \"tb0\" }",
            "elements = { 10.9.0.0/24, 10.9.1.0/24 }",
            "elements = { fd09::/64 }",
            "elements = { 10.7.0.0/16 : 192.0.2.7 }",
            "elements = { fd07::/64 : fd00::7 }",
        ] {
            assert!(shown.contains(text), "{text} in\n{shown}");
        }
    });
}

#[test]
fn a_missing_rule_or_table_is_noticed_and_repaired() {
    on_host(0, |kernel| {
        let mut wanted = Objects::new();
        network(&mut wanted, "tb0");
        must_apply(kernel, &wanted, &Objects::new());
        for damage in [
            &["flush", "chain", "inet", "tombolo", "output"][..],
            &[
                "delete",
                "element",
                "inet",
                "tombolo",
                "masquerade4",
                "{ 10.9.1.0/24 }",
            ],
            &["delete", "table", "inet", "tombolo"],
            &["add", "rule", "inet", "tombolo", "forward", "accept"],
            &["flush", "ruleset"],
        ] {
            run("nft", damage);
            let mut rounds = 0;
            loop {
                let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
                let repair = plan(&wanted, &seen);
                if repair.is_empty() {
                    break;
                }
                rounds += 1;
                assert!(rounds <= 2, "{damage:?}: {repair}");
                let report = kernel.apply(&repair);
                assert!(report.is_done(), "{:?}", report.failure(&repair));
            }
            assert!(rounds > 0, "{damage:?} went unnoticed");
            assert_holds(kernel, &wanted);
        }
    });
}

#[test]
fn more_elements_than_one_transaction_holds() {
    on_host(0, |kernel| {
        let mut wanted = only_base();
        for number in 0..=TRANSACTION_ELEMENTS_MAX {
            let name = |letter| Field::Name(name(&format!("{letter}{number}")));
            element(
                &mut wanted,
                SetName::Intra,
                vec![name('a'), name('b')],
                vec![],
            );
        }
        must_apply(kernel, &wanted, &Objects::new());
        let seen = kernel.observe(&scope_of(&wanted)).unwrap().objects;
        assert!(
            seen == wanted,
            "{} of {} are there",
            seen.len(),
            wanted.len()
        );
        must_apply(kernel, &only_base(), &wanted);
        assert_holds(kernel, &only_base());
    });
}
