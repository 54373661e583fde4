//! Endpoints: making, attaching, taking out, removing, in the order of calls of Docker's engine since version 28.

use std::path::PathBuf;

use tombolo_core::id::{EndpointId, SandboxId};
use tombolo_core::model::{
    Driver, Endpoint, EndpointPlugin, EndpointSpec, Network, Sandbox, SandboxNetns,
};
use tombolo_core::{PluginCommand, Reference, Reject, Reply, Subject};

use super::plugins::Plugin;
use super::{Remote, new_id, note, translate};
use crate::plugin::wire::Done;
use crate::plugin::wire::method::{Method, Subsystem};
use crate::plugin::wire::network::{
    CreateEndpointResponse, EndpointOperInfoResponse, EndpointRequest, JoinRequest, JoinResponse,
    ProgramExternalConnectivityRequest,
};

impl Remote {
    /// Makes an endpoint, and joins it to a sandbox if one is named.
    pub(super) async fn create_endpoint(
        &self,
        network: &Reference,
        sandbox: Option<Reference>,
        spec: EndpointSpec,
    ) -> Result<Reply, Reject> {
        let seed = new_id()?;
        let id = EndpointId(seed);
        let sandbox = sandbox
            .map(|sandbox| self.find_sandbox(&sandbox))
            .transpose()?;
        let subjects = sandbox.map(Subject::Sandbox).into_iter();
        let _turn = self.turn(subjects.chain([Subject::Endpoint(id)])).await?;
        self.add_endpoint(id, network, sandbox, spec).await?;
        match self.order(PluginCommand::FinishEndpoint(id)).await {
            Ok(_) => Ok(Reply::Endpoint(id)),
            Err(reject) => {
                self.remove(id).await;
                Err(reject)
            }
        }
    }

    /// Makes an endpoint that is not finished yet; nothing of it is left when that fails.
    pub(super) async fn add_endpoint(
        &self,
        id: EndpointId,
        network: &Reference,
        sandbox: Option<SandboxId>,
        mut spec: EndpointSpec,
    ) -> Result<(), Reject> {
        let of = self.find_network(network)?;
        self.prepare_spec(&of, (id, &mut spec)).await?;
        let reserve = PluginCommand::ReserveEndpoint {
            network: network.clone(),
            sandbox: sandbox.map(|id| Reference(id.to_string())),
            spec: Box::new(spec),
        };
        self.order_new(reserve, id.0).await?;
        let filled = match self.request_addresses(id).await {
            Ok(()) => self.attach(id).await,
            refused => refused,
        };
        if filled.is_err() {
            self.remove(id).await;
        }
        filled
    }

    /// Gives an endpoint its interface in its sandbox, if that runs. Nothing is left of it when that fails, but the
    /// endpoint itself.
    pub(super) async fn attach(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let sandbox = endpoint.sandbox.map(|id| self.sandbox(id)).transpose()?;
        let Some(sandbox) = sandbox.filter(Sandbox::is_live) else {
            return Ok(());
        };
        if endpoint.attachment.is_some() {
            return Ok(());
        }
        if network.spec.driver != Driver::Remote {
            self.order(PluginCommand::Attach(id)).await?;
            return self.settle_ways_out(sandbox.id).await;
        }
        let attached = match self.ask_and_attach(id, &sandbox).await {
            Ok(()) => self.settle_ways_out(sandbox.id).await,
            refused => refused,
        };
        let told = match attached {
            Ok(()) => self.ask_about(id).await,
            refused => refused,
        };
        if told.is_err() {
            note("undoing an attachment", self.detach(id).await);
            note(
                "undoing an attachment",
                self.settle_ways_out(sandbox.id).await,
            );
        }
        told
    }

    async fn ask_and_attach(&self, id: EndpointId, sandbox: &Sandbox) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let driver = self.driver(&network).await?;
        // From now on the plugin may know of it.
        let mut facts = EndpointPlugin::default();
        self.note_plugin(id, Some(&facts)).await?;
        let request = translate::create_endpoint(&network, &endpoint, sandbox);
        let made: CreateEndpointResponse = driver.call(Method::CreateEndpoint, &request).await?;
        let added = translate::added(&endpoint, made.interface);
        let added = added.map_err(|text| driver.senseless(text))?;
        facts.mac = added.mac;
        for address in added.addresses {
            self.order(PluginCommand::NoteAddress(id, address)).await?;
        }
        let EndpointRequest {
            network_id,
            endpoint_id,
        } = translate::endpoint_request(&endpoint);
        let request = JoinRequest {
            network_id,
            endpoint_id,
            sandbox_key: self.sandbox_key(sandbox).display().to_string(),
            options: translate::sandbox_labels(sandbox),
        };
        let joined: JoinResponse = driver.call(Method::Join, &request).await?;
        let joined = translate::joined(joined).map_err(|text| driver.senseless(text))?;
        facts.joined = Some(joined);
        self.note_plugin(id, Some(&facts)).await?;
        self.order(PluginCommand::Attach(id)).await?;
        Ok(())
    }

    /// Asks a plugin about an endpoint, as engines do when it is there.
    async fn ask_about(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let driver = self.driver(&network).await?;
        let request = translate::endpoint_request(&endpoint);
        let answer = driver.call_if_there(Method::EndpointOperInfo, Some(&request));
        answer.await.map(|_: Option<EndpointOperInfoResponse>| ())
    }

    /// Tells plugins which endpoint has become the way out of a sandbox, and which is it no more.
    pub(super) async fn settle_ways_out(&self, sandbox: SandboxId) -> Result<(), Reject> {
        let (chosen, endpoints) = self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(sandbox).into_iter();
            let endpoints: Vec<(Network, Endpoint)> =
                endpoints.map(|(n, e)| (n.clone(), e.clone())).collect();
            (records.ways_out(sandbox), endpoints)
        });
        let told = |endpoint: &Endpoint| endpoint.plugin.as_ref().is_some_and(|p| p.way_out);
        for (network, endpoint) in &endpoints {
            if told(endpoint) && !chosen.contains(&endpoint.id) {
                self.revoke(network, endpoint).await?;
            }
        }
        for (network, endpoint) in &endpoints {
            let joined = endpoint.plugin.as_ref().is_some_and(|p| p.joined.is_some());
            if joined && !told(endpoint) && chosen.contains(&endpoint.id) {
                self.program(network, endpoint).await?;
            }
        }
        Ok(())
    }

    async fn program(&self, network: &Network, endpoint: &Endpoint) -> Result<(), Reject> {
        let Some(id) = endpoint.sandbox else {
            return Ok(());
        };
        let sandbox = self.sandbox(id)?;
        let driver = self.driver(network).await?;
        let mut facts = endpoint.plugin.clone().unwrap_or_default();
        facts.way_out = true;
        self.note_plugin(endpoint.id, Some(&facts)).await?;
        let EndpointRequest {
            network_id,
            endpoint_id,
        } = translate::endpoint_request(endpoint);
        let request = ProgramExternalConnectivityRequest {
            network_id,
            endpoint_id,
            options: translate::sandbox_labels(&sandbox),
        };
        let answer = driver.call_if_there(Method::ProgramExternalConnectivity, Some(&request));
        answer.await.map(|_: Option<Done>| ())
    }

    async fn revoke(&self, network: &Network, endpoint: &Endpoint) -> Result<(), Reject> {
        let driver = self.driver(network).await?;
        let request = translate::endpoint_request(endpoint);
        let answer = driver.call_if_there(Method::RevokeExternalConnectivity, Some(&request));
        let revoked = answer.await.map(|_: Option<Done>| ());
        let mut facts = endpoint.plugin.clone().unwrap_or_default();
        facts.way_out = false;
        self.note_plugin(endpoint.id, Some(&facts)).await?;
        revoked
    }

    /// Takes an endpoint out of its sandbox and lets its plugin forget it; the endpoint keeps its addresses. It is out
    /// even if the plugin fails, of which the first failure is told.
    pub(super) async fn detach(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let driver = match &endpoint.plugin {
            Some(_) => Some(self.driver(&network).await),
            None => None,
        };
        let request = translate::endpoint_request(&endpoint);
        let mut outcome = Ok(());
        if let (Some(Ok(driver)), Some(facts)) = (&driver, &endpoint.plugin) {
            if facts.way_out {
                outcome = outcome.and(self.revoke(&network, &endpoint).await);
            }
            let left = driver.call(Method::Leave, &request).await;
            outcome = outcome.and(left.map(|Done {}| ()));
        }
        if endpoint.attachment.is_some() {
            self.order(PluginCommand::Detach(id)).await?;
        }
        if let Some(Ok(driver)) = &driver {
            let deleted = driver.call(Method::DeleteEndpoint, &request).await;
            outcome = outcome.and(deleted.map(|Done {}| ()));
        }
        if endpoint.plugin.is_some() {
            self.note_plugin(id, None).await?;
        }
        match driver {
            Some(Err(reject)) => Err(reject),
            _ => outcome,
        }
    }

    /// Removes an endpoint, whatever its plugins say to that: it is noted.
    pub(super) async fn remove(&self, id: EndpointId) {
        let sandbox = self
            .endpoint(id)
            .ok()
            .and_then(|(_, endpoint)| endpoint.sandbox);
        note("removing an endpoint", self.detach(id).await);
        note("removing an endpoint", self.release_addresses(id).await);
        note(
            "removing an endpoint",
            self.order(PluginCommand::DropEndpoint(id)).await,
        );
        if let Some(sandbox) = sandbox {
            let settled = self.settle_ways_out(sandbox).await;
            note("choosing another way out", settled);
        }
    }

    pub(super) async fn delete_endpoint(&self, reference: &Reference) -> Result<Reply, Reject> {
        let (id, _turn) = self.endpoint_turn(reference).await?;
        self.remove(id).await;
        Ok(Reply::Done)
    }

    /// Joins an endpoint to a sandbox.
    pub(super) async fn join(
        &self,
        endpoint: &Reference,
        sandbox: Reference,
    ) -> Result<Reply, Reject> {
        let id = self.find_endpoint(endpoint)?.id;
        let sandbox_id = self.find_sandbox(&sandbox)?;
        let subjects = [Subject::Endpoint(id), Subject::Sandbox(sandbox_id)];
        let _turn = self.turn(subjects).await?;
        let endpoint = Reference(id.to_string());
        let reserve = PluginCommand::ReserveJoin {
            endpoint: endpoint.clone(),
            sandbox,
        };
        self.order(reserve).await?;
        let joined = match self.attach(id).await {
            Ok(()) => self.order(PluginCommand::FinishEndpoint(id)).await,
            Err(reject) => Err(reject),
        };
        if joined.is_err() {
            note("undoing a joining", self.leave_now(id).await);
        }
        joined
    }

    /// Takes an endpoint out of its sandbox.
    pub(super) async fn leave(&self, reference: &Reference) -> Result<Reply, Reject> {
        let (id, _turn) = self.endpoint_turn(reference).await?;
        self.leave_now(id).await
    }

    async fn leave_now(&self, id: EndpointId) -> Result<Reply, Reject> {
        let sandbox = self.endpoint(id)?.1.sandbox;
        note("taking an endpoint out", self.detach(id).await);
        let leave = tombolo_core::Command::Leave(Reference(id.to_string()));
        let left = self.shared.order(leave, None).await;
        if let Some(sandbox) = sandbox {
            let settled = self.settle_ways_out(sandbox).await;
            note("choosing another way out", settled);
        }
        left
    }

    /// Removes the endpoint that joins a sandbox to a network.
    pub(super) async fn disconnect(
        &self,
        network: Reference,
        sandbox: &Reference,
    ) -> Result<Reply, Reject> {
        let sandbox = self.find_sandbox(sandbox)?;
        let _turn = self.turn([Subject::Sandbox(sandbox)]).await?;
        let of = self.find_network(&network)?;
        let found = self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(sandbox).into_iter();
            let mut own = endpoints.filter(|(network, _)| network.id == of.id);
            own.next().map(|(_, endpoint)| endpoint.id)
        });
        match found.filter(|_| of.spec.has_plugin()) {
            Some(id) => {
                self.remove(id).await;
                Ok(Reply::Done)
            }
            None => {
                let sandbox_reference = Reference(sandbox.to_string());
                let disconnect = tombolo_core::Command::Disconnect {
                    network,
                    sandbox: sandbox_reference,
                };
                let done = self.shared.order(disconnect, None).await?;
                note(
                    "choosing another way out",
                    self.settle_ways_out(sandbox).await,
                );
                Ok(done)
            }
        }
    }

    /// An endpoint, and leave to work on it.
    async fn endpoint_turn(
        &self,
        reference: &Reference,
    ) -> Result<(EndpointId, super::Turn), Reject> {
        let endpoint = self.find_endpoint(reference)?;
        let sandbox = endpoint.sandbox.map(Subject::Sandbox).into_iter();
        let subjects = sandbox.chain([Subject::Endpoint(endpoint.id)]);
        let turn = self.turn(subjects).await?;
        // It may be gone by now.
        let id = self.find_endpoint(&Reference(endpoint.id.to_string()))?.id;
        Ok((id, turn))
    }

    async fn driver(&self, network: &Network) -> Result<Plugin, Reject> {
        let name = network.spec.plugin.as_deref().unwrap_or_default();
        self.plugins.open(name, Subsystem::NetworkDriver).await
    }

    async fn note_plugin(
        &self,
        id: EndpointId,
        facts: Option<&EndpointPlugin>,
    ) -> Result<(), Reject> {
        let facts = facts.map(|facts| Box::new(facts.clone()));
        self.order(PluginCommand::NotePlugin(id, facts))
            .await
            .map(drop)
    }

    /// Where the namespace of a sandbox is.
    fn sandbox_key(&self, sandbox: &Sandbox) -> PathBuf {
        match &sandbox.spec.netns {
            SandboxNetns::Adopted { path, .. } | SandboxNetns::Engine { path, .. } => path.clone(),
            SandboxNetns::New | SandboxNetns::Host => self.netns_dir.join(sandbox.netns_name()),
        }
    }
}
