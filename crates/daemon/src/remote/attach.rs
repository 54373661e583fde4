//! What plugins are asked of endpoints that come to a sandbox and leave it, in the order of Docker's engine since version 28.

use std::path::PathBuf;

use tombolo_core::driver::remote::{is_told_way_out, joined};
use tombolo_core::id::{EndpointId, SandboxId};
use tombolo_core::model::{Driver, Endpoint, EndpointPlugin, Network, Sandbox, SandboxNetns};
use tombolo_core::{PluginCommand, Reject};

use super::plugins::Plugin;
use super::{Remote, new_id, note, translate};
use crate::plugin::wire::Done;
use crate::plugin::wire::method::{Method, Subsystem};
use crate::plugin::wire::network::{
    CreateEndpointResponse, EndpointOperInfoResponse, EndpointRequest, JoinRequest, JoinResponse,
    ProgramExternalConnectivityRequest,
};

impl Remote {
    /// Gives an endpoint its interface in its sandbox, if that runs. Nothing is left of it when that fails, but the
    /// endpoint itself.
    pub(super) async fn attach(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let sandbox = endpoint.sandbox.map(|id| self.sandbox(id)).transpose()?;
        let Some(sandbox) = sandbox.filter(Sandbox::is_live) else {
            return Ok(());
        };
        if network.spec.driver != Driver::Remote {
            if endpoint.attachment.is_none() {
                self.order(PluginCommand::Attach(id)).await?;
            }
            return self.settle_ways_out(sandbox.id).await;
        }
        if endpoint.attachment.is_some() {
            return Ok(());
        }
        let attached = match self.ask_and_attach(id, &sandbox).await {
            Ok(()) => self.settle_ways_out(sandbox.id).await,
            refused => refused,
        };
        let told = match attached {
            Ok(()) => self.ask_about(id, false).await,
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
        let (network, _) = self.endpoint(id)?;
        let driver = self.driver(&network).await?;
        let mut facts = EndpointPlugin {
            draw: new_draw()?,
            ..EndpointPlugin::default()
        };
        // From now on the plugin may know of it.
        self.note_plugin(id, Some(&facts)).await?;
        let (_, endpoint) = self.endpoint(id)?;
        let request = translate::create_endpoint(&network, &endpoint, sandbox);
        let made: CreateEndpointResponse = driver.call(Method::CreateEndpoint, &request).await?;
        let added = translate::added(&endpoint, made.interface);
        let added = added.map_err(|text| driver.senseless(text))?;
        (facts.mac, facts.addresses) = (added.mac, added.addresses);
        self.note_plugin(id, Some(&facts)).await?;
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

    /// Asks a plugin about an endpoint, as engines do when it is there; in passing, where nothing hangs on its answer.
    async fn ask_about(&self, id: EndpointId, in_passing: bool) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let driver = self.driver(&network).await?;
        let driver = if in_passing { driver.brief() } else { driver };
        let request = translate::endpoint_request(&endpoint);
        let answer = driver.call_if_there(Method::EndpointOperInfo, Some(&request));
        answer.await.map(|_: Option<EndpointOperInfoResponse>| ())
    }

    /// Asks plugins about the other endpoints of a sandbox, as engines do before one comes and when one has gone. What they
    /// say to that is only noted.
    pub(super) async fn ask_about_others(&self, sandbox: Option<SandboxId>, but: EndpointId) {
        let Some(sandbox) = sandbox else {
            return;
        };
        let joined: Vec<EndpointId> = self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(sandbox).into_iter();
            let joined =
                endpoints.filter(|(_, endpoint)| endpoint.id != but && joined(endpoint).is_some());
            joined.map(|(_, endpoint)| endpoint.id).collect()
        });
        for id in joined {
            note("asking about an endpoint", self.ask_about(id, true).await);
        }
    }

    /// Tells plugins which endpoint has become the way out of a sandbox, and which is it no more.
    pub(super) async fn settle_ways_out(&self, sandbox: SandboxId) -> Result<(), Reject> {
        let (chosen, endpoints) = self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(sandbox).into_iter();
            let endpoints: Vec<(Network, Endpoint)> =
                endpoints.map(|(n, e)| (n.clone(), e.clone())).collect();
            (records.ways_out(sandbox), endpoints)
        });
        for (network, endpoint) in &endpoints {
            if is_told_way_out(endpoint) && !chosen.contains(&endpoint.id) {
                self.revoke(network, endpoint).await?;
            }
        }
        for (network, endpoint) in &endpoints {
            let is_due = !is_told_way_out(endpoint) && chosen.contains(&endpoint.id);
            if joined(endpoint).is_some() && is_due {
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
        let programmed = answer.await.map(|_: Option<Done>| ());
        if programmed.is_err() {
            // Some of it may be done.
            note("undoing a way out", self.revoke(network, endpoint).await);
        }
        programmed
    }

    async fn revoke(&self, network: &Network, endpoint: &Endpoint) -> Result<(), Reject> {
        let driver = self.driver(network).await?.hurried();
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
        let out = self.take_out(id).await;
        let forgotten = self.forget(id).await;
        out.and(forgotten)
    }

    /// Takes an endpoint out of its sandbox, of which its plugin still knows it. It is out even if the plugin fails.
    pub(super) async fn take_out(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let told = match &endpoint.plugin {
            Some(facts) => self.tell_of_leaving(&network, &endpoint, facts).await,
            None => Ok(()),
        };
        if endpoint.attachment.is_some() {
            self.order(PluginCommand::Detach(id)).await?;
        }
        told
    }

    async fn tell_of_leaving(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        facts: &EndpointPlugin,
    ) -> Result<(), Reject> {
        let driver = self.driver(network).await?;
        let revoked = match facts.way_out {
            true => self.revoke(network, endpoint).await,
            false => Ok(()),
        };
        let request = translate::endpoint_request(endpoint);
        let left = driver.hurried().call(Method::Leave, &request).await;
        revoked.and(left.map(|Done {}| ()))
    }

    /// Lets the plugin of an endpoint forget it. Here it is forgotten even if the plugin fails.
    pub(super) async fn forget(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        if endpoint.plugin.is_none() {
            return Ok(());
        }
        let request = translate::endpoint_request(&endpoint);
        let deleted = match self.driver(&network).await {
            Ok(driver) => {
                driver
                    .hurried()
                    .call(Method::DeleteEndpoint, &request)
                    .await
            }
            Err(reject) => Err(reject),
        };
        self.note_plugin(id, None).await?;
        deleted.map(|Done {}| ())
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
        self.order_when_free(PluginCommand::NotePlugin(id, facts))
            .await
    }

    /// Where the namespace of a sandbox is.
    fn sandbox_key(&self, sandbox: &Sandbox) -> PathBuf {
        match &sandbox.spec.netns {
            SandboxNetns::Adopted { path, .. } | SandboxNetns::Engine { path, .. } => path.clone(),
            SandboxNetns::New | SandboxNetns::Host => self.netns_dir.join(sandbox.netns_name()),
        }
    }
}

fn new_draw() -> Result<u64, Reject> {
    // Half of the bits always fit.
    Ok(u64::try_from(new_id()? >> 64).unwrap_or_default())
}
