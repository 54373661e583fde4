//! Removing what nobody uses.

use tombolo_core::model::SandboxState;
use tombolo_core::{Command, Reference, Reject, Reply};

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
            let stopped = records
                .sandboxes()
                .filter(|sandbox| sandbox.state == SandboxState::Stopped);
            let of_plugins = stopped.filter(|sandbox| {
                let endpoints = records.endpoints_of_sandbox(sandbox.id);
                endpoints
                    .iter()
                    .any(|(network, _)| network.spec.has_plugin())
            });
            of_plugins
                .map(|sandbox| (sandbox.id, sandbox.name.to_string()))
                .collect()
        });
        for (id, name) in stopped {
            let endpoints: Vec<String> = self.shared.look(|records| {
                let endpoints = records.endpoints_of_sandbox(id).into_iter();
                endpoints
                    .map(|(_, endpoint)| endpoint.name.to_string())
                    .collect()
            });
            let deleted = self.delete_sandbox(&Reference(id.to_string()), false).await;
            if deleted.is_ok() {
                removed.sandboxes.push(name);
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
            of_plugins
                .map(|endpoint| (endpoint.id, endpoint.name.to_string()))
                .collect()
        });
        for (id, name) in free {
            let deleted = self.delete_endpoint(&Reference(id.to_string())).await;
            if deleted.is_ok() {
                removed.endpoints.push(name);
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
            let deleted = self.delete_network(&Reference(id.to_string())).await;
            if self.network(id).is_err() {
                removed.networks.push(name);
            }
            note("pruning a network", deleted);
        }
    }
}
