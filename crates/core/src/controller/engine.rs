//! What other engines ask of us: their endpoints and sandboxes.
//!
//! An engine makes the namespaces of its containers itself, takes the interfaces that we lend it into them, and
//! gives them their addresses and routes. Everything on the host's side is ours as ever.

use super::change::Change;
use super::job::Done;
use super::{Controller, Draft, Halt};
use crate::command::{Described, EngineCommand};
use crate::event::Reply;
use crate::id::{EndpointId, Name, NetworkId, SandboxId, Seed};
use crate::limits::LINKS_PER_SANDBOX_MAX;
use crate::model::{
    DnsSettings, Endpoint, EndpointSpec, Exposed, Link, Network, Publication, Sandbox,
    SandboxNetns, SandboxSpec, SandboxState,
};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

/// How often another name is tried for a sandbox or network whose name is taken.
const NAMES_TRIED: u32 = 64;

impl Controller {
    pub(super) fn engine_command(
        &mut self,
        now_ms: u64,
        seed: u128,
        command: EngineCommand,
    ) -> Result<Draft, Halt> {
        match command {
            EngineCommand::RequestPool {
                network,
                subnet,
                pick,
                range,
            } => self.request_pool(now_ms, network.as_ref(), (subnet, pick), range),
            EngineCommand::ReleasePool(subnet) => Ok(self.release_pool(now_ms, subnet)),
            EngineCommand::RequestAddress {
                subnet,
                address,
                gateway,
            } => self.request_address(now_ms, subnet, address, gateway),
            EngineCommand::ReleaseAddress(address) => Ok(self.release_address(now_ms, address)),
            EngineCommand::BindNetwork {
                id,
                engine_id,
                network,
                pools,
            } => self.bind_network((id, engine_id), &network, &pools),
            EngineCommand::UnbindNetwork(id) => self.unbind_network(id),
            EngineCommand::DeleteNetwork(id) => self.delete_engine_network(id),
            EngineCommand::NameNetwork(id, name) => self.name_network(id, &name),
            EngineCommand::CreateEndpoint { network, spec } => {
                self.create_lent_endpoint(now_ms, seed, network, *spec)
            }
            EngineCommand::Join {
                endpoint,
                path,
                inode,
                exposed,
            } => {
                let netns = SandboxNetns::Engine { path, inode };
                self.join_engine(now_ms, seed, endpoint, (netns, exposed))
            }
            EngineCommand::Adopt { sandbox, inode } => self.adopt_namespace(sandbox, inode),
            EngineCommand::Leave(endpoint) => self.leave_engine(endpoint),
            EngineCommand::DeleteEndpoint(endpoint) => self.delete_lent_endpoint(endpoint),
            EngineCommand::Publish {
                endpoint,
                publications,
            } => self.publish_for_engine(endpoint, publications),
            EngineCommand::Unpublish(endpoint) => self.unpublish_for_engine(endpoint),
            EngineCommand::Describe { sandbox, described } => {
                self.describe_sandbox(sandbox, *described)
            }
        }
    }

    fn create_lent_endpoint(
        &mut self,
        now_ms: u64,
        seed: u128,
        network: NetworkId,
        spec: EndpointSpec,
    ) -> Result<Draft, Halt> {
        let id = EndpointId(Seed::new(seed).draw());
        let network = self.usable_network(&self.reference_of(network)?)?;
        if let Some(there) = self.state.endpoint(id) {
            self.must_be_free(Subject::Endpoint(id))?;
            return same_endpoint(there, network, &spec).map(|()| Draft {
                change: Change::default(),
                done: Done::EndpointReady(id),
            });
        }
        self.new_endpoint(now_ms, (id, network, None), spec)
    }

    fn join_engine(
        &mut self,
        now_ms: u64,
        seed: u128,
        endpoint: EndpointId,
        (netns, exposed): (SandboxNetns, Vec<Exposed>),
    ) -> Result<Draft, Halt> {
        let mut endpoint = self.lent_endpoint(endpoint)?;
        let id = endpoint.id;
        let there = match &netns {
            SandboxNetns::Engine { path, .. } => self.state.sandbox_at(path),
            _ => None,
        };
        let there = there.map(|sandbox| sandbox.id);
        if let Some(sandbox) = there {
            self.must_be_free(Subject::Sandbox(sandbox))?;
        }
        let is_left = endpoint.attachment.as_ref().is_none_or(|a| a.left);
        match endpoint.sandbox {
            Some(sandbox) if Some(sandbox) == there && !is_left => {
                return Ok(Draft {
                    change: Change::default(),
                    done: Done::EndpointReady(id),
                });
            }
            Some(sandbox) if !is_left => {
                let message = format!("it is already joined to sandbox {sandbox}");
                return Err(Reject::new(Code::AlreadyJoined, &endpoint.name, message)
                    .hint("leave it")
                    .into());
            }
            _ => {}
        }
        let mut change = Change::default();
        if endpoint.sandbox.is_some() {
            self.take_out(&mut endpoint, &mut change)?;
        }
        let (sandbox, done) = match there {
            Some(sandbox) => (sandbox, Done::EndpointReady(id)),
            None => {
                let sandbox = self.add_engine_sandbox(now_ms, seed, (netns, exposed), &mut change);
                (sandbox, Done::SandboxRunning(sandbox))
            }
        };
        match self.attach(id, sandbox, &mut change) {
            Ok(()) => Ok(Draft { change, done }),
            Err(halt) => {
                self.forget(change);
                Err(halt)
            }
        }
    }

    fn add_engine_sandbox(
        &mut self,
        now_ms: u64,
        seed: u128,
        (netns, exposed): (SandboxNetns, Vec<Exposed>),
        change: &mut Change,
    ) -> SandboxId {
        let id = SandboxId(Seed::new(seed).draw());
        let sandbox = Sandbox {
            id,
            name: self.free_sandbox_name(id, &engine_name(&netns)),
            state: SandboxState::Creating,
            epoch: 1,
            created_ms: now_ms,
            spec: SandboxSpec {
                name: None,
                hostname: None,
                netns,
                dns: DnsSettings::default(),
                extra_hosts: Vec::new(),
                publications: Vec::new(),
                exposed,
                links: Vec::new(),
                labels: Default::default(),
            },
        };
        self.state.set_sandbox(id, Some(sandbox), change);
        id
    }

    /// Takes an endpoint out of a sandbox that it has left.
    fn take_out(&mut self, endpoint: &mut Endpoint, change: &mut Change) -> Result<(), Halt> {
        if let Some(sandbox) = endpoint.sandbox.take() {
            self.must_be_free(Subject::Sandbox(sandbox))?;
            change.touch(Subject::Sandbox(sandbox));
        }
        endpoint.attachment = None;
        self.state
            .set_endpoint(endpoint.id, Some(endpoint.clone()), change);
        Ok(())
    }

    fn adopt_namespace(&mut self, id: SandboxId, seen: u64) -> Result<Draft, Halt> {
        let mut sandbox = self.engine_sandbox(id)?;
        let mut change = Change::default();
        if let SandboxNetns::Engine { inode, .. } = &mut sandbox.spec.netns
            && *inode != Some(seen)
        {
            *inode = Some(seen);
            self.state.set_sandbox(id, Some(sandbox), &mut change);
        }
        Ok(Draft {
            change,
            done: Done::Adopted(id),
        })
    }

    fn leave_engine(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        let mut endpoint = self.lent_endpoint(id)?;
        let Some(sandbox) = endpoint.sandbox else {
            return Err(not_joined(&endpoint.name).into());
        };
        // Its namespace was gone before the engine said so.
        let Some(attachment) = &mut endpoint.attachment else {
            return Ok(nothing(Reply::Endpoint(id)));
        };
        self.must_be_free(Subject::Sandbox(sandbox))?;
        let mut change = Change::default();
        if !attachment.left {
            attachment.left = true;
            self.state.set_endpoint(id, Some(endpoint), &mut change);
            change.touch(Subject::Sandbox(sandbox));
        }
        Ok(Draft {
            change,
            done: Done::EndpointLeft(id, sandbox),
        })
    }

    fn delete_lent_endpoint(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        if self.state.endpoint(id).is_none() {
            return Ok(nothing(Reply::Done));
        }
        let endpoint = self.lent_endpoint(id)?;
        let last = endpoint.sandbox.filter(|sandbox| {
            let members = self.state.endpoints_of_sandbox(*sandbox);
            members.iter().all(|other| other.id == id)
        });
        let sandbox = last.and_then(|id| self.state.sandbox(id)).cloned();
        let Some(mut sandbox) = sandbox.filter(Sandbox::is_engines) else {
            return self.remove_endpoint(endpoint);
        };
        self.must_be_free(Subject::Sandbox(sandbox.id))?;
        let mut draft = self.remove_endpoint(endpoint)?;
        let of = sandbox.id;
        sandbox.state = SandboxState::Deleting;
        self.state.set_sandbox(of, Some(sandbox), &mut draft.change);
        draft.done = Done::SandboxGone(of, vec![id]);
        Ok(draft)
    }

    fn publish_for_engine(
        &mut self,
        id: EndpointId,
        publications: Vec<Publication>,
    ) -> Result<Draft, Halt> {
        let mut endpoint = self.lent_endpoint(id)?;
        let sandbox = self.sandbox_of(&endpoint)?;
        let mut change = Change::default();
        // What is published leads through the endpoint that the engine has chosen, as its default route does.
        for other in self.state.endpoints_of_sandbox(sandbox.id) {
            self.must_be_free(Subject::Endpoint(other.id))?;
        }
        if endpoint.spec.gateway_priority != 1 {
            endpoint.spec.gateway_priority = 1;
            self.state.set_endpoint(id, Some(endpoint), &mut change);
        }
        self.set_publications(sandbox, publications, change)
    }

    fn unpublish_for_engine(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        let found = self.lent_endpoint(id);
        let found = found.and_then(|endpoint| Ok((self.sandbox_of(&endpoint)?, endpoint)));
        let (sandbox, mut endpoint) = match found {
            Ok(found) => found,
            // What is gone publishes nothing.
            Err(Halt::Reject(_)) => return Ok(nothing(Reply::Done)),
            Err(halt) => return Err(halt),
        };
        let mut change = Change::default();
        let was_way_out = endpoint.spec.gateway_priority != 0;
        let other = self.state.endpoints_of_sandbox(sandbox.id);
        let is_another = other
            .iter()
            .any(|other| other.id != id && other.spec.gateway_priority != 0);
        if was_way_out {
            endpoint.spec.gateway_priority = 0;
            self.state.set_endpoint(id, Some(endpoint), &mut change);
        }
        if is_another {
            let (id, done) = (sandbox.id, Done::Unpublished(sandbox.id));
            change.touch(Subject::Sandbox(id));
            return Ok(Draft { change, done });
        }
        self.set_publications(sandbox, Vec::new(), change)
    }

    /// Replaces what the engine published before; what people published stays.
    fn set_publications(
        &mut self,
        mut sandbox: Sandbox,
        publications: Vec<Publication>,
        mut change: Change,
    ) -> Result<Draft, Halt> {
        let id = sandbox.id;
        let done = match publications.is_empty() {
            true => Done::Unpublished(id),
            false => Done::Published(id),
        };
        let own = sandbox.spec.publications.iter().filter(|p| p.by_engine);
        let same = own.clone().count() == publications.len()
            && own.zip(&publications).all(|(a, b)| a.is_same_place(b));
        if same {
            change.touch(Subject::Sandbox(id));
            return Ok(Draft { change, done });
        }
        sandbox.spec.publications.retain(|p| !p.by_engine);
        sandbox.spec.publications.extend(publications);
        let checked = super::publication::check_spec(&sandbox.name, &sandbox.spec);
        self.state.set_sandbox(id, Some(sandbox), &mut change);
        match checked.and_then(|()| self.check_publications(id)) {
            Ok(()) => Ok(Draft { change, done }),
            Err(reject) => {
                self.forget(change);
                Err(reject.into())
            }
        }
    }

    fn describe_sandbox(&mut self, id: SandboxId, described: Described) -> Result<Draft, Halt> {
        let mut sandbox = self.engine_sandbox(id)?;
        for (endpoint, _) in &described.aliases {
            self.must_be_free(Subject::Endpoint(*endpoint))?;
        }
        let mut change = Change::default();
        for (endpoint, aliases) in described.aliases {
            let Some(mut endpoint) = self.state.endpoint(endpoint).cloned() else {
                continue;
            };
            if endpoint.sandbox == Some(id) && endpoint.spec.aliases != aliases {
                endpoint.spec.aliases = aliases;
                self.state
                    .set_endpoint(endpoint.id, Some(endpoint), &mut change);
            }
        }
        let before = sandbox.clone();
        if let Some(name) = &described.name
            && before.spec.name.as_ref() != Some(name)
        {
            sandbox.name = self.free_sandbox_name(id, name.as_str());
            sandbox.spec.name = Some(name.clone());
        }
        sandbox.spec.hostname = described.hostname.or(sandbox.spec.hostname);
        sandbox.spec.exposed = described.exposed;
        sandbox.spec.labels = described.labels.into_iter().collect();
        sandbox.spec.links = self.known_links(&sandbox, described.links);
        if sandbox != before {
            self.state.set_sandbox(id, Some(sandbox), &mut change);
        }
        let done = Done::Adopted(id);
        Ok(Draft { change, done })
    }

    /// The links that lead somewhere: an engine links containers that are not ours, too.
    fn known_links(&self, sandbox: &Sandbox, links: Vec<Link>) -> Vec<Link> {
        let known = links.into_iter().filter(|link| {
            let other = self.state.sandbox_named(&link.sandbox);
            other.is_some_and(|other| other.id != sandbox.id)
        });
        known.take(LINKS_PER_SANDBOX_MAX).collect()
    }

    fn name_network(&mut self, id: NetworkId, name: &Name) -> Result<Draft, Halt> {
        let Some(mut network) = self.state.network(id).cloned() else {
            return Ok(nothing(Reply::Done));
        };
        self.must_be_free(Subject::Network(id))?;
        let mut change = Change::default();
        let free = self.state.network_named(name).is_none();
        if network.spec.engine.is_some() && free && super::network::is_free_word(name) {
            network.spec.name = name.clone();
            self.state.set_network(id, Some(network), &mut change);
        }
        Ok(Draft {
            change,
            done: recorded(Reply::Network(id), true),
        })
    }

    /// A name that no sandbox has: the one wanted, or with a number.
    fn free_sandbox_name(&self, id: SandboxId, wanted: &str) -> Name {
        let numbered = (1..NAMES_TRIED).map(|number| format!("{wanted}-{number}"));
        let made = std::iter::once(wanted.to_owned()).chain(numbered);
        let free = made.filter_map(|name| name.parse().ok()).find(|name| {
            let holder = self.state.sandbox_named(name);
            holder.is_none_or(|holder| holder.id == id)
        });
        free.unwrap_or_else(|| Name::of_id(id.0))
    }

    fn lent_endpoint(&self, id: EndpointId) -> Result<Endpoint, Halt> {
        self.must_be_free(Subject::Endpoint(id))?;
        let endpoint = self.state.endpoint(id).filter(|e| e.spec.engine);
        endpoint.cloned().ok_or_else(|| {
            Reject::new(
                Code::UnknownEndpoint,
                id,
                "no endpoint of an engine has this id",
            )
            .hint("create it first")
            .into()
        })
    }

    fn engine_sandbox(&self, id: SandboxId) -> Result<Sandbox, Halt> {
        self.must_be_free(Subject::Sandbox(id))?;
        let sandbox = self.state.sandbox(id).filter(|s| s.is_engines());
        sandbox.cloned().ok_or_else(|| {
            Reject::new(
                Code::UnknownSandbox,
                id,
                "no engine has a sandbox of this id",
            )
            .into()
        })
    }

    fn sandbox_of(&self, endpoint: &Endpoint) -> Result<Sandbox, Halt> {
        match endpoint.sandbox {
            Some(id) => self.engine_sandbox(id),
            None => Err(not_joined(&endpoint.name).into()),
        }
    }

    /// Removes a network that was made for an engine. One with endpoints, or that stands for another of an engine's, stays, and
    /// is people's to remove once it has none.
    fn delete_engine_network(&mut self, id: NetworkId) -> Result<Draft, Halt> {
        let made = self.state.network(id).filter(|n| n.spec.engine.is_some());
        let Some(mut network) = made.cloned() else {
            return Ok(nothing(Reply::Done));
        };
        if !self.is_bound(id) && self.state.endpoints_of_network(id).next().is_none() {
            return self.remove_network(id);
        }
        self.must_be_free(Subject::Network(id))?;
        let mut change = Change::default();
        if !network.forsaken {
            network.forsaken = true;
            self.state.set_network(id, Some(network), &mut change);
        }
        Ok(Draft {
            change,
            done: recorded(Reply::Network(id), true),
        })
    }

    /// Whether an engine has a network, as its own or in the place of one of its own.
    pub(super) fn is_used_by_engines(&self, network: &Network) -> bool {
        let made = network.spec.engine.is_some() && !network.forsaken;
        self.settings.engines && (made || self.is_bound(network.id))
    }

    /// Refuses to let people remove a network that an engine has: it would go on making containers for it.
    pub(super) fn must_not_be_used_by_engines(&self, network: &Network) -> Result<(), Reject> {
        if network.predefined || !self.is_used_by_engines(network) {
            return Ok(());
        }
        let message = "another engine has the network and would not know of its end";
        Err(Reject::new(Code::EngineOwned, &network.spec.name, message)
            .hint("remove it in that engine, as with `docker network rm`; if that is gone, run the daemon without its plugin"))
    }

    /// Refuses to let people change what an engine has published: it would not know.
    pub(super) fn must_not_be_published_by_engines(
        &self,
        sandbox: &Name,
        publication: &Publication,
    ) -> Result<(), Reject> {
        if !self.settings.engines || !publication.by_engine {
            return Ok(());
        }
        let message = "another engine has published the port and would not know of the change";
        Err(Reject::new(Code::EngineOwned, sandbox, message)
            .hint("use that engine: make the container anew with other ports"))
    }

    /// Refuses to let people change what an engine has made: it would not know.
    pub(super) fn must_not_be_engines(&self, id: SandboxId) -> Result<(), Reject> {
        match self.state.sandbox(id) {
            Some(sandbox) if self.settings.engines && sandbox.is_engines() && sandbox.is_live() => {
                Err(Reject::new(
                    Code::EngineOwned,
                    &sandbox.name,
                    "another engine has made it and would not know of the change",
                )
                .hint("use that engine, such as `docker network connect` and `docker rm`"))
            }
            _ => Ok(()),
        }
    }
}

fn same_endpoint(there: &Endpoint, network: NetworkId, wanted: &EndpointSpec) -> Result<(), Halt> {
    let same = there.spec.engine
        && there.network == network
        && there.spec.addresses == wanted.addresses
        && wanted.mac.is_none_or(|mac| mac == there.mac);
    match same {
        true => Ok(()),
        false => Err(Reject::new(
            Code::NameTaken,
            there.id,
            "an endpoint of this id exists and is another",
        )
        .hint("delete it first")
        .into()),
    }
}

fn not_joined(name: &Name) -> Reject {
    Reject::new(Code::NotJoined, name, "the endpoint is in no sandbox").hint("join it first")
}

/// What a sandbox is called until its engine says more: after the last part of its path.
fn engine_name(netns: &SandboxNetns) -> String {
    let last = match netns {
        SandboxNetns::Engine { path, .. } => path.file_name().unwrap_or_default(),
        _ => Default::default(),
    };
    let last = last.to_string_lossy();
    format!("engine-{last}")
}

pub(super) fn recorded(reply: Reply, durable: bool) -> Done {
    Done::Recorded {
        reply,
        durable,
        tell: Vec::new(),
    }
}

/// The draft of what changes nothing.
pub(super) fn nothing(reply: Reply) -> Draft {
    Draft {
        change: Change::default(),
        done: recorded(reply, false),
    }
}
