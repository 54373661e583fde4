//! Pools, addresses and networks that are lent to other engines.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::lease_reject;
use super::change::{Change, Undo};
use super::engine::{nothing, recorded};
use super::network::is_of;
use super::state::in_subnet;
use super::{Controller, Draft, Halt};
use crate::command::Reference;
use crate::event::Reply;
use crate::id::{EndpointId, NetworkId};
use crate::ipam::{LeaseRecord, LeaseRequest, LeaseState, PoolSpec, Space};
use crate::limits::LOANS_MAX;
use crate::model::{Driver, Loan, LoanKey, Network, Pool, SubnetPick};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

/// Who holds an address that is lent, or a pool.
pub(super) const BORROWER: &str = "engine";

impl Controller {
    pub(super) fn request_pool(
        &mut self,
        now_ms: u64,
        network: Option<&Reference>,
        (subnet, pick): (Option<IpNet>, SubnetPick),
        range: Option<IpNet>,
    ) -> Result<Draft, Halt> {
        if let Some(network) = network {
            return self.pool_of_network(network, (subnet, pick), range);
        }
        let subnet = match subnet {
            Some(subnet) => subnet,
            None => self.pick_pool(&"pool", pick)?,
        };
        if self.lends_pool(subnet) {
            self.must_be_unused(subnet)?;
            return Ok(nothing(Reply::Pool(subnet, None)));
        }
        self.must_have_room(&subnet)?;
        let ranges: Vec<IpNet> = range.into_iter().collect();
        let spec = PoolSpec {
            subnet,
            ranges: ranges.clone(),
            gateway: None,
            reserved: Default::default(),
        };
        let host = self.surroundings(false);
        self.state
            .space
            .add_pool(BORROWER, spec, &host)
            .map_err(|reject| super::network::pool_reject(&subnet, &reject))?;
        let mut change = Change::default();
        change.undo.push(Undo::Pool(subnet));
        let loan = Loan::Pool {
            subnet,
            ranges,
            since_ms: now_ms,
        };
        self.state.set_loan(loan.key(), Some(loan), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Pool(subnet, None), true),
        })
    }

    /// The pool of a network that exists: it is the network's, and nothing is to be remembered.
    fn pool_of_network(
        &self,
        reference: &Reference,
        (subnet, pick): (Option<IpNet>, SubnetPick),
        range: Option<IpNet>,
    ) -> Result<Draft, Halt> {
        let id = self.usable_network(reference)?;
        let network = self.state.find_network(reference)?;
        debug_assert_eq!(network.id, id);
        let refuse = |code, message: String, hint: &str| {
            Halt::Reject(Reject::new(code, &network.spec.name, message).hint(hint))
        };
        must_have_own_addresses(network)?;
        if range.is_some() {
            let message = "its ranges cannot be narrowed for one engine".to_owned();
            let hint = "leave the range out";
            return Err(refuse(Code::InvalidCombination, message, hint));
        }
        let fits = |pool: &&Pool| match subnet {
            Some(subnet) => pool.subnet == subnet,
            None => pool.subnet.addr().is_ipv6() == pick.ipv6,
        };
        match network.pools.iter().find(fits) {
            Some(pool) => Ok(nothing(Reply::Pool(pool.subnet, pool.gateway))),
            None => {
                let what = match subnet {
                    Some(subnet) => format!("the subnet {subnet}"),
                    None if pick.ipv6 => "IPv6".to_owned(),
                    None => "IPv4".to_owned(),
                };
                let message = format!("the network has not {what}");
                let hint = "`tombolo network inspect` shows its subnets";
                Err(refuse(Code::InvalidAddress, message, hint))
            }
        }
    }

    /// Refuses a pool that somebody has already: asked for again it is lent again only while nothing came of it.
    fn must_be_unused(&self, subnet: IpNet) -> Result<(), Reject> {
        let has_address = self.loans_in(subnet).next().is_some();
        if !has_address && self.network_of_pool(subnet).is_none() {
            return Ok(());
        }
        let message = "the subnet is another network's of the engine";
        Err(Reject::new(Code::OverlappingSubnet, subnet, message).hint("choose another subnet"))
    }

    pub(super) fn release_pool(&mut self, now_ms: u64, subnet: IpNet) -> Draft {
        let mut change = Change::default();
        if !self.lends_pool(subnet) {
            return nothing(Reply::Done);
        }
        self.end_pool(now_ms, subnet, &mut change);
        change.undo.clear();
        Draft {
            change,
            done: recorded(Reply::Done, true),
        }
    }

    /// Takes back what is lent of a pool, and the pool itself unless a network has it; who has its own addresses of it keeps
    /// them.
    fn end_pool(&mut self, now_ms: u64, subnet: IpNet, change: &mut Change) {
        let addresses: Vec<IpAddr> = self.loans_in(subnet).collect();
        for address in addresses {
            self.end_loan(now_ms, address, change);
        }
        self.state.set_loan(LoanKey::Pool(subnet), None, change);
        if self.network_of_pool(subnet).is_none() {
            // Fails only where no such pool is, which is what is wanted.
            drop(self.state.space.remove_pool(subnet));
        }
    }

    /// Takes the pools of a network back that no engine will give back, since none can ask.
    pub(super) fn end_pools_of(&mut self, network: &Network, change: &mut Change) {
        if self.settings.engines {
            return;
        }
        for pool in &network.pools {
            if self.lends_pool(pool.subnet) {
                self.end_pool(0, pool.subnet, change);
            }
        }
    }

    /// The same for pools that are of no network of ours.
    pub(super) fn end_pools_of_nobody(&mut self, now_ms: u64, change: &mut Change) {
        if self.settings.engines {
            return;
        }
        let lent = self.state.loans().filter_map(|loan| match loan {
            Loan::Pool { subnet, .. } => Some(*subnet),
            _ => None,
        });
        let lent: Vec<IpNet> = lent
            .filter(|subnet| self.network_of_pool(*subnet).is_none())
            .collect();
        for subnet in lent {
            self.end_pool(now_ms, subnet, change);
        }
    }

    pub(super) fn request_address(
        &mut self,
        now_ms: u64,
        subnet: IpNet,
        address: Option<IpAddr>,
        gateway: bool,
    ) -> Result<Draft, Halt> {
        let network = self.network_of_pool(subnet);
        if let (true, Some(ip)) = (gateway, network.and_then(|n| pool_gateway(n, subnet)))
            && address.is_none_or(|wanted| wanted == ip)
        {
            return Ok(nothing(Reply::Address(in_subnet(ip, subnet))));
        }
        let length = address_length(network, subnet, gateway);
        let with_length =
            |ip: IpAddr| IpNet::new(ip, length).unwrap_or_else(|_| in_subnet(ip, subnet));
        if gateway && let Some(ip) = self.lent_router(subnet, address) {
            return Ok(nothing(Reply::Address(with_length(ip))));
        }
        self.must_have_room(&subnet)?;
        let wanted = match (address, gateway) {
            // The customary router is the lowest address.
            (None, true) => self.lowest_address(subnet),
            (address, _) => address,
        };
        let request = LeaseRequest {
            subnet,
            address: wanted,
            owner: BORROWER,
        };
        let mut change = Change::default();
        let leased = self.state.lease(&request, now_ms, &mut change);
        let ip = leased.map_err(|reject| lease_reject(&subnet, &reject))?;
        let loan = Loan::Address {
            address: ip,
            subnet,
            gateway,
            since_ms: now_ms,
        };
        self.state.set_loan(loan.key(), Some(loan), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Address(with_length(ip)), gateway),
        })
    }

    /// The router of a pool that was lent before, which is `wanted` if that is given.
    fn lent_router(&self, subnet: IpNet, wanted: Option<IpAddr>) -> Option<IpAddr> {
        let lent = |ip: &IpAddr| {
            self.state
                .loan(LoanKey::Address(*ip))
                .is_some_and(is_gateway)
        };
        let fits = |ip: &IpAddr| wanted.is_none_or(|wanted| wanted == *ip);
        self.loans_in(subnet).filter(fits).find(lent)
    }

    fn lowest_address(&self, subnet: IpNet) -> Option<IpAddr> {
        let pool = self.state.space.pool(subnet)?;
        let lowest = pool.spec().lowest_usable()?;
        pool.lease_of(lowest).is_none().then_some(lowest)
    }

    pub(super) fn release_address(&mut self, now_ms: u64, address: IpAddr) -> Draft {
        let mut change = Change::default();
        let loan = self.state.loan(LoanKey::Address(address));
        let durable = loan.is_some_and(is_gateway);
        self.end_loan(now_ms, address, &mut change);
        change.undo.clear();
        Draft {
            change,
            done: recorded(Reply::Done, durable),
        }
    }

    /// Takes an address back, unless an endpoint or a network still has it: then it is theirs from now on.
    fn end_loan(&mut self, now_ms: u64, address: IpAddr, change: &mut Change) {
        let key = LoanKey::Address(address);
        let Some(Loan::Address { subnet, .. }) = self.state.loan(key).cloned() else {
            return;
        };
        self.state.set_loan(key, None, change);
        let holder = self.state.endpoint_at(address).map(|id| id.to_string());
        let router = || {
            let network = self.network_of_pool(subnet)?;
            let is_router = pool_gateway(network, subnet) == Some(address);
            is_router.then(|| network.id.to_string())
        };
        let holder = holder.or_else(router);
        // Fails only for an address that was not ours to give.
        drop(self.state.space.release(address, BORROWER, now_ms));
        if let Some(owner) = holder {
            let request = LeaseRequest {
                subnet,
                address: Some(address),
                owner: &owner,
            };
            drop(self.state.space.lease(&request, now_ms));
        }
    }

    pub(super) fn bind_network(
        &mut self,
        (id, engine_id): (NetworkId, String),
        reference: &Reference,
        pools: &[IpNet],
    ) -> Result<Draft, Halt> {
        let bound = self.usable_network(reference)?;
        let network = self.state.find_network(reference)?;
        if network.spec.driver != Driver::Bridge {
            let message = "networks of this driver cannot be an engine's";
            return Err(
                Reject::new(Code::InvalidCombination, &network.spec.name, message)
                    .hint("name a bridge network")
                    .into(),
            );
        }
        must_have_own_addresses(network)?;
        let strange = |net: &&IpNet| !network.pools.iter().any(|pool| pool.subnet == **net);
        if let Some(subnet) = pools.iter().find(strange) {
            let message = format!("the engine has the subnet {subnet} for it, which it has not");
            let hint = format!(
                "let the engine ask for its subnets: `--ipam-driver tombolo --ipam-opt network={}`",
                network.spec.name
            );
            return Err(
                Reject::new(Code::InvalidCombination, &network.spec.name, message)
                    .hint(hint)
                    .into(),
            );
        }
        self.must_have_room(&network.spec.name.clone())?;
        let loan = Loan::Network {
            id,
            engine_id,
            network: bound,
        };
        let mut change = Change::default();
        self.state.set_loan(loan.key(), Some(loan), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Network(bound), true),
        })
    }

    pub(super) fn unbind_network(&mut self, id: NetworkId) -> Result<Draft, Halt> {
        let Some(Loan::Network { network, .. }) = self.state.loan(LoanKey::Network(id)) else {
            return Ok(nothing(Reply::Done));
        };
        self.must_be_free(Subject::Network(*network))?;
        let mut change = Change::default();
        self.state.set_loan(LoanKey::Network(id), None, &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Done, true),
        })
    }

    /// The network of ours that an engine means.
    pub fn engine_network(&self, id: NetworkId) -> Option<&Network> {
        let id = match self.state.loan(LoanKey::Network(id)) {
            Some(Loan::Network { network, .. }) => *network,
            _ => id,
        };
        self.state.network(id)
    }

    /// Whether a network stands for another one, of an engine.
    pub fn is_bound(&self, id: NetworkId) -> bool {
        self.state.loans().any(|loan| is_of(loan, id))
    }

    /// Whether a pool was lent for itself, and not as the pool of a network that was there.
    pub fn lends_pool(&self, subnet: IpNet) -> bool {
        self.state.loan(LoanKey::Pool(subnet)).is_some()
    }

    /// Whether an address was lent, to an endpoint or a router.
    pub fn lends_address(&self, address: IpAddr) -> bool {
        self.state.loan(LoanKey::Address(address)).is_some()
    }

    /// The network that has a pool.
    pub fn network_of_pool(&self, subnet: IpNet) -> Option<&Network> {
        let has = |network: &&Network| network.pools.iter().any(|pool| pool.subnet == subnet);
        self.state.networks().find(has)
    }

    /// The endpoint of an engine that has an address.
    pub fn lent_endpoint_at(&self, address: IpAddr) -> Option<EndpointId> {
        let id = self.state.endpoint_at(address)?;
        let endpoint = self.state.endpoint(id)?;
        endpoint.spec.engine.then_some(id)
    }

    /// What engines hold.
    pub fn loans(&self) -> impl Iterator<Item = &Loan> {
        self.state.loans()
    }

    pub(super) fn reference_of(&self, id: NetworkId) -> Result<Reference, Reject> {
        match self.engine_network(id) {
            Some(network) => Ok(Reference(network.id.to_string())),
            None => Err(Reject::new(
                Code::UnknownNetwork,
                id,
                "the engine has no such network here",
            )
            .hint("remove it in the engine, and create it again")),
        }
    }

    fn loans_in(&self, subnet: IpNet) -> impl Iterator<Item = IpAddr> + '_ {
        self.state.loans().filter_map(move |loan| match loan {
            Loan::Address {
                address,
                subnet: of,
                ..
            } if *of == subnet => Some(*address),
            _ => None,
        })
    }

    /// Whether an address is lent, and no endpoint has it yet.
    pub(super) fn is_lent_for_endpoint(&self, address: IpAddr) -> bool {
        let loan = self.state.loan(LoanKey::Address(address));
        loan.is_some_and(|loan| !is_gateway(loan)) && self.state.endpoint_at(address).is_none()
    }

    fn must_have_room(&self, object: &impl std::fmt::Display) -> Result<(), Reject> {
        if self.state.loan_count() < LOANS_MAX {
            return Ok(());
        }
        let message =
            format!("engines hold {LOANS_MAX} pools, addresses and networks, the most they may");
        Err(Reject::new(Code::LimitReached, object, message).hint("remove containers or networks"))
    }
}

/// Keeps the router of a lent pool, and what is kept out of it, for its network; returns what its engine has not asked
/// for itself.
pub(super) fn keep_routers(space: &mut Space, network: NetworkId, pool: &Pool) -> Vec<IpAddr> {
    let wanted = pool.gateway.iter().chain(pool.reserved.values());
    let kept = wanted.copied().filter(|ip| {
        let lease = LeaseRecord {
            address: *ip,
            owner: network.to_string(),
            state: LeaseState::Held,
        };
        // Refused where the engine has it already.
        space.adopt_lease(pool.subnet, lease).is_ok()
    });
    kept.collect()
}

fn pool_gateway(network: &Network, subnet: IpNet) -> Option<IpAddr> {
    let pool = network.pools.iter().find(|pool| pool.subnet == subnet)?;
    pool.gateway
}

/// The prefix length that an endpoint is to have. On a hub it reaches even its neighbours through the host, and
/// so must have no route to the subnet by its address.
fn address_length(network: Option<&Network>, subnet: IpNet, gateway: bool) -> u8 {
    match network {
        Some(network) if !gateway && !network.spec.multicast => subnet.max_prefix_len(),
        _ => subnet.prefix_len(),
    }
}

fn is_gateway(loan: &Loan) -> bool {
    matches!(loan, Loan::Address { gateway: true, .. })
}

/// A plugin that hands out a network's addresses is not asked for those of another engine's containers.
fn must_have_own_addresses(network: &Network) -> Result<(), Reject> {
    let Some(ipam) = &network.spec.ipam else {
        return Ok(());
    };
    let message = format!(
        "its addresses come from the plugin {}, which engines must ask themselves",
        ipam.plugin
    );
    Err(
        Reject::new(Code::InvalidCombination, &network.spec.name, message)
            .hint("name a network with addresses of ours"),
    )
}
