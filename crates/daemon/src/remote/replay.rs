//! Address plugins that want everything in use requested again when the one who asked them begins anew
//! (`RequiresRequestReplay`): before anything else is asked of such a plugin, and soon even if nothing is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tombolo_core::id::NetworkId;
use tombolo_core::model::{IpamSpec, Network, Pool};
use tombolo_core::{Code, Controller, Reject};

use super::ipam::{endpoint_options, gateway_options, pool_request, request_address};
use super::plugins::Plugin;
use super::{Remote, note};
use crate::plugin::wire::ipam::{RequestPoolRequest, RequestPoolResponse};
use crate::plugin::wire::method::{Method, Subsystem};

/// Networks whose plugins were not asked again yet.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<BTreeMap<NetworkId, Gate>>);

/// Held by the one who asks.
type Gate = Arc<tokio::sync::Mutex<()>>;

impl Replays {
    /// What is to be asked again when a daemon begins.
    pub(crate) fn of(records: &Controller) -> Self {
        let wants = |network: &&Network| {
            let mut pools = network.pools.iter();
            pools.any(|pool| pool.plugin.as_ref().is_some_and(|of| of.replay))
        };
        let networks = records.networks().filter(wants);
        Self(Mutex::new(
            networks
                .map(|network| (network.id, Gate::default()))
                .collect(),
        ))
    }

    /// Those that are left.
    pub(super) fn networks(&self) -> Vec<NetworkId> {
        self.lock().keys().copied().collect()
    }

    fn gate(&self, id: NetworkId) -> Option<Gate> {
        self.lock().get(&id).cloned()
    }

    fn end(&self, id: NetworkId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// Sees to it that the plugin of a network knows what it gave out. It fails while the plugin is silent.
    pub(super) async fn replay(&self, id: NetworkId) -> Result<(), Reject> {
        let Some(gate) = self.replays.gate(id) else {
            return Ok(());
        };
        let _asking = gate.lock().await;
        // Somebody else may have asked meanwhile.
        if self.replays.gate(id).is_none() {
            return Ok(());
        }
        if let Ok(network) = self.network(id)
            && let Some(ipam) = network.spec.allocator()
        {
            let plugin = self.plugins.open(&ipam.plugin, Subsystem::IpamDriver);
            let plugin = plugin.await?.hurried();
            self.request_again(&network, ipam, &plugin).await?;
        }
        self.replays.end(id);
        Ok(())
    }

    async fn request_again(
        &self,
        network: &Network,
        ipam: &IpamSpec,
        plugin: &Plugin,
    ) -> Result<(), Reject> {
        for pool in &network.pools {
            let Some(of) = &pool.plugin else { continue };
            let ranges = &pool.ranges;
            let request = pool_request((&of.space, ipam), (Some(pool.subnet), ranges));
            // One that has it already calls it what it did.
            let id = told(request_pool(plugin, &request, pool).await)?;
            let id = id.unwrap_or_else(|| of.id.clone());
            if id != of.id {
                let mut pool = pool.clone();
                if let Some(of) = &mut pool.plugin {
                    of.id.clone_from(&id);
                }
                self.note_pool(network.id, &pool).await?;
            }
            for address in &of.requested {
                let options = match pool.gateway == Some(*address) {
                    true => gateway_options(),
                    false => BTreeMap::new(),
                };
                let wish = (Some(*address), options);
                told(request_address(plugin, &id, pool, wish).await)?;
            }
            for (address, options) in self.in_use(network.id, pool, plugin).await? {
                let wish = (Some(address), options);
                told(request_address(plugin, &id, pool, wish).await)?;
            }
        }
        Ok(())
    }

    /// The addresses of a pool that endpoints have, with what a request for each says.
    async fn in_use(
        &self,
        network: NetworkId,
        pool: &Pool,
        plugin: &Plugin,
    ) -> Result<Vec<(IpAddr, BTreeMap<String, String>)>, Reject> {
        let capabilities = plugin.ipam_capabilities().await?;
        Ok(self.shared.look(|records| {
            let endpoints = records.endpoints_of_network(network);
            let used = endpoints.flat_map(|endpoint| {
                let own = endpoint.addresses.iter().map(|net| net.addr());
                let own = own.filter(|ip| pool.subnet.contains(ip));
                own.map(|ip| (ip, endpoint_options(endpoint, &capabilities)))
            });
            used.collect()
        }))
    }
}

/// What the plugin calls the pool now.
async fn request_pool(
    plugin: &Plugin,
    request: &RequestPoolRequest,
    pool: &Pool,
) -> Result<String, Reject> {
    let answer: RequestPoolResponse = plugin.call(Method::RequestPool, request).await?;
    if answer.pool_id.is_empty() || answer.pool.parse() != Ok(pool.subnet) {
        let (subnet, said) = (pool.subnet, answer.pool);
        return Err(plugin.senseless(format!("{subnet} was asked for again, and {said} answered")));
    }
    Ok(answer.pool_id)
}

/// A plugin that refuses something has it already, or gave it away: nothing can be done about either.
fn told<T>(outcome: Result<T, Reject>) -> Result<Option<T>, Reject> {
    match outcome {
        Err(reject) if reject.code == Code::PluginRefused => {
            note("asking for addresses again", Err::<(), _>(reject));
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}
