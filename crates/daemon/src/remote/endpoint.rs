//! Requests about endpoints: making, joining, leaving, removing.

use tombolo_core::id::{EndpointId, SandboxId};
use tombolo_core::model::EndpointSpec;
use tombolo_core::{Command, PluginCommand, Reference, Reject, Reply, Subject};

use super::{Remote, Turn, new_id, note};

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
                self.undo_endpoint(id).await;
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
        self.ask_about_others(sandbox, id).await;
        let filled = match self.request_addresses(id).await {
            Ok(()) => self.attach(id).await,
            refused => refused,
        };
        if filled.is_err() {
            self.undo_endpoint(id).await;
        }
        filled
    }

    /// Removes an endpoint that did not come about.
    async fn undo_endpoint(&self, id: EndpointId) {
        let retired = self.order(PluginCommand::RetireEndpoint(id)).await;
        note("undoing an endpoint", retired);
        note("undoing an endpoint", self.erase_endpoint(id).await);
    }

    /// Removes an endpoint. It is written down first, since from then on its plugins may know nothing of it.
    pub(super) async fn remove_endpoint(&self, id: EndpointId) -> Result<Reply, Reject> {
        self.order(PluginCommand::RetireEndpoint(id)).await?;
        self.erase_endpoint(id).await
    }

    /// Removes an endpoint that is marked so, whatever its plugins say to that: it is noted.
    pub(super) async fn erase_endpoint(&self, id: EndpointId) -> Result<Reply, Reject> {
        let sandbox = self.endpoint(id)?.1.sandbox;
        note("removing an endpoint", self.take_out(id).await);
        self.ask_about_others(sandbox, id).await;
        self.choose_ways_out(sandbox).await;
        note("removing an endpoint", self.forget(id).await);
        note("removing an endpoint", self.release_addresses(id).await);
        self.order(PluginCommand::DropEndpoint(id)).await
    }

    /// Has what is left of a sandbox's endpoints lead out of it.
    async fn choose_ways_out(&self, sandbox: Option<SandboxId>) {
        if let Some(sandbox) = sandbox {
            let settled = self.settle_ways_out(sandbox).await;
            note("choosing another way out", settled);
        }
    }

    pub(super) async fn delete_endpoint(&self, reference: &Reference) -> Result<Reply, Reject> {
        let (id, _turn) = self.endpoint_turn(reference).await?;
        let (network, endpoint) = self.endpoint(id)?;
        if network.spec.has_plugin() {
            return self.remove_endpoint(id).await;
        }
        let delete = Command::DeleteEndpoint(Reference(id.to_string()));
        let done = self.shared.order(delete, None).await?;
        self.choose_ways_out(endpoint.sandbox).await;
        Ok(done)
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
        let (network, endpoint) = self.endpoint(id)?;
        if network.spec.has_plugin() {
            note("taking an endpoint out", self.detach(id).await);
        }
        let leave = Command::Leave(Reference(id.to_string()));
        let left = self.shared.order(leave, None).await;
        self.choose_ways_out(endpoint.sandbox).await;
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
            Some(id) => self.remove_endpoint(id).await,
            None => {
                let sandbox_reference = Reference(sandbox.to_string());
                let disconnect = Command::Disconnect {
                    network,
                    sandbox: sandbox_reference,
                };
                let done = self.shared.order(disconnect, None).await?;
                self.choose_ways_out(Some(sandbox)).await;
                Ok(done)
            }
        }
    }

    /// An endpoint, and leave to work on it.
    async fn endpoint_turn(&self, reference: &Reference) -> Result<(EndpointId, Turn), Reject> {
        let endpoint = self.find_endpoint(reference)?;
        let sandbox = endpoint.sandbox.map(Subject::Sandbox).into_iter();
        let subjects = sandbox.chain([Subject::Endpoint(endpoint.id)]);
        let turn = self.turn(subjects).await?;
        // It may be gone by now.
        let id = self.find_endpoint(&Reference(endpoint.id.to_string()))?.id;
        Ok((id, turn))
    }
}
