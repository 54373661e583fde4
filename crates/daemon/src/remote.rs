//! Networks of plugins of others: whoever asks for one, or for something in one, is served here. A request becomes parts
//! that the controller carries out, and calls of the plugins between them; what the plugins answer is stored as facts. A
//! part that fails takes the earlier ones back, last first.
//!
//! The engine is never held while a plugin is asked, so that others go on. What belongs together is kept together by
//! [`turns`]; what a daemon that ended had begun is found and undone by [`sweep`].

mod attach;
mod endpoint;
mod ipam;
mod network;
pub(crate) mod plugins;
mod prune;
pub(crate) mod replay;
mod sandbox;
pub(crate) mod sweep;
mod translate;
pub(crate) mod turns;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tombolo_api::{ApiError, Request, Response};
use tombolo_core::id::{EndpointId, NetworkId, SandboxId};
use tombolo_core::model::{Endpoint, Network, Sandbox};
use tombolo_core::{Code, Command, Controller, PluginCommand, Reference, Reject, Reply, Subject};

use crate::engine::random;
use crate::queries::Show;
use crate::run::Shared;
use crate::translate::api_error;
use plugins::Plugins;
use replay::Replays;
use turns::{Turn, Turns};

/// Serves requests about networks of plugins.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    shared: Shared,
    plugins: Arc<Plugins>,
    turns: Arc<Turns>,
    replays: Arc<Replays>,
    /// Where the namespaces of sandboxes are.
    netns_dir: PathBuf,
}

impl Remote {
    pub(crate) fn new(
        shared: Shared,
        plugins: Arc<Plugins>,
        (turns, replays): (Arc<Turns>, Arc<Replays>),
        netns_dir: PathBuf,
    ) -> Self {
        Self {
            shared,
            plugins,
            turns,
            replays,
            netns_dir,
        }
    }

    /// Whether a request is served here rather than by the engine alone.
    pub(crate) fn concerns(&self, controller: &Controller, request: &Request) -> bool {
        concerns(controller, &self.turns, request)
    }

    /// Answers a request that is served here.
    pub(crate) async fn call(self, request: Request) -> Result<Response, ApiError> {
        let show = Show::of(&request);
        let command = self.shared.understood(request);
        let outcome = match command {
            Ok(command) => self.carry_out(command).await,
            Err(reject) => Err(reject),
        };
        match outcome {
            Ok(reply) => self.shared.shown(&show, reply),
            Err(reject) => Err(api_error(&reject)),
        }
    }

    async fn carry_out(&self, command: Command) -> Result<Reply, Reject> {
        match command {
            Command::CreateNetwork { spec, .. } => self.create_network(*spec).await,
            Command::DeleteNetwork(reference) => self.delete_network(&reference).await,
            Command::PruneNetworks => self.prune(false).await,
            Command::Prune => self.prune(true).await,
            Command::CreateEndpoint {
                network,
                sandbox,
                spec,
            } => self.create_endpoint(&network, sandbox, *spec).await,
            Command::DeleteEndpoint(reference) => self.delete_endpoint(&reference).await,
            Command::Join { endpoint, sandbox } => self.join(&endpoint, sandbox).await,
            Command::Leave(reference) => self.leave(&reference).await,
            Command::Disconnect { network, sandbox } => self.disconnect(network, &sandbox).await,
            Command::CreateSandbox { spec, networks } => self.create_sandbox(*spec, networks).await,
            Command::DeleteSandbox {
                sandbox,
                keep_endpoints,
            } => self.delete_sandbox(&sandbox, keep_endpoints).await,
            Command::StopSandbox(reference) => self.stop_sandbox(&reference).await,
            Command::StartSandbox { sandbox, .. } => self.start_sandbox(&sandbox).await,
            other => self.shared.order(other, None).await,
        }
    }

    async fn order(&self, command: PluginCommand) -> Result<Reply, Reject> {
        self.shared.order(Command::Plugin(command), None).await
    }

    /// The same for one that takes an address: another endpoint may be giving it up this moment.
    async fn order_when_free(&self, command: PluginCommand) -> Result<(), Reject> {
        let command = Command::Plugin(command);
        self.shared.order_when_free(command, None).await.map(drop)
    }

    /// The same for one that makes something, whose id the seed is.
    async fn order_new(&self, command: PluginCommand, seed: u128) -> Result<Reply, Reject> {
        self.shared
            .order(Command::Plugin(command), Some(seed))
            .await
    }

    fn network(&self, id: NetworkId) -> Result<Network, Reject> {
        let found = self.shared.look(|records| records.network(id).cloned());
        found.ok_or_else(|| vanished(Code::UnknownNetwork, id))
    }

    fn endpoint(&self, id: EndpointId) -> Result<(Network, Endpoint), Reject> {
        let found = self.shared.look(|records| {
            let endpoint = records.endpoint(id)?;
            let network = records.network(endpoint.network)?;
            Some((network.clone(), endpoint.clone()))
        });
        found.ok_or_else(|| vanished(Code::UnknownEndpoint, id))
    }

    fn sandbox(&self, id: SandboxId) -> Result<Sandbox, Reject> {
        let found = self.shared.look(|records| records.sandbox(id).cloned());
        found.ok_or_else(|| vanished(Code::UnknownSandbox, id))
    }

    fn find_sandbox(&self, reference: &Reference) -> Result<SandboxId, Reject> {
        self.shared
            .look(|records| records.find_sandbox(reference).map(|sandbox| sandbox.id))
    }

    fn find_network(&self, reference: &Reference) -> Result<Network, Reject> {
        self.shared
            .look(|records| records.find_network(reference).cloned())
    }

    fn find_endpoint(&self, reference: &Reference) -> Result<Endpoint, Reject> {
        self.shared
            .look(|records| records.find_endpoint(reference).cloned())
    }

    async fn turn(&self, subjects: impl IntoIterator<Item = Subject>) -> Result<Turn, Reject> {
        self.turns.take(subjects.into_iter().collect()).await
    }
}

/// Whether a request is served here: it is about something of a plugin's, or about what is worked on here.
fn concerns(controller: &Controller, turns: &Turns, request: &Request) -> bool {
    let network = |reference: &str| {
        let found = controller.find_network(&Reference(reference.to_owned()));
        found.is_ok_and(|network| network.spec.has_plugin())
    };
    let sandbox = |reference: &str| {
        let found = controller.find_sandbox(&Reference(reference.to_owned()));
        found.is_ok_and(|found| {
            turns.is_taken(Subject::Sandbox(found.id))
                || controller
                    .endpoints_of_sandbox(found.id)
                    .iter()
                    .any(|(network, _)| network.spec.has_plugin())
        })
    };
    let endpoint = |reference: &str| {
        let found = controller.find_endpoint(&Reference(reference.to_owned()));
        found.is_ok_and(|found| {
            let of = controller.network(found.network);
            of.is_some_and(|network| network.spec.has_plugin())
                || found.sandbox.is_some_and(|id| sandbox(&id.to_string()))
        })
    };
    match request {
        Request::NetworkCreate(create) => {
            crate::translate::is_plugin(&create.driver) || create.ipam_driver.is_some()
        }
        Request::NetworkDelete { reference } => network(reference),
        Request::NetworkPrune | Request::Prune => controller
            .networks()
            .any(|network| network.spec.has_plugin()),
        Request::NetworkConnect { reference, connect } => {
            network(reference) || sandbox(&connect.sandbox)
        }
        Request::NetworkDisconnect {
            reference,
            disconnect,
        } => network(reference) || sandbox(&disconnect.sandbox),
        Request::EndpointCreate(create) => {
            network(&create.network) || create.sandbox.as_deref().is_some_and(sandbox)
        }
        Request::EndpointDelete { reference } | Request::EndpointLeave { reference } => {
            endpoint(reference)
        }
        Request::EndpointJoin { reference, join } => endpoint(reference) || sandbox(&join.sandbox),
        Request::SandboxCreate(create) => create
            .networks
            .iter()
            .any(|attachment| network(&attachment.network)),
        Request::SandboxDelete { reference, .. }
        | Request::SandboxStop { reference }
        | Request::SandboxStart { reference } => sandbox(reference),
        _ => false,
    }
}

fn vanished(code: Code, id: impl std::fmt::Display) -> Reject {
    let message = "the object vanished while the request was under way";
    Reject::new(code, id, message).hint("try again")
}

fn new_id() -> Result<u128, Reject> {
    random().map_err(|error| {
        let message = format!("no random number can be had: {error}");
        Reject::new(Code::Kernel, "random", message)
    })
}

/// Tells of what went wrong where nobody waits for it, or something else is told.
fn note(doing: &str, outcome: Result<impl Sized, Reject>) {
    if let Err(reject) = outcome {
        tracing::warn!(%reject, "{doing}");
    }
}

fn subjects(of: &[Subject]) -> BTreeSet<Subject> {
    of.iter().copied().collect()
}
