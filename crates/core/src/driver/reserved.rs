//! Ports that the kernel gives to nobody who does not ask for them by number
//! (`net.ipv4.ip_local_reserved_ports`, Documentation/networking/ip-sysctl.rst).

use tombolo_netstate::object::port::PortRange;

/// The setting.
pub const SYSCTL: &str = "net/ipv4/ip_local_reserved_ports";

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
