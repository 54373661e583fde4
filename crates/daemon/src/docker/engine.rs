//! What an engine tells over its own API, and plugins are not told: what containers and networks are called, and
//! which of them it still has.
//!
//! The engine is asked beside its calls, never within one: it may hold a container's lock until we have answered.
//! Without the API everything works, and sandboxes are found by their addresses alone.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::{
    EventsOptions, InspectContainerOptions, ListContainersOptions, ListNetworksOptions,
};
use futures_core::Stream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tombolo_core::id::{Name, NetworkId};
use tombolo_core::{EngineCommand, Reject};

use super::Calls;
use super::described::{self, Known};
use super::forgotten::Forgotten;
use super::inquiries::Inquiries;
use crate::limits::{
    DOCKER_API_CALLS_MAX, DOCKER_API_PAUSE, DOCKER_API_TIMEOUT, DOCKER_LOOK_EVERY,
    DOCKER_VIEW_AGE_MAX,
};

/// What all engines have, as far as it is known.
#[derive(Debug, Default)]
struct Views(HashMap<PathBuf, (Instant, Known)>);

/// The engines that use the plugin.
#[derive(Debug, Clone)]
pub(super) struct Engines {
    sockets: Arc<[PathBuf]>,
    views: Arc<Mutex<Views>>,
    calls: Calls,
}

impl Engines {
    pub(super) fn new(sockets: &[PathBuf], calls: &Calls) -> Self {
        Self {
            sockets: sockets.into(),
            views: Arc::default(),
            calls: calls.clone(),
        }
    }

    /// Follows all of them for ever.
    pub(super) async fn follow(self) {
        if self.sockets.is_empty() {
            return;
        }
        let mut tasks = JoinSet::new();
        for socket in self.sockets.iter() {
            tasks.spawn(self.clone().follow_one(socket.clone()));
        }
        tasks.spawn(self.clone().sweep());
        tasks.join_all().await;
    }

    async fn follow_one(self, socket: PathBuf) {
        loop {
            match self.attend(&socket).await {
                Ok(()) => tracing::info!(engine = %socket.display(), "the engine ended"),
                Err(error) => {
                    tracing::debug!(engine = %socket.display(), %error, "the engine cannot be asked");
                }
            }
            self.set_view(&socket, None);
            sleep(DOCKER_API_PAUSE).await;
        }
    }

    /// Follows an engine until it ends.
    async fn attend(&self, socket: &Path) -> Result<(), Error> {
        let path = socket.to_string_lossy();
        let seconds = DOCKER_API_TIMEOUT.as_secs();
        let docker = Docker::connect_with_unix(&path, seconds, bollard::API_DEFAULT_VERSION)?;
        let docker = within(docker.negotiate_version()).await?;
        // What happens from here on is told, however long the list takes.
        let mut events = pin!(docker.events(Some(events_wanted(SystemTime::now()))));
        let mut looks = interval(DOCKER_LOOK_EVERY);
        let (mut inquiries, mut asked) = (Inquiries::default(), JoinSet::new());
        loop {
            while asked.len() < DOCKER_API_CALLS_MAX
                && let Some(container) = inquiries.next()
            {
                asked.spawn(describe(docker.clone(), self.calls.clone(), container));
            }
            tokio::select! {
                event = next(events.as_mut()) => match event {
                    Some(event) => self.hear(&mut inquiries, &event?).await,
                    None => return Ok(()),
                },
                Some(outcome) = asked.join_next() => {
                    // A task that panics has told its panic already.
                    if let Ok(Err(container)) = outcome {
                        inquiries.note_silence(container);
                    }
                }
                _ = looks.tick() => {
                    let begun = Instant::now();
                    let known = self.list(&docker).await?;
                    self.calls.0.look(|controller| inquiries.look(controller, &known));
                    for (id, name) in &known.network_names {
                        self.name_network(*id, name).await;
                    }
                    self.set_view(socket, Some((begun, known)));
                }
            }
        }
    }

    async fn hear(&self, inquiries: &mut Inquiries, event: &EventMessage) {
        let Some(actor) = &event.actor else { return };
        let attribute = |key: &str| actor.attributes.as_ref()?.get(key).cloned();
        match event.typ {
            Some(EventMessageTypeEnum::NETWORK) => {
                if let Some(container) = attribute("container") {
                    inquiries.add(container);
                } else if event.action.as_deref() == Some("create") {
                    let (id, name) = (actor.id.clone(), attribute("name"));
                    let named = described::network_name(id.as_deref(), name.as_deref());
                    if let Some((id, name)) = named {
                        self.name_network(id, &name).await;
                    }
                }
            }
            Some(EventMessageTypeEnum::CONTAINER) => {
                if let Some(container) = actor.id.clone() {
                    inquiries.add(container);
                }
            }
            _ => {}
        }
    }

    async fn list(&self, docker: &Docker) -> Result<Known, Error> {
        let all = ListContainersOptions {
            all: true,
            ..ListContainersOptions::default()
        };
        let containers = within(docker.list_containers(Some(all))).await?;
        let networks = within(docker.list_networks(None::<ListNetworksOptions>)).await?;
        Ok(Known::of(&containers, &networks))
    }

    async fn name_network(&self, id: NetworkId, name: &Name) {
        let differs = self.calls.0.look(|controller| {
            let network = controller.network(id);
            network.is_some_and(|n| n.spec.engine.is_some() && n.spec.name != *name)
        });
        if differs {
            let command = EngineCommand::NameNetwork(id, name.clone());
            note(self.calls.order(command, None).await.map(drop));
        }
    }

    fn set_view(&self, socket: &Path, known: Option<(Instant, Known)>) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => drop(views.0.insert(socket.to_owned(), known)),
            None => drop(views.0.remove(socket)),
        }
    }

    /// What all engines have together; none while one of them cannot be asked, or has not answered lately.
    fn known(&self) -> Option<Known> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Known::default();
        for socket in self.sockets.iter() {
            let (asked, known) = views.0.get(socket)?;
            if asked.elapsed() > DOCKER_VIEW_AGE_MAX {
                return None;
            }
            all.add(known);
        }
        Some(all)
    }

    /// Removes what no engine has any more, and has not had for a while.
    async fn sweep(self) {
        let mut doubtful: HashMap<Forgotten, Instant> = HashMap::new();
        loop {
            sleep(DOCKER_LOOK_EVERY).await;
            let Some(known) = self.known() else {
                doubtful.clear();
                continue;
            };
            let found: BTreeSet<Forgotten> =
                (self.calls.0).look(|controller| Forgotten::among(controller, &known));
            doubtful.retain(|one, _| found.contains(one));
            let now = Instant::now();
            let mut due: Vec<Forgotten> = Vec::new();
            for one in found {
                let since = *doubtful.entry(one.clone()).or_insert(now);
                if now.duration_since(since) >= one.patience() {
                    due.push(one);
                }
            }
            for one in due {
                tracing::info!(what = %one, "no engine has it any more: removed");
                note(self.calls.order(one.removal(), None).await.map(drop));
                doubtful.remove(&one);
            }
        }
    }
}

/// Asks what a container is, and tells the records. Where there was no answer its id comes back.
async fn describe(docker: Docker, calls: Calls, container: String) -> Result<(), String> {
    let options = None::<InspectContainerOptions>;
    match within(docker.inspect_container(&container, options)).await {
        Ok(answer) => {
            tell(&calls, &answer).await;
            Ok(())
        }
        // It has gone meanwhile.
        Err(Error::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(()),
        Err(error) => {
            tracing::debug!(container, %error, "the container is not described");
            Err(container)
        }
    }
}

/// Tells the records what a container is.
async fn tell(calls: &Calls, answer: &bollard::models::ContainerInspectResponse) {
    let Some((sandbox, described)) = calls
        .0
        .look(|controller| described::described(controller, answer))
    else {
        return;
    };
    let command = EngineCommand::Describe {
        sandbox,
        described: Box::new(described),
    };
    note(calls.order(command, None).await.map(drop));
}

fn note(outcome: Result<(), Reject>) {
    if let Err(reject) = outcome {
        tracing::debug!(%reject, "what the engine says is not taken in");
    }
}

fn events_wanted(since: SystemTime) -> EventsOptions {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let filters = [
        ("type".to_owned(), words(&["network", "container"])),
        (
            "event".to_owned(),
            words(&["connect", "create", "start", "rename"]),
        ),
    ];
    EventsOptions {
        since: Some(since.as_secs().to_string()),
        filters: Some(filters.into_iter().collect()),
        ..EventsOptions::default()
    }
}

async fn next<T>(mut stream: std::pin::Pin<&mut impl Stream<Item = T>>) -> Option<T> {
    std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
}

async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let longest: Duration = DOCKER_API_TIMEOUT;
    timeout(longest, call)
        .await
        .unwrap_or(Err(Error::RequestTimeoutError))
}
