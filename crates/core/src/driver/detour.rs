//! The way of questions for names around an engine's own resolver, in the sandboxes that it makes.
//!
//! An engine leads what is sent to its resolver's address to a port of its choice, by rules in the sandbox. Ours
//! are asked before them: such a question is not tracked and so not translated, and reaches the listener that
//! stands at that address. What we ask of the engine's resolver in turn bears a mark and goes the engine's way.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use tombolo_netstate::object::detour::DetourKey;
use tombolo_netstate::object::nft::ruleset::{
    Base, Chain, ChainKind, Condition, Family, Hook, Rule, Selector, Verdict,
};
use tombolo_netstate::object::nft::{BaseSpec, Ruleset};
use tombolo_netstate::{Key, Netns, Spec};

use super::resolver::{self, IN_SANDBOX, Place};
use crate::model::{Endpoint, Network, Sandbox, SandboxNetns};

/// The mark (`SO_MARK`) of our own questions to an engine's resolver.
pub const MARK: u32 = 0x746f_6d62;

/// `NF_IP_PRI_RAW`: before connection tracking.
const PRIORITY_RAW: i32 = -300;

static TABLE: LazyLock<BaseSpec> = LazyLock::new(|| {
    let ruleset = Arc::new(ruleset(IN_SANDBOX));
    BaseSpec {
        digest: ruleset.digest(),
        ruleset,
    }
});

/// The detour of a sandbox that an engine made, where our resolver answers in it.
pub fn objects(
    sandbox: &Sandbox,
    endpoints: &[(&Network, &Endpoint)],
    netns: &Netns,
) -> Option<(Key, Spec)> {
    let is_seen = matches!(
        sandbox.spec.netns,
        SandboxNetns::Engine { inode: Some(_), .. }
    );
    (is_seen && resolver::place(sandbox, endpoints) == Place::Sandbox).then(|| {
        let netns = netns.clone();
        (
            Key::Detour(DetourKey { netns }),
            Spec::Detour(TABLE.clone()),
        )
    })
}

fn ruleset(resolver: IpAddr) -> Ruleset {
    let rule = Rule {
        when: vec![
            Condition::Family(Family::V4),
            Condition::Within(Selector::Destination(Family::V4), IpNet::from(resolver)),
            Condition::ToPort(resolver::DNS_PORT),
            Condition::Unmarked(MARK),
        ],
        verdict: Verdict::Untracked,
    };
    let base = Base {
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: PRIORITY_RAW,
    };
    Ruleset {
        sets: vec![],
        chains: vec![Chain {
            name: "names",
            base: Some(base),
            rules: vec![rule],
        }],
    }
}
