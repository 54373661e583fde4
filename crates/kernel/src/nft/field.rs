//! Fields of elements as the kernel holds them: bytes in network order, in a concatenation each padded to
//! whole registers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tombolo_netstate::IfName;
use tombolo_netstate::object::nft::Field;
use tombolo_netstate::object::nft::ruleset::{Set, Type};
use tombolo_netstate::object::port::{PortRange, Protocol};

use super::padded;

/// First and last key that the fields stand for, the last only in sets of intervals; none when the fields are
/// not those of the set.
pub(super) fn key(set: &Set, fields: &[Field]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    if !set.interval {
        return Some((value(set.key, fields)?, None));
    }
    if fields.len() != set.key.len() {
        return None;
    }
    let bounds: Option<Vec<(Field, Field)>> = set
        .key
        .iter()
        .zip(fields)
        .map(|(kind, field)| bounds(*kind, *field))
        .collect();
    let (first, last): (Vec<Field>, Vec<Field>) = bounds?.into_iter().unzip();
    Some((value(set.key, &first)?, Some(value(set.key, &last)?)))
}

/// A value of these types; none when the fields are of others.
pub(super) fn value(kinds: &[Type], fields: &[Field]) -> Option<Vec<u8>> {
    if kinds.len() != fields.len() {
        return None;
    }
    let concatenated = kinds.len() > 1;
    let mut bytes = Vec::with_capacity(40);
    for (kind, field) in kinds.iter().zip(fields) {
        put(&mut bytes, *kind, *field)?;
        if concatenated {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    Some(bytes)
}

fn put(bytes: &mut Vec<u8>, kind: Type, field: Field) -> Option<()> {
    match (kind, field) {
        (Type::Interface, Field::Name(name)) => {
            let end = bytes.len() + kind.bytes();
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.resize(end, 0);
        }
        (Type::Ipv4, Field::Address(IpAddr::V4(ip))) => bytes.extend(ip.octets()),
        (Type::Ipv6, Field::Address(IpAddr::V6(ip))) => bytes.extend(ip.octets()),
        (Type::Protocol, Field::Protocol(protocol)) => bytes.push(protocol.number()),
        (Type::Port, Field::Port(port)) => bytes.extend(port.to_be_bytes()),
        _ => return None,
    }
    Some(())
}

/// The least and the greatest value that a part of an interval stands for.
fn bounds(kind: Type, field: Field) -> Option<(Field, Field)> {
    match (kind, field) {
        (Type::Ipv4 | Type::Ipv6, Field::Net(net)) => Some((
            Field::Address(net.network()),
            Field::Address(net.broadcast()),
        )),
        (Type::Port, Field::Ports(ports)) => {
            Some((Field::Port(ports.first()), Field::Port(ports.last())))
        }
        (Type::Protocol, Field::Protocol(_)) => Some((field, field)),
        _ => None,
    }
}

/// The fields of a value, none when we have no words for it.
pub(super) fn read(kinds: &[Type], bytes: &[u8]) -> Option<Vec<Field>> {
    let parts = split(kinds, bytes)?;
    kinds
        .iter()
        .zip(parts)
        .map(|(kind, part)| read_part(*kind, part))
        .collect()
}

/// The fields of all values from `first` to `last`, none when we have no words for them.
pub(super) fn read_interval(kinds: &[Type], first: &[u8], last: &[u8]) -> Option<Vec<Field>> {
    let parts = split(kinds, first)?.into_iter().zip(split(kinds, last)?);
    kinds
        .iter()
        .zip(parts)
        .map(|(kind, (first, last))| match kind {
            Type::Ipv4 | Type::Ipv6 => Some(Field::Net(subnet(first, last)?)),
            Type::Port => PortRange::new(read_port(first)?, read_port(last)?)
                .map_or(None, |ports| Some(Field::Ports(ports))),
            Type::Interface | Type::Protocol if first == last => read_part(*kind, first),
            Type::Interface | Type::Protocol => None,
        })
        .collect()
}

/// The parts of a concatenation, without their padding.
fn split<'a>(kinds: &[Type], bytes: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    if let [kind] = kinds {
        return (bytes.len() == kind.bytes()).then(|| vec![bytes]);
    }
    let mut rest = bytes;
    let mut parts = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let (part, others) = rest.split_at_checked(padded(*kind))?;
        parts.push(&part[..kind.bytes()]);
        rest = others;
    }
    rest.is_empty().then_some(parts)
}

fn read_part(kind: Type, bytes: &[u8]) -> Option<Field> {
    Some(match kind {
        Type::Interface => {
            let name = crate::netlink::attribute::read_text(bytes)?;
            Field::Name(IfName::new(name).ok()?)
        }
        Type::Ipv4 => Field::Address(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        Type::Ipv6 => Field::Address(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        Type::Protocol => Field::Protocol(Protocol::from_number(*bytes.first()?)?),
        Type::Port => Field::Port(read_port(bytes)?),
    })
}

fn read_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}

/// The subnet from `first` to `last`; none when the range is not one subnet.
fn subnet(first: &[u8], last: &[u8]) -> Option<IpNet> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte))
    };
    let bits = u32::try_from(first.len() * 8).ok()?;
    let differing = number(first) ^ number(last);
    let host_bits = u128::BITS - differing.leading_zeros();
    let host_mask = u128::MAX.checked_shr(u128::BITS - host_bits).unwrap_or(0);
    let is_subnet = number(first) & host_mask == 0 && number(last) & host_mask == host_mask;
    let prefix = u8::try_from(bits - host_bits).ok()?;
    if !is_subnet {
        return None;
    }
    match first.len() {
        4 => Some(
            Ipv4Net::new(Ipv4Addr::from(*first.first_chunk::<4>()?), prefix)
                .ok()?
                .into(),
        ),
        16 => Some(
            Ipv6Net::new(Ipv6Addr::from(*first.first_chunk::<16>()?), prefix)
                .ok()?
                .into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tombolo_netstate::object::nft::SetName;

    use super::*;

    fn net(text: &str) -> Field {
        Field::Net(text.parse().unwrap())
    }

    fn round_trip(set: SetName, fields: &[Field]) -> Option<Vec<Field>> {
        let set = Set::of(set);
        let (first, last) = key(&set, fields).unwrap();
        match last {
            Some(last) => read_interval(set.key, &first, &last),
            None => read(set.key, &first),
        }
    }

    #[test]
    fn subnets_survive_as_intervals() {
        for text in [
            "10.0.0.0/8",
            "192.168.7.0/24",
            "10.1.2.3/32",
            "0.0.0.0/0",
            "255.255.255.255/32",
        ] {
            let read = round_trip(SetName::Masquerade4, &[net(text)]);
            assert_eq!(read, Some(vec![net(text)]), "{text}");
        }
        for text in [
            "fd00::/64",
            "::/0",
            "fd00::1/128",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        ] {
            let read = round_trip(SetName::Masquerade6, &[net(text)]);
            assert_eq!(read, Some(vec![net(text)]), "{text}");
        }
    }

    #[test]
    fn ranges_that_are_no_subnet_are_told_apart() {
        for (first, last, why) in [
            ([10, 0, 0, 1], [10, 0, 0, 2], "two unaligned addresses"),
            ([10, 0, 0, 0], [10, 0, 0, 2], "three addresses"),
            ([10, 0, 0, 4], [10, 0, 0, 3], "nothing"),
        ] {
            assert_eq!(subnet(&first, &last), None, "{why}");
        }
    }

    #[test]
    fn a_publication_survives_and_its_bytes_are_those_of_the_registers() {
        let ports = |first, last| Field::Ports(PortRange::new(first, last).unwrap());
        let fields = [
            net("0.0.0.0/0"),
            Field::Protocol(Protocol::Sctp),
            net("192.0.2.1/32"),
            ports(8000, 8009),
        ];
        let set = Set::of(SetName::PublishRange4);
        let (first, last) = key(&set, &fields).unwrap();
        let start = [0, 0, 0, 0, 132, 0, 0, 0, 192, 0, 2, 1, 0x1f, 0x40, 0, 0];
        assert_eq!(first, start);
        let end = [
            255, 255, 255, 255, 132, 0, 0, 0, 192, 0, 2, 1, 0x1f, 0x49, 0, 0,
        ];
        assert_eq!(last.as_deref(), Some(&end[..]));
        assert_eq!(
            read_interval(set.key, &first, &end).as_deref(),
            Some(&fields[..])
        );
    }

    #[test]
    fn fields_of_another_type_are_refused_before_the_kernel_sees_them() {
        let name = Field::Name(IfName::new("br0").unwrap());
        let set = Set::of(SetName::Intra);
        assert_eq!(key(&set, &[name]), None, "one field of two");
        assert!(key(&set, &[name, name]).is_some());
        assert_eq!(
            key(&Set::of(SetName::Masquerade4), &[net("fd00::/64")]),
            None
        );
        let address = Field::Address(Ipv4Addr::LOCALHOST.into());
        assert_eq!(
            key(&Set::of(SetName::Masquerade4), &[address]),
            None,
            "it would be read back as a subnet"
        );
        let exact = Set::of(SetName::PublishAny4);
        let protocol = Field::Protocol(Protocol::Tcp);
        assert_eq!(
            key(
                &exact,
                &[protocol, Field::Ports(PortRange::one(80).unwrap())]
            ),
            None
        );
        assert!(key(&exact, &[protocol, Field::Port(80)]).is_some());
    }
}
