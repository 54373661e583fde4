//! Rules of ours in chains of others: permissions for our bridges at the head of a chain of iptables-nft.
//!
//! They are encoded as iptables-nft encodes `-i BRIDGE -j ACCEPT`: it refuses to work on a table in which it
//! finds an expression that it would not have written.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tombolo_netstate::IfName;
use tombolo_netstate::object::foreign::AcceptKey;
use tombolo_netstate::object::nft::ruleset::Family;

use super::expression::{Compare, REGISTER, put_code, put_compare, put_expression, put_meta};
use super::{CREATE, HEAD, NftSocket, Transaction, kind};
use crate::netlink::attribute::{Attributes, Writer, read_be32, read_be64, read_text};
use crate::netlink::batch::Refusal;

mod chains;

pub use chains::ForeignChain;
pub(crate) use chains::{Foreign, look};

/// What the rules say of themselves.
const COMMENT: &str = "tombolo network";
/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl, `udata.h`).
const USER_DATA_COMMENT: u8 = 0;
/// The table of iptables-nft.
const TABLE: &str = "filter";
/// The chains in which ours can be.
const CHAINS: [&str; 2] = [USER_CHAIN, FORWARD];
/// The chain that Docker leaves to the user, asked before its own.
const USER_CHAIN: &str = "DOCKER-USER";
/// The chain of iptables for what passes through.
const FORWARD: &str = "FORWARD";

/// `NFT_META_IIFNAME` and `NFT_META_OIFNAME`.
const DIRECTIONS: [u32; 2] = [6, 7];

/// A rule of ours that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    key: AcceptKey,
    /// One of [`DIRECTIONS`].
    direction: u32,
    handle: u64,
}

/// Puts the permissions at the head of their chains. Whatever there is of them already is replaced.
pub(crate) fn add(nft: &NftSocket, keys: &[&AcceptKey]) -> Vec<Result<(), Refusal>> {
    in_one(nft, keys, |transaction, key, found| {
        push_removals(transaction, key, found);
        // Each comes to the head, so that the last is the first.
        for direction in DIRECTIONS.into_iter().rev() {
            let rule = rule(key, direction);
            transaction.push_in(protocol(key.family), kind::NEW_RULE, CREATE, &rule);
        }
    })
}

/// Removes the permissions; those that are not there count as removed.
pub(crate) fn remove(nft: &NftSocket, keys: &[&AcceptKey]) -> Vec<Result<(), Refusal>> {
    in_one(nft, keys, push_removals)
}

/// The permissions of which both rules are there.
pub(crate) fn observe(nft: &NftSocket) -> io::Result<Vec<AcceptKey>> {
    let mut directions: BTreeMap<AcceptKey, Vec<u32>> = BTreeMap::new();
    for family in [Family::V4, Family::V6] {
        for chain in CHAINS {
            for found in find(nft, family, TABLE, chain)? {
                directions
                    .entry(found.key)
                    .or_default()
                    .push(found.direction);
            }
        }
    }
    let complete = |seen: &[u32]| seen.len() == 2 && DIRECTIONS.iter().all(|d| seen.contains(d));
    Ok(directions
        .into_iter()
        .filter(|(_, seen)| complete(seen))
        .map(|(key, _)| key)
        .collect())
}

/// One transaction for all keys, and one for each when that is refused.
fn in_one(
    nft: &NftSocket,
    keys: &[&AcceptKey],
    push: impl Fn(&mut Transaction, &AcceptKey, &[Found]),
) -> Vec<Result<(), Refusal>> {
    let found = match find_all(nft, keys) {
        Ok(found) => found,
        Err(error) => return vec![Err(Refusal::from_io(&error)); keys.len()],
    };
    let carry_out = |keys: &[&AcceptKey]| {
        let mut transaction = Transaction::new();
        for key in keys {
            push(&mut transaction, key, &found);
        }
        transaction.commit_unless_empty(nft)
    };
    if carry_out(keys).is_ok() {
        return vec![Ok(()); keys.len()];
    }
    keys.iter().map(|key| carry_out(&[*key])).collect()
}

fn push_removals(transaction: &mut Transaction, key: &AcceptKey, found: &[Found]) {
    for rule in found.iter().filter(|rule| rule.key == *key) {
        let mut attributes = Writer::default();
        attributes
            .put_text(1, &key.table)
            .put_text(2, &key.chain)
            .put(3, &rule.handle.to_be_bytes());
        transaction.push_in(protocol(key.family), kind::DELETE_RULE, 0, &attributes);
    }
}

/// The rules of ours in all chains that the keys name.
fn find_all(nft: &NftSocket, keys: &[&AcceptKey]) -> io::Result<Vec<Found>> {
    let mut places: Vec<(Family, &str, &str)> = keys
        .iter()
        .map(|key| (key.family, &*key.table, &*key.chain))
        .collect();
    places.sort_unstable();
    places.dedup();
    let mut found = Vec::new();
    for (family, table, chain) in places {
        found.extend(find(nft, family, table, chain)?);
    }
    Ok(found)
}

fn find(nft: &NftSocket, family: Family, table: &str, chain: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    dump_rules(
        nft,
        (protocol(family), table, chain),
        |message| match message {
            None => found.clear(),
            Some(body) => found.extend(read(body, family)),
        },
    )?;
    Ok(found)
}

/// Shows the body of each rule of a chain to `see`, which must forget what it saw at `None`. A chain that is
/// not there has none.
fn dump_rules(
    nft: &NftSocket,
    (family, table, chain): (u8, &str, &str),
    mut see: impl FnMut(Option<&[u8]>),
) -> io::Result<()> {
    let mut asked = Writer::default();
    asked.put_text(1, table).put_text(2, chain);
    let dumped = nft.dump(kind::GET_RULE, family, &asked, |body| match body {
        None => see(None),
        Some(body) => {
            let attributes = Attributes::after(body, HEAD);
            let text = |kind| attributes.find(kind).and_then(read_text);
            if text(1) == Some(table) && text(2) == Some(chain) {
                see(Some(body));
            }
        }
    });
    match dumped {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Reads a rule; none when it is not one of ours.
fn read(body: &[u8], family: Family) -> Option<Found> {
    let attributes = Attributes::after(body, HEAD);
    let expressions = attributes.find(4)?;
    let commented = attributes.find(7).is_some_and(|data| {
        Attributes8(data).any(|(kind, text)| kind == USER_DATA_COMMENT && is_ours(text))
    });
    let mut direction = None;
    let mut bridge = None;
    let mut matched = false;
    for (name, data) in expressions_of(expressions) {
        match name {
            "meta" => direction = data.find(2).and_then(read_be32),
            "cmp" => bridge = data.find(3).and_then(|right| Attributes::of(right).find(1)),
            // What `iptables-restore` makes of the comment when somebody saves and restores the chain.
            "match" => matched |= data.find(3).is_some_and(is_ours),
            _ => {}
        }
    }
    if !commented && !matched {
        return None;
    }
    Some(Found {
        key: AcceptKey {
            family,
            table: Arc::from(attributes.find(1).and_then(read_text)?),
            chain: Arc::from(attributes.find(2).and_then(read_text)?),
            bridge: IfName::new(bridge.and_then(read_text)?).ok()?,
        },
        direction: direction.filter(|seen| DIRECTIONS.contains(seen))?,
        handle: attributes.find(3).and_then(read_be64)?,
    })
}

fn is_ours(text: &[u8]) -> bool {
    read_text(text) == Some(COMMENT)
}

/// The expressions of a rule, each with its name and data.
fn expressions_of(list: &[u8]) -> impl Iterator<Item = (&str, Attributes<'_>)> {
    Attributes::of(list).filter_map(|(_, element)| {
        let element = Attributes::of(element);
        let name = element.find(1).and_then(read_text)?;
        Some((name, Attributes::of(element.find(2).unwrap_or_default())))
    })
}

fn rule(key: &AcceptKey, direction: u32) -> Writer {
    let mut name = key.bridge.as_str().as_bytes().to_vec();
    // With its final zero it is this interface and not all that begin so.
    name.push(0);
    let mut comment = vec![
        USER_DATA_COMMENT,
        u8::try_from(COMMENT.len() + 1).unwrap_or(u8::MAX),
    ];
    comment.extend_from_slice(COMMENT.as_bytes());
    comment.push(0);
    let mut attributes = Writer::default();
    attributes
        .put_text(1, &key.table)
        .put_text(2, &key.chain)
        .nest(4, |list| {
            put_meta(list, REGISTER, direction);
            put_compare(list, Compare::Equal, &name);
            put_expression(list, "counter", |counter| {
                counter.put(1, &[0; 8]).put(2, &[0; 8]);
            });
            put_code(list, libc::NF_ACCEPT, None);
        })
        .put(7, &comment);
    attributes
}

fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4 as u8,
        Family::V6 => libc::NFPROTO_IPV6 as u8,
    }
}

/// The entries of user data as nft(8) writes them: type, length, value.
#[derive(Debug, Clone)]
struct Attributes8<'a>(&'a [u8]);

impl<'a> Iterator for Attributes8<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        let (value, others) = rest.split_at_checked(usize::from(head[1]))?;
        self.0 = others;
        Some((head[0], value))
    }
}
