//! What was begun and not ended: by a daemon that was killed, or in a sandbox whose namespace vanished. Plugins are told,
//! as well as they listen; once, as nobody knows when one that is gone will be back.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tombolo_core::id::{EndpointId, NetworkId, SandboxId};
use tombolo_core::model::{Driver, NetworkState, SandboxState};
use tombolo_core::{Controller, Subject};

use super::{Remote, note, subjects};

/// How often it is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is to be done about something that nobody works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// An endpoint that is to go.
    Endpoint(EndpointId, Option<SandboxId>),
    /// An endpoint that has lost its sandbox's namespace: its plugin is to forget it.
    Known(EndpointId, Option<SandboxId>),
    /// A network that is to go.
    Network(NetworkId),
}

/// Puts right what was left, and goes on to look for more.
pub(crate) async fn run(remote: Remote) {
    for sandbox in half_started(&remote) {
        let remote = remote.clone();
        tokio::spawn(async move { remote.start_again(sandbox).await });
    }
    let mut look = interval(SWEEP_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for left in remote.shared.look(left) {
            remote.put_right(left).await;
        }
    }
}

/// Running sandboxes some of whose endpoints are not attached: their start was not ended.
fn half_started(remote: &Remote) -> Vec<SandboxId> {
    remote.shared.look(|records| {
        let sandboxes = records
            .sandboxes()
            .filter(|sandbox| sandbox.state == SandboxState::Running);
        let half = sandboxes.filter(|sandbox| {
            let endpoints = records.endpoints_of_sandbox(sandbox.id);
            endpoints.iter().any(|(network, endpoint)| {
                network.spec.driver == Driver::Remote && endpoint.attachment.is_none()
            })
        });
        half.map(|sandbox| sandbox.id).collect()
    })
}

/// Everything that was left. Endpoints come before their networks.
fn left(records: &Controller) -> Vec<Left> {
    let of_plugins = |id: NetworkId| {
        let network = records.network(id);
        network.is_some_and(|network| network.spec.has_plugin())
    };
    let endpoints = records
        .endpoints()
        .filter(|endpoint| of_plugins(endpoint.network));
    let endpoints = endpoints.filter_map(|endpoint| {
        let (id, sandbox) = (endpoint.id, endpoint.sandbox);
        match endpoint.plugin {
            _ if endpoint.deleting => Some(Left::Endpoint(id, sandbox)),
            Some(_) if endpoint.attachment.is_none() => Some(Left::Known(id, sandbox)),
            _ => None,
        }
    });
    let networks = records.networks().filter(|network| {
        let unfinished = matches!(
            network.state,
            NetworkState::Reserved | NetworkState::Deleting
        );
        unfinished && network.spec.has_plugin()
    });
    endpoints
        .chain(networks.map(|network| Left::Network(network.id)))
        .collect()
}

impl Remote {
    async fn put_right(&self, what: Left) {
        let all = match what {
            Left::Endpoint(id, sandbox) | Left::Known(id, sandbox) => {
                let mut all = subjects(&[Subject::Endpoint(id)]);
                all.extend(sandbox.map(Subject::Sandbox));
                all
            }
            Left::Network(id) => subjects(&[Subject::Network(id)]),
        };
        // Somebody is at it.
        let Some(turn) = self.turns.try_take(&all) else {
            return;
        };
        // Things may have changed since they were looked at.
        if !self.shared.look(|records| left(records).contains(&what)) {
            return;
        }
        let remote = self.clone();
        // Others need not wait for a plugin that hangs.
        tokio::spawn(async move {
            match what {
                Left::Endpoint(id, _) => remote.remove(id).await,
                Left::Known(id, _) => {
                    note("telling a plugin what is gone", remote.detach(id).await);
                }
                Left::Network(id) => {
                    let is_used = remote
                        .shared
                        .look(|records| records.endpoints_of_network(id).next().is_some());
                    if !is_used {
                        remote.undo_network(id).await;
                    }
                }
            }
            drop(turn);
        });
    }

    /// Attaches what a killed daemon had not attached yet.
    async fn start_again(&self, id: SandboxId) {
        let Ok(_turn) = self.turn([Subject::Sandbox(id)]).await else {
            return;
        };
        let half_known: Vec<EndpointId> = self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(id).into_iter();
            let known = endpoints.filter(|(_, e)| e.plugin.is_some() && e.attachment.is_none());
            known.map(|(_, endpoint)| endpoint.id).collect()
        });
        for endpoint in half_known {
            let told = self.detach(endpoint).await;
            note("telling a plugin what is gone", told);
        }
        note("going on with a start", self.attach_all(id).await);
    }
}
