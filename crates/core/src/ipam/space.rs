//! All pools of a node: no two overlap, and every address has one owner.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::address::{self, Family};
use super::defaults::{DefaultPool, DefaultPools};
use super::intervals::Intervals;
use super::limits;
use super::pool::{Lease, LeaseReject, LeaseState, Pool, ReturnReject};
use super::spec::{PoolReject, PoolSpec, within};

/// What the host uses around the pools.
///
/// Default routes, and the few routes so wide that they mean the same, may be left in: they do
/// not count as in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Destinations of the host's own routes.
    pub routes: Vec<IpNet>,
    /// The host's name servers.
    pub resolvers: Vec<IpAddr>,
}

/// What is asked of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest<'a> {
    /// The subnet of the pool.
    pub subnet: IpNet,
    /// Exactly this address; `None` for the lowest free one.
    pub address: Option<IpAddr>,
    /// Who is to hold it.
    pub owner: &'a str,
}

/// A lease as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The address.
    pub address: IpAddr,
    /// Who holds it.
    pub owner: String,
    /// Whether the owner has given it up already.
    #[serde(default)]
    pub state: LeaseState,
}

/// Why a pool stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveReject {
    /// No pool has this subnet.
    #[error("no pool with subnet {subnet} exists: nothing to remove")]
    UnknownPool {
        /// The subnet asked for.
        subnet: IpNet,
    },
    /// Addresses are still leased.
    #[error(
        "subnet {subnet} of {owner} still has {leases} leased addresses: remove its endpoints first"
    )]
    InUse {
        /// The subnet asked for.
        subnet: IpNet,
        /// Whose pool it is.
        owner: String,
        /// How many leases are left.
        leases: usize,
    },
}

/// Why no subnet is chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickReject {
    /// No default pool is of this family and large enough.
    #[error("no default pool can give {} subnet: configure one, or name the subnet", wanted(*.family, *.size))]
    NoPool {
        /// The family asked for.
        family: Family,
        /// The prefix length asked for.
        size: Option<u8>,
    },
    /// All default pools of this family are used up.
    #[error("the {blocks} default pools that can give {} subnet are used up: remove networks, configure more, or name the subnet", wanted(*.family, *.size))]
    Exhausted {
        /// The family asked for.
        family: Family,
        /// The prefix length asked for.
        size: Option<u8>,
        /// How many default pools were searched.
        blocks: usize,
    },
}

fn wanted(family: Family, size: Option<u8>) -> String {
    size.map_or_else(
        || format!("an {family}"),
        |size| format!("an {family} /{size}"),
    )
}

/// Numbers in use, by family.
#[derive(Debug, Clone, Default)]
struct Occupied {
    v4: Intervals,
    v6: Intervals,
}

impl Occupied {
    const fn of(&self, family: Family) -> &Intervals {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    const fn of_mut(&mut self, family: Family) -> &mut Intervals {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn insert(&mut self, net: &IpNet) {
        let (first, last) = address::bounds(net);
        self.of_mut(Family::of_net(net)).insert(first, last);
    }

    fn remove(&mut self, net: &IpNet) {
        let (first, last) = address::bounds(net);
        self.of_mut(Family::of_net(net)).remove(first, last);
    }
}

/// All pools of a node.
///
/// No two pools overlap, so a pool is named by its subnet and an address belongs to at most one.
#[derive(Debug, Clone)]
pub struct Space {
    cooldown_ms: u64,
    /// By network address: the only pool that can hold an address is the last one before it.
    pools: BTreeMap<IpAddr, Pool>,
    occupied: Occupied,
}

impl Default for Space {
    /// An empty space with the usual cool-down.
    fn default() -> Self {
        Self::new(limits::COOLDOWN_DEFAULT_MS)
    }
}

impl Space {
    /// An empty space in which automatic choice avoids an address for `cooldown_ms` after its
    /// release.
    #[must_use]
    pub const fn new(cooldown_ms: u64) -> Self {
        let v4 = Intervals::new();
        let v6 = Intervals::new();
        Self {
            cooldown_ms,
            pools: BTreeMap::new(),
            occupied: Occupied { v4, v6 },
        }
    }

    /// Adds a new pool for `owner`, away from other pools and from what the host uses.
    ///
    /// Give empty surroundings for a network that shares the uplink's own subnet.
    ///
    /// # Errors
    /// What is wrong with the pool; the space is unchanged.
    pub fn add_pool(
        &mut self,
        owner: &str,
        spec: PoolSpec,
        host: &Surroundings,
    ) -> Result<&Pool, PoolReject> {
        let pool = self.check_pool(owner, spec)?;
        let subnet = pool.subnet();
        let clash = |r: &&IpNet| !address::is_default_like(r) && address::overlap(&subnet, r);
        if let Some(&route) = host.routes.iter().find(clash) {
            return Err(PoolReject::OverlapsRoute { subnet, route });
        }
        if let Some(&resolver) = host.resolvers.iter().find(|&r| subnet.contains(r)) {
            return Err(PoolReject::HidesResolver { subnet, resolver });
        }
        Ok(self.insert(pool))
    }

    /// Puts a stored pool back; the host is not asked, as its routes include the pool's own.
    ///
    /// # Errors
    /// What is wrong with the record; the space is unchanged.
    pub fn adopt_pool(&mut self, owner: &str, spec: PoolSpec) -> Result<&Pool, PoolReject> {
        let pool = self.check_pool(owner, spec)?;
        Ok(self.insert(pool))
    }

    /// Removes a pool without leases and returns what it was.
    ///
    /// # Errors
    /// If the pool is unknown or still has leases.
    pub fn remove_pool(&mut self, subnet: IpNet) -> Result<PoolSpec, RemoveReject> {
        let pool = self
            .pool(subnet)
            .ok_or(RemoveReject::UnknownPool { subnet })?;
        let leases = pool.lease_count();
        if leases > 0 {
            let owner = pool.owner().to_owned();
            return Err(RemoveReject::InUse {
                subnet,
                owner,
                leases,
            });
        }
        self.occupied.remove(&subnet);
        let pool = self.pools.remove(&subnet.addr());
        pool.map(|pool| pool.spec().clone())
            .ok_or(RemoveReject::UnknownPool { subnet })
    }

    /// Leases the address asked for, or the lowest free one.
    ///
    /// Without a free one the address that was released first is taken before its time.
    ///
    /// # Errors
    /// Why there is none; nothing is leased.
    pub fn lease(
        &mut self,
        request: &LeaseRequest<'_>,
        now_ms: u64,
    ) -> Result<IpAddr, LeaseReject> {
        let pool = self.pool_mut(request.subnet)?;
        match request.address {
            None => pool.lease_any(request.owner, now_ms),
            Some(address) => {
                let owner = request.owner.to_owned();
                pool.lease_exact(
                    address,
                    Lease {
                        owner,
                        state: LeaseState::Held,
                    },
                )
            }
        }
    }

    /// Puts a stored lease back.
    ///
    /// # Errors
    /// If the address is outside the pool or already taken.
    pub fn adopt_lease(&mut self, subnet: IpNet, record: LeaseRecord) -> Result<(), LeaseReject> {
        let LeaseRecord {
            address,
            owner,
            state,
        } = record;
        self.pool_mut(subnet)?
            .lease_exact(address, Lease { owner, state })
            .map(drop)
    }

    /// Marks the owner's address as given up while the kernel may still hold it: nobody gets it.
    /// Doing so again changes nothing.
    ///
    /// # Errors
    /// If the address is not leased, or leased to somebody else.
    pub fn retire(&mut self, address: IpAddr, owner: &str) -> Result<(), ReturnReject> {
        self.pool_at_mut(address)?.retire(address, owner)
    }

    /// Gives the owner's address back, once the kernel no longer holds it; it then cools down.
    ///
    /// # Errors
    /// If the address is not leased, or leased to somebody else.
    pub fn release(
        &mut self,
        address: IpAddr,
        owner: &str,
        now_ms: u64,
    ) -> Result<(), ReturnReject> {
        let free_at_ms = now_ms.saturating_add(self.cooldown_ms);
        self.pool_at_mut(address)?
            .release(address, owner, free_at_ms)
    }

    /// The pool with exactly this subnet.
    #[must_use]
    pub fn pool(&self, subnet: IpNet) -> Option<&Pool> {
        self.pools
            .get(&subnet.addr())
            .filter(|pool| pool.subnet() == subnet)
    }

    /// The pool whose subnet contains `address`.
    #[must_use]
    pub fn pool_at(&self, address: IpAddr) -> Option<&Pool> {
        let (_, pool) = self.pools.range(..=address).next_back()?;
        pool.subnet().contains(&address).then_some(pool)
    }

    /// All pools in the order of their subnets, IPv4 first.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// The pool that shares an address with `net`.
    #[must_use]
    pub fn overlapping(&self, net: &IpNet) -> Option<&Pool> {
        let (_, pool) = self.pools.range(..=net.broadcast()).next_back()?;
        address::overlap(&pool.subnet(), net).then_some(pool)
    }

    /// The first subnet of the default pools that touches neither a pool nor anything in `avoid`
    /// (the host's routes, its name servers as single addresses, other nodes' pools).
    ///
    /// # Errors
    /// If no default pool fits the wish or all are used up.
    pub fn pick_subnet(
        &self,
        defaults: &DefaultPools,
        (family, size): (Family, Option<u8>),
        avoid: &[IpNet],
    ) -> Result<IpNet, PickReject> {
        let mut avoided = Intervals::new();
        for net in avoid {
            if Family::of_net(net) == family && !address::is_default_like(net) {
                let (first, last) = address::bounds(net);
                avoided.insert(first, last);
            }
        }
        let blocks: Vec<_> = defaults
            .as_slice()
            .iter()
            .map(|pool| DefaultPool {
                base: pool.base,
                size: size.unwrap_or(pool.size),
            })
            .filter(|pool| Family::of_net(&pool.base) == family)
            .filter(|pool| (pool.base.prefix_len()..=family.bits()).contains(&pool.size))
            .collect();
        if blocks.is_empty() {
            return Err(PickReject::NoPool { family, size });
        }
        let sets = [self.occupied.of(family), &avoided];
        let found = blocks.iter().find_map(|block| first_free(*block, sets));
        found.ok_or(PickReject::Exhausted {
            family,
            size,
            blocks: blocks.len(),
        })
    }

    fn check_pool(&self, owner: &str, spec: PoolSpec) -> Result<Pool, PoolReject> {
        let pool = Pool::new(owner, spec)?;
        within("pools", self.pools.len() + 1, limits::POOLS_MAX)?;
        match self.overlapping(&pool.subnet()) {
            Some(other) => Err(PoolReject::OverlapsPool {
                subnet: pool.subnet(),
                other: other.subnet(),
                owner: other.owner().to_owned(),
            }),
            None => Ok(pool),
        }
    }

    fn insert(&mut self, pool: Pool) -> &Pool {
        let subnet = pool.subnet();
        self.occupied.insert(&subnet);
        self.pools.entry(subnet.addr()).or_insert(pool)
    }

    fn pool_mut(&mut self, subnet: IpNet) -> Result<&mut Pool, LeaseReject> {
        let pool = self
            .pools
            .get_mut(&subnet.addr())
            .filter(|pool| pool.subnet() == subnet);
        pool.ok_or(LeaseReject::UnknownPool { subnet })
    }

    fn pool_at_mut(&mut self, address: IpAddr) -> Result<&mut Pool, ReturnReject> {
        let pool = self
            .pools
            .range_mut(..=address)
            .next_back()
            .map(|(_, pool)| pool);
        pool.filter(|pool| pool.subnet().contains(&address))
            .ok_or(ReturnReject::NotLeased { address })
    }
}

/// The first subnet of a block outside both sets. A run of taken subnets costs one step.
fn first_free(block: DefaultPool, sets: [&Intervals; 2]) -> Option<IpNet> {
    let family = Family::of_net(&block.base);
    let (mut first, end) = address::bounds(&block.base);
    let width = 1_u128.checked_shl(u32::from(family.bits() - block.size))?;
    loop {
        let last = first.checked_add(width - 1).filter(|&last| last <= end)?;
        let blocker = sets
            .iter()
            .filter_map(|set| set.overlapping(first, last))
            .max_by_key(|r| r.1);
        let Some((_, taken_to)) = blocker else {
            return IpNet::new(family.address(first), block.size).ok();
        };
        first = (taken_to / width).checked_add(1)?.checked_mul(width)?;
    }
}
