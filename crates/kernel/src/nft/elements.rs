//! Elements of sets and maps: encoding, transactions that find their culprit, and reading back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tombolo_netstate::IfName;
use tombolo_netstate::object::nft::ruleset::{Set, Type};
use tombolo_netstate::object::nft::{ElementKey, ElementSpec, Field, SetName, TABLE};

use super::{CREATE, FAMILY_INET, HEAD, NftSocket, SUBSYSTEM, Transaction, kind, request};
use crate::limits::TRANSACTION_ELEMENTS_MAX;
use crate::netlink::attribute::{Attributes, Writer, read_be32, read_text};
use crate::netlink::batch::Refusal;
use crate::sys::Errno;

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;

/// A change of one element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElementChange<'a> {
    pub(crate) key: &'a ElementKey,
    pub(crate) spec: &'a ElementSpec,
    /// Removed rather than added.
    pub(crate) remove: bool,
}

/// Carries out the changes in one transaction, or several when there are very many. When the kernel refuses
/// some, the others are carried out without them.
pub(crate) fn change_elements(
    nft: &NftSocket,
    changes: &[ElementChange<'_>],
) -> Vec<Result<(), Refusal>> {
    changes
        .chunks(TRANSACTION_ELEMENTS_MAX)
        .flat_map(|chunk| change_chunk(nft, chunk))
        .collect()
}

fn change_chunk(nft: &NftSocket, changes: &[ElementChange<'_>]) -> Vec<Result<(), Refusal>> {
    let mut results = vec![Ok(()); changes.len()];
    let mut left: Vec<usize> = Vec::new();
    for (place, change) in changes.iter().enumerate() {
        match encode(change) {
            Some(_) => left.push(place),
            None => results[place] = Err(unfit()),
        }
    }
    let Err(first) = try_together(nft, changes, &left) else {
        return results;
    };
    let blamed: Vec<usize> = first.iter().map(|(place, _)| *place).collect();
    let rest: Vec<usize> = left
        .iter()
        .copied()
        .filter(|place| !blamed.contains(place))
        .collect();
    for (place, refusal) in first {
        results[place] = Err(refusal);
    }
    if !blamed.is_empty() && try_together(nft, changes, &rest).is_ok() {
        return results;
    }
    for place in rest {
        if let Err(mut blame) = try_together(nft, changes, &[place]) {
            results[place] = Err(blame.pop().map_or_else(unfit, |(_, refusal)| refusal));
        }
    }
    results
}

fn unfit() -> Refusal {
    Refusal {
        errno: Errno(libc::EINVAL),
        reason: Some("the fields are not those of the set".into()),
    }
}

/// The places that the kernel blames; a single one is to blame in any case.
fn try_together(
    nft: &NftSocket,
    changes: &[ElementChange<'_>],
    places: &[usize],
) -> Result<(), Vec<(usize, Refusal)>> {
    if places.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    for attributes in places
        .iter()
        .filter_map(|place| encode(&changes[*place]).map(|a| (place, a)))
    {
        let (place, attributes) = attributes;
        let (kind, flags) = if changes[*place].remove {
            (kind::DELETE_ELEMENT, 0)
        } else {
            (kind::NEW_ELEMENT, CREATE)
        };
        transaction.push(kind, flags, &attributes);
    }
    let committed = transaction.commit(nft);
    let mut blame: Vec<(usize, Refusal)> = places
        .iter()
        .zip(committed.requests)
        .filter_map(|(place, result)| Some((*place, result.err()?)))
        .collect();
    match committed.whole {
        Some(refusal) if places.len() == 1 && blame.is_empty() => blame.push((places[0], refusal)),
        None if blame.is_empty() => return Ok(()),
        _ => {}
    }
    Err(blame)
}

/// The request's attributes; none when the fields are not of the set's types.
fn encode(change: &ElementChange<'_>) -> Option<Writer> {
    let set = Set::of(change.key.set);
    let (start, end) = key_bytes(&set, &change.key.fields)?;
    let data = match set.data {
        Some(kind) => Some(value_bytes(kind, *change.spec.data.first()?)?),
        None => None,
    };
    let concatenated = set.key.len() > 1;
    let mut attributes = Writer::default();
    attributes
        .put_text(1, TABLE)
        .put_text(2, set.name.as_str())
        .nest(3, |list| {
            list.nest(LIST_ELEMENT, |element| {
                put_key(element, 1, &start);
                if let (true, true, Some(end)) = (set.interval, concatenated, &end) {
                    put_key(element, 10, end);
                }
                if let Some(data) = &data {
                    put_key(element, 2, data);
                }
            });
            if let (true, false, Some(after)) =
                (set.interval, concatenated, end.as_deref().and_then(next))
            {
                list.nest(LIST_ELEMENT, |element| {
                    put_key(element, 1, &after);
                    element.put_be32(3, INTERVAL_END);
                });
            }
        });
    Some(attributes)
}

fn put_key(element: &mut Writer, kind: u16, value: &[u8]) {
    element.nest(kind, |data| {
        data.put(1, value);
    });
}

/// First and last key that the fields stand for; the last only in sets of intervals.
fn key_bytes(set: &Set, fields: &[Field]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    if fields.len() != set.key.len() {
        return None;
    }
    let (mut start, mut end) = (Vec::new(), Vec::new());
    for (kind, field) in set.key.iter().zip(fields) {
        match (set.interval, field) {
            (true, Field::Net(net)) => {
                start.extend(value_bytes(*kind, Field::Address(net.network()))?);
                end.extend(value_bytes(*kind, Field::Address(net.broadcast()))?);
            }
            _ => {
                let value = value_bytes(*kind, *field)?;
                start.extend_from_slice(&value);
                end.extend(value);
            }
        }
    }
    Some((start, set.interval.then_some(end)))
}

fn value_bytes(kind: Type, field: Field) -> Option<Vec<u8>> {
    match (kind, field) {
        (Type::Interface, Field::Name(name)) => {
            let mut bytes = name.as_str().as_bytes().to_vec();
            bytes.resize(Type::Interface.bytes(), 0);
            Some(bytes)
        }
        (Type::Ipv4, Field::Address(IpAddr::V4(ip))) => Some(ip.octets().to_vec()),
        (Type::Ipv6, Field::Address(IpAddr::V6(ip))) => Some(ip.octets().to_vec()),
        _ => None,
    }
}

/// The number after `bytes`; none after the last.
fn next(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        let (more, carried) = byte.overflowing_add(1);
        *byte = more;
        if !carried {
            return Some(bytes);
        }
    }
    None
}

/// An element as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Raw {
    key: Vec<u8>,
    /// At one key, the end of an interval comes before the start of the next.
    starts: bool,
    data: Option<Vec<u8>>,
}

/// All elements of a set; those that no field of ours can express are left out and counted.
pub(crate) fn dump_elements(
    nft: &NftSocket,
    name: SetName,
) -> std::io::Result<(Vec<(ElementKey, ElementSpec)>, usize)> {
    let mut asked = Writer::default();
    asked.put_text(1, TABLE).put_text(2, name.as_str());
    let body = request(FAMILY_INET, &asked);
    let mut raw = Vec::new();
    nft.with(|socket, buffer| {
        socket.dump(
            SUBSYSTEM << 8 | kind::GET_ELEMENT,
            &body,
            buffer,
            |message| match message {
                None => raw.clear(),
                Some(message) => read_elements(message.body, name, &mut raw),
            },
        )
    })?;
    raw.sort();
    Ok(decode(&Set::of(name), &raw))
}

fn read_elements(body: &[u8], name: SetName, raw: &mut Vec<Raw>) {
    let attributes = Attributes::after(body, HEAD);
    if attributes.find(2).and_then(read_text) != Some(name.as_str()) {
        return;
    }
    let value = |nested: &[u8]| Attributes::of(nested).find(1).map(<[u8]>::to_vec);
    for (_, element) in Attributes::of(attributes.find(3).unwrap_or_default()) {
        let element = Attributes::of(element);
        let Some(key) = element.find(1).and_then(value) else {
            continue;
        };
        let flags = element.find(3).and_then(read_be32).unwrap_or(0);
        raw.push(Raw {
            key,
            starts: flags & INTERVAL_END == 0,
            data: element.find(2).and_then(value),
        });
    }
}

fn decode(set: &Set, raw: &[Raw]) -> (Vec<(ElementKey, ElementSpec)>, usize) {
    let (mut elements, mut strange) = (Vec::new(), 0);
    for (place, element) in raw.iter().enumerate().filter(|(_, element)| element.starts) {
        let after = raw
            .get(place + 1)
            .filter(|next| !next.starts)
            .map(|next| next.key.as_slice());
        let data = match (set.data, &element.data) {
            (Some(kind), Some(bytes)) => field(kind, bytes).map(|field| vec![field]),
            (None, _) => Some(Vec::new()),
            (Some(_), None) => None,
        };
        match (fields(set, &element.key, after), data) {
            (Some(fields), Some(data)) => {
                elements.push((
                    ElementKey {
                        set: set.name,
                        fields,
                    },
                    ElementSpec { data },
                ));
            }
            _ => strange += 1,
        }
    }
    (elements, strange)
}

fn fields(set: &Set, key: &[u8], after: Option<&[u8]>) -> Option<Vec<Field>> {
    if set.interval {
        return Some(vec![Field::Net(net(key, after)?)]);
    }
    let mut rest = key;
    let mut fields = Vec::new();
    for kind in set.key {
        let (part, others) = rest.split_at_checked(kind.bytes())?;
        fields.push(field(*kind, part)?);
        rest = others;
    }
    rest.is_empty().then_some(fields)
}

fn field(kind: Type, bytes: &[u8]) -> Option<Field> {
    Some(match kind {
        Type::Interface => Field::Name(IfName::new(read_text(bytes)?).ok()?),
        Type::Ipv4 => Field::Address(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        Type::Ipv6 => Field::Address(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
    })
}

/// The subnet from `start` up to, not including, `after`; none when the range is not one subnet.
fn net(start: &[u8], after: Option<&[u8]>) -> Option<IpNet> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte))
    };
    let first = number(start);
    let bits = u32::try_from(start.len() * 8).ok()?;
    let last = match after {
        Some(after) => number(after).checked_sub(1)?,
        None => u128::MAX >> (128 - bits),
    };
    let host_bits = (first ^ last).count_ones();
    let size_fits =
        last.checked_sub(first)? == 1_u128.checked_shl(host_bits).map_or(u128::MAX, |n| n - 1);
    if !size_fits || first.trailing_zeros() < host_bits.min(bits) && first != 0 {
        return None;
    }
    let prefix = u8::try_from(bits - host_bits).ok()?;
    match start.len() {
        4 => Some(
            Ipv4Net::new(Ipv4Addr::from(*start.first_chunk::<4>()?), prefix)
                .ok()?
                .into(),
        ),
        16 => Some(
            Ipv6Net::new(Ipv6Addr::from(*start.first_chunk::<16>()?), prefix)
                .ok()?
                .into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(set: SetName, net: &str) -> Option<Field> {
        let set = Set::of(set);
        let (start, end) = key_bytes(&set, &[Field::Net(net.parse().unwrap())]).unwrap();
        let after = end.as_deref().and_then(next);
        fields(&set, &start, after.as_deref()).map(|fields| fields[0])
    }

    #[test]
    fn subnets_survive_as_intervals() {
        for net in [
            "10.0.0.0/8",
            "192.168.7.0/24",
            "10.1.2.3/32",
            "0.0.0.0/0",
            "255.255.255.255/32",
        ] {
            let read = round_trip(SetName::Masquerade4, net);
            assert_eq!(read, Some(Field::Net(net.parse().unwrap())), "{net}");
        }
        for net in [
            "fd00::/64",
            "::/0",
            "fd00::1/128",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        ] {
            let read = round_trip(SetName::Masquerade6, net);
            assert_eq!(read, Some(Field::Net(net.parse().unwrap())), "{net}");
        }
    }

    #[test]
    fn ranges_that_are_no_subnet_are_told_apart() {
        assert_eq!(
            net(&[10, 0, 0, 1], Some(&[10, 0, 0, 3])),
            None,
            "two unaligned addresses"
        );
        assert_eq!(
            net(&[10, 0, 0, 0], Some(&[10, 0, 0, 3])),
            None,
            "three addresses"
        );
        assert_eq!(net(&[10, 0, 0, 4], Some(&[10, 0, 0, 4])), None, "nothing");
    }

    #[test]
    fn fields_of_another_type_are_refused_before_the_kernel_sees_them() {
        let name = Field::Name(IfName::new("br0").unwrap());
        let set = Set::of(SetName::Intra);
        assert_eq!(key_bytes(&set, &[name]), None, "one field of two");
        assert!(key_bytes(&set, &[name, name]).is_some());
        let v6 = Field::Net("fd00::/64".parse().unwrap());
        assert_eq!(key_bytes(&Set::of(SetName::Masquerade4), &[v6]), None);
    }

    #[test]
    fn adjacent_subnets_stay_two() {
        let raw = |last: u8, starts| Raw {
            key: vec![10, 0, last, 0],
            starts,
            data: None,
        };
        let mut all = vec![raw(0, true), raw(1, true), raw(1, false), raw(2, false)];
        all.sort();
        let (read, strange) = decode(&Set::of(SetName::Masquerade4), &all);
        assert_eq!((read.len(), strange), (2, 0), "{read:?}");
    }
}
