//! The constant rules of `table inet tombolo`. Networks, endpoints and ports never change them: whatever
//! varies is an element of a set or map.

use std::sync::{Arc, LazyLock};

use tombolo_netstate::object::nft::ruleset::{
    Chain, ChainKind, Condition, Family, Hook, Rule, Selector, Set, Verdict,
};
use tombolo_netstate::object::nft::{BaseSpec, Ruleset, SetName};

use Condition::{Established, Icmp, In, NotIn, Published};
use Selector::{InputInterface, OutputInterface, Source};

/// `NF_IP_PRI_RAW`: before connection tracking.
const PRIORITY_RAW: i32 = -300;
/// `NF_IP_PRI_FILTER` (linux/netfilter_ipv4.h).
const PRIORITY_FILTER: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const PRIORITY_SOURCE_NAT: i32 = 100;
/// Redirect (RFC 792).
const ICMP_REDIRECT: u8 = 5;
/// Redirect (RFC 4861 section 4.5).
const ICMPV6_REDIRECT: u8 = 137;

static RULESET: LazyLock<Arc<Ruleset>> = LazyLock::new(|| {
    Arc::new(Ruleset {
        sets: SetName::ALL.into_iter().map(Set::of).collect(),
        chains: vec![forward(), output(), postrouting(), prerouting()],
    })
});

/// The constant rules, made once.
pub fn ruleset() -> Arc<Ruleset> {
    Arc::clone(&RULESET)
}

/// The rules as an object of the kernel.
pub fn base() -> BaseSpec {
    let ruleset = ruleset();
    BaseSpec {
        digest: ruleset.digest(),
        ruleset,
    }
}

/// Packets through the host. Those that concern no network of ours leave at the first rule. An internal
/// network never has a connection to the outside, so that the second rule opens nothing for it.
fn forward() -> Chain {
    Chain {
        name: "forward",
        kind: ChainKind::Filter,
        hook: Hook::Forward,
        priority: PRIORITY_FILTER,
        rules: vec![
            rule(
                vec![not_from(SetName::Bridges), not_to(SetName::Bridges)],
                Verdict::Return,
            ),
            rule(vec![Established], Verdict::Accept),
            rule(
                vec![In(vec![InputInterface, OutputInterface], SetName::Intra)],
                Verdict::Accept,
            ),
            rule(vec![from(SetName::Internal)], Verdict::Drop),
            rule(vec![to(SetName::Internal)], Verdict::Drop),
            rule(
                vec![from(SetName::Bridges), to(SetName::Bridges)],
                Verdict::Drop,
            ),
            rule(vec![from(SetName::Bridges)], Verdict::Accept),
            rule(vec![to(SetName::Bridges), Published], Verdict::Accept),
            rule(vec![to(SetName::Bridges)], Verdict::Drop),
        ],
    }
}

/// Packets of the host itself. Endpoints of one bridge reach each other through the host by design, so that
/// the host's advice to do without it is wrong.
fn output() -> Chain {
    Chain {
        name: "output",
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: PRIORITY_FILTER,
        rules: vec![
            rule(
                vec![to(SetName::Bridges), Icmp(Family::V4, ICMP_REDIRECT)],
                Verdict::Drop,
            ),
            rule(
                vec![to(SetName::Bridges), Icmp(Family::V6, ICMPV6_REDIRECT)],
                Verdict::Drop,
            ),
        ],
    }
}

/// Sources towards the outside: a given address first, else that of the link.
fn postrouting() -> Chain {
    let mut rules = vec![rule(vec![to(SetName::Bridges)], Verdict::Return)];
    for (family, snat, masquerade) in [
        (Family::V4, SetName::Snat4, SetName::Masquerade4),
        (Family::V6, SetName::Snat6, SetName::Masquerade6),
    ] {
        rules.push(rule(
            vec![Condition::Family(family)],
            Verdict::SnatBySource(family, snat),
        ));
        rules.push(rule(
            vec![
                Condition::Family(family),
                In(vec![Source(family)], masquerade),
            ],
            Verdict::Masquerade,
        ));
    }
    Chain {
        name: "postrouting",
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: PRIORITY_SOURCE_NAT,
        rules,
    }
}

/// Where `net.bridge.bridge-nf-call-iptables` is on, as Docker and Kubernetes have it, packets pass the hooks
/// once on each bridge. A leaf bridge is only a part of its network: what it carries is tracked and translated
/// when it passes the network's own bridge, and would lose its source if that happened before.
fn prerouting() -> Chain {
    Chain {
        name: "prerouting",
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: PRIORITY_RAW,
        rules: vec![rule(vec![from(SetName::Leaves)], Verdict::Untracked)],
    }
}

fn rule(when: Vec<Condition>, verdict: Verdict) -> Rule {
    Rule { when, verdict }
}

fn from(set: SetName) -> Condition {
    In(vec![InputInterface], set)
}

fn to(set: SetName) -> Condition {
    In(vec![OutputInterface], set)
}

fn not_from(set: SetName) -> Condition {
    NotIn(vec![InputInterface], set)
}

fn not_to(set: SetName) -> Condition {
    NotIn(vec![OutputInterface], set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_declared_once_and_every_set_named_is_declared() {
        let rules = ruleset();
        for name in SetName::ALL {
            assert_eq!(
                rules.sets.iter().filter(|set| set.name == name).count(),
                1,
                "{name:?}"
            );
        }
        let declared = |name: &SetName| rules.set(*name).is_some();
        for rule in rules.chains.iter().flat_map(|chain| &chain.rules) {
            for condition in &rule.when {
                if let In(_, set) | NotIn(_, set) = condition {
                    assert!(declared(set), "{condition}");
                }
            }
        }
    }

    #[test]
    fn foreign_traffic_leaves_first_and_isolation_comes_before_the_outside() {
        let rules = ruleset();
        let text: Vec<String> = rules.chains[0]
            .rules
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text[0], "iifname != @bridges oifname != @bridges return");
        let at = |wanted: &str| text.iter().position(|rule| rule == wanted).unwrap();
        assert!(at("iifname @bridges oifname @bridges drop") < at("iifname @bridges accept"));
        assert!(at("iifname @internal drop") < at("iifname @bridges accept"));
        assert!(at("oifname @internal drop") < at("oifname @bridges ct status dnat accept"));
        assert_eq!(text.last().unwrap(), "oifname @bridges drop");
    }

    #[test]
    fn the_digest_follows_the_text() {
        let rules = ruleset();
        assert_eq!(rules.digest(), ruleset().digest());
        assert_eq!(base().digest, rules.digest());
        let mut fewer = (*rules).clone();
        fewer.chains[0].rules.pop();
        assert_ne!(fewer.digest(), rules.digest());
    }
}
