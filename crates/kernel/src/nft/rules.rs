//! The constant rules, and the transaction that puts them in place of what is there.

use tombolo_netstate::object::nft::ruleset::{Chain, Hook, Rule, Set, Type};
use tombolo_netstate::object::nft::{BaseSpec, TABLE};

use super::expression::put_rule;
use super::table::user_data;
use super::user::{self, UserRules};
use super::{APPEND, CREATE, NftSocket, Transaction, kind, padded};
use crate::netlink::attribute::Writer;
use crate::netlink::batch::Refusal;

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTNL_UDATA_COMMENT_MAXLEN`, without the final zero.
const COMMENT_BYTES_MAX: usize = 127;

/// Puts the table with these rules in the place of whatever table has its name, in one transaction, and the
/// user's own rules with it: those that are in it, or those remembered where it vanished. All elements are
/// gone thereafter.
pub(crate) fn replace_table(
    nft: &NftSocket,
    spec: &BaseSpec,
    remembered: &UserRules,
) -> Result<(), Refusal> {
    let rules = user::current(nft, remembered);
    let mut whole = table(TABLE, spec);
    user::restore(&mut whole, &rules);
    match whole.commit(nft).outcome() {
        Err(_) if !rules.is_empty() => {
            put_table(nft, TABLE, spec)?;
            user::restore_each(nft, &rules);
            Ok(())
        }
        outcome => outcome,
    }
}

/// Puts a table of this name with these rules in the place of whatever table has it, in one transaction.
pub(crate) fn put_table(nft: &NftSocket, name: &str, spec: &BaseSpec) -> Result<(), Refusal> {
    table(name, spec).commit(nft).outcome()
}

fn table(name: &str, spec: &BaseSpec) -> Transaction {
    let mut transaction = Transaction::new();
    let mut table = Writer::default();
    table.put_text(1, name);
    transaction.push(kind::NEW_TABLE, CREATE, &table);
    transaction.push(kind::DELETE_TABLE, 0, &table);
    table.put(6, &user_data(spec));
    transaction.push(kind::NEW_TABLE, CREATE, &table);
    for (id, set) in (1..).zip(&spec.ruleset.sets) {
        transaction.push(kind::NEW_SET, CREATE, &set_attributes(name, id, set));
    }
    // Before all rules, of which some jump to a chain.
    for chain in &spec.ruleset.chains {
        transaction.push(kind::NEW_CHAIN, CREATE, &chain_attributes(name, chain));
    }
    for chain in &spec.ruleset.chains {
        for rule in &chain.rules {
            let attributes = rule_attributes((name, chain.name), rule);
            transaction.push(kind::NEW_RULE, CREATE | APPEND, &attributes);
        }
    }
    transaction
}

fn set_attributes(table: &str, id: u32, set: &Set) -> Writer {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const CONCATENATION: u32 = 0x80;
    let concatenated = set.key.len() > 1;
    let mut flags = if set.interval { INTERVAL } else { 0 };
    flags |= if set.data.is_empty() { 0 } else { MAP };
    flags |= if set.interval && concatenated {
        CONCATENATION
    } else {
        0
    };
    let mut attributes = Writer::default();
    attributes
        .put_text(1, table)
        .put_text(2, set.name.as_str())
        .put_be32(3, flags)
        .put_be32(4, type_numbers(set.key))
        .put_be32(5, length(set.key));
    if !set.data.is_empty() {
        attributes
            .put_be32(6, type_numbers(set.data))
            .put_be32(7, length(set.data));
    }
    if set.interval && concatenated {
        attributes.nest(9, |description| {
            description.nest(2, |fields| {
                for part in set.key {
                    fields.nest(LIST_ELEMENT, |field| {
                        field.put_be32(1, length(&[*part]));
                    });
                }
            });
        });
    }
    attributes.put_be32(10, id).put(13, &byte_orders(set));
    attributes
}

/// What nft(8) needs to print the elements: the byte order of key and data (libnftnl, `udata.h`).
fn byte_orders(set: &Set) -> Vec<u8> {
    const HOST: u32 = 1;
    const NETWORK: u32 = 2;
    let order = |parts: &[Type]| match parts {
        [Type::Interface] => HOST,
        [_] => NETWORK,
        _ => 0,
    };
    let mut bytes = vec![0, 4];
    bytes.extend_from_slice(&order(set.key).to_ne_bytes());
    if !set.data.is_empty() {
        bytes.extend_from_slice(&[1, 4]);
        bytes.extend_from_slice(&order(set.data).to_ne_bytes());
    }
    bytes
}

/// The number by which nft(8) knows a type or a concatenation of types (nftables, `datatype.h`).
fn type_numbers(parts: &[Type]) -> u32 {
    let number = |part: &Type| match part {
        Type::Interface => 41,
        Type::Ipv4 => 7,
        Type::Ipv6 => 8,
        Type::Protocol => 12,
        Type::Port => 13,
    };
    parts.iter().fold(0, |sum, part| sum << 6 | number(part))
}

/// Bytes of a value of these types.
fn length(parts: &[Type]) -> u32 {
    let bytes = match parts {
        [part] => part.bytes(),
        _ => parts.iter().map(|part| padded(*part)).sum(),
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn chain_attributes(table: &str, chain: &Chain) -> Writer {
    let mut attributes = Writer::default();
    attributes.put_text(1, table).put_text(3, chain.name);
    let Some(base) = &chain.base else {
        return attributes;
    };
    let hook: u32 = match base.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let accept: u32 = 1;
    attributes
        .nest(4, |place| {
            place.put_be32(1, hook).put(2, &base.priority.to_be_bytes());
        })
        .put_be32(5, accept)
        .put_text(7, base.kind.as_str());
    attributes
}

/// A rule that nft(8) has no words for bears ours as its comment.
fn rule_attributes((table, chain): (&str, &str), rule: &Rule) -> Writer {
    let mut attributes = Writer::default();
    attributes
        .put_text(1, table)
        .put_text(2, chain)
        .nest(4, |list| put_rule(list, rule));
    if !rule.verdict.has_words() {
        attributes.put(7, &comment(&rule.verdict.to_string()));
    }
    attributes
}

/// A comment in a rule's user data (libnftnl, `udata.h`): its type is 0, its length that of the text and a
/// zero.
fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(COMMENT_BYTES_MAX)];
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![0, length];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use tombolo_netstate::object::nft::SetName;

    use super::*;
    use crate::netlink::attribute::Attributes;

    #[test]
    fn key_types_and_lengths_of_a_concatenation_are_those_of_nft() {
        let set = Set::of(SetName::Intra);
        let attributes = set_attributes(TABLE, 3, &set);
        let read = Attributes::of(&attributes.0);
        assert_eq!(read.find(4), Some(&(41_u32 << 6 | 41).to_be_bytes()[..]));
        assert_eq!(read.find(5), Some(&32_u32.to_be_bytes()[..]));
        assert_eq!(read.find(10), Some(&3_u32.to_be_bytes()[..]));
    }

    #[test]
    fn a_part_is_padded_in_a_concatenation_and_only_there() {
        let set = Set::of(SetName::PublishRange6);
        let attributes = set_attributes(TABLE, 1, &set);
        let read = Attributes::of(&attributes.0);
        assert_eq!(read.find(5), Some(&40_u32.to_be_bytes()[..]));
        assert_eq!(read.find(7), Some(&24_u32.to_be_bytes()[..]));
        let alone = set_attributes(TABLE, 1, &Set::of(SetName::Bridges));
        let read = Attributes::of(&alone.0);
        assert_eq!(read.find(5), Some(&16_u32.to_be_bytes()[..]));
    }
}
