//! What the chains of others do to packets that pass through the host or are for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tombolo_netstate::object::nft::ruleset::Family;

use super::{FORWARD, USER_CHAIN, dump_rules, expressions_of, protocol};
use crate::limits::{DUMP_TRIES_MAX, FOREIGN_CHAINS_MAX};
use crate::netlink::attribute::{Attributes, Writer, read_be32, read_text};
use crate::nft::table::dump_others_chains;
use crate::nft::{HEAD, NftSocket, kind};

/// `NF_INET_LOCAL_IN`.
const HOOK_INPUT: u32 = 1;
/// `NF_INET_FORWARD`.
const HOOK_FORWARD: u32 = 2;

/// A chain of somebody else in which our bridges need a permission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    /// Of the table.
    pub family: Family,
    /// The table that the chain is in.
    pub table: String,
    /// The chain's name.
    pub chain: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Where a permission is needed.
    pub(crate) forward_chains: Vec<ForeignChain>,
    /// Some packets for the host are dropped or refused.
    pub(crate) input_filtered: bool,
}

/// Identity of a chain: family, table, name.
type Place = (u8, String, String);

/// What a base chain is attached to.
#[derive(Debug, Clone, Copy)]
struct Base {
    hook: u32,
    filters: bool,
    drops: bool,
}

/// Looks at the chains of all tables but ours. Only the rules of chains for the host's own packets are read,
/// and those only until one drops.
pub(crate) fn look(nft: &NftSocket) -> io::Result<Foreign> {
    let mut filtered = false;
    for _ in 0..DUMP_TRIES_MAX {
        let before = generation(nft);
        let found = look_once(nft)?;
        if before.is_some() && before == generation(nft) {
            return Ok(found);
        }
        filtered |= found.input_filtered;
    }
    // Somebody changes rules without end: what was seen once may be there.
    let found = look_once(nft)?;
    Ok(Foreign {
        input_filtered: filtered || found.input_filtered,
        ..found
    })
}

fn look_once(nft: &NftSocket) -> io::Result<Foreign> {
    let chains = dump_others_chains(nft, read_chain)?.into_iter().collect();
    Ok(Foreign {
        forward_chains: forward_chains(&chains),
        input_filtered: filters_input(nft, &chains)?,
    })
}

/// A number that changes with every transaction.
fn generation(nft: &NftSocket) -> Option<u32> {
    let question = (kind::GET_GENERATION, kind::NEW_GENERATION);
    let body = nft.ask(question, 0, &Writer::default())?;
    Attributes::after(&body, HEAD).find(1).and_then(read_be32)
}

fn read_chain(body: &[u8]) -> Option<(Place, Option<Base>)> {
    let attributes = Attributes::after(body, HEAD);
    let text = |kind| attributes.find(kind).and_then(read_text).map(str::to_owned);
    let place = (*body.first()?, text(1)?, text(3)?);
    let base = attributes.find(4).and_then(|hook| {
        Some(Base {
            hook: Attributes::of(hook).find(1).and_then(read_be32)?,
            filters: text(7).is_none_or(|kind| kind == "filter"),
            drops: attributes.find(5).and_then(read_be32) == Some(0),
        })
    });
    Some((place, base))
}

/// Where iptables-nft leaves a place to the user, there; else where it drops by policy.
fn forward_chains(chains: &BTreeMap<Place, Option<Base>>) -> Vec<ForeignChain> {
    let mut found = Vec::new();
    for family in [Family::V4, Family::V6] {
        let chain = |name: &str| {
            let place = (protocol(family), super::TABLE.to_owned(), name.to_owned());
            chains.get(&place).copied()
        };
        let drops = matches!(
            chain(FORWARD),
            Some(Some(Base {
                hook: HOOK_FORWARD,
                drops: true,
                ..
            }))
        );
        let name = match (chain(USER_CHAIN), drops) {
            (Some(None), _) => USER_CHAIN,
            (_, true) => FORWARD,
            (_, false) => continue,
        };
        found.push(ForeignChain {
            family,
            table: super::TABLE.to_owned(),
            chain: name.to_owned(),
        });
    }
    found
}

fn filters_input(nft: &NftSocket, chains: &BTreeMap<Place, Option<Base>>) -> io::Result<bool> {
    let families = [libc::NFPROTO_INET, libc::NFPROTO_IPV4, libc::NFPROTO_IPV6];
    let mut waiting = Vec::new();
    for ((family, table, chain), base) in chains {
        let Some(base) = base.filter(|base| base.hook == HOOK_INPUT && base.filters) else {
            continue;
        };
        if !families.contains(&i32::from(*family)) {
            continue;
        }
        if base.drops {
            return Ok(true);
        }
        waiting.push((*family, table.clone(), chain.clone()));
    }
    let mut seen: BTreeSet<Place> = waiting.iter().cloned().collect();
    while let Some(place) = waiting.pop() {
        if seen.len() > FOREIGN_CHAINS_MAX {
            tracing::debug!(
                "more chains than are looked into: packets for the host count as filtered"
            );
            return Ok(true);
        }
        let reached = read_rules(nft, &place)?;
        if reached.refuses {
            return Ok(true);
        }
        for chain in reached.chains {
            let next = (place.0, place.1.clone(), chain);
            if seen.insert(next.clone()) {
                waiting.push(next);
            }
        }
    }
    Ok(false)
}

/// What the rules of a chain can come to.
#[derive(Debug, Default)]
struct Reached {
    /// A rule drops or refuses.
    refuses: bool,
    /// Chains that rules lead to.
    chains: BTreeSet<String>,
    /// Maps whose elements are verdicts.
    maps: BTreeSet<String>,
}

fn read_rules(nft: &NftSocket, (family, table, chain): &Place) -> io::Result<Reached> {
    let mut reached = Reached::default();
    dump_rules(nft, (*family, table, chain), |body| match body {
        None => reached = Reached::default(),
        Some(body) => read_rule(body, &mut reached),
    })?;
    for map in std::mem::take(&mut reached.maps) {
        if !reached.refuses {
            read_verdicts(nft, (*family, table, &map), &mut reached)?;
        }
    }
    Ok(reached)
}

fn read_rule(body: &[u8], reached: &mut Reached) {
    let list = Attributes::after(body, HEAD).find(4).unwrap_or_default();
    for (name, data) in expressions_of(list) {
        match name {
            "reject" => reached.refuses = true,
            "immediate" => reached.verdict(data.find(2)),
            // iptables-nft has no expression of its own for some targets.
            "target" => {
                let target = data.find(1).and_then(read_text);
                reached.refuses |= matches!(target, Some("REJECT" | "DROP"));
            }
            // A map whose result goes into `NFT_REG_VERDICT`.
            "lookup" if data.find(3).and_then(read_be32) == Some(0) => {
                let map = data.find(1).and_then(read_text);
                reached.maps.extend(map.map(str::to_owned));
            }
            _ => {}
        }
    }
}

impl Reached {
    fn verdict(&mut self, data: Option<&[u8]>) {
        let Some(verdict) = data.and_then(|data| Attributes::of(data).find(2)) else {
            return;
        };
        let verdict = Attributes::of(verdict);
        self.refuses |= verdict.find(1).and_then(read_be32) == Some(libc::NF_DROP.unsigned_abs());
        let chain = verdict.find(2).and_then(read_text);
        self.chains.extend(chain.map(str::to_owned));
    }
}

/// The verdicts in a map.
fn read_verdicts(
    nft: &NftSocket,
    (family, table, map): (u8, &str, &str),
    reached: &mut Reached,
) -> io::Result<()> {
    let mut asked = Writer::default();
    asked.put_text(1, table).put_text(2, map);
    nft.dump(kind::GET_ELEMENT, family, &asked, |body| {
        let Some(body) = body else { return };
        let list = Attributes::after(body, HEAD).find(3);
        for (_, element) in Attributes::of(list.unwrap_or_default()) {
            reached.verdict(Attributes::of(element).find(2));
        }
    })
}
