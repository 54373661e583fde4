//! Which subnets are accepted, and which are chosen.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn reject(spec: PoolSpec) -> String {
    Space::default()
        .add_pool("net", spec, &Surroundings::default())
        .unwrap_err()
        .to_string()
}

fn reject_with(subnet: &str, change: impl FnOnce(&mut PoolSpec)) -> String {
    let mut spec = spec(subnet);
    change(&mut spec);
    reject(spec)
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_to_do() {
    assert_eq!(
        reject(spec("10.0.0.5/24")),
        "subnet 10.0.0.5/24 has host bits set: write 10.0.0.0/24"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| s.gateway = Some(ip("10.0.1.1"))),
        "gateway 10.0.1.1 is outside subnet 10.0.0.0/24: choose an address inside it"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| s.gateway = Some(ip("10.0.0.255"))),
        "gateway 10.0.0.255 is the network or broadcast address of 10.0.0.0/24: choose a host address"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| s.gateway = Some(ip("fd00::1"))),
        "gateway fd00::1 is not IPv4: give one inside 10.0.0.0/24"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| s.ranges = vec![net("10.0.1.0/25")]),
        "ip-range 10.0.1.0/25 is outside subnet 10.0.0.0/24: choose a part of the subnet"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| s.ranges = vec![net("10.0.0.0/16")]),
        "ip-range 10.0.0.0/16 is larger than subnet 10.0.0.0/24: choose a longer prefix"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| s.ranges = vec![net("10.0.0.3/30")]),
        "ip-range 10.0.0.3/30 has host bits set: write 10.0.0.0/30"
    );
    assert_eq!(
        reject_with("fd00::/64", |s| s.ranges = vec![net("10.0.0.0/30")]),
        "ip-range 10.0.0.0/30 is not IPv6: give one inside fd00::/64"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| _ =
            s.reserved.insert("nas".into(), ip("10.0.1.9"))),
        "reserved address nas (10.0.1.9) is outside subnet 10.0.0.0/24: choose one inside it"
    );
    assert_eq!(
        reject_with("10.0.0.0/24", |s| {
            s.gateway = Some(ip("10.0.0.1"));
            s.reserved.insert("nas".into(), ip("10.0.0.1"));
        }),
        "address 10.0.0.1 is claimed by the gateway and by nas: keep one of them"
    );
    assert_eq!(
        reject_with("10.0.0.1/32", |s| s.gateway = Some(ip("10.0.0.1"))),
        "subnet 10.0.0.1/32 has no address left beside its gateway and reserved addresses: \
         choose a shorter prefix"
    );
    let newline = reject_with("10.0.0.0/24", |s| {
        _ = s.reserved.insert("\n".into(), ip("10.0.0.2"))
    });
    assert!(
        newline.starts_with("reserved address 10.0.0.2 has no usable name"),
        "{newline}"
    );
}

#[test]
fn special_blocks_are_refused_from_inside_and_from_around() {
    let refused = [
        "0.0.0.0/0",
        "0.0.0.0/8",
        "127.0.0.0/8",
        "127.1.2.0/24",
        "126.0.0.0/7",
        "169.254.0.0/16",
        "224.0.0.0/24",
        "239.1.1.1/32",
        "255.255.255.0/24",
        "::/0",
        "::/128",
        "::1/128",
        "fe80::/64",
        "febf::/64",
        "ff02::/64",
        "::ffff:0:0/96",
    ];
    for subnet in refused {
        let got = spec(subnet).validate();
        assert!(
            matches!(got, Err(PoolReject::SpecialBlock { .. })),
            "{subnet}: {got:?}"
        );
    }
    for subnet in [
        "1.0.0.0/8",
        "100.64.0.0/10",
        "240.0.0.0/8",
        "2001:db8::/32",
        "fec0::/64",
    ] {
        assert_eq!(spec(subnet).validate(), Ok(()), "{subnet}");
    }
}

#[test]
fn a_pool_in_the_way_is_named() {
    let mut space = Space::default();
    let host = Surroundings::default();
    space.add_pool("web", spec("10.1.0.0/16"), &host).unwrap();
    for subnet in ["10.1.0.0/16", "10.1.255.0/24", "10.0.0.0/8", "10.1.0.0/24"] {
        let refused = space
            .add_pool("db", spec(subnet), &host)
            .unwrap_err()
            .to_string();
        let want = format!(
            "subnet {subnet} overlaps 10.1.0.0/16 of web: choose another subnet or remove that one"
        );
        assert_eq!(refused, want);
    }
    space.add_pool("db", spec("10.2.0.0/16"), &host).unwrap();
    space.add_pool("db", spec("fd00:a01::/32"), &host).unwrap();
    assert_eq!(space.pool_at(ip("10.1.9.9")).map(Pool::owner), Some("web"));
    assert!(space.pool_at(ip("10.3.0.1")).is_none());
}

#[test]
fn the_host_is_not_cut_off() {
    let host = Surroundings {
        routes: vec![net("0.0.0.0/0"), net("128.0.0.0/1"), net("192.168.1.0/24")],
        resolvers: vec![ip("192.168.2.53")],
    };
    let mut space = Space::default();
    let mut add = |subnet| {
        space
            .add_pool("n", spec(subnet), &host)
            .map(drop)
            .map_err(|e| e.to_string())
    };
    assert_eq!(
        add("192.168.1.128/25").unwrap_err(),
        "subnet 192.168.1.128/25 overlaps the host's route to 192.168.1.0/24: choose another subnet"
    );
    assert_eq!(
        add("192.168.2.0/24").unwrap_err(),
        "subnet 192.168.2.0/24 would hide the host's name server 192.168.2.53: choose another subnet"
    );
    add("192.168.3.0/24").unwrap();
    // A stored pool is put back although its own route is now among the host's.
    space.adopt_pool("lan", spec("192.168.1.0/24")).unwrap();
}

#[test]
fn lists_stop_at_their_limits() {
    let mut asked = spec("10.0.0.0/8");
    asked.ranges = vec![net("10.1.0.0/16"); limits::RANGES_MAX];
    assert_eq!(asked.validate(), Ok(()));
    asked.ranges.push(net("10.2.0.0/16"));
    assert!(matches!(
        asked.validate(),
        Err(PoolReject::TooMany {
            what: "ip-ranges",
            ..
        })
    ));

    let mut asked = spec("10.0.0.0/8");
    let reserved = |n: usize| {
        (
            format!("r{n}"),
            ip(&format!("10.0.{}.{}", n / 250, n % 250 + 1)),
        )
    };
    asked.reserved = (0..limits::RESERVED_MAX).map(reserved).collect();
    assert_eq!(asked.validate(), Ok(()));
    asked.reserved.extend([reserved(limits::RESERVED_MAX)]);
    assert!(matches!(asked.validate(), Err(PoolReject::TooMany { .. })));

    let mut space = Space::default();
    let wish = (Family::V6, Some(64));
    let defaults = DefaultPools::new(vec![])
        .unwrap()
        .with_ula(&[1; 8])
        .unwrap();
    for _ in 0..limits::POOLS_MAX {
        let subnet = space.pick_subnet(&defaults, wish, &[]).unwrap();
        space.adopt_pool("n", PoolSpec::new(subnet)).unwrap();
    }
    let one_more = space.adopt_pool("n", spec("10.0.0.0/24"));
    assert!(matches!(
        one_more,
        Err(PoolReject::TooMany { what: "pools", .. })
    ));

    let pool: DefaultPool = "base=10.0.0.0/8,size=24".parse().unwrap();
    assert!(DefaultPools::new(vec![pool; limits::DEFAULT_POOLS_MAX]).is_ok());
    let refused = DefaultPools::new(vec![pool; limits::DEFAULT_POOLS_MAX + 1]);
    assert_eq!(
        refused,
        Err(DefaultsReject::TooMany {
            count: limits::DEFAULT_POOLS_MAX + 1
        })
    );
}

#[test]
fn the_defaults_give_thousands_of_networks_beside_those_of_others() {
    let others = [
        "172.17.0.0/16",
        "10.88.0.0/16",
        "10.42.0.0/15",
        "10.244.0.0/16",
        "10.96.0.0/12",
    ];
    let defaults = DefaultPools::default();
    let mut space = Space::default();
    let wish = (Family::V4, None);
    let mut count = 0;
    LOOKS.with(|looks| looks.set(0));
    let refused = loop {
        match space.pick_subnet(&defaults, wish, &[]) {
            Ok(subnet) => {
                assert_eq!(subnet.prefix_len(), 24);
                let clash = others.iter().find(|o| net(o).contains(&subnet));
                assert_eq!(clash, None, "{subnet}");
                space
                    .add_pool("n", PoolSpec::new(subnet), &Surroundings::default())
                    .unwrap();
                count += 1;
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(count, 7_744);
    let looks = LOOKS.with(|looks| looks.take());
    assert!(
        looks < 24 * count,
        "{looks} looks to choose {count} networks"
    );
    assert_eq!(
        refused.to_string(),
        "the 5 default pools that can give an IPv4 subnet are used up: \
         remove networks, configure more, or name the subnet"
    );
    space.remove_pool(net("172.20.7.0/24")).unwrap();
    assert_eq!(
        space.pick_subnet(&defaults, wish, &[]),
        Ok(net("172.20.7.0/24"))
    );
}

#[test]
fn a_chosen_subnet_keeps_clear_of_routes_and_resolvers() {
    let space = Space::default();
    let avoid = [
        net("0.0.0.0/0"),
        net("128.0.0.0/1"),
        net("172.18.0.0/24"),
        net("172.18.2.0/23"),
        net("172.18.1.53/32"),
        net("172.18.4.128/25"),
        net("fd00::/8"),
    ];
    let pick = |size| space.pick_subnet(&DefaultPools::default(), (Family::V4, size), &avoid);
    assert_eq!(pick(None), Ok(net("172.18.5.0/24")));
    assert_eq!(pick(Some(16)), Ok(net("172.19.0.0/16")));
    assert_eq!(pick(Some(30)), Ok(net("172.18.1.0/30")));
    assert_eq!(pick(Some(13)), Ok(net("172.24.0.0/13")));
    let (family, size) = (Family::V4, Some(8));
    assert_eq!(pick(size), Err(PickReject::NoPool { family, size }));
    let size = Some(33);
    assert_eq!(pick(size), Err(PickReject::NoPool { family, size }));
    let none = space.pick_subnet(&DefaultPools::default(), (Family::V6, None), &[]);
    assert_eq!(
        none.unwrap_err().to_string(),
        "no default pool can give an IPv6 subnet: configure one, or name the subnet"
    );
}

#[test]
fn a_node_has_its_own_local_prefix() {
    let hash = 0x1122_3344_5566_7788_u64.to_be_bytes();
    assert_eq!(ula_base(&hash).to_string(), "fd44:5566:7788::/48");
    let defaults = DefaultPools::default().with_ula(&hash).unwrap();
    let mut space = Space::default();
    let wish = (Family::V6, None);
    let first = space.pick_subnet(&defaults, wish, &[]).unwrap();
    assert_eq!(first, net("fd44:5566:7788::/64"));
    space.adopt_pool("n", PoolSpec::new(first)).unwrap();
    assert_eq!(
        space.pick_subnet(&defaults, wish, &[]),
        Ok(net("fd44:5566:7788:1::/64"))
    );
    let small = space.pick_subnet(&defaults, (Family::V6, Some(96)), &[]);
    assert_eq!(small, Ok(net("fd44:5566:7788:1::/96")));
}

#[test]
fn default_pools_are_checked_where_they_enter() {
    let parse = |text: &str| text.parse::<DefaultPool>().map_err(|e| e.to_string());
    assert_eq!(
        parse("base=10.0.0.0/8, size=24").unwrap().to_string(),
        "base=10.0.0.0/8,size=24"
    );
    assert_eq!(
        parse("base=10.0.0.1/8,size=24").unwrap_err(),
        "default pool 10.0.0.1/8 has host bits set: write 10.0.0.0/8"
    );
    assert_eq!(
        parse("base=10.0.0.0/8,size=4").unwrap_err(),
        "default pool 10.0.0.0/8 cannot be cut into /4: choose 8 to 32"
    );
    assert!(
        parse("base=224.0.0.0/8,size=24")
            .unwrap_err()
            .contains("touches multicast")
    );
    for text in [
        "",
        "base=10.0.0.0/8",
        "size=8,size=9",
        "base=x,size=24",
        "base=10.0.0.0/8,size=256",
    ] {
        assert!(
            matches!(
                text.parse::<DefaultPool>(),
                Err(DefaultsReject::Syntax { .. })
            ),
            "{text}"
        );
    }
    let bad = serde_json::from_str::<DefaultPools>(r#"[{"base":"10.0.0.0/8","size":4}]"#);
    assert!(bad.is_err());
    let defaults = DefaultPools::default();
    let text = serde_json::to_string(&defaults).unwrap();
    assert_eq!(
        serde_json::from_str::<DefaultPools>(&text).unwrap(),
        defaults
    );
}

#[test]
fn a_subnet_can_be_asked_for_by_size() {
    let of_size = |family, size| Ok(SubnetWish::Any { family, size });
    assert_eq!("0.0.0.0/26".parse(), of_size(Family::V4, Some(26)));
    assert_eq!("::/96".parse(), of_size(Family::V6, Some(96)));
    assert_eq!("::/0".parse(), of_size(Family::V6, None));
    assert_eq!(
        "10.0.0.0/8".parse(),
        Ok(SubnetWish::Exact(net("10.0.0.0/8")))
    );
    assert!("10.0.0.0".parse::<SubnetWish>().is_err());
}

fn nets() -> impl Strategy<Value = IpNet> {
    let v4 = (0_u32..64, 24_u8..=32).prop_map(|(n, len)| {
        IpNet::new(IpAddr::V4((0xac12_0000 + n * 64).into()), len)
            .unwrap()
            .trunc()
    });
    let v6 = (0_u128..8, 120_u8..=128).prop_map(|(n, len)| {
        IpNet::new(IpAddr::V6(((0xfd_u128 << 120) + n * 32).into()), len)
            .unwrap()
            .trunc()
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn no_two_pools_ever_overlap(asked in prop::collection::vec((nets(), any::<bool>()), 1..40)) {
        let mut space = Space::default();
        let mut kept = BTreeSet::new();
        for (subnet, add) in asked {
            if add {
                let clash = kept.iter().any(|k: &IpNet| k.contains(&subnet) || subnet.contains(k));
                prop_assert_eq!(space.adopt_pool("n", PoolSpec::new(subnet)).is_err(), clash);
                if !clash {
                    kept.insert(subnet);
                }
            } else {
                prop_assert_eq!(space.remove_pool(subnet).is_ok(), kept.remove(&subnet));
            }
            let pools: Vec<_> = space.pools().map(Pool::subnet).collect();
            let (got, want) = (BTreeSet::from_iter(pools.clone()), kept.clone());
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn the_first_fitting_subnet_is_chosen(
        pools in prop::collection::vec(nets(), 0..20),
        avoid in prop::collection::vec(nets(), 0..20),
        size in 22_u8..=28,
    ) {
        let mut space = Space::default();
        let mut in_use = avoid.clone();
        for subnet in pools {
            if space.adopt_pool("n", PoolSpec::new(subnet)).is_ok() {
                in_use.push(subnet);
            }
        }
        let base = net("172.18.0.0/20");
        let defaults = DefaultPools::new(vec![DefaultPool { base, size: 24 }]).unwrap();
        let got = space.pick_subnet(&defaults, (Family::V4, Some(size)), &avoid);
        let want = base.subnets(size).unwrap()
            .find(|s| !in_use.iter().any(|u| u.contains(s) || s.contains(u)));
        prop_assert_eq!(got.ok(), want);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,80}") {
        if let Ok(wish) = text.parse::<SubnetWish>() {
            prop_assert_eq!(wish.to_string().parse::<SubnetWish>(), Ok(wish));
        }
        if let Ok(pool) = text.parse::<DefaultPool>() {
            prop_assert_eq!(pool.to_string().parse::<DefaultPool>(), Ok(pool));
        }
    }

    #[test]
    fn nearly_right_text_is_parsed_or_refused(text in "(base=|size=)?[0-9a-f.:/]{0,24}(,(base|size)=[0-9./]{0,12})?") {
        if let Ok(wish) = text.parse::<SubnetWish>() {
            prop_assert_eq!(wish.to_string().parse::<SubnetWish>(), Ok(wish));
        }
        if let Ok(pool) = text.parse::<DefaultPool>() {
            prop_assert_eq!(pool.to_string().parse::<DefaultPool>(), Ok(pool));
        }
    }
}
