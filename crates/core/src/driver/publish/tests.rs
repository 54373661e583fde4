use proptest::prelude::*;

use super::*;

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

/// What the kernel does with a port (`nf_nat_l4proto_unique_tuple`, net/netfilter/nf_nat_core.c).
fn translated(piece: Piece, port: u16) -> u32 {
    let count = u32::from(piece.greatest) - u32::from(piece.least) + 1;
    u32::from(piece.least) + u32::from(port) % count
}

#[test]
fn a_single_port_and_an_unmoved_range_are_one_piece() {
    let pieces = shift(range(8080, 8080), 80);
    assert_eq!(pieces.len(), 1);
    assert_eq!((pieces[0].least, pieces[0].greatest), (80, 80));
    let all = shift(range(1, u16::MAX), 1);
    assert_eq!(
        all,
        [Piece {
            ports: range(1, u16::MAX),
            least: 0,
            greatest: u16::MAX
        }]
    );
    assert_eq!(shift(range(8000, 17_999), 80).len(), 2);
    assert_eq!(shift(range(20_000, 29_999), 1000).len(), 1);
}

proptest! {
    #[test]
    fn every_port_of_a_range_becomes_the_one_as_far_from_the_first(
        first in 1_u16..=u16::MAX,
        length in 0_u16..=u16::MAX,
        container in 1_u16..=u16::MAX,
    ) {
        let last = first.saturating_add(length);
        let last = last.min(first + (u16::MAX - container).min(u16::MAX - first));
        let ports = range(first, last);
        let pieces = shift(ports, container);
        prop_assert!(pieces.len() <= 17);
        let mut next = u32::from(first);
        for piece in &pieces {
            prop_assert_eq!(u32::from(piece.ports.first()), next);
            next = u32::from(piece.ports.last()) + 1;
            for port in [piece.ports.first(), piece.ports.last(), piece.ports.first().midpoint(piece.ports.last())] {
                let wanted = u32::from(container) + u32::from(port - first);
                prop_assert_eq!(translated(*piece, port), wanted);
            }
        }
        prop_assert_eq!(next, u32::from(last) + 1);
    }
}

#[test]
fn a_filter_lets_only_its_own_family_in_and_holds_nothing_twice() {
    let nets = |list: &[&str]| -> Vec<IpNet> { list.iter().map(|n| n.parse().unwrap()).collect() };
    assert_eq!(sources(&[], false), nets(&["0.0.0.0/0"]));
    let from = nets(&["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"]);
    assert_eq!(sources(&from, false), nets(&["10.0.0.0/8"]));
    assert_eq!(sources(&from, true), nets(&["fd00::/8"]));
    assert_eq!(sources(&nets(&["fd00::/8"]), false), Vec::<IpNet>::new());
}

#[test]
fn what_is_open_on_a_routed_network_never_overlaps() {
    let publication = |container: PortRange, from: &[&str]| Publication {
        protocol: Protocol::Tcp,
        address: None,
        ports: Some(container),
        automatic: false,
        within: None,
        container,
        from: from.iter().map(|n| n.parse().unwrap()).collect(),
        socket: None,
        obey_host_firewall: None,
        by_engine: false,
    };
    let all = [
        publication(range(80, 90), &["10.0.0.0/8"]),
        publication(range(85, 85), &[]),
        publication(range(88, u16::MAX), &["10.1.0.0/16", "192.0.2.0/24"]),
    ];
    let refs: Vec<&Publication> = all.iter().collect();
    let parts: Vec<String> = open_parts(&refs, false)
        .iter()
        .map(|(protocol, ports, sources)| format!("{protocol} {ports} {sources:?}"))
        .collect();
    assert_eq!(
        parts,
        [
            "tcp 80-84 [10.0.0.0/8]",
            "tcp 85 [0.0.0.0/0]",
            "tcp 86-87 [10.0.0.0/8]",
            "tcp 88-90 [10.0.0.0/8, 192.0.2.0/24]",
            "tcp 91-65535 [10.1.0.0/16, 192.0.2.0/24]",
        ]
    );
}
