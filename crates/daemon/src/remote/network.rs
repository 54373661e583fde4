//! Making and removing networks.

use tombolo_core::id::NetworkId;
use tombolo_core::model::{GatewayMode, Network, NetworkSpec};
use tombolo_core::{Code, PluginCommand, Reference, Reject, Reply, Subject};

use super::plugins::Plugin;
use super::{Remote, new_id, note, translate};
use crate::plugin::wire::Done;
use crate::plugin::wire::method::{Method, Subsystem};
use crate::plugin::wire::network::{
    GwAllocCheckRequest, GwAllocCheckResponse, NetworkRequest, SCOPE_GLOBAL, SCOPE_LOCAL,
};

impl Remote {
    /// Makes a network.
    pub(super) async fn create_network(&self, mut spec: NetworkSpec) -> Result<Reply, Reject> {
        let driver = self.driver_of(&mut spec).await?;
        if let Some(ipam) = spec.allocator() {
            // Before anything is stored: a name of nobody is the usual mistake.
            self.plugins
                .open(&ipam.plugin, Subsystem::IpamDriver)
                .await?;
        }
        let seed = new_id()?;
        let id = NetworkId(seed);
        let _turn = self.turn([Subject::Network(id)]).await?;
        let reserve = PluginCommand::ReserveNetwork(Box::new(spec));
        self.order_new(reserve, seed).await?;
        match self.fill_network(id, driver.as_ref()).await {
            Ok(()) => Ok(Reply::Network(id)),
            Err(reject) => {
                self.undo_network(id).await;
                Err(reject)
            }
        }
    }

    /// The plugin that makes a network, if one does, and what it says beforehand.
    async fn driver_of(&self, spec: &mut NetworkSpec) -> Result<Option<Plugin>, Reject> {
        let Some(name) = spec.plugin.clone() else {
            return Ok(None);
        };
        let found = self.plugins.open(&name, Subsystem::NetworkDriver).await;
        let plugin = found.map_err(|reject| unknown_driver(reject, &name))?;
        let capabilities = plugin.driver_capabilities().await?;
        // On a host by itself engines make networks of a cluster as they make their own.
        if ![SCOPE_LOCAL, SCOPE_GLOBAL].contains(&capabilities.scope.as_str()) {
            let scope = &capabilities.scope;
            return Err(plugin.senseless(format!(
                "{scope:?} is no scope; they are {SCOPE_LOCAL:?} and {SCOPE_GLOBAL:?}"
            )));
        }
        if capabilities.gw_alloc_checker {
            let request = GwAllocCheckRequest {
                options: translate::network_options(spec),
            };
            let answer = plugin.call(Method::GwAllocCheck, &request).await?;
            do_without_gateways(spec, &answer);
        }
        Ok(Some(plugin))
    }

    async fn fill_network(&self, id: NetworkId, driver: Option<&Plugin>) -> Result<(), Reject> {
        self.request_pools(id).await?;
        if let Some(driver) = driver {
            self.order(PluginCommand::TellNetwork(id)).await?;
            let request = translate::create_network(&self.network(id)?);
            driver
                .call::<_, Done>(Method::CreateNetwork, &request)
                .await?;
        }
        self.order(PluginCommand::FinishNetwork(id)).await?;
        Ok(())
    }

    /// Takes back what was done for a network that did not come about. What a plugin says against it is only noted: it
    /// may know nothing of the network yet.
    pub(super) async fn undo_network(&self, id: NetworkId) {
        let Ok(network) = self.network(id) else {
            return;
        };
        note("undoing a network", self.delete_at_driver(&network).await);
        note("undoing a network", self.release_pools(id).await);
        note(
            "undoing a network",
            self.order(PluginCommand::DropNetwork(id)).await,
        );
    }

    /// Removes a network. It goes even if its plugins fail, which is told when it is gone.
    pub(super) async fn delete_network(&self, reference: &Reference) -> Result<Reply, Reject> {
        let id = self.find_network(reference)?.id;
        let _turn = self.turn([Subject::Network(id)]).await?;
        let reference = Reference(id.to_string());
        self.order(PluginCommand::RetireNetwork(reference)).await?;
        let network = self.network(id)?;
        let released = self.release_pools(id).await;
        let deleted = self.delete_at_driver(&network).await;
        let dropped = self.order(PluginCommand::DropNetwork(id)).await?;
        match released.and(deleted) {
            Ok(()) => Ok(dropped),
            Err(reject) => {
                let Reject { code, message, .. } = reject;
                let name = &network.spec.name;
                let message = format!("the network is removed here, but {message}");
                Err(Reject::new(code, name, message)
                    .hint("the plugin may have left something behind"))
            }
        }
    }

    async fn delete_at_driver(&self, network: &Network) -> Result<(), Reject> {
        let Some(name) = network.spec.plugin.as_ref().filter(|_| network.plugin_told) else {
            return Ok(());
        };
        let driver = self.plugins.open(name, Subsystem::NetworkDriver).await?;
        let driver = driver.hurried();
        let request = NetworkRequest {
            network_id: translate::wire_id(network.id),
        };
        driver
            .call(Method::DeleteNetwork, &request)
            .await
            .map(|Done {}| ())
    }
}

/// A driver that nobody has: a misspelt one of ours, or a plugin that does not run.
fn unknown_driver(reject: Reject, name: &str) -> Reject {
    if reject.code != Code::PluginUnavailable || !reject.message.starts_with("no plugin") {
        return reject;
    }
    let message = format!("no driver has this name: {}", reject.message);
    Reject::new(Code::UnknownOption, name, message)
        .hint("the drivers are bridge, null and host, and plugins that run")
}

/// A family without a gateway is one in which the host has no address.
fn do_without_gateways(spec: &mut NetworkSpec, answer: &GwAllocCheckResponse) {
    let asked = |ipv6: bool| {
        let mut subnets = spec.subnets.iter();
        subnets.any(|subnet| subnet.gateway.is_some_and(|ip| ip.is_ipv6() == ipv6))
    };
    let (asked4, asked6) = (asked(false), asked(true));
    if answer.skip_ipv4 && !asked4 {
        spec.gateway_mode4 = GatewayMode::Isolated;
    }
    if answer.skip_ipv6 && !asked6 {
        spec.gateway_mode6 = GatewayMode::Isolated;
    }
}
