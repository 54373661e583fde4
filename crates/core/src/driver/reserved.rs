//! Ports that the kernel gives to nobody who does not ask for them by number
//! (`net.ipv4.ip_local_reserved_ports`, Documentation/networking/ip-sysctl.rst).

use tombolo_netstate::object::port::PortRange;

/// The setting.
pub const SYSCTL: &str = "net/ipv4/ip_local_reserved_ports";

/// The setting with the range from which the kernel chooses ports.
pub const LOCAL: &str = "net/ipv4/ip_local_port_range";

/// Highest ports of that range that are never reserved: a host without any could open no connection. What comes
/// back to one of them belongs to a connection that is known, and is not taken for the publication.
const LEFT: u16 = 2_048;

/// `ranges` without the last ports of the range `local`, as the kernel shows it.
pub fn sparing(ranges: &[PortRange], local: &str) -> Vec<PortRange> {
    let mut numbers = local
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    let spared = match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => {
            PortRange::new(u16::max(first, last - LEFT.min(last)), last).ok()
        }
        _ => None,
    };
    let Some(spared) = spared else {
        return ranges.to_vec();
    };
    let around = |range: &PortRange| {
        let below = (range.first(), range.last().min(spared.first() - 1));
        let above = (
            range.first().max(spared.last().saturating_add(1)),
            range.last(),
        );
        let whole = (range.first(), range.last());
        match range.overlaps(spared) {
            true => vec![below, above],
            false => vec![whole],
        }
    };
    let parts = ranges.iter().flat_map(around);
    let parts = parts.filter(|(first, _)| *first <= spared.first() || *first > spared.last());
    parts
        .filter_map(|(first, last)| PortRange::new(first, last).ok())
        .collect()
}

/// The setting with `ranges` added, written as the kernel writes it: ascending, nothing twice, neighbours in
/// one range.
pub fn with(before: &str, ranges: &[PortRange]) -> String {
    let given = before
        .trim()
        .split(',')
        .filter_map(|text| text.trim().parse().ok());
    let mut all: Vec<PortRange> = given.chain(ranges.iter().copied()).collect();
    all.sort();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for next in all {
        match merged.last_mut() {
            Some((_, last)) if u32::from(next.first()) <= u32::from(*last) + 1 => {
                *last = next.last().max(*last);
            }
            _ => merged.push((next.first(), next.last())),
        }
    }
    let words = merged.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_ports_for_its_own_connections() {
        let range = |first, last| PortRange::new(first, last).unwrap();
        let local = "32768\t60999\n";
        let all = sparing(&[range(1, 65_535)], local);
        assert_eq!(all, [range(1, 58_950), range(61_000, 65_535)]);
        assert_eq!(sparing(&[range(59_000, 60_000)], local), []);
        assert_eq!(
            sparing(&[range(8_000, 9_000)], local),
            [range(8_000, 9_000)]
        );
        assert_eq!(
            sparing(&[range(60_000, 61_010)], local),
            [range(61_000, 61_010)]
        );
        assert_eq!(sparing(&[range(1, 9)], ""), [range(1, 9)]);
        assert_eq!(sparing(&[range(1, 9)], "1 65535"), [range(1, 9)]);
    }

    #[test]
    fn ranges_are_added_to_what_was_there() {
        let range = |first, last| PortRange::new(first, last).unwrap();
        assert_eq!(with("", &[range(8000, 9000)]), "8000-9000");
        assert_eq!(with("\n", &[]), "");
        assert_eq!(
            with(
                "22,8080,9001-9002\n",
                &[range(8000, 9000), range(30000, 40000)]
            ),
            "22,8000-9002,30000-40000"
        );
        assert_eq!(with("", &[range(1, 65535)]), "1-65535");
    }
}
