//! Endpoints: making, joining, leaving, removing.

use std::collections::BTreeSet;

use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::{Key, Netns, Objects};

use super::address::{checked_mac, derived_mac};
use super::change::Change;
use super::job::Done;
use super::{Controller, Draft, Halt};
use crate::command::Reference;
use crate::driver::{self, names, remote};
use crate::id::{EndpointId, Name, NetworkId, SandboxId, Seed};
use crate::limits::{
    CORE_PORTS_MAX, ENDPOINTS_PER_NETWORK_MAX, ENDPOINTS_PER_SANDBOX_MAX, LEAF_PORTS_MAX,
};
use crate::model::{
    Attachment, Driver, Endpoint, EndpointSpec, Network, Sandbox, SandboxNetns, SandboxState,
};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

/// The host's end of the endpoint's veth, and the one before it, which the kernel may still be removing.
pub(super) fn ports_of(endpoint: &Endpoint) -> impl Iterator<Item = Key> {
    let epochs = (0..=endpoint.epoch).rev().take(2);
    let names = epochs.filter_map(|epoch| names::host_end(endpoint.id, epoch).ok());
    names.map(|name| {
        let netns = Netns::Host;
        Key::Link(LinkKey { netns, name })
    })
}

impl Controller {
    pub(super) fn create_endpoint(
        &mut self,
        now_ms: u64,
        seed: u128,
        (network, sandbox): (&Reference, Option<&Reference>),
        spec: EndpointSpec,
    ) -> Result<Draft, Halt> {
        let network = self.usable_network(network)?;
        let sandbox = sandbox
            .map(|sandbox| self.usable_sandbox(sandbox))
            .transpose()?;
        if let Some(sandbox) = sandbox {
            self.must_not_be_engines(sandbox)?;
        }
        if let (Some(sandbox), Some(network)) = (
            sandbox.and_then(|id| self.state.sandbox(id)),
            self.state.network(network),
        ) {
            let others = self.state.endpoints_of_sandbox(sandbox.id);
            check_not_joined(sandbox, network, others.into_iter())?;
        }
        let id = EndpointId(Seed::new(seed).draw());
        self.new_endpoint(now_ms, (id, network, sandbox), spec)
    }

    /// The draft of an endpoint, joined to a sandbox if one is given.
    pub(super) fn new_endpoint(
        &mut self,
        now_ms: u64,
        (id, network, sandbox): (EndpointId, NetworkId, Option<SandboxId>),
        spec: EndpointSpec,
    ) -> Result<Draft, Halt> {
        let mut change = Change::default();
        match self.add_endpoint(now_ms, (id, network, sandbox), spec, &mut change) {
            Ok(()) => Ok(Draft {
                change,
                done: Done::EndpointReady(id),
            }),
            Err(halt) => {
                self.forget(change);
                Err(halt)
            }
        }
    }

    /// Makes an endpoint with its addresses and, where a sandbox is given, its attachment. The caller takes
    /// `change` back when it fails.
    pub(super) fn add_endpoint(
        &mut self,
        now_ms: u64,
        (id, network, sandbox): (EndpointId, NetworkId, Option<SandboxId>),
        spec: EndpointSpec,
        change: &mut Change,
    ) -> Result<(), Halt> {
        let network = self
            .state
            .network(network)
            .cloned()
            .ok_or_else(|| vanished(network))?;
        let name = self.endpoint_name(id, &network, sandbox, &spec)?;
        let addresses = self.addresses(now_ms, id, &network, &spec, change)?;
        let mac = match spec.mac {
            Some(mac) => checked_mac(&name, mac)?,
            None => derived_mac(&network, &addresses),
        };
        let endpoint = Endpoint {
            id,
            name,
            network: network.id,
            addresses,
            mac,
            sandbox: None,
            order: 0,
            attachment: None,
            plugin: None,
            given_back: Vec::new(),
            epoch: 0,
            fresh: true,
            deleting: false,
            spec,
        };
        self.state.set_endpoint(id, Some(endpoint), change);
        match sandbox {
            Some(sandbox) => self.attach(id, sandbox, change),
            None => Ok(()),
        }
    }

    pub(super) fn join(
        &mut self,
        endpoint: &Reference,
        sandbox: &Reference,
    ) -> Result<Draft, Halt> {
        let endpoint = self.usable_endpoint(endpoint)?;
        let sandbox = self.usable_sandbox(sandbox)?;
        self.must_be_peoples(&endpoint)?;
        self.must_not_be_engines(sandbox)?;
        if let Some(other) = endpoint.sandbox.and_then(|id| self.state.sandbox(id)) {
            let message = format!("the endpoint is already joined to sandbox {}", other.name);
            return Err(Reject::new(Code::AlreadyJoined, &endpoint.name, message)
                .hint("let it leave that sandbox first")
                .into());
        }
        let mut change = Change::default();
        match self.attach(endpoint.id, sandbox, &mut change) {
            Ok(()) => Ok(Draft {
                change,
                done: Done::EndpointReady(endpoint.id),
            }),
            Err(halt) => {
                self.forget(change);
                Err(halt)
            }
        }
    }

    pub(super) fn leave(&mut self, reference: &Reference) -> Result<Draft, Halt> {
        let mut endpoint = self.usable_endpoint(reference)?;
        self.must_be_peoples(&endpoint)?;
        let Some(sandbox) = endpoint.sandbox.take() else {
            return Err(Reject::new(
                Code::NotJoined,
                &endpoint.name,
                "the endpoint is in no sandbox",
            )
            .hint("join it to a sandbox first")
            .into());
        };
        self.must_be_free(Subject::Sandbox(sandbox))?;
        let mut change = Change::default();
        endpoint.attachment = None;
        let id = endpoint.id;
        self.state.set_endpoint(id, Some(endpoint), &mut change);
        change.touch(Subject::Sandbox(sandbox));
        Ok(Draft {
            change,
            done: Done::EndpointLeft(id, sandbox),
        })
    }

    pub(super) fn delete_endpoint(&mut self, reference: &Reference) -> Result<Draft, Halt> {
        let endpoint = self.usable_endpoint(reference)?;
        self.must_be_peoples(&endpoint)?;
        self.remove_endpoint(endpoint)
    }

    pub(super) fn disconnect(
        &mut self,
        network: &Reference,
        sandbox: &Reference,
    ) -> Result<Draft, Halt> {
        let network = self.state.find_network(network)?;
        let sandbox = self.state.find_sandbox(sandbox)?;
        let endpoints = self.state.endpoints_of_sandbox(sandbox.id);
        let Some(endpoint) = endpoints
            .into_iter()
            .find(|e| e.network == network.id)
            .cloned()
        else {
            let message = format!("it is not connected to network {}", network.spec.name);
            return Err(Reject::new(Code::NotJoined, &sandbox.name, message)
                .hint("`tombolo sandbox inspect` shows its networks")
                .into());
        };
        self.must_be_free(Subject::Endpoint(endpoint.id))?;
        self.must_be_peoples(&endpoint)?;
        self.remove_endpoint(endpoint)
    }

    pub(super) fn remove_endpoint(&mut self, mut endpoint: Endpoint) -> Result<Draft, Halt> {
        let id = endpoint.id;
        let mut change = Change::default();
        if let Some(sandbox) = endpoint.sandbox {
            self.must_be_free(Subject::Sandbox(sandbox))?;
            change.touch(Subject::Sandbox(sandbox));
        }
        endpoint.attachment = None;
        endpoint.deleting = true;
        self.state.set_endpoint(id, Some(endpoint), &mut change);
        Ok(Draft {
            change,
            done: Done::EndpointGone(id),
        })
    }

    fn must_be_peoples(&self, endpoint: &Endpoint) -> Result<(), Reject> {
        endpoint
            .sandbox
            .map_or(Ok(()), |sandbox| self.must_not_be_engines(sandbox))
    }

    /// Gives an endpoint its interface in a sandbox; in a stopped one only its membership.
    pub(super) fn attach(
        &mut self,
        id: EndpointId,
        sandbox: SandboxId,
        change: &mut Change,
    ) -> Result<(), Halt> {
        let sandbox = self
            .state
            .sandbox(sandbox)
            .cloned()
            .ok_or_else(|| vanished(sandbox))?;
        let mut endpoint = self
            .state
            .endpoint(id)
            .cloned()
            .ok_or_else(|| vanished(id))?;
        let network = self.state.network(endpoint.network).cloned();
        let network = network.ok_or_else(|| vanished(endpoint.network))?;
        let others: Vec<Endpoint> = self
            .state
            .endpoints_of_sandbox(sandbox.id)
            .into_iter()
            .filter(|e| e.id != id)
            .cloned()
            .collect();
        self.check_join(&sandbox, &network, &endpoint, &others)?;
        // A restart takes an unanswered joining back; it goes on with an unanswered start.
        let fresh = endpoint.sandbox.is_none();
        if fresh {
            endpoint.order = others.iter().map(|e| e.order + 1).max().unwrap_or(0);
        }
        endpoint.sandbox = Some(sandbox.id);
        let runs = matches!(
            sandbox.state,
            SandboxState::Running | SandboxState::Creating
        );
        if runs && super::plugin::is_prepared(&network, &endpoint) {
            let interface = self.interface_name(&sandbox, &network, &endpoint, &others)?;
            let leaf = match network.spec.driver {
                Driver::Bridge => self.leaf_with_room(&network, change)?,
                Driver::Null | Driver::Host | Driver::Remote => 0,
            };
            endpoint.epoch += 1;
            let epoch = endpoint.epoch;
            endpoint.attachment = Some(Attachment {
                interface,
                leaf,
                epoch,
                fresh,
                left: false,
            });
            change.touch(Subject::Sandbox(sandbox.id));
        }
        self.state.set_endpoint(id, Some(endpoint), change);
        Ok(())
    }

    pub(super) fn endpoint_objects(&self, id: EndpointId) -> Result<Objects, Reject> {
        let Some(endpoint) = self.state.endpoint(id) else {
            return Ok(Objects::new());
        };
        let network = self.state.network(endpoint.network);
        let sandbox = endpoint
            .sandbox
            .and_then(|sandbox| self.state.sandbox(sandbox));
        match (network, sandbox) {
            (Some(network), Some(sandbox)) => {
                let netns = driver::netns_of(sandbox);
                driver::endpoint_objects(network, endpoint, &netns, self.context())
            }
            _ => Ok(Objects::new()),
        }
    }

    pub(super) fn usable_network(&self, reference: &Reference) -> Result<NetworkId, Halt> {
        let id = self.state.find_network(reference)?.id;
        self.must_be_free(Subject::Network(id))?;
        if !self.state.is_ready(id) {
            return Err(Reject::new(
                Code::UnknownNetwork,
                &reference.0,
                "the network is being removed",
            )
            .hint("wait for that to end, or make another network")
            .into());
        }
        if self.state.endpoint_count(id) >= ENDPOINTS_PER_NETWORK_MAX {
            let message = format!(
                "the network has {ENDPOINTS_PER_NETWORK_MAX} endpoints, the most one may have"
            );
            return Err(Reject::new(Code::LimitReached, &reference.0, message)
                .hint("use a second network")
                .into());
        }
        Ok(id)
    }

    fn usable_endpoint(&self, reference: &Reference) -> Result<Endpoint, Halt> {
        let endpoint = self.state.find_endpoint(reference)?;
        self.must_be_free(Subject::Endpoint(endpoint.id))?;
        Ok(endpoint.clone())
    }

    pub(super) fn usable_sandbox(&self, reference: &Reference) -> Result<SandboxId, Halt> {
        let id = self.state.find_sandbox(reference)?.id;
        self.must_be_free(Subject::Sandbox(id))?;
        Ok(id)
    }

    fn endpoint_name(
        &self,
        id: EndpointId,
        network: &Network,
        sandbox: Option<SandboxId>,
        spec: &EndpointSpec,
    ) -> Result<Name, Reject> {
        super::network::check_labels(&network.spec.name, &spec.labels)?;
        let of_sandbox = sandbox
            .and_then(|id| self.state.sandbox(id))
            .map(|s| s.name.clone());
        let made = || format!("ep-{}", &id.to_string()[..12]).parse();
        let name = match spec.name.clone().or(of_sandbox) {
            Some(name) => name,
            None => made().map_err(|text: String| {
                Reject::new(Code::InvalidName, id, text).hint("give a name")
            })?,
        };
        if self.state.endpoint_named(&name, network.id).is_some() {
            let message = format!(
                "network {} already has an endpoint of this name",
                network.spec.name
            );
            return Err(Reject::new(Code::NameTaken, name, message).hint("choose another name"));
        }
        Ok(name)
    }

    fn check_join(
        &self,
        sandbox: &Sandbox,
        network: &Network,
        endpoint: &Endpoint,
        others: &[Endpoint],
    ) -> Result<(), Reject> {
        let combination = |message: &str| {
            Reject::new(Code::InvalidCombination, &sandbox.name, message)
                .hint("use a sandbox with a network namespace of its own")
        };
        check_not_joined(sandbox, network, others.iter())?;
        if sandbox.spec.netns == SandboxNetns::Host && network.spec.driver != Driver::Host {
            return Err(combination(
                "it shares the host's namespace and cannot join a network",
            ));
        }
        if network.spec.driver == Driver::Host && sandbox.spec.netns != SandboxNetns::Host {
            return Err(combination(
                "only a sandbox in the host's namespace can join the host's network",
            ));
        }
        let null = |id| {
            self.state
                .network(id)
                .is_some_and(|n| n.spec.driver == Driver::Null)
        };
        if (null(network.id) && !others.is_empty())
            || others.iter().any(|other| null(other.network))
        {
            return Err(combination("`none` cannot be combined with other networks"));
        }
        if others.len() >= ENDPOINTS_PER_SANDBOX_MAX {
            let message =
                format!("it has {ENDPOINTS_PER_SANDBOX_MAX} endpoints, the most one may have");
            return Err(Reject::new(Code::LimitReached, &sandbox.name, message)
                .hint("disconnect it from a network first"));
        }
        if sandbox.state == SandboxState::Deleting || endpoint.deleting {
            return Err(
                Reject::new(Code::UnknownSandbox, &sandbox.name, "it is being removed")
                    .hint("wait for that to end, or make another sandbox"),
            );
        }
        Ok(())
    }

    fn interface_name(
        &self,
        sandbox: &Sandbox,
        network: &Network,
        endpoint: &Endpoint,
        others: &[Endpoint],
    ) -> Result<String, Reject> {
        let in_use = others.iter().filter_map(|e| e.attachment.as_ref());
        let asked_for = others.iter().filter_map(|e| e.spec.interface.as_deref());
        let taken: BTreeSet<&str> = in_use
            .map(|a| a.interface.as_str())
            .chain(asked_for)
            .collect();
        if let Some(name) = &endpoint.spec.interface {
            names::interface(name)?;
            if taken.contains(name.as_str()) || name == "lo" {
                let message = format!(
                    "sandbox {} already has an interface of this name",
                    sandbox.name
                );
                return Err(Reject::new(Code::InterfaceNameTaken, name, message)
                    .hint("choose another name"));
            }
            return Ok(name.clone());
        }
        let prefix = match network.spec.driver {
            Driver::Remote => remote::interface_prefix(endpoint),
            _ => &network.spec.interface_prefix,
        };
        let free = (0..=ENDPOINTS_PER_SANDBOX_MAX)
            .map(|n| format!("{prefix}{n}"))
            .find(|name| !taken.contains(name.as_str()) && !self.is_leaving(sandbox, name));
        let free = free.ok_or_else(|| {
            Reject::new(
                Code::LimitReached,
                &sandbox.name,
                "no interface number is free",
            )
            .hint("disconnect the sandbox from a network first")
        })?;
        names::interface(&free).map(|name| name.to_string())
    }

    /// Whether the kernel still removes an interface of that name from a sandbox.
    fn is_leaving(&self, sandbox: &Sandbox, name: &str) -> bool {
        let netns = driver::netns_of(sandbox);
        self.departing
            .values()
            .any(|at| at.netns == netns && at.name.as_str() == name)
    }

    /// The lowest bridge of a network that takes another port, counting what this change already adds.
    fn leaf_with_room(&mut self, network: &Network, change: &mut Change) -> Result<u16, Halt> {
        let mut free = 0;
        for (leaf, ports) in self.state.leaves(network.id) {
            let most = if leaf == 0 {
                CORE_PORTS_MAX
            } else {
                LEAF_PORTS_MAX
            };
            if leaf > free || ports < most {
                break;
            }
            free = leaf + 1;
        }
        if free > 0 {
            let subject = Subject::Leaf(network.id, free);
            // Also when another endpoint is making it: its bridge must be there first.
            self.must_be_free(subject)?;
            if self.desired.keys_of(&subject.owner()).is_empty() {
                change.touch(subject);
                self.live_leaves.insert((network.id, free));
            }
        }
        Ok(free)
    }
}

fn check_not_joined<'a>(
    sandbox: &Sandbox,
    network: &Network,
    mut others: impl Iterator<Item = &'a Endpoint>,
) -> Result<(), Reject> {
    if others.any(|other| other.network == network.id) {
        let name = &network.spec.name;
        let message = format!("it already has an endpoint in network {name}");
        return Err(Reject::new(Code::AlreadyJoined, &sandbox.name, message)
            .hint("disconnect that one first"));
    }
    Ok(())
}

fn vanished(id: impl std::fmt::Display) -> Reject {
    Reject::new(
        Code::UnknownSandbox,
        id,
        "the object vanished while the request was under way",
    )
    .hint("try again")
}
