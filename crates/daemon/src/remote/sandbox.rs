//! Sandboxes with endpoints in networks of plugins.

use tombolo_core::id::{EndpointId, SandboxId};
use tombolo_core::model::{EndpointSpec, SandboxSpec};
use tombolo_core::{Command, PluginCommand, Reference, Reject, Reply, Subject};

use super::{Remote, new_id, note};

impl Remote {
    /// Makes a sandbox with its endpoints, one after the other in their order from the first on that a plugin must be
    /// asked about.
    pub(super) async fn create_sandbox(
        &self,
        spec: SandboxSpec,
        networks: Vec<(Reference, EndpointSpec)>,
    ) -> Result<Reply, Reject> {
        let seed = new_id()?;
        let id = SandboxId(seed);
        let _turn = self.turn([Subject::Sandbox(id)]).await?;
        let has_plugin = |(network, _): &(Reference, EndpointSpec)| {
            let found = self.find_network(network);
            found.is_ok_and(|network| network.spec.has_plugin())
        };
        let first = networks.iter().position(has_plugin);
        let mut own = networks;
        let rest = own.split_off(first.unwrap_or(own.len()));
        let hold = PluginCommand::HoldSandbox {
            spec: Box::new(spec),
            networks: own,
        };
        self.order_new(hold, seed).await?;
        match self.fill_sandbox(id, rest).await {
            Ok(reply) => Ok(reply),
            Err(reject) => {
                note("undoing a sandbox", self.retire_endpoints(id).await);
                note("undoing a sandbox", self.erase_sandbox(id, false).await);
                Err(reject)
            }
        }
    }

    async fn fill_sandbox(
        &self,
        id: SandboxId,
        networks: Vec<(Reference, EndpointSpec)>,
    ) -> Result<Reply, Reject> {
        for (network, spec) in networks {
            let endpoint = EndpointId(new_id()?);
            self.add_endpoint(endpoint, &network, Some(id), spec)
                .await?;
        }
        self.order(PluginCommand::FinishSandbox(id)).await
    }

    pub(super) async fn delete_sandbox(
        &self,
        reference: &Reference,
        keep_endpoints: bool,
    ) -> Result<Reply, Reject> {
        let (id, _turn) = self.sandbox_turn(reference).await?;
        self.remove_sandbox(id, keep_endpoints).await
    }

    /// Removes a sandbox; its endpoints go, or stay with their addresses.
    pub(super) async fn remove_sandbox(
        &self,
        id: SandboxId,
        keep_endpoints: bool,
    ) -> Result<Reply, Reject> {
        if !keep_endpoints {
            self.retire_endpoints(id).await?;
        }
        self.erase_sandbox(id, keep_endpoints).await
    }

    /// Writes down that endpoints go, before plugins are told.
    async fn retire_endpoints(&self, id: SandboxId) -> Result<(), Reject> {
        for endpoint in self.plugin_endpoints(id) {
            self.order(PluginCommand::RetireEndpoint(endpoint)).await?;
        }
        Ok(())
    }

    async fn erase_sandbox(&self, id: SandboxId, keep_endpoints: bool) -> Result<Reply, Reject> {
        for endpoint in self.plugin_endpoints(id) {
            note("detaching an endpoint", self.detach(endpoint).await);
            if !keep_endpoints {
                note(
                    "removing an endpoint",
                    self.release_addresses(endpoint).await,
                );
            }
        }
        let command = Command::DeleteSandbox {
            sandbox: Reference(id.to_string()),
            keep_endpoints,
        };
        self.shared.order(command, None).await
    }

    /// Takes a sandbox's namespace away; its endpoints keep their addresses.
    pub(super) async fn stop_sandbox(&self, reference: &Reference) -> Result<Reply, Reject> {
        let (id, _turn) = self.sandbox_turn(reference).await?;
        for endpoint in self.plugin_endpoints(id) {
            note("detaching an endpoint", self.detach(endpoint).await);
        }
        let command = Command::StopSandbox(Reference(id.to_string()));
        self.shared.order(command, None).await
    }

    pub(super) async fn start_sandbox(&self, reference: &Reference) -> Result<Reply, Reject> {
        let (id, _turn) = self.sandbox_turn(reference).await?;
        let start = Command::StartSandbox {
            sandbox: Reference(id.to_string()),
            picked: Vec::new(),
        };
        let started = self.shared.order(start, None).await?;
        let filled = match self.attach_all(id).await {
            Ok(()) => self.order(PluginCommand::FinishSandbox(id)).await,
            Err(reject) => Err(reject),
        };
        let Err(reject) = filled else {
            return Ok(started);
        };
        for endpoint in self.plugin_endpoints(id) {
            note("undoing a start", self.detach(endpoint).await);
        }
        let stop = Command::StopSandbox(Reference(id.to_string()));
        note("undoing a start", self.shared.order(stop, None).await);
        Err(reject)
    }

    /// Attaches the endpoints of a running sandbox that have no interface yet.
    pub(super) async fn attach_all(&self, id: SandboxId) -> Result<(), Reject> {
        for endpoint in self.plugin_endpoints(id) {
            self.ask_about_others(Some(id), endpoint).await;
            self.attach(endpoint).await?;
        }
        Ok(())
    }

    /// The endpoints of a sandbox about which plugins must be asked, in their order.
    fn plugin_endpoints(&self, id: SandboxId) -> Vec<EndpointId> {
        self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(id).into_iter();
            let of_plugins = endpoints.filter(|(network, _)| network.spec.has_plugin());
            of_plugins.map(|(_, endpoint)| endpoint.id).collect()
        })
    }

    /// A sandbox, and leave to work on it.
    async fn sandbox_turn(
        &self,
        reference: &Reference,
    ) -> Result<(SandboxId, super::Turn), Reject> {
        let id = self.find_sandbox(reference)?;
        let turn = self.turn([Subject::Sandbox(id)]).await?;
        // It may be gone by now.
        let id = self.find_sandbox(&Reference(id.to_string()))?;
        Ok((id, turn))
    }
}
