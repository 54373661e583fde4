//! Networks: making and removing them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::change::{Change, Undo};
use super::job::{Done, Pruned};
use super::loan::{BORROWER, keep_routers};
use super::state::pool_spec;
use super::{Controller, Draft, Halt};
use crate::command::Reference;
use crate::driver::{self, names};
use crate::id::{EndpointId, Name, NetworkId, SandboxId, Seed};
use crate::ipam::{Family, PickReject, PoolReject, PoolSpec, Surroundings};
use crate::limits::{
    LABEL_BYTES_MAX, LABELS_MAX, NETWORKS_MAX, ROUTES_PER_NETWORK_MAX, SUBNETS_PER_NETWORK_MAX,
};
use crate::model::{
    Driver, Endpoint, GatewayMode, Loan, LoanKey, Network, NetworkSpec, NetworkState, Pool,
    Sandbox, SandboxState, SubnetPick, SubnetSpec,
};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

impl Controller {
    pub(super) fn create_network(
        &mut self,
        now_ms: u64,
        seed: u128,
        spec: NetworkSpec,
        predefined: bool,
    ) -> Result<Draft, Halt> {
        if spec.has_plugin() {
            let message =
                "a plugin makes it or its addresses, which nobody knows before it was asked";
            return Err(Reject::new(Code::InvalidCombination, &spec.name, message)
                .hint("make the network instead of planning it")
                .into());
        }
        let (network, mut change) = self.new_network(now_ms, seed, spec, predefined)?;
        let id = network.id;
        self.state.set_network(id, Some(network), &mut change);
        Ok(Draft {
            change,
            done: Done::NetworkReady(id),
        })
    }

    /// A network as it will be stored, with pools of ours; they are in the change. It is as good as its spec, unless a
    /// plugin is still to be asked.
    pub(super) fn new_network(
        &mut self,
        now_ms: u64,
        seed: u128,
        mut spec: NetworkSpec,
        predefined: bool,
    ) -> Result<(Network, Change), Halt> {
        self.check_network(&spec, predefined)?;
        let id = NetworkId(Seed::new(seed).draw());
        let device = spec.device.clone().unwrap_or_else(|| names::bridge(id));
        names::interface(&device)?;
        let fact = self.facts.links.get(&device);
        let existing = spec.device.is_some() && fact.is_some_and(|link| link.bridge && !link.ours);
        if fact.is_some_and(|link| !link.bridge) {
            return Err(Reject::new(
                Code::InterfaceNameTaken,
                &device,
                "an interface of that name exists and is not a bridge",
            )
            .hint("name a bridge, or a name that is free")
            .into());
        }
        self.device_is_free(&device)?;
        // Other machines may be behind a bridge that was there before us: they need its link layer.
        spec.multicast |= existing || has_other_router(&spec) || is_isolated(&spec);
        let mut network = Network {
            id,
            pools: Vec::new(),
            device,
            existing,
            state: NetworkState::Creating,
            predefined,
            created_ms: now_ms,
            plugin_told: false,
            forsaken: false,
            spec,
        };
        let mut change = Change::default();
        let has_pools = matches!(network.spec.driver, Driver::Bridge | Driver::Remote);
        if has_pools
            && network.spec.ipam.is_none()
            && let Err(reject) = self.add_pools(&mut network, &mut change)
        {
            self.forget(change);
            return Err(reject.into());
        }
        // What the pools decide is judged again when a plugin has handed them out.
        if network.spec.ipam.is_none()
            && let Err(reject) = driver::validate(&network, self.context())
        {
            self.forget(change);
            return Err(reject.into());
        }
        Ok((network, change))
    }

    pub(super) fn delete_network(&mut self, reference: &Reference) -> Result<Draft, Halt> {
        let network = self.state.find_network(reference)?;
        self.must_not_be_used_by_engines(network)?;
        self.remove_network(network.id)
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Result<Draft, Halt> {
        let network = self.known_network(id)?;
        let name = network.spec.name;
        if network.predefined {
            return Err(Reject::new(
                Code::PredefinedNetwork,
                name,
                "the daemon itself makes this network",
            )
            .hint("change or switch it off in the daemon's configuration")
            .into());
        }
        let users: Vec<String> = self
            .state
            .endpoints_of_network(id)
            .take(5)
            .map(|e| e.name.to_string())
            .collect();
        if !users.is_empty() {
            let message = format!("the network still has endpoints: {}", users.join(", "));
            return Err(Reject::new(Code::NetworkInUse, name, message)
                .hint("remove or disconnect them first")
                .into());
        }
        let mut change = Change::default();
        self.mark_deleting(id, &mut change);
        Ok(Draft {
            change,
            done: Done::NetworkGone(id),
        })
    }

    pub(super) fn prune_networks(&mut self) -> Result<Draft, Halt> {
        Ok(self.prune_unused(Vec::new(), Vec::new()))
    }

    /// Whether no plugin must be asked about an endpoint: the daemon removes the others itself.
    fn is_of_no_plugin(&self, endpoint: &Endpoint) -> bool {
        let network = self.state.network(endpoint.network);
        network.is_none_or(|network| !network.spec.has_plugin())
    }

    pub(super) fn prune(&mut self) -> Result<Draft, Halt> {
        let free = |subject| !self.busy.contains_key(&subject);
        // An endpoint that is just joining a stopped sandbox keeps it.
        let joined = |id| self.state.endpoints_of_sandbox(id).into_iter();
        let stopped = |s: &&Sandbox| {
            s.state == SandboxState::Stopped
                && !(s.is_engines() && self.settings.engines)
                && free(Subject::Sandbox(s.id))
                && joined(s.id).all(|e| free(Subject::Endpoint(e.id)) && self.is_of_no_plugin(e))
        };
        let sandboxes: Vec<Sandbox> = self.state.sandboxes().filter(stopped).cloned().collect();
        let going: BTreeSet<SandboxId> = sandboxes.iter().map(|sandbox| sandbox.id).collect();
        let goes = |e: &&Endpoint| {
            free(Subject::Endpoint(e.id))
                && self.is_of_no_plugin(e)
                && !(e.spec.engine && self.settings.engines)
                && e.sandbox.is_none_or(|id| going.contains(&id))
        };
        let endpoints: Vec<Endpoint> = self.state.endpoints().filter(goes).cloned().collect();
        Ok(self.prune_unused(sandboxes, endpoints))
    }

    /// Marks sandboxes and endpoints for removal, and every network that has no others.
    fn prune_unused(&mut self, sandboxes: Vec<Sandbox>, endpoints: Vec<Endpoint>) -> Draft {
        let mut change = Change::default();
        let mut pruned = Pruned::default();
        let going: BTreeSet<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id).collect();
        let unused = |n: &&Network| {
            !n.predefined
                && !n.spec.has_plugin()
                && !self.is_used_by_engines(n)
                && !self.busy.contains_key(&Subject::Network(n.id))
                && self
                    .state
                    .endpoints_of_network(n.id)
                    .all(|e| going.contains(&e.id))
        };
        pruned.networks = self
            .state
            .networks()
            .filter(unused)
            .map(|n| (n.id, n.spec.name.to_string()))
            .collect();
        for mut endpoint in endpoints {
            endpoint.deleting = true;
            pruned
                .endpoints
                .push((endpoint.id, endpoint.name.to_string()));
            self.state
                .set_endpoint(endpoint.id, Some(endpoint), &mut change);
        }
        for mut sandbox in sandboxes {
            sandbox.state = SandboxState::Deleting;
            pruned
                .sandboxes
                .push((sandbox.id, sandbox.name.to_string()));
            self.state
                .set_sandbox(sandbox.id, Some(sandbox), &mut change);
        }
        for (id, _) in &pruned.networks {
            self.mark_deleting(*id, &mut change);
        }
        Draft {
            change,
            done: Done::Pruned(pruned),
        }
    }

    pub(super) fn erase_network(&mut self, id: NetworkId, change: &mut Change) {
        if let Some(network) = self.state.network(id).cloned() {
            self.end_pools_of(&network, change);
            for pool in &network.pools {
                // Links that the kernel still removes are on no bridge any more, and what a withdrawal still
                // holds is in the kernel no more: all addresses are free.
                let held = self.state.space.pool(pool.subnet).into_iter();
                let lent = self.lends_pool(pool.subnet);
                let held: Vec<(IpAddr, String)> = held
                    .flat_map(|p| p.leases().map(|(ip, l)| (ip, l.owner.clone())))
                    .filter(|(_, owner)| !lent || owner != BORROWER)
                    .collect();
                for (ip, owner) in held {
                    drop(self.state.space.release(ip, &owner, 0));
                }
                // Fails only where no such pool exists, which is what is wanted.
                if !lent {
                    drop(self.state.space.remove_pool(pool.subnet));
                }
            }
            let bound: Vec<LoanKey> = self
                .state
                .loans()
                .filter(|l| is_of(l, id))
                .map(Loan::key)
                .collect();
            for key in bound {
                self.state.set_loan(key, None, change);
            }
            self.state.set_network(id, None, change);
            self.live_leaves.retain(|(network, _)| *network != id);
        }
    }

    pub(super) fn mark_deleting(&mut self, id: NetworkId, change: &mut Change) {
        if let Some(mut network) = self.state.network(id).cloned() {
            network.state = NetworkState::Deleting;
            self.state.set_network(id, Some(network), change);
            for (_, leaf) in self.live_leaves.range((id, 0)..=(id, u16::MAX)) {
                change.touch(Subject::Leaf(id, *leaf));
            }
        }
    }

    fn check_network(&self, spec: &NetworkSpec, predefined: bool) -> Result<(), Reject> {
        if !predefined && !is_free_word(&spec.name) {
            return Err(Reject::new(
                Code::PredefinedNetwork,
                &spec.name,
                "this name is the daemon's own",
            )
            .hint("choose another name"));
        }
        if self.state.network_named(&spec.name).is_some() {
            return Err(
                Reject::new(Code::NameTaken, &spec.name, "a network of this name exists")
                    .hint("choose another name, or remove that network first"),
            );
        }
        if self.state.counts().0 >= NETWORKS_MAX {
            let message = format!("there are {NETWORKS_MAX} networks, the most a node may have");
            return Err(Reject::new(Code::LimitReached, &spec.name, message)
                .hint("remove networks that nothing uses"));
        }
        let single = |driver| self.state.networks().any(|n| n.spec.driver == driver);
        if matches!(spec.driver, Driver::Null | Driver::Host) && single(spec.driver) {
            return Err(Reject::new(
                Code::NameTaken,
                &spec.name,
                "only one network of this driver may exist",
            )
            .hint("use the one that `tombolo network ls` shows"));
        }
        check_counts(spec)
    }

    fn device_is_free(&self, device: &str) -> Result<(), Reject> {
        let taken = self
            .state
            .networks()
            .find(|n| n.spec.driver == Driver::Bridge && n.device == device);
        match taken {
            None => Ok(()),
            Some(other) => Err(Reject::new(
                Code::InterfaceNameTaken,
                device,
                format!("the network {} already uses this device", other.spec.name),
            )
            .hint("name another device")),
        }
    }

    fn add_pools(&mut self, network: &mut Network, change: &mut Change) -> Result<(), Reject> {
        let mut wanted = network.spec.subnets.clone();
        for (on, ipv6) in [(network.spec.ipv4, false), (network.spec.ipv6, true)] {
            let named = |s: &SubnetSpec| s.is_ipv6() == ipv6;
            if !on && wanted.iter().any(named) {
                let family = if ipv6 { "IPv6" } else { "IPv4" };
                return Err(Reject::new(
                    Code::InvalidCombination,
                    &network.spec.name,
                    format!("an {family} subnet is given, but {family} is off"),
                )
                .hint(format!("switch {family} on, or leave the subnet out")));
            }
            if on && !wanted.iter().any(named) {
                let pick = SubnetPick { ipv6, size: None };
                let any = || SubnetSpec {
                    pick,
                    ..SubnetSpec::default()
                };
                wanted.push(self.bridge_subnet(network, ipv6).unwrap_or_else(any));
            }
        }
        let owner = network.spec.name.to_string();
        for subnet in wanted {
            let pool = self.pool(network, subnet)?;
            // Of a pool that is lent its engine makes one network; whoever else names it is refused.
            let for_engine =
                network.spec.engine.is_some() && self.network_of_pool(pool.subnet).is_none();
            if for_engine && self.lends_pool(pool.subnet) {
                let kept = keep_routers(&mut self.state.space, network.id, &pool);
                let owner = network.id.to_string();
                let undo = kept.into_iter().map(|ip| Undo::Lease(ip, owner.clone()));
                change.undo.extend(undo);
                network.pools.push(pool);
                continue;
            }
            let host = self.surroundings(network.existing);
            self.state
                .space
                .add_pool(&owner, pool_spec(&pool), &host)
                .map_err(|reject| pool_reject(&network.spec.name, &reject))?;
            change.undo.push(Undo::Pool(pool.subnet));
            network.pools.push(pool);
        }
        Ok(())
    }

    /// The subnet of a bridge that was there before us.
    fn bridge_subnet(&self, network: &Network, ipv6: bool) -> Option<SubnetSpec> {
        let link = self
            .facts
            .links
            .get(&network.device)
            .filter(|_| network.existing)?;
        let usable = |net: &&IpNet| match net.addr() {
            IpAddr::V4(_) => !ipv6,
            IpAddr::V6(ip) => ipv6 && !ip.is_unicast_link_local(),
        };
        let address = link.addresses.iter().find(usable)?;
        let gateway = Some(address.addr());
        Some(SubnetSpec {
            subnet: Some(address.trunc()),
            gateway,
            ..SubnetSpec::default()
        })
    }

    pub(super) fn pick_pool(
        &self,
        object: &impl std::fmt::Display,
        pick: SubnetPick,
    ) -> Result<IpNet, Reject> {
        let family = if pick.ipv6 { Family::V6 } else { Family::V4 };
        let mut avoid = self.facts.routes.clone();
        avoid.extend(self.facts.resolvers.iter().map(|ip| IpNet::from(*ip)));
        avoid.extend(
            self.facts
                .links
                .values()
                .flat_map(|link| link.addresses.iter().map(IpNet::trunc)),
        );
        self.state
            .space
            .pick_subnet(&self.pools, (family, pick.size), &avoid)
            .map_err(|reject| {
                let code = match reject {
                    PickReject::Exhausted { .. } | PickReject::NoPool { .. } => Code::PoolExhausted,
                };
                Reject::advised(code, object, &reject.to_string())
            })
    }

    fn pool(&self, network: &Network, wanted: SubnetSpec) -> Result<Pool, Reject> {
        let SubnetSpec {
            subnet,
            pick,
            ranges,
            gateway,
            reserved,
        } = wanted;
        let subnet = match subnet {
            Some(subnet) => subnet,
            None => self.pick_pool(&network.spec.name, pick)?,
        };
        let mut pool = Pool {
            subnet,
            ranges,
            gateway,
            reserved,
            plugin: None,
        };
        if network.existing {
            self.keep_device_addresses(network, &mut pool);
        }
        let isolated = network.spec.gateway_mode(subnet.addr().is_ipv6()) == GatewayMode::Isolated;
        let addressed = !network.existing || network.spec.address_device;
        if pool.gateway.is_none() && addressed && !isolated {
            pool.gateway = lowest_free(&pool);
        }
        Ok(pool)
    }

    /// The addresses that an existing bridge has in a pool are nobody else's; one of them is the gateway unless
    /// another was named.
    fn keep_device_addresses(&self, network: &Network, pool: &mut Pool) {
        let Some(link) = self.facts.links.get(&network.device) else {
            return;
        };
        let inside = link
            .addresses
            .iter()
            .map(IpNet::addr)
            .filter(|ip| pool.subnet.contains(ip));
        for (number, ip) in inside.enumerate() {
            if *pool.gateway.get_or_insert(ip) != ip {
                pool.reserved
                    .insert(format!("{}-{number}", network.device), ip);
            }
        }
    }

    pub(super) fn surroundings(&self, existing: bool) -> Surroundings {
        if existing {
            return Surroundings::default();
        }
        let mut routes = self.facts.routes.clone();
        let addresses = self.facts.links.values().filter(|link| !link.ours);
        routes.extend(addresses.flat_map(|link| link.addresses.iter().map(IpNet::trunc)));
        Surroundings {
            routes,
            resolvers: self.facts.resolvers.clone(),
        }
    }
}

/// Whether an engine has the network in the place of one of its own.
pub(super) fn is_of(loan: &Loan, network: NetworkId) -> bool {
    matches!(loan, Loan::Network { network: of, .. } if *of == network)
}

/// The customary gateway: the lowest address that is not reserved.
fn lowest_free(pool: &Pool) -> Option<IpAddr> {
    let taken: Vec<IpAddr> = pool.reserved.values().copied().collect();
    let spec = PoolSpec {
        gateway: None,
        ..pool_spec(pool)
    };
    let free = |ip: &IpAddr| !taken.contains(ip);
    let next = || pool.subnet.hosts().take(taken.len() + 4).skip(1).find(free);
    spec.lowest_usable().filter(free).or_else(next)
}

/// Whether endpoints are to send to a router that is not this host: they need its link layer.
fn has_other_router(spec: &NetworkSpec) -> bool {
    let by_route = spec.routes.iter().any(|route| route.via.is_some());
    by_route
        || spec.subnets.iter().any(|s| {
            s.reserved
                .keys()
                .any(|name| name.starts_with("DefaultGatewayIPv"))
        })
}

/// Whether the host has no address in a family, and so cannot route between endpoints.
fn is_isolated(spec: &NetworkSpec) -> bool {
    let isolated = |ipv6| spec.gateway_mode(ipv6) == GatewayMode::Isolated;
    spec.ipv4 && isolated(false) || spec.ipv6 && isolated(true)
}

fn check_counts(spec: &NetworkSpec) -> Result<(), Reject> {
    let over = |what: &str, found: usize, most: usize| {
        let message = format!("{found} {what} are given; a network takes {most}");
        Err(Reject::new(Code::LimitReached, &spec.name, message)
            .hint("use fewer, or a second network"))
    };
    if spec.subnets.len() > SUBNETS_PER_NETWORK_MAX {
        return over("subnets", spec.subnets.len(), SUBNETS_PER_NETWORK_MAX);
    }
    if spec.routes.len() > ROUTES_PER_NETWORK_MAX {
        return over("routes", spec.routes.len(), ROUTES_PER_NETWORK_MAX);
    }
    check_labels(&spec.name, &spec.labels)?;
    check_labels(&spec.name, &spec.options)
}

/// Refuses more, or longer, labels and options than an object takes.
pub(super) fn check_labels(
    object: &impl std::fmt::Display,
    labels: &BTreeMap<String, String>,
) -> Result<(), Reject> {
    let count = labels.len();
    for (key, value) in labels {
        if key.len() + value.len() > LABEL_BYTES_MAX {
            let message = format!("a label or option has more than {LABEL_BYTES_MAX} bytes");
            return Err(Reject::new(Code::LimitReached, object, message).hint("shorten it"));
        }
    }
    if count > LABELS_MAX {
        let message = format!("{count} labels or options are given; an object takes {LABELS_MAX}");
        return Err(Reject::new(Code::LimitReached, object, message).hint("use fewer"));
    }
    Ok(())
}

pub(super) fn pool_reject(object: &impl std::fmt::Display, reject: &PoolReject) -> Reject {
    let code = match reject {
        PoolReject::HostBits { .. } => Code::HostBitsSet,
        PoolReject::OverlapsPool { .. }
        | PoolReject::OverlapsRoute { .. }
        | PoolReject::HidesResolver { .. } => Code::OverlappingSubnet,
        other if other.to_string().starts_with("gateway") => Code::GatewayOutsideSubnet,
        _ => Code::InvalidAddress,
    };
    Reject::advised(code, object, &reject.to_string())
}

/// Whether a name is none of those that the daemon gives itself.
pub(super) fn is_free_word(name: &Name) -> bool {
    let own = ["bridge", "host", "none", "default", "container"];
    !own.contains(&name.as_str())
}
