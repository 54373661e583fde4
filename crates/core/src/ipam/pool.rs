//! One subnet and who holds which of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::address;
use super::intervals::Intervals;
use super::limits;
use super::spec::{PoolReject, PoolSpec, is_name};

/// How far a lease has got on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// In use, or kept for an owner that is stopped.
    #[default]
    Held,
    /// Given up by its owner while the kernel may still hold it.
    Leaving,
}

/// One address and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The endpoint (or other name) that holds the address.
    pub owner: String,
    /// Whether the owner has given it up already.
    pub state: LeaseState,
}

/// What stands in the way of leasing an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Leased to this owner.
    Owner(String),
    /// Given up by this owner, not yet out of the kernel.
    Leaving(String),
    /// The pool's gateway.
    Gateway,
    /// Reserved under this name.
    Reserved(String),
    /// The network address of an IPv4 subnet.
    Network,
    /// The broadcast address of an IPv4 subnet.
    Broadcast,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(owner) => write!(f, "leased to {owner}"),
            Self::Leaving(owner) => write!(f, "still being taken down for {owner}"),
            Self::Gateway => f.write_str("the gateway"),
            Self::Reserved(name) => write!(f, "reserved as {name}"),
            Self::Network => f.write_str("the network address"),
            Self::Broadcast => f.write_str("the broadcast address"),
        }
    }
}

/// Why no address is leased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseReject {
    /// No pool has this subnet.
    #[error("no pool with subnet {subnet} exists: create its network first")]
    UnknownPool {
        /// The subnet asked for.
        subnet: IpNet,
    },
    /// The owner's name is empty, too long or holds control characters.
    #[error(
        "a lease in {subnet} needs an owner name of 1 to {} bytes without control characters",
        limits::NAME_BYTES_MAX
    )]
    OwnerName {
        /// The pool asked.
        subnet: IpNet,
    },
    /// The address asked for is outside the subnet.
    #[error("address {address} is outside subnet {subnet}: choose one inside it")]
    Outside {
        /// The address asked for.
        address: IpAddr,
        /// The pool asked.
        subnet: IpNet,
    },
    /// The address asked for is not free.
    #[error("address {address} is {holder}: choose another address")]
    Taken {
        /// The address asked for.
        address: IpAddr,
        /// What stands in the way.
        holder: Holder,
    },
    /// Automatic choice has nothing left.
    #[error(
        "subnet {subnet} has no free address ({held} leased, {leaving} still being taken down): remove endpoints or use a larger subnet"
    )]
    Exhausted {
        /// The pool asked.
        subnet: IpNet,
        /// Leases in use or kept.
        held: usize,
        /// Leases on their way back.
        leaving: usize,
    },
    /// The pool holds as many leases as one pool may.
    #[error(
        "subnet {subnet} already has {limit} leases, the most one pool may have: use a second network"
    )]
    TooMany {
        /// The pool asked.
        subnet: IpNet,
        /// The limit.
        limit: usize,
    },
}

/// Why an address cannot be given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnReject {
    /// Nobody has this address.
    #[error("address {address} is not leased: nothing to give back")]
    NotLeased {
        /// The address to give back.
        address: IpAddr,
    },
    /// Somebody else has this address.
    #[error("address {address} belongs to {owner}, not to {claimed}: it stays")]
    OtherOwner {
        /// The address to give back.
        address: IpAddr,
        /// Who has it.
        owner: String,
        /// Who wanted to give it back.
        claimed: String,
    },
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Leases in use or kept for a stopped owner.
    pub held: usize,
    /// Leases given up whose address may still be in the kernel.
    pub leaving: usize,
    /// Released addresses that automatic choice avoids for a while.
    pub cooling: usize,
    /// Addresses automatic choice could still lease, cooling ones included.
    pub free: u128,
}

/// One subnet and who holds which of its addresses.
///
/// Memory grows with the leases, never with the prefix.
#[derive(Debug, Clone)]
pub struct Pool {
    owner: String,
    spec: PoolSpec,
    /// Runs for automatic choice, without network, broadcast and anycast addresses.
    automatic: Vec<(u128, u128)>,
    /// What can never be leased, and why.
    fixed: BTreeMap<u128, Holder>,
    /// Everything automatic choice passes over: fixed, leased and cooling.
    taken: Intervals,
    leases: BTreeMap<u128, Lease>,
    /// When a released address becomes free, by address and by time.
    cooling: BTreeMap<u128, u64>,
    thaw: BTreeSet<(u64, u128)>,
}

impl Pool {
    pub(super) fn new(owner: &str, spec: PoolSpec) -> Result<Self, PoolReject> {
        if !is_name(owner) {
            return Err(PoolReject::OwnerName {
                subnet: spec.subnet,
            });
        }
        spec.validate()?;
        let fixed = fixed_holders(&spec);
        let mut taken = Intervals::default();
        fixed.keys().for_each(|&n| taken.insert(n, n));
        Ok(Self {
            owner: owner.to_owned(),
            automatic: spec.automatic(),
            spec,
            fixed,
            taken,
            leases: BTreeMap::new(),
            cooling: BTreeMap::new(),
            thaw: BTreeSet::new(),
        })
    }

    /// The network (or other name) that the pool belongs to.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// What the pool was asked to be.
    #[must_use]
    pub const fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// The subnet, which also names the pool within its space.
    #[must_use]
    pub const fn subnet(&self) -> IpNet {
        self.spec.subnet
    }

    /// The lease on `address`, if somebody has it.
    #[must_use]
    pub fn lease_of(&self, address: IpAddr) -> Option<&Lease> {
        self.position(address).and_then(|n| self.leases.get(&n))
    }

    /// All leases in the order of their addresses.
    pub fn leases(&self) -> impl Iterator<Item = (IpAddr, &Lease)> {
        let family = self.spec.family();
        self.leases
            .iter()
            .map(move |(&n, lease)| (family.address(n), lease))
    }

    /// How full the pool is; the cost grows with the number of leases.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let leaving = self
            .leases
            .values()
            .filter(|l| l.state == LeaseState::Leaving)
            .count();
        let free = self.automatic.iter().map(|&(first, last)| {
            let used =
                self.leases.range(first..=last).count() + self.fixed.range(first..=last).count();
            last - first + 1 - used as u128
        });
        Usage {
            held: self.leases.len() - leaving,
            leaving,
            cooling: self.cooling.len(),
            free: free.sum(),
        }
    }

    pub(super) fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// Leases the lowest free address, else the one that was released first.
    pub(super) fn lease_any(&mut self, owner: &str, now_ms: u64) -> Result<IpAddr, LeaseReject> {
        self.check_room(owner)?;
        self.settle(now_ms);
        let free = self
            .automatic
            .iter()
            .find_map(|&(f, l)| self.taken.first_gap(f, l));
        let Some(n) = free.or_else(|| self.thaw.first().map(|&(_, n)| n)) else {
            let Usage { held, leaving, .. } = self.usage();
            return Err(LeaseReject::Exhausted {
                subnet: self.subnet(),
                held,
                leaving,
            });
        };
        Ok(self.take(
            n,
            Lease {
                owner: owner.to_owned(),
                state: LeaseState::Held,
            },
        ))
    }

    /// Leases exactly `address`, cooling or not.
    pub(super) fn lease_exact(
        &mut self,
        address: IpAddr,
        lease: Lease,
    ) -> Result<IpAddr, LeaseReject> {
        self.check_room(&lease.owner)?;
        let Some(n) = self.position(address) else {
            return Err(LeaseReject::Outside {
                address,
                subnet: self.subnet(),
            });
        };
        match self.holder(n) {
            Some(holder) => Err(LeaseReject::Taken { address, holder }),
            None => Ok(self.take(n, lease)),
        }
    }

    /// Marks a lease as given up: the address stays unavailable to everybody.
    pub(super) fn retire(&mut self, address: IpAddr, owner: &str) -> Result<(), ReturnReject> {
        let n = self.owned(address, owner)?;
        if let Some(lease) = self.leases.get_mut(&n) {
            lease.state = LeaseState::Leaving;
        }
        Ok(())
    }

    /// Ends a lease; automatic choice avoids the address until `free_at_ms`.
    pub(super) fn release(
        &mut self,
        address: IpAddr,
        owner: &str,
        free_at_ms: u64,
    ) -> Result<(), ReturnReject> {
        let n = self.owned(address, owner)?;
        self.leases.remove(&n);
        if self.is_automatic(n) {
            self.cooling.insert(n, free_at_ms);
            self.thaw.insert((free_at_ms, n));
        } else {
            self.taken.remove(n, n);
        }
        Ok(())
    }

    fn check_room(&self, owner: &str) -> Result<(), LeaseReject> {
        let subnet = self.subnet();
        if !is_name(owner) {
            return Err(LeaseReject::OwnerName { subnet });
        }
        if self.leases.len() >= limits::LEASES_MAX {
            return Err(LeaseReject::TooMany {
                subnet,
                limit: limits::LEASES_MAX,
            });
        }
        Ok(())
    }

    /// Frees what has cooled down; every release is looked at once.
    fn settle(&mut self, now_ms: u64) {
        while let Some(&(at_ms, n)) = self.thaw.first()
            && at_ms <= now_ms
        {
            self.thaw.pop_first();
            self.cooling.remove(&n);
            self.taken.remove(n, n);
        }
    }

    fn take(&mut self, n: u128, lease: Lease) -> IpAddr {
        if let Some(at_ms) = self.cooling.remove(&n) {
            self.thaw.remove(&(at_ms, n));
        }
        self.taken.insert(n, n);
        let before = self.leases.insert(n, lease);
        debug_assert!(before.is_none(), "an address must not have two owners");
        self.spec.family().address(n)
    }

    fn holder(&self, n: u128) -> Option<Holder> {
        let leased = self.leases.get(&n).map(|lease| match lease.state {
            LeaseState::Held => Holder::Owner(lease.owner.clone()),
            LeaseState::Leaving => Holder::Leaving(lease.owner.clone()),
        });
        leased.or_else(|| self.fixed.get(&n).cloned())
    }

    fn owned(&self, address: IpAddr, owner: &str) -> Result<u128, ReturnReject> {
        let n = self
            .position(address)
            .ok_or(ReturnReject::NotLeased { address })?;
        match self.leases.get(&n) {
            None => Err(ReturnReject::NotLeased { address }),
            Some(lease) if lease.owner != owner => Err(ReturnReject::OtherOwner {
                address,
                owner: lease.owner.clone(),
                claimed: owner.to_owned(),
            }),
            Some(_) => Ok(n),
        }
    }

    /// The number of an address of this subnet.
    fn position(&self, address: IpAddr) -> Option<u128> {
        self.spec
            .subnet
            .contains(&address)
            .then(|| address::number(address))
    }

    fn is_automatic(&self, n: u128) -> bool {
        let after = self.automatic.partition_point(|&(first, _)| first <= n);
        after
            .checked_sub(1)
            .is_some_and(|at| n <= self.automatic[at].1)
    }

    /// How many entries the pool keeps: its memory, whatever its prefix.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        self.fixed.len() + self.taken.runs() + self.leases.len() + self.cooling.len()
    }
}

fn fixed_holders(spec: &PoolSpec) -> BTreeMap<u128, Holder> {
    let mut fixed = BTreeMap::new();
    for (name, &reserved) in &spec.reserved {
        fixed.insert(address::number(reserved), Holder::Reserved(name.clone()));
    }
    if let Some(gateway) = spec.gateway {
        fixed.insert(address::number(gateway), Holder::Gateway);
    }
    if matches!(spec.subnet, IpNet::V4(net) if net.prefix_len() < 31) {
        let (first, last) = address::bounds(&spec.subnet);
        fixed.insert(first, Holder::Network);
        fixed.insert(last, Holder::Broadcast);
    }
    fixed
}
