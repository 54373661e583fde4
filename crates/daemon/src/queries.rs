//! What the daemon answers without changing anything, and how it shows what it did.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;
use tombolo_api::types::{self, Counts, Info, Version};
use tombolo_api::{ApiError, ErrorCode, Request, Response};
use tombolo_core::model::{Endpoint, Network, Publication, Sandbox};
use tombolo_core::{Command, Controller, Reference, Reject, Reply};
use tombolo_kernel::Kernel;

use crate::config::Config;
use crate::doctor;
use crate::outside::Outside;
use crate::remote::plugins::Plugins;
use crate::translate::{api_error, names, view};

/// What does not change while the daemon runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    netns_dir: PathBuf,
    run_dir: PathBuf,
    state_dir: PathBuf,
    started_ms: u64,
    plugins: Arc<Plugins>,
}

impl Daemon {
    pub(crate) fn new(config: &Config, started_ms: u64) -> Self {
        Self {
            netns_dir: config.run_dir.join("netns"),
            run_dir: config.run_dir.clone(),
            state_dir: config.state_dir.clone(),
            started_ms,
            plugins: Arc::new(Plugins::new(
                &config.plugins,
                config.docker.plugin_socket.clone(),
            )),
        }
    }

    /// The plugins of others.
    pub(crate) fn plugins(&self) -> &Arc<Plugins> {
        &self.plugins
    }

    /// Where the namespaces are that we make.
    pub(crate) fn netns_dir(&self) -> &Path {
        &self.netns_dir
    }

    /// A network with the plugins that it needs, and how they are.
    fn network(&self, controller: &Controller, network: &Network) -> types::Network {
        let names = network.spec.plugins();
        let plugins = names.map(|name| self.plugins.status(name));
        types::Network {
            plugins: plugins.collect(),
            ..view::network(controller, network)
        }
    }

    /// Where the namespaces and files of sandboxes are.
    pub(crate) fn places<'a>(&'a self, outside: &'a Outside) -> view::Places<'a> {
        view::Places {
            netns: &self.netns_dir,
            files: outside.files(),
        }
    }
}

/// What of an outcome the one who asked wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Show {
    /// The object that was made or changed.
    Whole,
    /// What differs, rather than what was mended.
    Drift,
    /// These publications of the sandbox that was changed.
    Publications(Vec<Publication>),
    /// That it is done.
    Done,
}

impl Show {
    /// What the answer to a request shows.
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Drift => Self::Drift,
            Request::PublicationsRemove { .. } => Self::Done,
            _ => Self::Whole,
        }
    }

    /// The same for what the request turned out to be.
    pub(crate) fn with(self, command: &Command) -> Self {
        match command {
            Command::Publish { publications, .. } => Self::Publications(publications.clone()),
            _ => self,
        }
    }
}

/// Answers a request that only looks.
pub(crate) fn answer(
    controller: &Controller,
    kernel: &Kernel,
    daemon: &Daemon,
    outside: &Outside,
    request: Request,
) -> Result<Response, ApiError> {
    let places = daemon.places(outside);
    let reject = |reject: Reject| api_error(&reject);
    match request {
        Request::Version => Ok(Response::Version(version())),
        Request::Info => Ok(Response::Info(info(controller, daemon))),
        Request::NetworkList(filter) => Ok(networks(controller, daemon, &filter)),
        Request::NetworkInspect { reference } => {
            let network = controller
                .find_network(&Reference(reference))
                .map_err(reject)?;
            Ok(Response::Network(daemon.network(controller, network)))
        }
        Request::EndpointList(filter) => endpoints(controller, filter),
        Request::EndpointInspect { reference } => {
            let endpoint = controller
                .find_endpoint(&Reference(reference))
                .map_err(reject)?;
            Ok(Response::Endpoint(view::endpoint(controller, endpoint)))
        }
        Request::SandboxList(filter) => Ok(sandboxes(controller, &filter, places)),
        Request::SandboxInspect { reference } => {
            let sandbox = controller
                .find_sandbox(&Reference(reference))
                .map_err(reject)?;
            Ok(Response::Sandbox(view::sandbox(
                controller, sandbox, places,
            )))
        }
        Request::SandboxPublications { reference } => publications(controller, reference),
        Request::PublicationList => {
            let all = controller.sandboxes();
            let all = all.flat_map(|s| view::publication::publications(controller, s));
            Ok(Response::Publications(all.collect()))
        }
        Request::DnsNames(filter) => dns_names(controller, filter),
        Request::Explain { reference } => explanation(controller, reference),
        Request::Doctor => {
            let findings = doctor::findings(controller, kernel, outside, daemon.plugins());
            Ok(Response::FindingReport(types::FindingReport { findings }))
        }
        _ => Err(ApiError::new(
            ErrorCode::Internal,
            "the daemon has no answer to this request",
        )),
    }
}

/// The publications of a sandbox that are to be shown.
fn shown(controller: &Controller, sandbox: &Sandbox, show: &Show) -> Vec<types::Publication> {
    let all = view::publication::publications(controller, sandbox);
    let Show::Publications(wanted) = show else {
        return all;
    };
    let is_wanted = |p: &Publication| wanted.iter().any(|w| w.is_same_place(p));
    let records = sandbox.spec.publications.iter();
    let pairs = all.into_iter().zip(records);
    pairs
        .filter_map(|(view, record)| is_wanted(record).then_some(view))
        .collect()
}

fn publications(controller: &Controller, reference: String) -> Result<Response, ApiError> {
    let sandbox = controller.find_sandbox(&Reference(reference));
    let sandbox = sandbox.map_err(|reject| api_error(&reject))?;
    let publications = view::publication::publications(controller, sandbox);
    Ok(Response::Publications(publications))
}

fn dns_names(controller: &Controller, filter: types::DnsNameFilter) -> Result<Response, ApiError> {
    let wanted = filter
        .network
        .map(|network| controller.find_network(&Reference(network)));
    let wanted = wanted.transpose().map_err(|reject| api_error(&reject))?;
    Ok(Response::DnsNames(names::known_names(controller, wanted)))
}

/// Hands a question for a name over to the resolver, which may have to ask others.
pub(crate) fn resolve(
    controller: &Controller,
    outside: &Outside,
    question: &types::DnsQuestion,
    reply: oneshot::Sender<Result<Response, ApiError>>,
) {
    let call = match names::call(controller, question) {
        Ok(call) => call,
        Err(reject) => {
            // An error means that nobody waits any more.
            drop(reply.send(Err(api_error(&reject))));
            return;
        }
    };
    let (told, answered) = oneshot::channel();
    outside.resolver().call(call.clone(), told);
    tokio::spawn(async move {
        let answer = match answered.await {
            Ok(answered) => names::answer_view(&call, &answered),
            Err(_) => Err(ApiError::new(
                ErrorCode::NoResolver,
                "the resolver does not run",
            )),
        };
        drop(reply.send(answer.map(Response::DnsAnswer)));
    });
}

fn explanation(controller: &Controller, reference: String) -> Result<Response, ApiError> {
    let endpoint = controller.find_endpoint(&Reference(reference));
    let endpoint = endpoint.map_err(|reject| api_error(&reject))?.id;
    let objects = controller.explain(endpoint).into_iter();
    Ok(Response::Explanation(types::Explanation {
        endpoint: endpoint.to_string(),
        objects: objects.map(view::object).collect(),
    }))
}

/// How the outcome of a command is shown.
pub(crate) fn reply(
    controller: &Controller,
    (daemon, places): (&Daemon, view::Places<'_>),
    show: &Show,
    reply: Reply,
) -> Result<Response, ApiError> {
    let gone = |what: &str| {
        ApiError::new(
            ErrorCode::Internal,
            format!("the {what} vanished before it could be shown"),
        )
    };
    match reply {
        // Only engines ask for these, and they are answered otherwise.
        Reply::Done | Reply::Pool(..) | Reply::Address(_) => Ok(Response::Done),
        Reply::Network(id) => match controller.network(id) {
            Some(network) => Ok(Response::Network(daemon.network(controller, network))),
            None => Err(gone("network")),
        },
        Reply::Endpoint(id) => match controller.endpoint(id) {
            Some(endpoint) => Ok(Response::Endpoint(view::endpoint(controller, endpoint))),
            None => Err(gone("endpoint")),
        },
        Reply::Sandbox(_) if *show == Show::Done => Ok(Response::Done),
        Reply::Sandbox(id) => match controller.sandbox(id) {
            Some(sandbox) if matches!(show, Show::Publications(_)) => {
                Ok(Response::Publications(shown(controller, sandbox, show)))
            }
            Some(sandbox) => Ok(Response::Sandbox(view::sandbox(
                controller, sandbox, places,
            ))),
            None => Err(gone("sandbox")),
        },
        Reply::Pruned {
            networks,
            endpoints,
            sandboxes,
        } => Ok(Response::Pruned(types::Pruned {
            networks,
            endpoints,
            sandboxes,
        })),
        Reply::Operations { ops, failures } => {
            let operations: Vec<_> = ops.iter().map(|op| view::operation(op, vec![])).collect();
            if *show == Show::Drift {
                return Ok(Response::Operations(types::Operations { operations }));
            }
            let failures = failures
                .iter()
                .map(|(key, why)| view::failed(key, why))
                .collect();
            Ok(Response::RepairReport(types::RepairReport {
                operations,
                failures,
            }))
        }
    }
}

fn version() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: "v1".to_owned(),
        commit: option_env!("TOMBOLO_COMMIT").map(str::to_owned),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
    }
}

fn info(controller: &Controller, daemon: &Daemon) -> Info {
    let (networks, endpoints, sandboxes) = controller.counts();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let node = controller
        .facts()
        .node
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node,
        hostname: read("/proc/sys/kernel/hostname"),
        kernel: read("/proc/sys/kernel/osrelease"),
        store: "embedded".to_owned(),
        state_dir: daemon.state_dir.display().to_string(),
        run_dir: daemon.run_dir.display().to_string(),
        drivers: ["bridge", "host", "null"].map(str::to_owned).to_vec(),
        counts: Counts {
            networks: count(networks),
            endpoints: count(endpoints),
            sandboxes: count(sandboxes),
            objects: count(controller.believed().len()),
        },
        started_ms: daemon.started_ms,
    }
}

fn networks(controller: &Controller, daemon: &Daemon, filter: &types::NetworkFilter) -> Response {
    let networks = controller
        .networks()
        .filter(|network| network_fits(network, filter));
    let mut views: Vec<_> = networks
        .map(|network| daemon.network(controller, network))
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Response::Networks(views)
}

fn sandboxes(
    controller: &Controller,
    filter: &types::SandboxFilter,
    places: view::Places<'_>,
) -> Response {
    let sandboxes = controller
        .sandboxes()
        .filter(|sandbox| sandbox_fits(sandbox, filter));
    let mut views: Vec<_> = sandboxes
        .map(|sandbox| view::sandbox(controller, sandbox, places))
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Response::Sandboxes(views)
}

fn endpoints(controller: &Controller, filter: types::EndpointFilter) -> Result<Response, ApiError> {
    let reject = |reject: Reject| api_error(&reject);
    let network = filter
        .network
        .map(|n| controller.find_network(&Reference(n)).map(|n| n.id));
    let network = network.transpose().map_err(reject)?;
    let sandbox = filter
        .sandbox
        .map(|s| controller.find_sandbox(&Reference(s)).map(|s| s.id));
    let sandbox = sandbox.transpose().map_err(reject)?;
    let fits = |e: &&Endpoint| {
        network.is_none_or(|id| e.network == id) && sandbox.is_none_or(|id| e.sandbox == Some(id))
    };
    let mut views: Vec<_> = controller
        .endpoints()
        .filter(fits)
        .map(|e| view::endpoint(controller, e))
        .collect();
    views.sort_by(|a, b| (&a.network.name, &a.name).cmp(&(&b.network.name, &b.name)));
    Ok(Response::Endpoints(views))
}

fn network_fits(network: &Network, filter: &types::NetworkFilter) -> bool {
    let spec = &network.spec;
    filter
        .name
        .as_ref()
        .is_none_or(|part| spec.name.as_str().contains(part.as_str()))
        && filter
            .driver
            .as_ref()
            .is_none_or(|driver| view::driver_name(spec) == driver)
        && filter
            .labels
            .iter()
            .all(|label| has_label(&spec.labels, label))
}

fn sandbox_fits(sandbox: &Sandbox, filter: &types::SandboxFilter) -> bool {
    filter
        .name
        .as_ref()
        .is_none_or(|part| sandbox.name.as_str().contains(part.as_str()))
        && filter
            .labels
            .iter()
            .all(|label| has_label(&sandbox.spec.labels, label))
}

fn has_label(labels: &std::collections::BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}
