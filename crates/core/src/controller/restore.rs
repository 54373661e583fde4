//! From stored records back to a controller, after a restart, a crash or a reboot.

use super::change::Change;
use super::loan::{BORROWER, keep_routers};
use super::state::pool_spec;
use super::{Controller, State};
use crate::event::Write;
use crate::ipam::{LeaseRecord, LeaseState, PoolSpec, Space};
use crate::model::{Endpoint, Loan, LoanKey, Network, NetworkState, Sandbox, SandboxState};
use crate::record::{self, RecordError};
use crate::subject::Subject;

/// What a restore did besides reading.
#[derive(Debug, Default)]
#[must_use]
pub struct Restored {
    /// Records that must be stored or erased before anything else.
    pub writes: Vec<Write>,
    /// What was withdrawn or could not be kept, in words for the log.
    pub notes: Vec<String>,
}

impl Controller {
    /// Reads all records. Requests that were never answered are withdrawn, removals go on (where plugins may know
    /// of something it is marked as being removed, until they were told); after a reboot
    /// (`rebooted`) all sandboxes have stopped. The kernel is to be compared next: see
    /// [`crate::Command::Repair`].
    pub fn restore<'a>(
        &mut self,
        records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        rebooted: bool,
    ) -> Result<Restored, RecordError> {
        let mut restored = Restored::default();
        let mut change = Change::default();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (key, bytes) in records {
            if key.starts_with(record::NETWORK) {
                let network: Network = record::get(key, bytes)?;
                self.state.swap_network(network.id, Some(network));
            } else if key.starts_with(record::SANDBOX) {
                let sandbox: Sandbox = record::get(key, bytes)?;
                self.state.swap_sandbox(sandbox.id, Some(sandbox));
            } else if key.starts_with(record::ENDPOINT) {
                endpoints.push(record::get(key, bytes)?);
            } else if key.starts_with(record::LOAN) {
                self.state.adopt_loan(record::get(key, bytes)?);
            } else if key.starts_with(record::SYSCTL) {
                let (path, value): (String, String) = record::get(key, bytes)?;
                if rebooted {
                    change.write(record::erase_sysctl(&path));
                } else {
                    self.sysctls_before.insert(path, value);
                }
            }
        }
        self.facts.sysctls.extend(self.sysctls_before.clone());
        for endpoint in endpoints {
            self.state.swap_endpoint(endpoint.id, Some(endpoint));
        }
        self.withdraw_unanswered(rebooted, &mut change, &mut restored);
        self.state.name_again();
        self.adopt_addresses(&mut restored);
        let attached = self
            .state
            .endpoints()
            .filter_map(|e| Some((e.network, e.attachment.as_ref()?.leaf)));
        self.live_leaves = attached.filter(|(_, leaf)| *leaf != 0).collect();
        for subject in self.every_subject() {
            match self.objects_of(subject) {
                Ok(objects) => {
                    if let Err(clash) = self.desired.set(&subject.owner(), objects) {
                        restored
                            .notes
                            .push(format!("{subject} is not planned: {clash}"));
                    }
                }
                Err(reject) => restored
                    .notes
                    .push(format!("{subject} is not planned: {reject}")),
            }
        }
        restored.writes = change.take_writes(None);
        Ok(restored)
    }

    fn withdraw_unanswered(
        &mut self,
        rebooted: bool,
        change: &mut Change,
        restored: &mut Restored,
    ) {
        let networks: Vec<Network> = self.state.networks().cloned().collect();
        for network in networks.iter().filter(|n| n.state != NetworkState::Ready) {
            restored.notes.push(format!(
                "network {} was not finished and is withdrawn",
                network.spec.name
            ));
            if network.spec.has_plugin() {
                let mut left = network.clone();
                left.state = NetworkState::Deleting;
                self.state.set_network(left.id, Some(left), change);
                continue;
            }
            self.state.set_network(network.id, None, change);
        }
        let sandboxes: Vec<Sandbox> = self.state.sandboxes().cloned().collect();
        for mut sandbox in sandboxes {
            match sandbox.state {
                SandboxState::Creating | SandboxState::Deleting => {
                    restored.notes.push(format!(
                        "sandbox {} was not finished and is withdrawn",
                        sandbox.name
                    ));
                    self.state.set_sandbox(sandbox.id, None, change);
                }
                // Its container has ended with the machine, and a new one will be another sandbox.
                SandboxState::Running | SandboxState::Stopped
                    if rebooted && sandbox.is_engines() =>
                {
                    self.state.set_sandbox(sandbox.id, None, change);
                }
                SandboxState::Running if rebooted => {
                    sandbox.state = SandboxState::Stopped;
                    self.state.set_sandbox(sandbox.id, Some(sandbox), change);
                }
                SandboxState::Running | SandboxState::Stopped => {}
            }
        }
        let endpoints: Vec<Endpoint> = self.state.endpoints().cloned().collect();
        for endpoint in endpoints {
            self.withdraw_endpoint(endpoint, rebooted, change, restored);
        }
    }

    fn withdraw_endpoint(
        &mut self,
        endpoint: Endpoint,
        rebooted: bool,
        change: &mut Change,
        restored: &mut Restored,
    ) {
        let sandbox = endpoint.sandbox.and_then(|id| self.state.sandbox(id));
        let runs = sandbox.is_some_and(|s| s.state == SandboxState::Running);
        let orphan = self.state.network(endpoint.network).is_none();
        if rebooted && endpoint.spec.engine {
            self.state.set_endpoint(endpoint.id, None, change);
            return;
        }
        if endpoint.fresh || endpoint.deleting || orphan {
            restored.notes.push(format!(
                "endpoint {} was not finished and is withdrawn",
                endpoint.name
            ));
            let network = self.state.network(endpoint.network);
            if network.is_some_and(|network| network.spec.has_plugin()) {
                let mut left = endpoint;
                (left.deleting, left.sandbox, left.attachment) = (true, None, None);
                self.state.set_endpoint(left.id, Some(left), change);
                return;
            }
            self.state.set_endpoint(endpoint.id, None, change);
            return;
        }
        let unanswered = endpoint.attachment.as_ref().is_some_and(|a| a.fresh);
        let attached = endpoint.attachment.is_some();
        if unanswered || (attached && !runs) || (endpoint.sandbox.is_some() && sandbox.is_none()) {
            let mut kept = endpoint;
            kept.attachment = None;
            if unanswered
                || self
                    .state
                    .sandbox(kept.sandbox.unwrap_or_default())
                    .is_none()
            {
                kept.sandbox = None;
            }
            self.state.set_endpoint(kept.id, Some(kept), change);
        }
    }

    fn adopt_addresses(&mut self, restored: &mut Restored) {
        let Self { state, .. } = self;
        let State { space, .. } = state;
        let mut space = std::mem::take(space);
        let loans: Vec<Loan> = state.loans().cloned().collect();
        // First, since a network's pool that was lent before keeps what the engine asked of it.
        adopt_lent_pools(&mut space, &loans, restored);
        let is_lent = |subnet| state.loan(LoanKey::Pool(subnet)).is_some();
        for network in state.networks() {
            for pool in network.pools.iter().filter(|p| !is_lent(p.subnet)) {
                if let Err(reject) = space.adopt_pool(network.spec.name.as_str(), pool_spec(pool)) {
                    restored
                        .notes
                        .push(format!("network {}: {reject}", network.spec.name));
                }
            }
        }
        adopt_lent_addresses(&mut space, &loans, restored);
        for network in state.networks() {
            for pool in network.pools.iter().filter(|p| is_lent(p.subnet)) {
                drop(keep_routers(&mut space, network.id, pool));
            }
        }
        for endpoint in state.endpoints() {
            for address in &endpoint.addresses {
                // Lent before the endpoint was made: its engine gives it back.
                if state.loan(LoanKey::Address(address.addr())).is_some() {
                    continue;
                }
                // Chosen by a plugin, and of no pool that anybody could lease it from.
                let network = state.network(endpoint.network);
                let by_plugin = endpoint
                    .plugin
                    .as_ref()
                    .is_some_and(|p| p.addresses.contains(address));
                if by_plugin && network.is_some_and(|n| n.pool_of(address.addr()).is_none()) {
                    continue;
                }
                let owner = endpoint.id.to_string();
                let lease = LeaseRecord {
                    address: address.addr(),
                    owner,
                    state: LeaseState::Held,
                };
                if let Err(reject) = space.adopt_lease(address.trunc(), lease) {
                    restored
                        .notes
                        .push(format!("endpoint {}: {reject}", endpoint.name));
                }
            }
        }
        self.state.space = space;
    }

    /// Everything that has objects.
    pub(super) fn every_subject(&self) -> Vec<Subject> {
        let mut subjects = vec![Subject::Host];
        subjects.extend(self.state.networks().map(|n| Subject::Network(n.id)));
        subjects.extend(
            self.live_leaves
                .iter()
                .map(|(id, leaf)| Subject::Leaf(*id, *leaf)),
        );
        subjects.extend(self.state.sandboxes().map(|s| Subject::Sandbox(s.id)));
        subjects.extend(self.state.endpoints().map(|e| Subject::Endpoint(e.id)));
        subjects
    }
}

fn adopt_lent_pools(space: &mut Space, loans: &[Loan], restored: &mut Restored) {
    for loan in loans {
        let Loan::Pool { subnet, ranges, .. } = loan else {
            continue;
        };
        let spec = PoolSpec {
            subnet: *subnet,
            ranges: ranges.clone(),
            gateway: None,
            reserved: Default::default(),
        };
        if let Err(reject) = space.adopt_pool(BORROWER, spec) {
            restored.notes.push(format!("lent pool {subnet}: {reject}"));
        }
    }
}

/// The router of a network's own pool has its address already.
fn adopt_lent_addresses(space: &mut Space, loans: &[Loan], restored: &mut Restored) {
    for loan in loans {
        let Loan::Address {
            address,
            subnet,
            gateway,
            ..
        } = loan
        else {
            continue;
        };
        let lease = LeaseRecord {
            address: *address,
            owner: BORROWER.to_owned(),
            state: LeaseState::Held,
        };
        match space.adopt_lease(*subnet, lease) {
            Err(reject) if !gateway => {
                restored
                    .notes
                    .push(format!("lent address {address}: {reject}"));
            }
            _ => {}
        }
    }
}
