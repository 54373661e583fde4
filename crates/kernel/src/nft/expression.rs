//! Conditions and verdicts as nf_tables expressions (linux/netfilter/nf_tables.h).
//!
//! Each is encoded as nft(8) encodes the same text, so that `nft list ruleset` reads well.

use ipnet::IpNet;
use tombolo_netstate::object::nft::SetName;
use tombolo_netstate::object::nft::ruleset::{
    Condition, Family, Rule, Selector, Set, Type, Verdict,
};

use super::padded;
use crate::netlink::attribute::Writer;

/// `NFT_REG32_00`, where `NFT_REG_1` begins; the next one follows four bytes on.
pub(super) const REGISTER: u32 = 8;
/// Behind what a map of ours leads to: what is asked of a map does not lie where its answer comes to. nft(8)
/// would take the one for the other.
const ASKED: u32 = REGISTER + 6;
/// `NFT_REG_VERDICT`.
const REGISTER_VERDICT: u32 = 0;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`.
const DATA_VALUE: u16 = 1;
/// `NFT_META_MARK`.
const META_MARK: u32 = 3;
/// Bytes of an interface name.
const NAME_BYTES: usize = 16;

/// `NF_NAT_RANGE_MAP_IPS` (linux/netfilter/nf_nat.h).
const NAT_ADDRESSES: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const NAT_PORTS: u32 = 1 << 1;
/// `NF_NAT_RANGE_PROTO_OFFSET`.
const NAT_OFFSET: u32 = 1 << 5;

/// How a comparison is meant (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// The headers that a payload expression counts from.
#[derive(Debug, Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// Appends the expressions of a rule.
pub(super) fn put_rule(list: &mut Writer, rule: &Rule) {
    for condition in &rule.when {
        put_condition(list, condition);
    }
    put_verdict(list, &rule.verdict);
}

fn put_condition(list: &mut Writer, condition: &Condition) {
    match condition {
        Condition::In(selectors, set) => put_test(list, selectors, *set, false),
        Condition::NotIn(selectors, set) => put_test(list, selectors, *set, true),
        // The answer stays in a register that nobody reads.
        Condition::Holds(selectors, map) => put_map(list, selectors, *map),
        // `CT_STATE`: established is bit 1, related bit 2.
        Condition::Established => put_ct_mask(list, 0, 0b110),
        // `IPS_DST_NAT` of `CT_STATUS`.
        Condition::Published => put_ct_mask(list, 2, 0x20),
        Condition::Family(family) => {
            put_meta(list, REGISTER, 15);
            put_compare(list, Compare::Equal, &[protocol_family(*family) as u8]);
        }
        Condition::Icmp(family, message) => {
            put_meta(list, REGISTER, 16);
            let protocol = match family {
                Family::V4 => libc::IPPROTO_ICMP,
                Family::V6 => libc::IPPROTO_ICMPV6,
            };
            put_compare(list, Compare::Equal, &[protocol as u8]);
            put_payload(list, REGISTER, Header::Transport, 0, 1);
            put_compare(list, Compare::Equal, &[*message]);
        }
        Condition::Elsewhere => put_elsewhere(list),
        Condition::Arrived => {
            let mut loopback = [0; NAME_BYTES];
            loopback[..2].copy_from_slice(b"lo");
            put_selectors(list, REGISTER, &[Selector::InputInterface]);
            put_compare(list, Compare::NotEqual, &loopback);
        }
        Condition::Within(selector, net) => put_within(list, *selector, *net),
        Condition::ToPort(port) => {
            put_selectors(list, REGISTER, &[Selector::DestinationPort]);
            put_compare(list, Compare::Equal, &port.to_be_bytes());
        }
        Condition::Unmarked(mark) => {
            put_meta(list, REGISTER, META_MARK);
            put_compare(list, Compare::NotEqual, &mark.to_ne_bytes());
        }
    }
}

fn put_verdict(list: &mut Writer, verdict: &Verdict) {
    match verdict {
        Verdict::Accept => put_code(list, libc::NF_ACCEPT, None),
        Verdict::Drop => put_code(list, libc::NF_DROP, None),
        // `NFT_RETURN`
        Verdict::Return => put_code(list, -5, None),
        // `NFT_JUMP`
        Verdict::Jump(chain) => put_code(list, -3, Some(chain)),
        Verdict::Untracked => put_expression(list, "notrack", |_| {}),
        Verdict::Masquerade => put_expression(list, "masq", |_| {}),
        Verdict::Dnat(family, selectors, map) => {
            put_map(list, selectors, *map);
            put_destination(list, *family, *map);
        }
        Verdict::Redirect(selectors, map) => {
            put_map(list, selectors, *map);
            put_expression(list, "redir", |data| {
                // The second one says the same: without it nft(8) lists a rule that it cannot read back, and
                // nobody could load a saved list of all rules.
                let greatest = REGISTER + registers(Type::Port);
                data.put_be32(1, REGISTER)
                    .put_be32(2, greatest)
                    .put_be32(3, NAT_PORTS);
            });
        }
        Verdict::SnatBySource(family, map) => {
            put_map(list, &[Selector::Source(*family)], *map);
            put_expression(list, "nat", |data| {
                let source_nat = 0;
                data.put_be32(1, source_nat)
                    .put_be32(2, protocol_family(*family))
                    .put_be32(3, REGISTER);
            });
        }
    }
}

/// Translates the destination to what the map left in the registers: an address and a port, or an address and
/// the least and the greatest port.
fn put_destination(list: &mut Writer, family: Family, map: SetName) {
    let parts = Set::of(map).data;
    let least = REGISTER + parts.first().map_or(0, |address| registers(*address));
    put_expression(list, "nat", |data| {
        let destination_nat = 1;
        data.put_be32(1, destination_nat)
            .put_be32(2, protocol_family(family))
            .put_be32(3, REGISTER)
            .put_be32(5, least);
        if parts.len() > 2 {
            data.put_be32(6, least + registers(Type::Port))
                .put_be32(7, NAT_ADDRESSES | NAT_PORTS | NAT_OFFSET);
        }
    });
}

/// Registers that a field of a concatenation takes.
fn registers(part: Type) -> u32 {
    u32::try_from(padded(part) / 4).unwrap_or(u32::MAX)
}

fn protocol_family(family: Family) -> u32 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4.unsigned_abs(),
        Family::V6 => libc::NFPROTO_IPV6.unsigned_abs(),
    }
}

fn put_test(list: &mut Writer, selectors: &[Selector], set: SetName, inverted: bool) {
    // Not where a map's answer goes: nft(8) would take what is left there for a part of it.
    put_selectors(list, ASKED, selectors);
    put_expression(list, "lookup", |data| {
        data.put_text(1, set.as_str()).put_be32(2, ASKED);
        if inverted {
            data.put_be32(5, 1);
        }
    });
}

/// Leaves in the registers what the map says of the fields; without an answer the rule ends.
fn put_map(list: &mut Writer, selectors: &[Selector], map: SetName) {
    put_selectors(list, ASKED, selectors);
    put_expression(list, "lookup", |data| {
        data.put_text(1, map.as_str())
            .put_be32(2, ASKED)
            .put_be32(3, REGISTER);
    });
}

/// Loads the fields of a concatenation, one behind the other.
fn put_selectors(list: &mut Writer, first: u32, selectors: &[Selector]) {
    let mut register = first;
    for selector in selectors {
        let part = match selector {
            Selector::InputInterface => {
                put_meta(list, register, 6);
                Type::Interface
            }
            Selector::OutputInterface => {
                put_meta(list, register, 7);
                Type::Interface
            }
            Selector::Source(Family::V4) => put_address(list, register, 12, Type::Ipv4),
            Selector::Source(Family::V6) => put_address(list, register, 8, Type::Ipv6),
            Selector::Destination(Family::V4) => put_address(list, register, 16, Type::Ipv4),
            Selector::Destination(Family::V6) => put_address(list, register, 24, Type::Ipv6),
            Selector::Protocol => {
                put_meta(list, register, 16);
                Type::Protocol
            }
            Selector::DestinationPort => {
                put_payload(list, register, Header::Transport, 2, 2);
                Type::Port
            }
        };
        register += registers(part);
    }
}

fn put_address(list: &mut Writer, register: u32, offset: u32, part: Type) -> Type {
    let bytes = registers(part) * 4;
    put_payload(list, register, Header::Network, offset, bytes);
    part
}

fn put_elsewhere(list: &mut Writer) {
    const DESTINATION: u32 = 1 << 1;
    const ADDRESS_TYPE: u32 = 3;
    put_expression(list, "fib", |data| {
        data.put_be32(3, DESTINATION)
            .put_be32(2, ADDRESS_TYPE)
            .put_be32(1, REGISTER);
    });
    let local = u32::from(libc::RTN_LOCAL);
    put_compare(list, Compare::NotEqual, &local.to_ne_bytes());
}

fn put_within(list: &mut Writer, selector: Selector, net: IpNet) {
    put_selectors(list, REGISTER, &[selector]);
    let bytes = |ip| match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    if net.prefix_len() < net.max_prefix_len() {
        put_mask(list, &bytes(net.netmask()));
    }
    put_compare(list, Compare::Equal, &bytes(net.network()));
}

pub(super) fn put_expression(list: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    list.nest(LIST_ELEMENT, |expression| {
        expression.put_text(1, name).nest(2, fill);
    });
}

pub(super) fn put_meta(list: &mut Writer, register: u32, key: u32) {
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

pub(super) fn put_compare(list: &mut Writer, compare: Compare, value: &[u8]) {
    put_expression(list, "cmp", |data| {
        data.put_be32(1, REGISTER)
            .put_be32(2, compare as u32)
            .nest(3, |right| {
                right.put(DATA_VALUE, value);
            });
    });
}

/// Keeps only the bits of `mask` in what was loaded.
fn put_mask(list: &mut Writer, mask: &[u8]) {
    put_expression(list, "bitwise", |data| {
        data.put_be32(1, REGISTER)
            .put_be32(2, REGISTER)
            .put_be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX))
            .nest(4, |value| {
                value.put(DATA_VALUE, mask);
            })
            .nest(5, |value| {
                value.put(DATA_VALUE, &vec![0; mask.len()]);
            });
    });
}

/// Any of the bits of `mask` in a field of the connection.
fn put_ct_mask(list: &mut Writer, key: u32, mask: u32) {
    put_expression(list, "ct", |data| {
        data.put_be32(2, key).put_be32(1, REGISTER);
    });
    put_mask(list, &mask.to_ne_bytes());
    put_compare(list, Compare::NotEqual, &[0; 4]);
}

pub(super) fn put_code(list: &mut Writer, code: i32, chain: Option<&str>) {
    put_expression(list, "immediate", |data| {
        data.put_be32(1, REGISTER_VERDICT).nest(2, |value| {
            value.nest(2, |verdict| {
                verdict.put(1, &code.to_be_bytes());
                if let Some(chain) = chain {
                    verdict.put_text(2, chain);
                }
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_encoded_as_the_kernel_documents_it() {
        let mut list = Writer::default();
        put_verdict(&mut list, &Verdict::Drop);
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
    fn nothing_is_masked_for_a_full_prefix() {
        let expressions = |net: &str| {
            let mut list = Writer::default();
            let condition =
                Condition::Within(Selector::Source(Family::V6), net.parse::<IpNet>().unwrap());
            put_condition(&mut list, &condition);
            crate::netlink::attribute::Attributes::of(&list.0).count()
        };
        assert_eq!(expressions("::1/128"), 2, "payload and cmp");
        assert_eq!(expressions("fe80::/10"), 3, "payload, bitwise and cmp");
    }
}
