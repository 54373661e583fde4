//! Names of addresses: `in-addr.arpa` (RFC 1035, section 3.5) and `ip6.arpa` (RFC 3596, section 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const V4: &str = ".in-addr.arpa";
const V6: &str = ".ip6.arpa";

/// The address that a name stands for, and where in the name the common domain begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reverse {
    pub(crate) address: IpAddr,
    pub(crate) apex: usize,
}

/// Reads the name of a whole address, in lower case; other forms are no address.
pub(crate) fn parse(name: &str) -> Option<Reverse> {
    if let Some(labels) = name.strip_suffix(V4) {
        let mut octets = [0; 4];
        fill(&mut octets, labels, octet)?;
        octets.reverse();
        let address = Ipv4Addr::from(octets).into();
        let apex = labels.len() + 1;
        return Some(Reverse { address, apex });
    }
    let labels = name.strip_suffix(V6)?;
    let mut nibbles = [0; 32];
    fill(&mut nibbles, labels, nibble)?;
    let bits = nibbles
        .iter()
        .rev()
        .fold(0, |bits, &nibble| bits << 4 | u128::from(nibble));
    let address = Ipv6Addr::from(bits).into();
    let apex = labels.len() + 1;
    Some(Reverse { address, apex })
}

/// Whether an address can have no name anywhere (RFC 6303, sections 4.2 to 4.5).
pub(crate) fn is_nameless(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// Reads exactly as many labels as there are places.
fn fill(places: &mut [u8], labels: &str, read: fn(&str) -> Option<u8>) -> Option<()> {
    let mut labels = labels.split('.');
    for place in places {
        *place = read(labels.next()?)?;
    }
    labels.next().is_none().then_some(())
}

fn octet(label: &str) -> Option<u8> {
    let plain = label.bytes().all(|b| b.is_ascii_digit());
    let short = label == "0" || !label.starts_with('0');
    (plain && short).then(|| label.parse().ok()).flatten()
}

fn nibble(label: &str) -> Option<u8> {
    match *label.as_bytes() {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [letter @ b'a'..=b'f'] => Some(letter - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_addresses_are_read() {
        let v6 = format!("{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(24));
        let address = "2001:db8::".parse().unwrap();
        assert_eq!(parse(&v6), Some(Reverse { address, apex: 64 }));
        for name in [
            "0.0.10.in-addr.arpa",
            "1.1.0.0.10.in-addr.arpa",
            "01.0.0.10.in-addr.arpa",
            "256.0.0.10.in-addr.arpa",
            "+1.0.0.10.in-addr.arpa",
            ".0.0.10.in-addr.arpa",
            "1.0.0.10.in-addr.arpa.x",
            "1.0.0.10.ip6.arpa",
            "in-addr.arpa",
            ".in-addr.arpa",
            "",
            &v6.replacen("0.", "00.", 1),
            &v6.replacen("0.", "g.", 1),
            &v6.replacen("0.", "", 1),
        ] {
            assert_eq!(parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn some_addresses_have_no_name_anywhere() {
        for (address, nameless) in [
            ("0.0.0.0", true),
            ("255.255.255.255", true),
            ("169.254.1.1", true),
            ("::", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("10.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(is_nameless(address.parse().unwrap()), nameless, "{address}");
        }
    }

    proptest! {
        #[test]
        fn every_address_has_a_name(v4: u32, v6: u128) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let name = Name::from(address).to_ascii();
                let read = parse(name.trim_end_matches('.'));
                prop_assert_eq!(read.map(|read| read.address), Some(address));
            }
        }
    }
}
