//! What a pool is asked to be, and why it can be refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::address::{self, Family};
use super::limits;

/// A pool as asked for and as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The subnet, with its host bits zero.
    pub subnet: IpNet,
    /// Where automatic choice looks; empty means the whole subnet. Asking for an address by name
    /// is not limited by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IpNet>,
    /// The gateway, never leased to anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Addresses used by others (auxiliary addresses), by name; never leased to anyone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// Why a pool is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolReject {
    /// The owner's name is empty, too long or holds control characters.
    #[error(
        "pool {subnet} has no usable owner name: give 1 to {} bytes without control characters",
        limits::NAME_BYTES_MAX
    )]
    OwnerName {
        /// The pool asked for.
        subnet: IpNet,
    },
    /// A reserved address has an unusable name.
    #[error(
        "reserved address {address} has no usable name: give 1 to {} bytes without control characters",
        limits::NAME_BYTES_MAX
    )]
    ReservedName {
        /// The reserved address.
        address: IpAddr,
    },
    /// The subnet or a range is written with host bits set.
    #[error("{what} {net} has host bits set: write {}", net.trunc())]
    HostBits {
        /// "subnet" or "ip-range".
        what: &'static str,
        /// As written.
        net: IpNet,
    },
    /// The subnet touches a block with a meaning of its own.
    #[error("subnet {subnet} touches {meaning} ({block}): choose a unicast subnet outside it")]
    SpecialBlock {
        /// The subnet asked for.
        subnet: IpNet,
        /// The block it touches.
        block: IpNet,
        /// What the block is for.
        meaning: &'static str,
    },
    /// A range, gateway or reserved address is of the other family.
    #[error(
        "{what} {value} is not {}: give one inside {subnet}",
        Family::of_net(subnet)
    )]
    FamilyMismatch {
        /// The subnet asked for.
        subnet: IpNet,
        /// What mismatches: "gateway", "ip-range" or "reserved address".
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The gateway lies outside the subnet.
    #[error("gateway {gateway} is outside subnet {subnet}: choose an address inside it")]
    GatewayOutside {
        /// The subnet asked for.
        subnet: IpNet,
        /// The gateway asked for.
        gateway: IpAddr,
    },
    /// The gateway is the network or broadcast address of an IPv4 subnet.
    #[error(
        "gateway {gateway} is the network or broadcast address of {subnet}: choose a host address"
    )]
    GatewayUnusable {
        /// The subnet asked for.
        subnet: IpNet,
        /// The gateway asked for.
        gateway: IpAddr,
    },
    /// A range is larger than the subnet.
    #[error("ip-range {range} is larger than subnet {subnet}: choose a longer prefix")]
    RangeLarger {
        /// The subnet asked for.
        subnet: IpNet,
        /// The range asked for.
        range: IpNet,
    },
    /// A range lies outside the subnet.
    #[error("ip-range {range} is outside subnet {subnet}: choose a part of the subnet")]
    RangeOutside {
        /// The subnet asked for.
        subnet: IpNet,
        /// The range asked for.
        range: IpNet,
    },
    /// A reserved address lies outside the subnet.
    #[error("reserved address {name} ({address}) is outside subnet {subnet}: choose one inside it")]
    ReservedOutside {
        /// The subnet asked for.
        subnet: IpNet,
        /// Its name.
        name: String,
        /// Its value.
        address: IpAddr,
    },
    /// Two names claim the same address.
    #[error("address {address} is claimed by {first} and by {second}: keep one of them")]
    ReservedTwice {
        /// The address claimed twice.
        address: IpAddr,
        /// Who claimed it first.
        first: String,
        /// Who claimed it as well.
        second: String,
    },
    /// The gateway and the reserved addresses fill the subnet.
    #[error(
        "subnet {subnet} has no address left beside its gateway and reserved addresses: choose a shorter prefix"
    )]
    PrefixTooLong {
        /// The subnet asked for.
        subnet: IpNet,
    },
    /// A list is longer than its limit.
    #[error("{count} {what} are more than the limit of {limit}: use fewer")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there would be.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Another pool holds a part of the subnet.
    #[error(
        "subnet {subnet} overlaps {other} of {owner}: choose another subnet or remove that one"
    )]
    OverlapsPool {
        /// The subnet asked for.
        subnet: IpNet,
        /// The pool in the way.
        other: IpNet,
        /// Whose pool that is.
        owner: String,
    },
    /// The host routes a part of the subnet elsewhere.
    #[error("subnet {subnet} overlaps the host's route to {route}: choose another subnet")]
    OverlapsRoute {
        /// The subnet asked for.
        subnet: IpNet,
        /// The route in the way.
        route: IpNet,
    },
    /// One of the host's name servers would be cut off.
    #[error("subnet {subnet} would hide the host's name server {resolver}: choose another subnet")]
    HidesResolver {
        /// The subnet asked for.
        subnet: IpNet,
        /// The name server inside it.
        resolver: IpAddr,
    },
}

impl PoolSpec {
    /// A pool of a whole subnet without gateway or reserved addresses.
    #[must_use]
    pub const fn new(subnet: IpNet) -> Self {
        Self {
            subnet,
            ranges: Vec::new(),
            gateway: None,
            reserved: BTreeMap::new(),
        }
    }

    /// The family of the pool.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of_net(&self.subnet)
    }

    /// The lowest address automatic choice would take: the customary gateway when none is given.
    ///
    /// `None` when the ranges and reserved addresses leave nothing.
    #[must_use]
    pub fn lowest_usable(&self) -> Option<IpAddr> {
        let fixed: Vec<u128> = self
            .reserved
            .values()
            .copied()
            .map(address::number)
            .collect();
        self.automatic().into_iter().find_map(|(first, last)| {
            // One more candidate than there are reserved addresses must hit a free one.
            (first..=last)
                .take(fixed.len() + 1)
                .find(|n| !fixed.contains(n))
                .map(|n| self.family().address(n))
        })
    }

    /// The runs that automatic choice may use, ascending and disjoint.
    pub(super) fn automatic(&self) -> Vec<(u128, u128)> {
        let (low, high) = address::usable(&self.subnet);
        if self.ranges.is_empty() {
            return vec![(low, high)];
        }
        let mut runs: Vec<_> = self.ranges.iter().map(address::bounds).collect();
        runs.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in runs.into_iter().map(|(f, l)| (f.max(low), l.min(high))) {
            match merged.last_mut() {
                _ if first > last => {}
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        merged
    }

    /// Checks everything that can be known without looking at other pools or the host.
    ///
    /// # Errors
    /// The first [`PoolReject`] found.
    pub fn validate(&self) -> Result<(), PoolReject> {
        let subnet = self.subnet;
        if subnet != subnet.trunc() {
            return Err(PoolReject::HostBits {
                what: "subnet",
                net: subnet,
            });
        }
        if let Some((block, meaning)) = address::special(&subnet) {
            return Err(PoolReject::SpecialBlock {
                subnet,
                block,
                meaning,
            });
        }
        within("ip-ranges", self.ranges.len(), limits::RANGES_MAX)?;
        within(
            "reserved addresses",
            self.reserved.len(),
            limits::RESERVED_MAX,
        )?;
        self.ranges
            .iter()
            .try_for_each(|range| self.validate_range(*range))?;
        self.gateway
            .map_or(Ok(()), |gateway| self.validate_gateway(gateway))?;
        self.validate_reserved()
    }

    fn validate_range(&self, range: IpNet) -> Result<(), PoolReject> {
        let subnet = self.subnet;
        self.same_family("ip-range", range.addr(), range)?;
        if range != range.trunc() {
            return Err(PoolReject::HostBits {
                what: "ip-range",
                net: range,
            });
        }
        if range.prefix_len() < subnet.prefix_len() {
            return Err(PoolReject::RangeLarger { subnet, range });
        }
        if !subnet.contains(&range) {
            return Err(PoolReject::RangeOutside { subnet, range });
        }
        Ok(())
    }

    fn validate_gateway(&self, gateway: IpAddr) -> Result<(), PoolReject> {
        let subnet = self.subnet;
        self.same_family("gateway", gateway, gateway)?;
        if !subnet.contains(&gateway) {
            return Err(PoolReject::GatewayOutside { subnet, gateway });
        }
        let (low, high) = address::usable(&subnet);
        let n = address::number(gateway);
        if gateway.is_ipv4() && (n < low || n > high) {
            return Err(PoolReject::GatewayUnusable { subnet, gateway });
        }
        Ok(())
    }

    fn validate_reserved(&self) -> Result<(), PoolReject> {
        let subnet = self.subnet;
        let mut claims: BTreeMap<IpAddr, &str> = BTreeMap::new();
        claims.extend(self.gateway.map(|gateway| (gateway, "the gateway")));
        for (name, &address) in &self.reserved {
            if !is_name(name) {
                return Err(PoolReject::ReservedName { address });
            }
            self.same_family("reserved address", address, address)?;
            if !subnet.contains(&address) {
                return Err(PoolReject::ReservedOutside {
                    subnet,
                    name: name.clone(),
                    address,
                });
            }
            if let Some(first) = claims.insert(address, name) {
                let (first, second) = (first.to_owned(), name.clone());
                return Err(PoolReject::ReservedTwice {
                    address,
                    first,
                    second,
                });
            }
        }
        let (low, high) = address::usable(&subnet);
        let claimed = claims
            .keys()
            .filter(|&&a| (low..=high).contains(&address::number(a)))
            .count() as u128;
        if high - low < claimed {
            return Err(PoolReject::PrefixTooLong { subnet });
        }
        Ok(())
    }

    fn same_family(
        &self,
        what: &'static str,
        address: IpAddr,
        value: impl ToString,
    ) -> Result<(), PoolReject> {
        if Family::of(address) == self.family() {
            return Ok(());
        }
        let value = value.to_string();
        Err(PoolReject::FamilyMismatch {
            subnet: self.subnet,
            what,
            value,
        })
    }
}

/// Refuses a count above its limit.
pub(super) const fn within(
    what: &'static str,
    count: usize,
    limit: usize,
) -> Result<(), PoolReject> {
    if count > limit {
        Err(PoolReject::TooMany { what, count, limit })
    } else {
        Ok(())
    }
}

/// Whether `name` can stand in a message and a record: short and without control characters.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && !name.chars().any(char::is_control)
}
