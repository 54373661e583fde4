//! The user's own rules: what stands in the chain `tombolo-user` of our table, read and put back as it is.
//!
//! Kept are the rules of that chain, the sets without a name that they contain, and the named sets that they
//! ask, with their elements. Not kept are other chains, named objects, what a program adds to a set that
//! rules fill, and the counts of counters and quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tombolo_netstate::object::nft::{SetName, TABLE};

use super::table::read_table;
use super::{APPEND, CREATE, FAMILY_INET, HEAD, NftSocket, Transaction, kind};
use crate::limits::USER_RULES_BYTES_MAX;
use crate::netlink::attribute::{Attributes, Writer, read_be32, read_text};

mod replay;

pub use replay::UserRules;
use replay::{Expression, anonymous_name, copy, is_anonymous, raw, rewrite};
use replay::{Group, Request};

/// The chain that is the user's.
pub(crate) const CHAIN: &str = "tombolo-user";

/// Numbers of sets without a name begin here in a transaction; the constant ones begin at 1.
const SET_ID_BASE: u32 = 0x7000_0000;
/// `NFT_SET_INTERVAL`, `NFT_SET_EVAL` and `NFT_SET_CONCAT`.
const INTERVAL: u32 = 4;
const EVAL: u32 = 0x20;
const CONCATENATION: u32 = 0x80;
/// Most bytes of elements in one request: the length of an attribute has sixteen bits.
const ELEMENTS_BYTES: usize = 32 * 1024;

/// The rules as they are now. None where nothing can be learnt about what the user wants: the table or the
/// chain is not there, or the chain is empty in a table that somebody has emptied.
pub(crate) fn save(nft: &NftSocket) -> io::Result<Option<UserRules>> {
    if !is_chain_there(nft) {
        return Ok(None);
    }
    let rules = Reader {
        nft,
        sets: dump_sets(nft)?,
        named: BTreeSet::new(),
        anonymous: 0,
    }
    .read()?;
    if rules.is_empty() && read_table(nft, TABLE)?.is_none_or(|base| base.digest == 0) {
        return Ok(None);
    }
    if rules.len_bytes() > USER_RULES_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the rules in chain {CHAIN} and their sets exceed {USER_RULES_BYTES_MAX} bytes"
        )));
    }
    Ok(Some(rules))
}

/// What is to be put back when the table is made anew: what is in it, else what was remembered.
pub(crate) fn current(nft: &NftSocket, remembered: &UserRules) -> UserRules {
    match save(nft) {
        Ok(Some(rules)) => rules,
        Ok(None) => remembered.clone(),
        Err(error) => {
            tracing::warn!(%error, "the user's rules cannot be read; those known before are put back");
            remembered.clone()
        }
    }
}

/// Adds the rules to the transaction that makes the table.
pub(super) fn restore(transaction: &mut Transaction, rules: &UserRules) {
    for group in &rules.groups {
        push_group(transaction, group);
    }
}

/// Adds the rules to the table that is there, each by itself, and leaves out those that the kernel refuses.
pub(super) fn restore_each(nft: &NftSocket, rules: &UserRules) {
    for (place, group) in rules.groups.iter().enumerate() {
        let mut transaction = Transaction::new();
        push_group(&mut transaction, group);
        if let Err(refusal) = transaction.commit(nft).outcome() {
            let what = group.name();
            tracing::warn!(place, what, %refusal, "a rule of the user's cannot be put back");
        }
    }
}

fn push_group(transaction: &mut Transaction, group: &Group) {
    for request in &group.requests {
        let flags = if request.kind == kind::NEW_RULE {
            CREATE | APPEND
        } else {
            CREATE
        };
        transaction.push_bytes(request.kind, flags, &request.attributes);
    }
}

fn is_chain_there(nft: &NftSocket) -> bool {
    let mut asked = Writer::default();
    asked.put_text(1, TABLE).put_text(3, CHAIN);
    let question = (kind::GET_CHAIN, kind::NEW_CHAIN);
    nft.ask(question, FAMILY_INET, &asked).is_some()
}

/// The attributes of each set of our table, by name.
fn dump_sets(nft: &NftSocket) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut asked = Writer::default();
    asked.put_text(1, TABLE);
    let mut sets = BTreeMap::new();
    for body in dump(nft, kind::GET_SET, &asked)? {
        let attributes = Attributes::of(&body);
        if let Some(name) = attributes.find(2).and_then(read_text) {
            sets.insert(name.to_owned(), body.clone());
        }
    }
    Ok(sets)
}

/// The attributes of each object of our table that was asked for.
fn dump(nft: &NftSocket, asked: u16, attributes: &Writer) -> io::Result<Vec<Vec<u8>>> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    nft.dump(asked, FAMILY_INET, attributes, |body| match body {
        None => bodies.clear(),
        Some(body) => {
            let body = body.get(HEAD..).unwrap_or_default();
            if Attributes::of(body).find(1).and_then(read_text) == Some(TABLE) {
                bodies.push(body.to_vec());
            }
        }
    })?;
    Ok(bodies)
}

/// Turns what the kernel tells into requests that make it again.
struct Reader<'a> {
    nft: &'a NftSocket,
    sets: BTreeMap<String, Vec<u8>>,
    /// Named sets that have been read.
    named: BTreeSet<String>,
    /// How many sets without a name have been read.
    anonymous: u32,
}

impl Reader<'_> {
    fn read(mut self) -> io::Result<UserRules> {
        let mut asked = Writer::default();
        asked.put_text(1, TABLE).put_text(2, CHAIN);
        let mut groups = Vec::new();
        for body in dump(self.nft, kind::GET_RULE, &asked)? {
            let attributes = Attributes::of(&body);
            if attributes.find(2).and_then(read_text) == Some(CHAIN) {
                self.rule(&body, &mut groups)?;
            }
        }
        Ok(UserRules { groups })
    }

    /// A rule with its sets without a name; named sets come before it, each by itself.
    fn rule(&mut self, body: &[u8], groups: &mut Vec<Group>) -> io::Result<()> {
        let mut requests = Vec::new();
        let mut list = Writer::default();
        for (_, element) in raw(Attributes::of(body).find(4).unwrap_or_default()) {
            let expression = Expression::read(element);
            let id = match expression.set() {
                Some(name) if is_anonymous(name) => self.anonymous_set(name, &mut requests)?,
                Some(name) => {
                    self.named_set(name, groups)?;
                    None
                }
                None => None,
            };
            rewrite(&mut list, &expression, id);
        }
        let mut rule = Writer::default();
        rule.put_text(1, TABLE).put_text(2, CHAIN);
        rule.nest(4, |expressions| expressions.0.extend_from_slice(&list.0));
        copy(&mut rule, body, |kind| matches!(kind, 5 | 7));
        requests.push(Request::new(kind::NEW_RULE, rule));
        groups.push(Group { requests });
        Ok(())
    }

    fn anonymous_set(
        &mut self,
        name: &str,
        requests: &mut Vec<Request>,
    ) -> io::Result<Option<u32>> {
        let Some(body) = self.sets.get(name) else {
            return Ok(None);
        };
        let id = SET_ID_BASE + self.anonymous;
        self.anonymous += 1;
        requests.push(set(body, &anonymous_name(name), id));
        requests.extend(self.elements(name, body, Some(id))?);
        Ok(Some(id))
    }

    fn named_set(&mut self, name: &str, groups: &mut Vec<Group>) -> io::Result<()> {
        let Some(body) = self.sets.get(name) else {
            return Ok(());
        };
        if SetName::from_name(name).is_some() || !self.named.insert(name.to_owned()) {
            return Ok(());
        }
        // A set needs a number even when nothing of its transaction speaks of it.
        let id = SET_ID_BASE + u32::try_from(self.sets.len() + self.named.len()).unwrap_or(0);
        let mut requests = vec![set(body, name, id)];
        let body = body.clone();
        requests.extend(self.elements(name, &body, None)?);
        groups.push(Group { requests });
        Ok(())
    }

    /// The elements of a set; none of one that rules fill.
    fn elements(&self, name: &str, body: &[u8], id: Option<u32>) -> io::Result<Vec<Request>> {
        let flags = Attributes::of(body).find(3).and_then(read_be32);
        let flags = flags.unwrap_or(0);
        if flags & EVAL != 0 {
            return Ok(Vec::new());
        }
        let mut asked = Writer::default();
        asked.put_text(1, TABLE).put_text(2, name);
        let mut elements: Vec<Vec<u8>> = Vec::new();
        for body in dump(self.nft, kind::GET_ELEMENT, &asked)? {
            for (_, element) in raw(Attributes::of(&body).find(3).unwrap_or_default()) {
                let mut kept = Writer::default();
                // Neither what is left of a time-out nor counts.
                copy(&mut kept, element, |kind| !matches!(kind, 5 | 7 | 11));
                elements.push(kept.0);
            }
        }
        // A tree tells its elements in order, and bounds without their order mean nothing.
        if flags & INTERVAL == 0 || flags & CONCATENATION != 0 {
            elements.sort();
        }
        Ok(element_requests(name, id, &elements))
    }
}

fn set(body: &[u8], name: &str, id: u32) -> Request {
    let mut attributes = Writer::default();
    attributes.put_text(1, TABLE).put_text(2, name);
    copy(
        &mut attributes,
        body,
        |kind| matches!(kind, 3..=9 | 11..=13 | 15 | 17 | 18),
    );
    attributes.put_be32(10, id);
    Request::new(kind::NEW_SET, attributes)
}

fn element_requests(name: &str, id: Option<u32>, elements: &[Vec<u8>]) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut rest = elements;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|element| {
            bytes += element.len() + 4;
            bytes <= ELEMENTS_BYTES
        });
        let (part, others) = rest.split_at(fits.count().max(1));
        let mut attributes = Writer::default();
        attributes.put_text(1, TABLE);
        match id {
            Some(id) => attributes
                .put_text(2, &anonymous_name(name))
                .put_be32(4, id),
            None => attributes.put_text(2, name),
        };
        attributes.nest(3, |list| {
            for element in part {
                list.nest(1, |inner| inner.0.extend_from_slice(element));
            }
        });
        requests.push(Request::new(kind::NEW_ELEMENT, attributes));
        rest = others;
    }
    requests
}
