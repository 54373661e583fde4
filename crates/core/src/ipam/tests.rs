//! Whole-space behaviour; the sets of numbers are tested beside their code.

use std::net::IpAddr;

use ipnet::IpNet;

use super::intervals::tests::LOOKS;
use super::*;

mod model;
mod subnets;

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn spec(subnet: &str) -> PoolSpec {
    PoolSpec::new(net(subnet))
}

fn space_with(spec: PoolSpec) -> (Space, IpNet) {
    let mut space = Space::default();
    let subnet = spec.subnet;
    space.adopt_pool("net", spec).unwrap();
    (space, subnet)
}

fn lowest(subnet: IpNet, owner: &str) -> LeaseRequest<'_> {
    LeaseRequest {
        subnet,
        address: None,
        owner,
    }
}

fn exact<'a>(subnet: IpNet, address: &str, owner: &'a str) -> LeaseRequest<'a> {
    LeaseRequest {
        subnet,
        address: Some(ip(address)),
        owner,
    }
}

/// Everything that automatic choice gives until the pool is empty.
fn drain(subnet: &str) -> Vec<String> {
    let (mut space, subnet) = space_with(spec(subnet));
    let mut got = Vec::new();
    while let Ok(address) = space.lease(&lowest(subnet, "e"), 0) {
        got.push(address.to_string());
    }
    got
}

#[test]
fn only_real_host_addresses_are_chosen() {
    assert_eq!(drain("10.0.0.0/30"), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(drain("10.0.0.0/31"), ["10.0.0.0", "10.0.0.1"]);
    assert_eq!(drain("10.0.0.7/32"), ["10.0.0.7"]);
    assert_eq!(drain("fd00::/126"), ["fd00::1", "fd00::2", "fd00::3"]);
    assert_eq!(drain("fd00::/127"), ["fd00::", "fd00::1"]);
    assert_eq!(drain("fd00::9/128"), ["fd00::9"]);
}

#[test]
fn the_anycast_address_is_given_only_by_name() {
    let (mut space, subnet) = space_with(spec("fd00::/125"));
    space.lease(&exact(subnet, "fd00::", "router"), 0).unwrap();
    space.release(ip("fd00::"), "router", 0).unwrap();
    for last in 1..=7 {
        let want = ip(&format!("fd00::{last}"));
        assert_eq!(space.lease(&lowest(subnet, "e"), u64::MAX), Ok(want));
    }
    let full = space.lease(&lowest(subnet, "e"), u64::MAX);
    assert_eq!(
        full,
        Err(LeaseReject::Exhausted {
            subnet,
            held: 7,
            leaving: 0
        })
    );
}

#[test]
fn network_and_broadcast_are_refused_even_by_name() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/24"));
    for (address, holder) in [
        ("10.0.0.0", Holder::Network),
        ("10.0.0.255", Holder::Broadcast),
    ] {
        let refused = space.lease(&exact(subnet, address, "e"), 0);
        assert_eq!(
            refused,
            Err(LeaseReject::Taken {
                address: ip(address),
                holder
            })
        );
    }
}

#[test]
fn gateway_and_reserved_addresses_are_never_leased() {
    let mut spec = spec("10.0.0.0/29");
    spec.gateway = Some(ip("10.0.0.1"));
    spec.reserved.insert("printer".into(), ip("10.0.0.3"));
    let (mut space, subnet) = space_with(spec);
    let got: Vec<_> = std::iter::from_fn(|| space.lease(&lowest(subnet, "e"), 0).ok())
        .map(|a| a.to_string())
        .collect();
    assert_eq!(got, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    let refused = space.lease(&exact(subnet, "10.0.0.3", "e"), 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "address 10.0.0.3 is reserved as printer: choose another address"
    );
    assert!(matches!(
        space.lease(&exact(subnet, "10.0.0.1", "e"), 0),
        Err(LeaseReject::Taken {
            holder: Holder::Gateway,
            ..
        })
    ));
}

#[test]
fn ranges_limit_automatic_choice_only() {
    let mut spec = spec("10.0.0.0/24");
    spec.ranges = vec![net("10.0.0.64/31"), net("10.0.0.8/31"), net("10.0.0.8/32")];
    assert_eq!(spec.lowest_usable(), Some(ip("10.0.0.8")));
    let (mut space, subnet) = space_with(spec);
    space
        .lease(&exact(subnet, "10.0.0.200", "static"), 0)
        .unwrap();
    for want in ["10.0.0.8", "10.0.0.9", "10.0.0.64", "10.0.0.65"] {
        assert_eq!(space.lease(&lowest(subnet, "e"), 0), Ok(ip(want)));
    }
    let full = space.lease(&lowest(subnet, "e"), 0);
    assert_eq!(
        full,
        Err(LeaseReject::Exhausted {
            subnet,
            held: 5,
            leaving: 0
        })
    );
    // Outside the ranges nothing cools down, so it cannot be mistaken for a spare address.
    space.release(ip("10.0.0.200"), "static", 0).unwrap();
    assert!(space.lease(&lowest(subnet, "e"), u64::MAX).is_err());
    assert_eq!(space.pool(subnet).unwrap().usage().cooling, 0);
}

#[test]
fn the_customary_gateway_steps_over_reserved_addresses() {
    let mut spec = spec("10.0.0.0/29");
    spec.reserved.insert("a".into(), ip("10.0.0.1"));
    spec.reserved.insert("b".into(), ip("10.0.0.2"));
    assert_eq!(spec.lowest_usable(), Some(ip("10.0.0.3")));
    spec.ranges = vec![net("10.0.0.2/32")];
    assert_eq!(spec.lowest_usable(), None);
}

#[test]
fn a_released_address_rests_before_it_is_chosen_again() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/29"));
    for owner in ["a", "b", "c"] {
        space.lease(&lowest(subnet, owner), 0).unwrap();
    }
    space.release(ip("10.0.0.1"), "a", 1_000).unwrap();
    assert_eq!(
        space.lease(&lowest(subnet, "d"), 30_999),
        Ok(ip("10.0.0.4"))
    );
    assert_eq!(
        space.lease(&lowest(subnet, "e"), 31_000),
        Ok(ip("10.0.0.1"))
    );
}

#[test]
fn without_a_free_address_the_longest_rested_one_is_chosen() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/29"));
    for n in 0..6 {
        space.lease(&lowest(subnet, &format!("e{n}")), 0).unwrap();
    }
    space.release(ip("10.0.0.5"), "e4", 10).unwrap();
    space.release(ip("10.0.0.2"), "e1", 20).unwrap();
    assert_eq!(space.lease(&lowest(subnet, "x"), 30), Ok(ip("10.0.0.5")));
    assert_eq!(space.lease(&lowest(subnet, "y"), 30), Ok(ip("10.0.0.2")));
}

#[test]
fn an_address_asked_for_by_name_need_not_rest() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/29"));
    let address = space.lease(&lowest(subnet, "a"), 0).unwrap();
    space.release(address, "a", 0).unwrap();
    assert_eq!(space.lease(&exact(subnet, "10.0.0.1", "b"), 0), Ok(address));
    // Its old rest must not free it under its new owner.
    assert_eq!(
        space.lease(&lowest(subnet, "c"), u64::MAX),
        Ok(ip("10.0.0.2"))
    );
    let refused = space.lease(&exact(subnet, "10.0.0.1", "c"), 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "address 10.0.0.1 is leased to b: choose another address"
    );
}

#[test]
fn a_retired_address_is_nobodys_until_released() {
    let (mut space, subnet) = space_with(spec("10.0.0.8/31"));
    space.lease(&lowest(subnet, "a"), 0).unwrap();
    space.lease(&lowest(subnet, "b"), 0).unwrap();
    space.retire(ip("10.0.0.8"), "a").unwrap();
    space.retire(ip("10.0.0.8"), "a").unwrap();
    let holder = Holder::Leaving("a".into());
    let address = ip("10.0.0.8");
    let refused = space.lease(&exact(subnet, "10.0.0.8", "c"), 0);
    assert_eq!(refused, Err(LeaseReject::Taken { address, holder }));
    let full = space.lease(&lowest(subnet, "c"), 0);
    assert_eq!(
        full,
        Err(LeaseReject::Exhausted {
            subnet,
            held: 1,
            leaving: 1
        })
    );
    space.release(address, "a", 0).unwrap();
    assert_eq!(space.lease(&lowest(subnet, "c"), 0), Ok(address));
}

#[test]
fn only_the_owner_gives_an_address_back() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/29"));
    let address = space.lease(&lowest(subnet, "a"), 0).unwrap();
    let other = ReturnReject::OtherOwner {
        address,
        owner: "a".into(),
        claimed: "b".into(),
    };
    assert_eq!(space.retire(address, "b"), Err(other.clone()));
    assert_eq!(space.release(address, "b", 0), Err(other));
    space.release(address, "a", 0).unwrap();
    assert_eq!(
        space.release(address, "a", 0),
        Err(ReturnReject::NotLeased { address })
    );
    let far = ip("192.0.2.1");
    assert_eq!(
        space.release(far, "a", 0),
        Err(ReturnReject::NotLeased { address: far })
    );
}

#[test]
fn a_space_rebuilt_from_its_records_is_the_same() {
    let mut asked = spec("10.0.0.0/29");
    asked.gateway = Some(ip("10.0.0.1"));
    let (mut space, subnet) = space_with(asked);
    for owner in ["a", "b"] {
        space.lease(&lowest(subnet, owner), 0).unwrap();
    }
    space.retire(ip("10.0.0.2"), "a").unwrap();
    let records: Vec<LeaseRecord> = space
        .pool(subnet)
        .unwrap()
        .leases()
        .map(|(address, l)| LeaseRecord {
            address,
            owner: l.owner.clone(),
            state: l.state,
        })
        .collect();
    let text = serde_json::to_string(&(space.pool(subnet).unwrap().spec(), &records)).unwrap();

    let (spec, records): (PoolSpec, Vec<LeaseRecord>) = serde_json::from_str(&text).unwrap();
    let (mut again, _) = space_with(spec);
    for record in records.clone() {
        again.adopt_lease(subnet, record).unwrap();
    }
    assert_eq!(
        again.pool(subnet).unwrap().usage(),
        space.pool(subnet).unwrap().usage()
    );
    assert_eq!(again.lease(&lowest(subnet, "c"), 0), Ok(ip("10.0.0.4")));
    assert!(matches!(
        again.adopt_lease(subnet, records[0].clone()),
        Err(LeaseReject::Taken {
            holder: Holder::Leaving(_),
            ..
        })
    ));
    let foreign = LeaseRecord {
        address: ip("10.1.0.1"),
        ..records[0].clone()
    };
    assert!(matches!(
        again.adopt_lease(subnet, foreign),
        Err(LeaseReject::Outside { .. })
    ));
    assert!(matches!(
        again.adopt_lease(net("10.1.0.0/24"), records[0].clone()),
        Err(LeaseReject::UnknownPool { .. })
    ));
}

#[test]
fn a_pool_goes_only_when_empty() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/24"));
    let address = space.lease(&lowest(subnet, "a"), 0).unwrap();
    space.retire(address, "a").unwrap();
    let refused = space.remove_pool(subnet);
    assert_eq!(
        refused,
        Err(RemoveReject::InUse {
            subnet,
            owner: "net".into(),
            leases: 1
        })
    );
    space.release(address, "a", 0).unwrap();
    assert_eq!(
        space
            .remove_pool(net("10.0.0.0/25"))
            .unwrap_err()
            .to_string(),
        "no pool with subnet 10.0.0.0/25 exists: nothing to remove"
    );
    assert_eq!(space.remove_pool(subnet), Ok(spec("10.0.0.0/24")));
    assert!(space.pool_at(address).is_none());
    space.adopt_pool("other", spec("10.0.0.0/8")).unwrap();
}

#[test]
fn huge_pools_cost_their_leases_only() {
    for (subnet, far) in [("10.0.0.0/8", "10.200.0.1"), ("fd00::/16", "fd00:ffff::1")] {
        let (mut space, subnet) = space_with(spec(subnet));
        space.lease(&lowest(subnet, "a"), 0).unwrap();
        space.lease(&lowest(subnet, "b"), 0).unwrap();
        space.lease(&exact(subnet, far, "c"), 0).unwrap();
        let pool = space.pool(subnet).unwrap();
        assert!(
            pool.footprint() <= 9,
            "{} entries for three leases",
            pool.footprint()
        );
        let width = 1_u128 << (pool.spec().family().bits() - subnet.prefix_len());
        assert!(pool.usage().free >= width - 5);
    }
}

#[test]
fn the_lowest_free_address_is_found_in_a_few_looks() {
    const LEASES: u32 = 65_534;
    let (mut space, subnet) = space_with(spec("10.0.0.0/16"));
    let looks = || LOOKS.with(|looks| looks.take());
    looks();
    for _ in 0..LEASES {
        space.lease(&lowest(subnet, "e"), 0).unwrap();
    }
    // One descent to find the gap and at most three to join it with its neighbours.
    assert!(looks() <= 4 * LEASES as usize);
    let address = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
    for n in (1..=LEASES).step_by(2) {
        space.release(address(n), "e", 0).unwrap();
    }
    looks();
    space.lease(&lowest(subnet, "e"), u64::MAX).unwrap();
    let thawing = looks();
    assert!(
        thawing <= 3 * LEASES as usize,
        "each release is looked at once, not {thawing} times"
    );
    for n in (3..=LEASES).step_by(2) {
        assert_eq!(space.lease(&lowest(subnet, "e"), u64::MAX), Ok(address(n)));
    }
    let refill = looks();
    assert!(
        refill <= 4 * (LEASES as usize / 2),
        "{refill} looks in the most broken-up pool"
    );
}

#[test]
fn counts_stop_at_their_limits() {
    let (mut space, subnet) = space_with(spec("10.0.0.0/8"));
    for _ in 0..limits::LEASES_MAX {
        space.lease(&lowest(subnet, "e"), 0).unwrap();
    }
    let limit = limits::LEASES_MAX;
    let refused = space.lease(&lowest(subnet, "e"), 0);
    assert_eq!(refused, Err(LeaseReject::TooMany { subnet, limit }));

    let longest = "n".repeat(limits::NAME_BYTES_MAX);
    let (mut space, subnet) = space_with(spec("10.0.0.0/24"));
    assert!(space.lease(&lowest(subnet, &longest), 0).is_ok());
    for name in ["", "a\nb", &format!("{longest}n")] {
        assert_eq!(
            space.lease(&lowest(subnet, name), 0),
            Err(LeaseReject::OwnerName { subnet })
        );
        let refused = space.adopt_pool(name, spec("10.1.0.0/24")).unwrap_err();
        assert_eq!(
            refused,
            PoolReject::OwnerName {
                subnet: net("10.1.0.0/24")
            }
        );
    }
}
