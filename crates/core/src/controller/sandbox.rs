//! Sandboxes: making, stopping, starting, removing.

use tombolo_netstate::Objects;
use tombolo_netstate::object::port::PortRange;

use super::change::Change;
use super::job::Done;
use super::publication::check_spec;
use super::{Controller, Draft, Halt};
use crate::command::Reference;
use crate::driver;
use crate::id::{EndpointId, Name, NetworkId, SandboxId, Seed};
use crate::limits::{ENDPOINTS_PER_SANDBOX_MAX, SANDBOXES_MAX};
use crate::model::{
    Endpoint, EndpointSpec, Network, Sandbox, SandboxNetns, SandboxSpec, SandboxState,
};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

impl Controller {
    pub(super) fn create_sandbox(
        &mut self,
        now_ms: u64,
        seed: u128,
        spec: SandboxSpec,
        networks: Vec<(Reference, EndpointSpec)>,
    ) -> Result<Draft, Halt> {
        let mut seed = Seed::new(seed);
        let id = SandboxId(seed.draw());
        let change = self.new_sandbox(now_ms, (id, seed), spec, networks)?;
        self.ready_to_run(id, change)
    }

    /// Stores a sandbox with its endpoints.
    pub(super) fn new_sandbox(
        &mut self,
        now_ms: u64,
        (id, mut seed): (SandboxId, Seed),
        mut spec: SandboxSpec,
        networks: Vec<(Reference, EndpointSpec)>,
    ) -> Result<Change, Halt> {
        let name = self.sandbox_name(id, &spec)?;
        check_spec(&name, &spec)?;
        self.resolve_links(&mut spec)?;
        if networks.len() > ENDPOINTS_PER_SANDBOX_MAX {
            let message = format!("a sandbox takes {ENDPOINTS_PER_SANDBOX_MAX} networks at most");
            return Err(Reject::new(Code::LimitReached, name, message)
                .hint("leave some of them out")
                .into());
        }
        let mut wanted: Vec<(NetworkId, EndpointSpec)> = Vec::with_capacity(networks.len());
        for (network, endpoint) in networks {
            wanted.push((self.usable_network(&network)?, endpoint));
        }
        let sandbox = Sandbox {
            id,
            name,
            state: SandboxState::Creating,
            epoch: 1,
            created_ms: now_ms,
            spec,
        };
        let mut change = Change::default();
        self.state.set_sandbox(id, Some(sandbox), &mut change);
        for (network, spec) in wanted {
            let endpoint = EndpointId(seed.draw());
            let ids = (endpoint, network, Some(id));
            if let Err(halt) = self.add_endpoint(now_ms, ids, spec, &mut change) {
                self.forget(change);
                return Err(halt);
            }
        }
        Ok(change)
    }

    /// The draft of a sandbox that begins to run, if its publications and links lead somewhere.
    fn ready_to_run(&mut self, id: SandboxId, change: Change) -> Result<Draft, Halt> {
        let checked = self.check_publications(id);
        match checked.and_then(|()| self.check_links(id)) {
            Ok(()) => Ok(Draft {
                change,
                done: Done::SandboxRunning(id),
            }),
            Err(reject) => {
                self.forget(change);
                Err(reject.into())
            }
        }
    }

    pub(super) fn delete_sandbox(
        &mut self,
        reference: &Reference,
        keep_endpoints: bool,
    ) -> Result<Draft, Halt> {
        let (mut sandbox, endpoints) = self.free_sandbox(reference)?;
        let mut change = Change::default();
        let mut gone = Vec::new();
        for mut endpoint in endpoints {
            let id = endpoint.id;
            endpoint.attachment = None;
            if keep_endpoints {
                endpoint.sandbox = None;
            } else {
                endpoint.deleting = true;
                gone.push(id);
            }
            self.state.set_endpoint(id, Some(endpoint), &mut change);
        }
        let id = sandbox.id;
        sandbox.state = SandboxState::Deleting;
        self.state.set_sandbox(id, Some(sandbox), &mut change);
        Ok(Draft {
            change,
            done: Done::SandboxGone(id, gone),
        })
    }

    pub(super) fn stop_sandbox(&mut self, reference: &Reference) -> Result<Draft, Halt> {
        let (mut sandbox, endpoints) = self.free_sandbox(reference)?;
        if sandbox.state != SandboxState::Running {
            return Err(Reject::new(
                Code::NotRunning,
                &sandbox.name,
                "the sandbox is not running",
            )
            .hint("start it first")
            .into());
        }
        let mut change = Change::default();
        for mut endpoint in endpoints {
            endpoint.attachment = None;
            self.state
                .set_endpoint(endpoint.id, Some(endpoint), &mut change);
        }
        let id = sandbox.id;
        sandbox.state = SandboxState::Stopped;
        self.state.set_sandbox(id, Some(sandbox), &mut change);
        Ok(Draft {
            change,
            done: Done::SandboxStopped(id),
        })
    }

    pub(super) fn start_sandbox(
        &mut self,
        reference: &Reference,
        picked: &[(usize, PortRange)],
    ) -> Result<Draft, Halt> {
        let (mut sandbox, endpoints) = self.free_sandbox(reference)?;
        if sandbox.state != SandboxState::Stopped {
            return Err(Reject::new(
                Code::Running,
                &sandbox.name,
                "the sandbox is running already",
            )
            .hint("stop it first")
            .into());
        }
        self.namespace_is_free(&sandbox.name, &sandbox.spec.netns)?;
        let id = sandbox.id;
        let mut change = Change::default();
        sandbox.state = SandboxState::Running;
        sandbox.epoch += 1;
        Self::take_ports(&mut sandbox, picked);
        self.state.set_sandbox(id, Some(sandbox), &mut change);
        for endpoint in endpoints {
            if let Err(halt) = self.attach(endpoint.id, id, &mut change) {
                self.forget(change);
                return Err(halt);
            }
        }
        self.ready_to_run(id, change)
    }

    pub(super) fn sandbox_objects(&self, id: SandboxId) -> Result<Objects, Reject> {
        let Some(sandbox) = self.state.sandbox(id) else {
            return Ok(Objects::new());
        };
        match sandbox.state {
            SandboxState::Stopped | SandboxState::Deleting => Ok(Objects::new()),
            SandboxState::Creating | SandboxState::Running => {
                let mut objects =
                    driver::sandbox_objects(sandbox, &self.joined(id), self.context())?;
                objects.extend(self.link_objects(sandbox));
                Ok(objects)
            }
        }
    }

    /// The endpoints of a sandbox with their networks.
    pub(super) fn joined(&self, id: SandboxId) -> Vec<(&Network, &Endpoint)> {
        let endpoints = self.state.endpoints_of_sandbox(id).into_iter();
        endpoints
            .filter_map(|e| Some((self.state.network(e.network)?, e)))
            .collect()
    }

    fn free_sandbox(&self, reference: &Reference) -> Result<(Sandbox, Vec<Endpoint>), Halt> {
        let id = self.usable_sandbox(reference)?;
        self.must_not_be_engines(id)?;
        let sandbox = self.state.find_sandbox(reference)?.clone();
        let endpoints: Vec<Endpoint> = self
            .state
            .endpoints_of_sandbox(id)
            .into_iter()
            .cloned()
            .collect();
        for endpoint in &endpoints {
            self.must_be_free(Subject::Endpoint(endpoint.id))?;
        }
        Ok((sandbox, endpoints))
    }

    fn sandbox_name(&self, id: SandboxId, spec: &SandboxSpec) -> Result<Name, Reject> {
        super::network::check_labels(&id, &spec.labels)?;
        if self.state.counts().2 >= SANDBOXES_MAX {
            let message = format!("there are {SANDBOXES_MAX} sandboxes, the most a node may have");
            return Err(Reject::new(Code::LimitReached, id, message)
                .hint("remove sandboxes that nobody uses"));
        }
        let made = || format!("sb-{}", &id.to_string()[..12]).parse();
        let name = match spec.name.clone() {
            Some(name) => name,
            None => made().map_err(|text: String| {
                Reject::new(Code::InvalidName, id, text).hint("give a name")
            })?,
        };
        if self.state.sandbox_named(&name).is_some() {
            return Err(
                Reject::new(Code::NameTaken, name, "a sandbox of this name exists")
                    .hint("choose another name, or remove that sandbox first"),
            );
        }
        self.namespace_is_free(&name, &spec.netns)?;
        Ok(name)
    }

    /// Refuses somebody else's namespace that is another live sandbox's already.
    fn namespace_is_free(&self, name: &Name, netns: &SandboxNetns) -> Result<(), Reject> {
        let SandboxNetns::Adopted { inode, .. } = netns else {
            return Ok(());
        };
        let same = |s: &&Sandbox| {
            s.state != SandboxState::Stopped
                && matches!(&s.spec.netns, SandboxNetns::Adopted { inode: other, .. } if other == inode)
        };
        match self.state.sandboxes().find(same) {
            None => Ok(()),
            Some(other) => {
                let message = format!("the namespace is already that of sandbox {}", other.name);
                Err(Reject::new(Code::NamespaceTaken, name, message).hint("use that sandbox"))
            }
        }
    }
}
