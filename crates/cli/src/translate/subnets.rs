//! Pairs ranges, gateways and reserved addresses with the subnet that contains them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_api::SubnetConfig;

/// What the flags of `network create` say of addresses, in the order in which it was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AddressFlags {
    /// `--subnet`.
    pub(crate) subnets: Vec<IpNet>,
    /// `--ip-range`.
    pub(crate) ranges: Vec<IpNet>,
    /// `--gateway`.
    pub(crate) gateways: Vec<IpAddr>,
    /// `--aux-address`.
    pub(crate) aux_addresses: Vec<(String, IpAddr)>,
}

/// Why addresses cannot be paired with subnets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairError {
    /// One subnet lies in another, so that a range might belong to either.
    #[error("subnet {second} overlaps subnet {first}; the subnets of a network must be apart")]
    Overlap {
        /// The one given first.
        first: IpNet,
        /// The one given later.
        second: IpNet,
    },
    /// Nothing contains a range, gateway or reserved address.
    #[error("no matching subnet for {what} {value}; give the --subnet that contains it")]
    NoSubnet {
        /// Which kind of thing.
        what: &'static str,
        /// The thing itself.
        value: String,
    },
    /// A subnet has one gateway.
    #[error("subnet {subnet} has two gateways, {first} and {second}; a subnet has one")]
    TwoGateways {
        /// The subnet.
        subnet: IpNet,
        /// The gateway given first.
        first: String,
        /// The one given later.
        second: IpAddr,
    },
    /// A name stands for one reserved address of a subnet.
    #[error("aux-address {name} is given twice in subnet {subnet}; choose another name")]
    TwoAuxAddresses {
        /// The subnet.
        subnet: IpNet,
        /// The name.
        name: String,
    },
}

/// The subnets, each with what belongs to it.
///
/// # Errors
/// [`PairError`] when something fits no subnet, or does not fit beside what is there.
pub(crate) fn pair_with_subnets(flags: AddressFlags) -> Result<Vec<SubnetConfig>, PairError> {
    let mut pairs: Vec<(IpNet, SubnetConfig)> = Vec::new();
    for subnet in flags.subnets {
        let clash = pairs.iter().find(|(other, _)| overlap(other, &subnet));
        if let Some((first, _)) = clash {
            return Err(PairError::Overlap {
                first: *first,
                second: subnet,
            });
        }
        // Given on as it was written: the daemon explains host bits.
        let config = SubnetConfig {
            subnet: Some(subnet.to_string()),
            ..SubnetConfig::default()
        };
        pairs.push((subnet, config));
    }
    for range in flags.ranges {
        let home = pairs
            .iter_mut()
            .find(|(subnet, _)| subnet.trunc().contains(&range.trunc()));
        let Some((_, config)) = home else {
            return Err(no_subnet("ip-range", range));
        };
        config.ip_range.push(range.to_string());
    }
    for gateway in flags.gateways {
        let (subnet, config) = home_of(&mut pairs, gateway, "gateway")?;
        if let Some(first) = config.gateway.replace(gateway.to_string()) {
            return Err(PairError::TwoGateways {
                subnet,
                first,
                second: gateway,
            });
        }
    }
    for (name, address) in flags.aux_addresses {
        let (subnet, config) = home_of(&mut pairs, address, "aux-address")?;
        let aux: &mut BTreeMap<_, _> = &mut config.aux_addresses;
        if aux.insert(name.clone(), address.to_string()).is_some() {
            return Err(PairError::TwoAuxAddresses { subnet, name });
        }
    }
    Ok(pairs.into_iter().map(|(_, config)| config).collect())
}

fn home_of<'a>(
    pairs: &'a mut [(IpNet, SubnetConfig)],
    address: IpAddr,
    what: &'static str,
) -> Result<(IpNet, &'a mut SubnetConfig), PairError> {
    let home = pairs
        .iter_mut()
        .find(|(subnet, _)| subnet.contains(&address));
    home.map(|(subnet, config)| (*subnet, config))
        .ok_or_else(|| no_subnet(what, address))
}

fn no_subnet(what: &'static str, value: impl ToString) -> PairError {
    PairError::NoSubnet {
        what,
        value: value.to_string(),
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    let (one, other) = (one.trunc(), other.trunc());
    // `0.0.0.0/24` and `::/64` ask for any subnet of that size, and any number of them may be asked for.
    if one.addr().is_unspecified() || other.addr().is_unspecified() {
        return false;
    }
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn flags(subnets: &[&str]) -> AddressFlags {
        AddressFlags {
            subnets: nets(subnets),
            ..AddressFlags::default()
        }
    }

    #[test]
    fn everything_finds_its_subnet_whatever_the_order() {
        let paired = pair_with_subnets(AddressFlags {
            ranges: nets(&["2001:db8::/80", "10.1.2.0/24", "10.1.3.0/24"]),
            gateways: vec!["10.1.0.9".parse().unwrap(), "2001:db8::9".parse().unwrap()],
            aux_addresses: vec![
                ("printer".into(), "10.1.0.7".parse().unwrap()),
                ("printer".into(), "2001:db8::7".parse().unwrap()),
            ],
            ..flags(&["10.1.0.0/16", "2001:db8::/64", "10.2.0.0/16"])
        })
        .unwrap();
        assert_eq!(paired.len(), 3);
        assert_eq!(paired[0].subnet.as_deref(), Some("10.1.0.0/16"));
        assert_eq!(paired[0].ip_range, ["10.1.2.0/24", "10.1.3.0/24"]);
        assert_eq!(paired[0].gateway.as_deref(), Some("10.1.0.9"));
        assert_eq!(paired[0].aux_addresses["printer"], "10.1.0.7");
        assert_eq!(paired[1].gateway.as_deref(), Some("2001:db8::9"));
        assert_eq!(paired[1].ip_range, ["2001:db8::/80"]);
        assert_eq!(paired[1].aux_addresses["printer"], "2001:db8::7");
        assert_eq!(
            paired[2],
            SubnetConfig {
                subnet: Some("10.2.0.0/16".into()),
                ..SubnetConfig::default()
            }
        );
    }

    #[test]
    fn what_fits_no_subnet_is_refused_by_name() {
        let cases = [
            (
                AddressFlags {
                    ranges: nets(&["10.9.0.0/24"]),
                    ..flags(&["10.1.0.0/16"])
                },
                "ip-range 10.9.0.0/24",
            ),
            (
                AddressFlags {
                    ranges: nets(&["10.0.0.0/8"]),
                    ..flags(&["10.1.0.0/16"])
                },
                "ip-range 10.0.0.0/8",
            ),
            (
                AddressFlags {
                    gateways: vec!["10.2.0.1".parse().unwrap()],
                    ..flags(&["10.1.0.0/16"])
                },
                "gateway 10.2.0.1",
            ),
            (
                AddressFlags {
                    gateways: vec!["2001:db8::1".parse().unwrap()],
                    ..flags(&[])
                },
                "gateway 2001:db8::1",
            ),
            (
                AddressFlags {
                    aux_addresses: vec![("a".into(), "10.2.0.1".parse().unwrap())],
                    ..flags(&["10.1.0.0/16"])
                },
                "aux-address 10.2.0.1",
            ),
        ];
        for (given, expected) in cases {
            let message = pair_with_subnets(given).unwrap_err().to_string();
            assert!(
                message.contains(&format!("no matching subnet for {expected};")),
                "{message}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_beside_the_rest_is_refused() {
        let overlap = pair_with_subnets(flags(&["10.1.0.0/16", "10.1.2.0/24"])).unwrap_err();
        assert!(matches!(overlap, PairError::Overlap { .. }));
        let two = AddressFlags {
            gateways: vec!["10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap()],
            ..flags(&["10.1.0.0/16"])
        };
        assert!(matches!(
            pair_with_subnets(two).unwrap_err(),
            PairError::TwoGateways { .. }
        ));
        let aux = AddressFlags {
            aux_addresses: vec![
                ("a".into(), "10.1.0.1".parse().unwrap()),
                ("a".into(), "10.1.0.2".parse().unwrap()),
            ],
            ..flags(&["10.1.0.0/16"])
        };
        assert!(matches!(
            pair_with_subnets(aux).unwrap_err(),
            PairError::TwoAuxAddresses { .. }
        ));
    }

    #[test]
    fn host_bits_are_left_for_the_daemon_to_explain() {
        let paired = pair_with_subnets(flags(&["10.1.2.3/16"])).unwrap();
        assert_eq!(paired[0].subnet.as_deref(), Some("10.1.2.3/16"));
    }

    #[test]
    fn several_subnets_may_be_asked_for_by_size_alone() {
        assert_eq!(
            pair_with_subnets(flags(&["0.0.0.0/24", "0.0.0.0/26"]))
                .unwrap()
                .len(),
            2
        );
    }
}
