//! The constant rules as nf_tables expressions, and the transaction that puts them in place of what is there.
//!
//! Each rule is encoded as nft(8) encodes the same text, so that `nft list ruleset` reads well.

use tombolo_netstate::object::nft::ruleset::{
    Chain, ChainKind, Condition, Family, Hook, Rule, Selector, Set, Type, Verdict,
};
use tombolo_netstate::object::nft::{BaseSpec, SetName, TABLE};

use super::table::user_data;
use super::{APPEND, CREATE, NftSocket, Transaction, kind};
use crate::netlink::attribute::Writer;
use crate::netlink::batch::Refusal;

/// `NFT_REG_1`; the next one follows sixteen bytes on.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const REGISTER_VERDICT: u32 = 0;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`.
const DATA_VALUE: u16 = 1;

/// Puts the table with these rules in the place of whatever table has its name, in one transaction. All
/// elements are gone thereafter.
pub(crate) fn replace_table(nft: &NftSocket, spec: &BaseSpec) -> Result<(), Refusal> {
    let mut transaction = Transaction::new();
    let mut table = Writer::default();
    table.put_text(1, TABLE);
    transaction.push(kind::NEW_TABLE, CREATE, &table);
    transaction.push(kind::DELETE_TABLE, 0, &table);
    table.put(6, &user_data(spec));
    transaction.push(kind::NEW_TABLE, CREATE, &table);
    for (id, set) in (1..).zip(&spec.ruleset.sets) {
        transaction.push(kind::NEW_SET, CREATE, &set_attributes(id, set));
    }
    for chain in &spec.ruleset.chains {
        transaction.push(kind::NEW_CHAIN, CREATE, &chain_attributes(chain));
    }
    for chain in &spec.ruleset.chains {
        for rule in &chain.rules {
            let attributes = rule_attributes(chain.name, rule);
            transaction.push(kind::NEW_RULE, CREATE | APPEND, &attributes);
        }
    }
    transaction.commit(nft).outcome()
}

fn set_attributes(id: u32, set: &Set) -> Writer {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const CONCATENATION: u32 = 0x80;
    let concatenated = set.key.len() > 1;
    let mut flags = if set.interval { INTERVAL } else { 0 };
    flags |= if set.data.is_some() { MAP } else { 0 };
    flags |= if set.interval && concatenated {
        CONCATENATION
    } else {
        0
    };
    let key_type = set
        .key
        .iter()
        .fold(0, |sum, part| sum << 6 | type_number(*part));
    let mut attributes = Writer::default();
    attributes
        .put_text(1, TABLE)
        .put_text(2, set.name.as_str())
        .put_be32(3, flags)
        .put_be32(4, key_type)
        .put_be32(5, size(set.key.iter().map(|part| part.bytes()).sum()));
    if let Some(data) = set.data {
        attributes
            .put_be32(6, type_number(data))
            .put_be32(7, size(data.bytes()));
    }
    if set.interval && concatenated {
        attributes.nest(9, |description| {
            description.nest(2, |fields| {
                for part in set.key {
                    fields.nest(LIST_ELEMENT, |field| {
                        field.put_be32(1, size(part.bytes()));
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
    let order = |part: Type| {
        if part == Type::Interface {
            HOST
        } else {
            NETWORK
        }
    };
    let key = match set.key {
        [part] => order(*part),
        _ => 0,
    };
    let mut bytes = vec![0, 4];
    bytes.extend_from_slice(&key.to_ne_bytes());
    if let Some(data) = set.data {
        bytes.extend_from_slice(&[1, 4]);
        bytes.extend_from_slice(&order(data).to_ne_bytes());
    }
    bytes
}

/// The number by which nft(8) knows a type (nftables, `datatype.h`).
fn type_number(part: Type) -> u32 {
    match part {
        Type::Interface => 41,
        Type::Ipv4 => 7,
        Type::Ipv6 => 8,
    }
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn chain_attributes(chain: &Chain) -> Writer {
    let hook: u32 = match chain.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let accept: u32 = 1;
    let mut attributes = Writer::default();
    attributes
        .put_text(1, TABLE)
        .put_text(3, chain.name)
        .nest(4, |place| {
            place
                .put_be32(1, hook)
                .put(2, &chain.priority.to_be_bytes());
        })
        .put_be32(5, accept)
        .put_text(
            7,
            match chain.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
    attributes
}

fn rule_attributes(chain: &str, rule: &Rule) -> Writer {
    let mut attributes = Writer::default();
    attributes
        .put_text(1, TABLE)
        .put_text(2, chain)
        .nest(4, |list| {
            for condition in &rule.when {
                put_condition(list, condition);
            }
            put_verdict(list, rule.verdict);
        });
    attributes
}

fn put_condition(list: &mut Writer, condition: &Condition) {
    match condition {
        Condition::In(selectors, set) => put_lookup(list, selectors, *set, false),
        Condition::NotIn(selectors, set) => put_lookup(list, selectors, *set, true),
        // `CT_STATE`: established is bit 1, related bit 2.
        Condition::Established => put_ct_mask(list, 0, 0b110),
        // `IPS_DST_NAT` of `CT_STATUS`.
        Condition::Published => put_ct_mask(list, 2, 0x20),
        Condition::Family(family) => {
            put_meta(list, REGISTER, 15);
            put_equal(
                list,
                &[match family {
                    Family::V4 => libc::NFPROTO_IPV4 as u8,
                    Family::V6 => libc::NFPROTO_IPV6 as u8,
                }],
            );
        }
        Condition::Icmp(family, message) => {
            put_meta(list, REGISTER, 16);
            put_equal(
                list,
                &[match family {
                    Family::V4 => libc::IPPROTO_ICMP as u8,
                    Family::V6 => libc::IPPROTO_ICMPV6 as u8,
                }],
            );
            put_payload(list, REGISTER, Header::Transport, 0, 1);
            put_equal(list, &[*message]);
        }
    }
}

fn put_lookup(list: &mut Writer, selectors: &[Selector], set: SetName, inverted: bool) {
    for (register, selector) in (REGISTER..).zip(selectors) {
        match selector {
            Selector::InputInterface => put_meta(list, register, 6),
            Selector::OutputInterface => put_meta(list, register, 7),
            Selector::Source(family) => put_source(list, register, *family),
        }
    }
    put_expression(list, "lookup", |data| {
        data.put_text(1, set.as_str()).put_be32(2, REGISTER);
        if inverted {
            data.put_be32(5, 1);
        }
    });
}

fn put_source(list: &mut Writer, register: u32, family: Family) {
    match family {
        Family::V4 => put_payload(list, register, Header::Network, 12, 4),
        Family::V6 => put_payload(list, register, Header::Network, 8, 16),
    }
}

fn put_verdict(list: &mut Writer, verdict: Verdict) {
    match verdict {
        Verdict::Accept => put_code(list, libc::NF_ACCEPT),
        Verdict::Drop => put_code(list, libc::NF_DROP),
        // `NFT_RETURN`
        Verdict::Return => put_code(list, -5),
        Verdict::Untracked => put_expression(list, "notrack", |_| {}),
        Verdict::Masquerade => put_expression(list, "masq", |_| {}),
        Verdict::SnatBySource(family, map) => {
            put_source(list, REGISTER, family);
            put_expression(list, "lookup", |data| {
                data.put_text(1, map.as_str())
                    .put_be32(2, REGISTER)
                    .put_be32(3, REGISTER);
            });
            let family = match family {
                Family::V4 => libc::NFPROTO_IPV4,
                Family::V6 => libc::NFPROTO_IPV6,
            };
            put_expression(list, "nat", |data| {
                let source_nat = 0;
                data.put_be32(1, source_nat)
                    .put_be32(2, family.unsigned_abs())
                    .put_be32(3, REGISTER);
            });
        }
    }
}

/// The headers that a payload expression counts from.
#[derive(Debug, Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

fn put_expression(list: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    list.nest(LIST_ELEMENT, |expression| {
        expression.put_text(1, name).nest(2, fill);
    });
}

fn put_meta(list: &mut Writer, register: u32, key: u32) {
    put_expression(list, "meta", |data| {
        data.put_be32(2, key).put_be32(1, register);
    });
}

fn put_payload(list: &mut Writer, register: u32, header: Header, offset: u32, length: u32) {
    put_expression(list, "payload", |data| {
        data.put_be32(1, register)
            .put_be32(2, header as u32)
            .put_be32(3, offset)
            .put_be32(4, length);
    });
}

fn put_equal(list: &mut Writer, value: &[u8]) {
    put_compare(list, 0, value);
}

fn put_compare(list: &mut Writer, operator: u32, value: &[u8]) {
    put_expression(list, "cmp", |data| {
        data.put_be32(1, REGISTER)
            .put_be32(2, operator)
            .nest(3, |right| {
                right.put(DATA_VALUE, value);
            });
    });
}

/// Any of the bits of `mask` in a field of the connection.
fn put_ct_mask(list: &mut Writer, key: u32, mask: u32) {
    const NOT_EQUAL: u32 = 1;
    put_expression(list, "ct", |data| {
        data.put_be32(2, key).put_be32(1, REGISTER);
    });
    put_expression(list, "bitwise", |data| {
        data.put_be32(1, REGISTER)
            .put_be32(2, REGISTER)
            .put_be32(3, 4)
            .nest(4, |value| {
                value.put(DATA_VALUE, &mask.to_ne_bytes());
            })
            .nest(5, |value| {
                value.put(DATA_VALUE, &[0; 4]);
            });
    });
    put_compare(list, NOT_EQUAL, &[0; 4]);
}

fn put_code(list: &mut Writer, code: i32) {
    put_expression(list, "immediate", |data| {
        data.put_be32(1, REGISTER_VERDICT).nest(2, |value| {
            value.nest(2, |verdict| {
                verdict.put(1, &code.to_be_bytes());
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_encoded_as_the_kernel_documents_it() {
        let mut list = Writer::default();
        put_code(&mut list, libc::NF_DROP);
        let expected = [
            &[48, 0, 1, 0x80][..], // list element
            &[
                14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
            ],
            &[28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0], // data, verdict register
            &[16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(list.0, expected);
    }

    #[test]
    fn key_types_and_lengths_of_a_concatenation_are_those_of_nft() {
        let set = Set::of(SetName::Intra);
        let attributes = set_attributes(3, &set);
        let read = crate::netlink::attribute::Attributes::of(&attributes.0);
        assert_eq!(read.find(4), Some(&(41_u32 << 6 | 41).to_be_bytes()[..]));
        assert_eq!(read.find(5), Some(&32_u32.to_be_bytes()[..]));
        assert_eq!(read.find(10), Some(&3_u32.to_be_bytes()[..]));
    }
}
