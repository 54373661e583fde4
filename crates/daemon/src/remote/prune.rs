//! Removing what nobody uses.

use tombolo_core::model::{Sandbox, SandboxState};
use tombolo_core::{Command, Reference, Reject, Reply, Subject};

use super::{Remote, note};

/// What was removed, by name.
#[derive(Debug, Default)]
struct Removed {
    networks: Vec<String>,
    endpoints: Vec<String>,
    sandboxes: Vec<String>,
}

impl Remote {
    /// Removes what nobody uses of plugins' networks, then the rest; with `all`, stopped sandboxes and free endpoints,
    /// too.
    pub(super) async fn prune(&self, all: bool) -> Result<Reply, Reject> {
        let mut removed = Removed::default();
        if all {
            self.prune_sandboxes(&mut removed).await;
            self.prune_endpoints(&mut removed).await;
        }
        self.prune_networks(&mut removed).await;
        let command = if all {
            Command::Prune
        } else {
            Command::PruneNetworks
        };
        match self.shared.order(command, None).await? {
            Reply::Pruned {
                networks,
                endpoints,
                sandboxes,
            } => Ok(Reply::Pruned {
                networks: [removed.networks, networks].concat(),
                endpoints: [removed.endpoints, endpoints].concat(),
                sandboxes: [removed.sandboxes, sandboxes].concat(),
            }),
            other => Ok(other),
        }
    }

    async fn prune_sandboxes(&self, removed: &mut Removed) {
        let stopped: Vec<_> = self.shared.look(|records| {
            let stopped = records.sandboxes().filter(|sandbox| is_stopped(sandbox));
            let of_plugins = stopped.filter(|sandbox| {
                let endpoints = records.endpoints_of_sandbox(sandbox.id);
                endpoints
                    .iter()
                    .any(|(network, _)| network.spec.has_plugin())
            });
            of_plugins.map(|sandbox| sandbox.id).collect()
        });
        for id in stopped {
            // It may have been started while the one before it was removed.
            let Ok(_turn) = self.turn([Subject::Sandbox(id)]).await else {
                continue;
            };
            let Ok(sandbox) = self.sandbox(id) else {
                continue;
            };
            if !is_stopped(&sandbox) {
                continue;
            }
            let endpoints: Vec<String> = self.shared.look(|records| {
                let endpoints = records.endpoints_of_sandbox(id).into_iter();
                endpoints
                    .map(|(_, endpoint)| endpoint.name.to_string())
                    .collect()
            });
            let deleted = self.remove_sandbox(id, false).await;
            if deleted.is_ok() {
                removed.sandboxes.push(sandbox.name.to_string());
                removed.endpoints.extend(endpoints);
            }
            note("pruning a sandbox", deleted);
        }
    }

    async fn prune_endpoints(&self, removed: &mut Removed) {
        let free: Vec<_> = self.shared.look(|records| {
            let free = records
                .endpoints()
                .filter(|endpoint| endpoint.sandbox.is_none());
            let of_plugins = free.filter(|endpoint| {
                let network = records.network(endpoint.network);
                network.is_some_and(|network| network.spec.has_plugin())
            });
            of_plugins.map(|endpoint| endpoint.id).collect()
        });
        for id in free {
            let Ok(_turn) = self.turn([Subject::Endpoint(id)]).await else {
                continue;
            };
            let Ok((_, endpoint)) = self.endpoint(id) else {
                continue;
            };
            if endpoint.sandbox.is_some() {
                continue;
            }
            let deleted = self.remove_endpoint(id).await;
            if deleted.is_ok() {
                removed.endpoints.push(endpoint.name.to_string());
            }
            note("pruning an endpoint", deleted);
        }
    }

    async fn prune_networks(&self, removed: &mut Removed) {
        let unused: Vec<_> = self.shared.look(|records| {
            let networks = records
                .networks()
                .filter(|network| network.spec.has_plugin());
            let unused = networks
                .filter(|network| records.endpoints_of_network(network.id).next().is_none());
            unused
                .map(|network| (network.id, network.spec.name.to_string()))
                .collect()
        });
        for (id, name) in unused {
            // One that has an endpoint by now is refused.
            let deleted = self.delete_network(&Reference(id.to_string())).await;
            if self.network(id).is_err() {
                removed.networks.push(name);
            }
            note("pruning a network", deleted);
        }
    }
}

fn is_stopped(sandbox: &Sandbox) -> bool {
    sandbox.state == SandboxState::Stopped
}
