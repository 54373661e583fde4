//! The records of a node in memory, their indexes, and the addresses they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::command::Reference;
use crate::id::{EndpointId, Name, NetworkId, SandboxId, prefix_range};
use crate::ipam::{LeaseRequest, PoolSpec, Space};
use crate::limits::RANGE_SOCKETS_MAX;
use crate::model::{Endpoint, Loan, LoanKey, Network, NetworkState, Pool, Sandbox, SandboxNetns};
use crate::record;
use crate::reject::{Code, Reject};
use crate::subject::Subject;

use super::change::{Change, Undo};

/// Everything that is stored, and what follows from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    networks: BTreeMap<NetworkId, Network>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    network_names: BTreeMap<Name, NetworkId>,
    sandbox_names: BTreeMap<Name, SandboxId>,
    endpoint_names: BTreeMap<(Name, NetworkId), EndpointId>,
    in_network: BTreeMap<NetworkId, BTreeSet<EndpointId>>,
    in_sandbox: BTreeMap<SandboxId, BTreeSet<EndpointId>>,
    /// Sandboxes by the name that their links lead to.
    linked_to: BTreeMap<Name, BTreeSet<SandboxId>>,
    /// Sandboxes of engines by where their namespaces are.
    at_paths: BTreeMap<PathBuf, SandboxId>,
    /// Endpoints by their addresses.
    at_addresses: BTreeMap<IpAddr, EndpointId>,
    /// Running sandboxes that publish ranges too large for sockets.
    large_ranges: BTreeSet<SandboxId>,
    /// Attached endpoints of each leaf bridge.
    leaves: BTreeMap<NetworkId, BTreeMap<u16, u16>>,
    loans: BTreeMap<LoanKey, Loan>,
    pub(crate) space: Space,
}

impl State {
    pub(crate) fn new(cooldown_ms: u64) -> Self {
        Self {
            space: Space::new(cooldown_ms),
            ..Self::default()
        }
    }

    pub(crate) fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    pub(crate) fn sandbox(&self, id: SandboxId) -> Option<&Sandbox> {
        self.sandboxes.get(&id)
    }

    pub(crate) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = &Sandbox> {
        self.sandboxes.values()
    }

    pub(crate) fn network_named(&self, name: &Name) -> Option<&Network> {
        self.network_names
            .get(name)
            .and_then(|id| self.network(*id))
    }

    pub(crate) fn sandbox_named(&self, name: &Name) -> Option<&Sandbox> {
        self.sandbox_names
            .get(name)
            .and_then(|id| self.sandbox(*id))
    }

    pub(crate) fn endpoint_named(&self, name: &Name, network: NetworkId) -> Option<&Endpoint> {
        self.endpoint_names
            .get(&(name.clone(), network))
            .and_then(|id| self.endpoint(*id))
    }

    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (
            self.networks.len(),
            self.endpoints.len(),
            self.sandboxes.len(),
        )
    }

    pub(crate) fn endpoint_count(&self, network: NetworkId) -> usize {
        self.in_network.get(&network).map_or(0, BTreeSet::len)
    }

    pub(crate) fn endpoints_of_network(&self, id: NetworkId) -> impl Iterator<Item = &Endpoint> {
        self.in_network
            .get(&id)
            .into_iter()
            .flatten()
            .filter_map(|id| self.endpoint(*id))
    }

    /// The endpoints of a sandbox in the order in which they were joined.
    pub(crate) fn endpoints_of_sandbox(&self, id: SandboxId) -> Vec<&Endpoint> {
        let ids = self.in_sandbox.get(&id).into_iter().flatten();
        let mut endpoints: Vec<&Endpoint> = ids.filter_map(|id| self.endpoint(*id)).collect();
        endpoints.sort_by_key(|endpoint| (endpoint.order, endpoint.id));
        endpoints
    }

    /// The sandboxes that are linked to a sandbox, by its name.
    pub(crate) fn linked_to(&self, id: SandboxId) -> Vec<SandboxId> {
        let name = self.sandbox(id).map(|sandbox| &sandbox.name);
        let linked = name.and_then(|name| self.linked_to.get(name));
        linked.into_iter().flatten().copied().collect()
    }

    /// Running sandboxes that publish ranges too large for sockets.
    pub(crate) fn with_large_ranges(&self) -> impl Iterator<Item = &Sandbox> {
        self.large_ranges.iter().filter_map(|id| self.sandbox(*id))
    }

    /// Whether a sandbox is one of them.
    pub(crate) fn has_large_ranges(&self, id: SandboxId) -> bool {
        self.large_ranges.contains(&id)
    }

    /// How many endpoints are attached to each bridge of a network.
    pub(crate) fn leaves(&self, network: NetworkId) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.leaves
            .get(&network)
            .into_iter()
            .flatten()
            .map(|(leaf, ports)| (*leaf, *ports))
    }

    /// The network that a name, an id or the beginning of an id means.
    pub(crate) fn find_network(&self, reference: &Reference) -> Result<&Network, Reject> {
        let by_name = reference
            .0
            .parse()
            .ok()
            .and_then(|name| self.network_named(&name));
        let unknown = || {
            Reject::new(
                Code::UnknownNetwork,
                &reference.0,
                "no network has this name or id",
            )
            .hint("`tombolo network ls` shows the networks")
        };
        match by_name {
            Some(network) => Ok(network),
            None => {
                let ids = with_prefix(&self.networks, &reference.0, NetworkId);
                one(ids, reference).and_then(|found| found.ok_or_else(unknown))
            }
        }
    }

    /// The sandbox that a name, an id or the beginning of an id means.
    pub(crate) fn find_sandbox(&self, reference: &Reference) -> Result<&Sandbox, Reject> {
        let by_name = reference
            .0
            .parse()
            .ok()
            .and_then(|name| self.sandbox_named(&name));
        let unknown = || {
            Reject::new(
                Code::UnknownSandbox,
                &reference.0,
                "no sandbox has this name or id",
            )
            .hint("`tombolo sandbox ls` shows the sandboxes")
        };
        match by_name {
            Some(sandbox) => Ok(sandbox),
            None => {
                let ids = with_prefix(&self.sandboxes, &reference.0, SandboxId);
                one(ids, reference).and_then(|found| found.ok_or_else(unknown))
            }
        }
    }

    /// The endpoint that an id, the beginning of an id, `NETWORK/NAME` or an unambiguous name means.
    pub(crate) fn find_endpoint(&self, reference: &Reference) -> Result<&Endpoint, Reject> {
        let unknown = || {
            Reject::new(
                Code::UnknownEndpoint,
                &reference.0,
                "no endpoint has this name or id",
            )
            .hint("`tombolo endpoint ls` shows the endpoints; NETWORK/NAME points at one of them")
        };
        if let Some((network, name)) = reference.0.split_once('/') {
            let network = self.find_network(&Reference(network.to_owned()))?;
            let name: Name = name.parse().map_err(|_| unknown())?;
            return self.endpoint_named(&name, network.id).ok_or_else(unknown);
        }
        if let Ok(name) = reference.0.parse::<Name>() {
            let from = (name.clone(), NetworkId(0));
            let named = self
                .endpoint_names
                .range(from..)
                .take_while(|((other, _), _)| *other == name);
            let named: Vec<&Endpoint> = named
                .filter_map(|(_, id)| self.endpoint(*id))
                .take(2)
                .collect();
            if let Some(endpoint) = one(named, reference)? {
                return Ok(endpoint);
            }
        }
        let ids = with_prefix(&self.endpoints, &reference.0, EndpointId);
        one(ids, reference)?.ok_or_else(unknown)
    }

    /// Stores a network, or erases it.
    pub(crate) fn set_network(
        &mut self,
        id: NetworkId,
        network: Option<Network>,
        change: &mut Change,
    ) {
        let write = match &network {
            Some(network) => record::put(record::NETWORK, &id.to_string(), network),
            None => record::erase(record::NETWORK, &id.to_string()),
        };
        let before = self.swap_network(id, network);
        change.note(
            Undo::Network(id, before.map(Box::new)),
            write,
            Subject::Network(id),
        );
    }

    /// Stores an endpoint, or erases it.
    pub(crate) fn set_endpoint(
        &mut self,
        id: EndpointId,
        endpoint: Option<Endpoint>,
        change: &mut Change,
    ) {
        let write = match &endpoint {
            Some(endpoint) => record::put(record::ENDPOINT, &id.to_string(), endpoint),
            None => record::erase(record::ENDPOINT, &id.to_string()),
        };
        let before = self.swap_endpoint(id, endpoint);
        change.note(
            Undo::Endpoint(id, before.map(Box::new)),
            write,
            Subject::Endpoint(id),
        );
    }

    /// Stores a sandbox, or erases it.
    pub(crate) fn set_sandbox(
        &mut self,
        id: SandboxId,
        sandbox: Option<Sandbox>,
        change: &mut Change,
    ) {
        let write = match &sandbox {
            Some(sandbox) => record::put(record::SANDBOX, &id.to_string(), sandbox),
            None => record::erase(record::SANDBOX, &id.to_string()),
        };
        let before = self.swap_sandbox(id, sandbox);
        change.note(
            Undo::Sandbox(id, before.map(Box::new)),
            write,
            Subject::Sandbox(id),
        );
    }

    /// What engines hold.
    pub(crate) fn loans(&self) -> impl Iterator<Item = &Loan> {
        self.loans.values()
    }

    pub(crate) fn loan_count(&self) -> usize {
        self.loans.len()
    }

    pub(crate) fn loan(&self, key: LoanKey) -> Option<&Loan> {
        self.loans.get(&key)
    }

    /// Stores a loan, or erases it.
    pub(crate) fn set_loan(&mut self, key: LoanKey, loan: Option<Loan>, change: &mut Change) {
        change.write(match &loan {
            Some(loan) => record::put(record::LOAN, &key.record_id(), loan),
            None => record::erase(record::LOAN, &key.record_id()),
        });
        let before = match loan {
            Some(loan) => self.loans.insert(key, loan),
            None => self.loans.remove(&key),
        };
        change.undo.push(Undo::Loan(key, before));
    }

    /// Puts a stored loan back.
    pub(crate) fn adopt_loan(&mut self, loan: Loan) {
        self.loans.insert(loan.key(), loan);
    }

    /// The endpoint that has an address.
    pub(crate) fn endpoint_at(&self, address: IpAddr) -> Option<EndpointId> {
        self.at_addresses.get(&address).copied()
    }

    /// The sandbox that an engine has or will have at a path.
    pub(crate) fn sandbox_at(&self, path: &Path) -> Option<&Sandbox> {
        self.at_paths.get(path).and_then(|id| self.sandbox(*id))
    }

    /// Takes an address out of a pool.
    pub(crate) fn lease(
        &mut self,
        request: &LeaseRequest<'_>,
        now_ms: u64,
        change: &mut Change,
    ) -> Result<IpAddr, crate::ipam::LeaseReject> {
        let ip = self.space.lease(request, now_ms)?;
        change.undo.push(Undo::Lease(ip, request.owner.to_owned()));
        Ok(ip)
    }

    /// Takes back what `undo` says, newest first; returns the writes that say so to the store.
    pub(crate) fn withdraw(&mut self, undo: Vec<Undo>) -> Change {
        let mut change = Change::default();
        for step in undo.into_iter().rev() {
            match step {
                Undo::Network(id, before) => self.set_network(id, before.map(|b| *b), &mut change),
                Undo::Endpoint(id, before) => {
                    self.set_endpoint(id, before.map(|b| *b), &mut change)
                }
                Undo::Sandbox(id, before) => self.set_sandbox(id, before.map(|b| *b), &mut change),
                // A time long past: an address that was never used needs no rest.
                Undo::Lease(ip, owner) => drop(self.space.release(ip, &owner, 0)),
                Undo::Pool(subnet) => drop(self.space.remove_pool(subnet)),
                Undo::Loan(key, before) => self.set_loan(key, before, &mut change),
            }
        }
        change
    }

    /// Lets `undo` keep the counts of attachments and namespaces: the kernel may still be removing what was
    /// named after them.
    pub(crate) fn keep_epochs(&self, undo: &mut [Undo]) {
        for step in undo {
            match step {
                Undo::Endpoint(id, Some(before)) => {
                    let epoch = self.endpoint(*id).map_or(0, |endpoint| endpoint.epoch);
                    before.epoch = before.epoch.max(epoch);
                }
                Undo::Sandbox(id, Some(before)) => {
                    let epoch = self.sandbox(*id).map_or(0, |sandbox| sandbox.epoch);
                    before.epoch = before.epoch.max(epoch);
                }
                Undo::Endpoint(..)
                | Undo::Sandbox(..)
                | Undo::Network(..)
                | Undo::Lease(..)
                | Undo::Pool(_)
                | Undo::Loan(..) => {}
            }
        }
    }

    pub(crate) fn swap_network(
        &mut self,
        id: NetworkId,
        network: Option<Network>,
    ) -> Option<Network> {
        let before = self.networks.remove(&id);
        if let Some(before) = &before {
            drop_name(&mut self.network_names, &before.spec.name, id);
        }
        if let Some(network) = network {
            self.network_names.insert(network.spec.name.clone(), id);
            self.networks.insert(id, network);
        }
        before
    }

    pub(crate) fn swap_endpoint(
        &mut self,
        id: EndpointId,
        endpoint: Option<Endpoint>,
    ) -> Option<Endpoint> {
        let before = self.endpoints.remove(&id);
        if let Some(before) = &before {
            let name = (before.name.clone(), before.network);
            drop_name(&mut self.endpoint_names, &name, id);
            drop_member(&mut self.in_network, before.network, id);
            for address in &before.addresses {
                drop_name(&mut self.at_addresses, &address.addr(), id);
            }
            if let Some(sandbox) = before.sandbox {
                drop_member(&mut self.in_sandbox, sandbox, id);
            }
            self.count_port(before, false);
        }
        if let Some(endpoint) = endpoint {
            self.endpoint_names
                .insert((endpoint.name.clone(), endpoint.network), id);
            self.in_network
                .entry(endpoint.network)
                .or_default()
                .insert(id);
            if let Some(sandbox) = endpoint.sandbox {
                self.in_sandbox.entry(sandbox).or_default().insert(id);
            }
            let addresses = endpoint.addresses.iter();
            self.at_addresses
                .extend(addresses.map(|address| (address.addr(), id)));
            self.count_port(&endpoint, true);
            self.endpoints.insert(id, endpoint);
        }
        before
    }

    pub(crate) fn swap_sandbox(
        &mut self,
        id: SandboxId,
        sandbox: Option<Sandbox>,
    ) -> Option<Sandbox> {
        let before = self.sandboxes.remove(&id);
        if let Some(before) = &before {
            drop_name(&mut self.sandbox_names, &before.name, id);
            for link in &before.spec.links {
                drop_member(&mut self.linked_to, link.sandbox.clone(), id);
            }
            if let SandboxNetns::Engine { path, .. } = &before.spec.netns {
                drop_name(&mut self.at_paths, path, id);
            }
        }
        self.large_ranges.remove(&id);
        if let Some(sandbox) = sandbox {
            for link in &sandbox.spec.links {
                let name = link.sandbox.clone();
                self.linked_to.entry(name).or_default().insert(id);
            }
            if let SandboxNetns::Engine { path, .. } = &sandbox.spec.netns {
                self.at_paths.insert(path.clone(), id);
            }
            if publishes_large_range(&sandbox) {
                self.large_ranges.insert(id);
            }
            self.sandbox_names.insert(sandbox.name.clone(), id);
            self.sandboxes.insert(id, sandbox);
        }
        before
    }

    /// Gives names back to those who have them: one that was being removed may have taken its successor's.
    pub(crate) fn name_again(&mut self) {
        let networks = self.networks.values();
        self.network_names
            .extend(networks.map(|network| (network.spec.name.clone(), network.id)));
        let sandboxes = self.sandboxes.values();
        self.sandbox_names
            .extend(sandboxes.map(|sandbox| (sandbox.name.clone(), sandbox.id)));
        let endpoints = self.endpoints.values();
        self.endpoint_names
            .extend(endpoints.map(|e| ((e.name.clone(), e.network), e.id)));
    }

    /// Whether a network's record is past its creation and not being removed.
    pub(crate) fn is_ready(&self, id: NetworkId) -> bool {
        self.network(id)
            .is_some_and(|network| network.state == NetworkState::Ready)
    }

    fn count_port(&mut self, endpoint: &Endpoint, added: bool) {
        let Some(attachment) = &endpoint.attachment else {
            return;
        };
        let leaves = self.leaves.entry(endpoint.network).or_default();
        let ports = leaves.entry(attachment.leaf).or_default();
        *ports = if added {
            ports.saturating_add(1)
        } else {
            ports.saturating_sub(1)
        };
        if *ports == 0 {
            leaves.remove(&attachment.leaf);
        }
        if leaves.is_empty() {
            self.leaves.remove(&endpoint.network);
        }
    }
}

/// Whether a running sandbox publishes a range too large for sockets.
pub(crate) fn publishes_large_range(sandbox: &Sandbox) -> bool {
    let mut publications = sandbox.spec.publications.iter();
    sandbox.is_live() && publications.any(|p| p.count() > RANGE_SOCKETS_MAX)
}

/// The allocator's form of a network's pool.
pub(crate) fn pool_spec(pool: &Pool) -> PoolSpec {
    PoolSpec {
        subnet: pool.subnet,
        ranges: pool.ranges.clone(),
        gateway: pool.gateway,
        reserved: pool.reserved.clone(),
    }
}

/// An address with its subnet's prefix length.
pub(crate) fn in_subnet(ip: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(ip, subnet.prefix_len()).unwrap_or_else(|_| IpNet::from(ip))
}

/// Two records may have one name while one of them is being removed.
fn drop_name<N: Ord, I: PartialEq>(index: &mut BTreeMap<N, I>, name: &N, id: I) {
    if index.get(name) == Some(&id) {
        index.remove(name);
    }
}

fn drop_member<K: Ord, M: Ord>(index: &mut BTreeMap<K, BTreeSet<M>>, key: K, member: M) {
    if let Some(members) = index.get_mut(&key) {
        members.remove(&member);
        if members.is_empty() {
            index.remove(&key);
        }
    }
}

fn with_prefix<'a, K: Ord + Copy, V>(
    map: &'a BTreeMap<K, V>,
    text: &str,
    id: fn(u128) -> K,
) -> Vec<&'a V> {
    match prefix_range(text) {
        Some((low, high)) => map
            .range(id(low)..=id(high))
            .map(|(_, v)| v)
            .take(2)
            .collect(),
        None => Vec::new(),
    }
}

fn one<T>(mut found: Vec<T>, reference: &Reference) -> Result<Option<T>, Reject> {
    if found.len() > 1 {
        return Err(Reject::new(
            Code::AmbiguousReference,
            &reference.0,
            "several objects fit",
        )
        .hint("give more digits of the id, or NETWORK/NAME for an endpoint"));
    }
    Ok(found.pop())
}
