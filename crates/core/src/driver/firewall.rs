//! The constant rules of `table inet tombolo`. Networks, endpoints and ports never change them: whatever
//! varies is an element of a set or map.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tombolo_netstate::object::nft::ruleset::{
    Base, Chain, ChainKind, Condition, Family, Hook, Rule, Selector, Set, Verdict,
};
use tombolo_netstate::object::nft::{BaseSpec, Ruleset, SetName};

use Condition::{Established, Icmp, In, NotIn, Published};
use Family::{V4, V6};
use Selector::{Destination, DestinationPort, InputInterface, OutputInterface, Protocol, Source};

/// Loopback addresses (RFC 1122 section 3.2.1.3).
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
/// The loopback address (RFC 4291 section 2.5.3).
const LOOPBACK6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
/// Link-local addresses (RFC 4291 section 2.5.6).
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

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

/// `NF_IP_PRI_NAT_DST`.
const PRIORITY_DESTINATION_NAT: i32 = -100;
/// Echo request (RFC 792).
const ICMP_ECHO: u8 = 8;
/// Echo request (RFC 4443 section 4.1).
const ICMPV6_ECHO: u8 = 128;
/// The chain that is the user's.
pub const USER_CHAIN: &str = "tombolo-user";

static RULESET: LazyLock<Arc<Ruleset>> = LazyLock::new(|| {
    Arc::new(Ruleset {
        sets: SetName::ALL.into_iter().map(Set::of).collect(),
        chains: vec![
            user(),
            forward(),
            output(),
            postrouting(),
            prerouting(),
            publish(),
            publish_own(),
        ],
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

/// The user's own rules for what passes the networks: asked first, also about connections that exist.
fn user() -> Chain {
    Chain {
        name: USER_CHAIN,
        base: None,
        rules: vec![],
    }
}

/// Packets through the host. Those that concern no network of ours leave at the first rule. An internal
/// network never has a connection to the outside, so that accepting what is established opens nothing for it.
/// Bridges of other engines are reached through what they publish, as from outside: the permission that our
/// traffic has in their chains would otherwise open all of their ports.
fn forward() -> Chain {
    let mut rules = vec![
        rule(
            vec![not_from(SetName::Bridges), not_to(SetName::Bridges)],
            Verdict::Return,
        ),
        rule(vec![], Verdict::Jump(USER_CHAIN)),
        rule(vec![Established], Verdict::Accept),
        rule(
            vec![In(vec![InputInterface, OutputInterface], SetName::Intra)],
            Verdict::Accept,
        ),
    ];
    for (family, links) in [(V4, SetName::Links4), (V6, SetName::Links6)] {
        rules.push(between(family, links));
    }
    rules.extend([
        rule(vec![from(SetName::Internal)], Verdict::Drop),
        rule(vec![to(SetName::Internal)], Verdict::Drop),
        rule(vec![to(SetName::Bridges), Published], Verdict::Accept),
        rule(
            vec![In(vec![InputInterface, OutputInterface], SetName::Apart)],
            Verdict::Drop,
        ),
    ]);
    for (family, ports, ranges) in [
        (V4, SetName::Routed4, SetName::RoutedRange4),
        (V6, SetName::Routed6, SetName::RoutedRange6),
    ] {
        let open = In(vec![Destination(family), Protocol, DestinationPort], ports);
        rules.push(rule(vec![Condition::Family(family), open], Verdict::Accept));
        rules.push(between(family, ranges));
    }
    for (family, echo, kind, open) in [
        (V4, SetName::Echo4, ICMP_ECHO, SetName::Open4),
        (V6, SetName::Echo6, ICMPV6_ECHO, SetName::Open6),
    ] {
        rules.push(rule(vec![to(echo), Icmp(family, kind)], Verdict::Accept));
        rules.push(rule(
            vec![Condition::Family(family), to(open)],
            Verdict::Accept,
        ));
    }
    rules.extend([
        rule(
            vec![from(SetName::Bridges), to(SetName::Bridges)],
            Verdict::Drop,
        ),
        rule(
            vec![from(SetName::Bridges), to(SetName::Others), Published],
            Verdict::Accept,
        ),
        rule(
            vec![from(SetName::Bridges), to(SetName::Others)],
            Verdict::Drop,
        ),
        rule(vec![from(SetName::Bridges)], Verdict::Accept),
        rule(vec![to(SetName::Bridges)], Verdict::Drop),
    ]);
    base_chain(
        "forward",
        ChainKind::Filter,
        Hook::Forward,
        PRIORITY_FILTER,
        rules,
    )
}

/// Accepts what a set of `source . destination . proto . ports` holds.
fn between(family: Family, set: SetName) -> Rule {
    let fields = vec![
        Source(family),
        Destination(family),
        Protocol,
        DestinationPort,
    ];
    rule(
        vec![Condition::Family(family), In(fields, set)],
        Verdict::Accept,
    )
}

/// Packets of the host itself. Endpoints of one bridge reach each other through the host by design, so that
/// the host's advice to do without it is wrong.
fn output() -> Chain {
    let rules = vec![
        rule(
            vec![to(SetName::Bridges), Icmp(V4, ICMP_REDIRECT)],
            Verdict::Drop,
        ),
        rule(
            vec![to(SetName::Bridges), Icmp(V6, ICMPV6_REDIRECT)],
            Verdict::Drop,
        ),
    ];
    base_chain(
        "output",
        ChainKind::Filter,
        Hook::Output,
        PRIORITY_FILTER,
        rules,
    )
}

/// Sources. Towards an endpoint only where its reply would not come back to the host otherwise: to a loopback
/// address, to the endpoint itself, to a neighbour on the same link layer. Towards the outside: a given address
/// first, else that of the link.
fn postrouting() -> Chain {
    let loopback = Condition::Within(Source(V4), IpNet::V4(LOOPBACK));
    let mut rules = vec![rule(
        vec![to(SetName::Bridges), Condition::Family(V4), loopback],
        Verdict::Masquerade,
    )];
    for (family, hairpin, plain) in [
        (V4, SetName::Hairpin4, SetName::Plain4),
        (V6, SetName::Hairpin6, SetName::Plain6),
    ] {
        for set in [hairpin, plain] {
            rules.push(rule(
                vec![
                    to(SetName::Bridges),
                    Published,
                    Condition::Family(family),
                    In(vec![Source(family), Destination(family)], set),
                ],
                Verdict::Masquerade,
            ));
        }
    }
    rules.push(rule(vec![to(SetName::Bridges)], Verdict::Return));
    for (family, snat, masquerade) in [
        (V4, SetName::Snat4, SetName::Masquerade4),
        (V6, SetName::Snat6, SetName::Masquerade6),
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
    base_chain(
        "postrouting",
        ChainKind::Nat,
        Hook::Postrouting,
        PRIORITY_SOURCE_NAT,
        rules,
    )
}

/// Where `net.bridge.bridge-nf-call-iptables` is on, as Docker and Kubernetes have it, packets pass the hooks
/// once on each bridge. A leaf bridge is only a part of its network: what it carries is tracked and translated
/// when it passes the network's own bridge, and would lose its source if that happened before.
///
/// Bridges route loopback addresses so that the host reaches published ports at 127.0.0.1; nobody behind them
/// may use that to reach what listens there.
fn prerouting() -> Chain {
    let loopback = Condition::Within(Destination(V4), IpNet::V4(LOOPBACK));
    let rules = vec![
        rule(
            vec![from(SetName::Bridges), Condition::Family(V4), loopback],
            Verdict::Drop,
        ),
        rule(vec![from(SetName::Leaves)], Verdict::Untracked),
    ];
    base_chain(
        "prerouting",
        ChainKind::Filter,
        Hook::Prerouting,
        PRIORITY_RAW,
        rules,
    )
}

/// Published ports, for what arrives. What is published at a loopback address is for the host alone, a link-local
/// source cannot be routed, and from an internal network no way leads to another one.
fn publish() -> Chain {
    let mut rules = vec![
        rule(vec![Condition::Elsewhere], Verdict::Return),
        rule(vec![from(SetName::Internal)], Verdict::Return),
        rule(
            vec![
                Condition::Arrived,
                Condition::Family(V4),
                Condition::Within(Destination(V4), IpNet::V4(LOOPBACK)),
            ],
            Verdict::Return,
        ),
        rule(
            vec![
                Condition::Family(V6),
                Condition::Within(Source(V6), IpNet::V6(LINK_LOCAL)),
            ],
            Verdict::Return,
        ),
    ];
    rules.extend(translations(V4));
    rules.extend(translations(V6));
    rules.extend(relays());
    base_chain(
        "publish",
        ChainKind::Nat,
        Hook::Prerouting,
        PRIORITY_DESTINATION_NAT,
        rules,
    )
}

/// Published ports, for what the host itself sends. The kernel routes nothing to or from `::1` beyond the
/// loopback interface: that goes to the relay.
fn publish_own() -> Chain {
    let loopback = || Condition::Within(Destination(V6), IpNet::V6(LOOPBACK6));
    let mut rules = vec![rule(vec![Condition::Elsewhere], Verdict::Return)];
    rules.extend(translations(V4));
    let published = keys(V6)
        .into_iter()
        .map(|(fields, map)| Condition::Holds(fields, map));
    let relayed = relay_keys()
        .into_iter()
        .map(|(fields, set)| In(fields, set));
    for known in published.chain(relayed) {
        rules.push(relay(vec![Condition::Family(V6), loopback(), known]));
    }
    rules.push(rule(
        vec![Condition::Family(V6), loopback()],
        Verdict::Return,
    ));
    rules.extend(translations(V6));
    rules.extend(relays());
    base_chain(
        "publish-own",
        ChainKind::Nat,
        Hook::Output,
        PRIORITY_DESTINATION_NAT,
        rules,
    )
}

/// What is asked of each map of publications.
fn keys(family: Family) -> [(Vec<Selector>, SetName); 3] {
    let (any, at, range) = match family {
        V4 => (
            SetName::PublishAny4,
            SetName::PublishAt4,
            SetName::PublishRange4,
        ),
        V6 => (
            SetName::PublishAny6,
            SetName::PublishAt6,
            SetName::PublishRange6,
        ),
    };
    [
        (vec![Protocol, DestinationPort], any),
        (vec![Protocol, Destination(family), DestinationPort], at),
        (
            vec![
                Source(family),
                Protocol,
                Destination(family),
                DestinationPort,
            ],
            range,
        ),
    ]
}

/// What is asked of each set of what the relay is to take.
fn relay_keys() -> [(Vec<Selector>, SetName); 2] {
    [
        (vec![Protocol, DestinationPort], SetName::RelayAny6),
        (
            vec![Source(V6), Protocol, Destination(V6), DestinationPort],
            SetName::RelayRange6,
        ),
    ]
}

fn translations(family: Family) -> [Rule; 3] {
    keys(family).map(|(fields, map)| {
        rule(
            vec![Condition::Family(family)],
            Verdict::Dnat(family, fields, map),
        )
    })
}

fn relays() -> [Rule; 2] {
    relay_keys().map(|(fields, set)| relay(vec![Condition::Family(V6), In(fields, set)]))
}

fn relay(when: Vec<Condition>) -> Rule {
    rule(when, Verdict::Redirect(vec![Protocol], SetName::Relay))
}

fn base_chain(
    name: &'static str,
    kind: ChainKind,
    hook: Hook,
    priority: i32,
    rules: Vec<Rule>,
) -> Chain {
    let base = Some(Base {
        kind,
        hook,
        priority,
    });
    Chain { name, base, rules }
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
                if let In(_, set) | NotIn(_, set) | Condition::Holds(_, set) = condition {
                    assert!(declared(set), "{condition}");
                }
            }
        }
    }

    #[test]
    fn foreign_traffic_leaves_first_and_isolation_comes_before_the_outside() {
        let rules = ruleset();
        let forward = rules.chains.iter().find(|c| c.name == "forward").unwrap();
        let text: Vec<String> = forward.rules.iter().map(ToString::to_string).collect();
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
        fewer.chains[1].rules.pop();
        assert_ne!(fewer.digest(), rules.digest());
    }
}
