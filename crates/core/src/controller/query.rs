//! Looking without changing.

use tombolo_netstate::{Edge, IfName, Key, Objects, Op, Spec};

use super::Controller;
use crate::command::{Command, Reference};
use crate::driver::{mtu, names};
use crate::event::{Effect, Event, RequestId};
use crate::facts::Facts;
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::ipam::Usage;
use crate::model::{Driver, Endpoint, Network, Pool, Sandbox};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

/// An object, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedObject {
    /// The object.
    pub key: Key,
    /// What it should be, or what is there of one that should not.
    pub spec: Spec,
    /// Who wants it.
    pub owners: Vec<String>,
    /// How it stands.
    pub state: ObjectState,
    /// What the kernel last said against it.
    pub failure: Option<String>,
}

/// How an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// There, as it should be.
    InPlace,
    /// Not there.
    Missing,
    /// There, but not as it should be.
    Different,
    /// Being worked on or removed.
    Changing,
}

/// What a request would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// The operations in order, each with who wants its object.
    pub ops: Vec<(Op, Vec<String>)>,
    /// The messages that follow them.
    pub edges: Vec<Edge>,
}

impl Controller {
    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.state.networks()
    }

    /// All endpoints, by id.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.state.endpoints()
    }

    /// All sandboxes, by id.
    pub fn sandboxes(&self) -> impl Iterator<Item = &Sandbox> {
        self.state.sandboxes()
    }

    /// A network.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.state.network(id)
    }

    /// An endpoint.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.state.endpoint(id)
    }

    /// A sandbox.
    pub fn sandbox(&self, id: SandboxId) -> Option<&Sandbox> {
        self.state.sandbox(id)
    }

    /// The network that a name, an id or the beginning of one means.
    pub fn find_network(&self, reference: &Reference) -> Result<&Network, Reject> {
        self.state.find_network(reference)
    }

    /// The endpoint that a name, `NETWORK/NAME`, an id or the beginning of one means.
    pub fn find_endpoint(&self, reference: &Reference) -> Result<&Endpoint, Reject> {
        self.state.find_endpoint(reference)
    }

    /// The sandbox that a name, an id or the beginning of one means.
    pub fn find_sandbox(&self, reference: &Reference) -> Result<&Sandbox, Reject> {
        self.state.find_sandbox(reference)
    }

    /// The endpoints of a network.
    pub fn endpoints_of_network(&self, id: NetworkId) -> impl Iterator<Item = &Endpoint> {
        self.state.endpoints_of_network(id)
    }

    /// The endpoints of a sandbox in the order of their joining, with their networks.
    pub fn endpoints_of_sandbox(&self, id: SandboxId) -> Vec<(&Network, &Endpoint)> {
        self.joined(id)
    }

    /// Counts of networks, endpoints and sandboxes.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.state.counts()
    }

    /// The MTU in bytes of a network's links.
    pub fn mtu(&self, network: &Network) -> u32 {
        mtu::effective(network, self.context())
    }

    /// How full a pool is.
    pub fn usage(&self, pool: &Pool) -> Option<Usage> {
        self.state
            .space
            .pool(pool.subnet)
            .map(crate::ipam::Pool::usage)
    }

    /// Name of an attached endpoint's interface in the host's namespace.
    pub fn host_interface(&self, endpoint: &Endpoint) -> Option<IfName> {
        let attachment = endpoint.attachment.as_ref()?;
        let network = self.network(endpoint.network)?;
        if network.spec.driver != Driver::Bridge {
            return None;
        }
        names::host_end(endpoint.id, attachment.epoch).ok()
    }

    /// The world as it was last seen.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How many changes of the kernel's settings there were, to be given with facts that are read from now on.
    pub fn settings_changed(&self) -> u64 {
        self.settings_changed
    }

    /// What we believe the kernel holds of ours.
    pub fn believed(&self) -> &Objects {
        &self.believed
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether an object is wanted, or still being removed.
    pub fn is_expected(&self, key: &Key) -> bool {
        self.desired.get(key).is_some()
            || self.in_flight.contains_key(key)
            || self.leaving.contains_key(key)
    }

    /// Whether every object of a network is as it should be.
    pub fn is_intact(&self, id: NetworkId) -> bool {
        let keys = self.desired.keys_of(&Subject::Network(id).owner());
        keys.iter()
            .all(|key| self.believed.get(key) == self.desired.get(key))
    }

    /// Networks whose subnet a route of the host now overlaps, with that route.
    pub fn overlaps(&self) -> Vec<(&Network, ipnet::IpNet)> {
        let overlap = |a: &ipnet::IpNet, b: &ipnet::IpNet| a.contains(b) || b.contains(a);
        let mut found = Vec::new();
        let made_here = |n: &&Network| !n.existing && n.spec.driver != Driver::Remote;
        for network in self.state.networks().filter(made_here) {
            let clash = self.facts.routes.iter().find(|route| {
                route.prefix_len() > 1
                    && network
                        .pools
                        .iter()
                        .any(|pool| overlap(route, &pool.subnet))
            });
            found.extend(clash.map(|route| (network, *route)));
        }
        found
    }

    /// The objects of an endpoint, with those of its network and sandbox that it depends on.
    pub fn explain(&self, id: EndpointId) -> Vec<ExplainedObject> {
        let Some(endpoint) = self.state.endpoint(id) else {
            return Vec::new();
        };
        let mut subjects = vec![Subject::Network(endpoint.network)];
        if let Some(attachment) = &endpoint.attachment {
            subjects.push(Subject::Leaf(endpoint.network, attachment.leaf));
        }
        subjects.extend(endpoint.sandbox.map(Subject::Sandbox));
        subjects.push(Subject::Endpoint(id));
        let keys = subjects
            .iter()
            .flat_map(|s| self.desired.keys_of(&s.owner()).iter());
        keys.filter_map(|key| self.explained(key)).collect()
    }

    fn explained(&self, key: &Key) -> Option<ExplainedObject> {
        let want = self.desired.get(key)?;
        let state = match self.believed.get(key) {
            _ if self.in_flight.contains_key(key) => ObjectState::Changing,
            Some(have) if have == want => ObjectState::InPlace,
            Some(_) => ObjectState::Different,
            None => ObjectState::Missing,
        };
        let owners = self
            .desired
            .owners(key)
            .iter()
            .map(ToString::to_string)
            .collect();
        let failure = self.failures.get(key).cloned();
        Some(ExplainedObject {
            key: key.clone(),
            spec: want.clone(),
            owners,
            state,
            failure,
        })
    }

    /// What a request would do, without doing it.
    pub fn dry_run(&self, now_ms: u64, command: Command) -> Result<DryRun, Reject> {
        let mut copy = self.clone();
        let request = RequestId(u64::MAX);
        let decision = copy.handle(
            now_ms,
            Event::Command {
                request,
                command,
                seed: 1,
            },
        );
        for (_, reply) in decision.replies {
            reply?;
        }
        let plan = decision
            .effects
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Apply { plan, .. } => Some(plan),
                Effect::Observe { .. } | Effect::WriteFiles(_) | Effect::RemoveFiles(_) => None,
            });
        let Some(plan) = plan else {
            return Err(Reject::new(
                Code::Busy,
                "plan",
                "another request works on the same objects",
            )
            .hint("try again in a moment"));
        };
        let owners = |key: &Key| {
            let owners = if copy.desired.owners(key).is_empty() {
                &self.desired
            } else {
                &copy.desired
            };
            owners.owners(key).iter().map(ToString::to_string).collect()
        };
        let ops = plan.ops.into_iter().map(|op| (op.clone(), owners(&op.key)));
        Ok(DryRun {
            ops: ops.collect(),
            edges: plan.edges,
        })
    }
}
