//! The plugins of others: where they are, what they can do, and how they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tombolo_api::types::PluginStatus;
use tombolo_core::{Code, Reject};

use crate::config;
use crate::engine::{now_ms, with_sources};
use crate::limits::PLUGINS_KNOWN_MAX;
use crate::plugin::client::error::CallError;
use crate::plugin::client::{Bounds, Client};
use crate::plugin::discovery::{Address, FindError, Places};
use crate::plugin::wire::Done;
use crate::plugin::wire::ipam::IpamCapabilities;
use crate::plugin::wire::method::{Method, Subsystem};
use crate::plugin::wire::network::Capabilities;

/// Every plugin that was asked for.
#[derive(Debug)]
pub(crate) struct Plugins {
    places: Vec<Places>,
    /// Where this daemon itself is a plugin.
    own_socket: Option<PathBuf>,
    bounds: Bounds,
    known: Mutex<BTreeMap<String, Known>>,
}

/// What is known of a plugin.
#[derive(Debug, Clone, Default)]
struct Known {
    address: Option<Address>,
    subsystems: Vec<String>,
    driver: Option<Capabilities>,
    ipam: Option<IpamCapabilities>,
    last_answer_ms: Option<u64>,
    last_error: Option<String>,
    /// The last call was not answered.
    silent: bool,
}

/// A plugin that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    name: String,
    client: Client,
    plugins: Arc<Plugins>,
}

impl Plugins {
    pub(crate) fn new(config: &config::Plugins, own_socket: Option<PathBuf>) -> Self {
        let usual = Bounds::default();
        let bounds = Bounds {
            call: Duration::from_secs(u64::from(config.call_timeout_seconds)),
            ..usual
        };
        Self {
            places: config.places(),
            own_socket,
            bounds,
            known: Mutex::default(),
        }
    }

    /// Finds a plugin and makes sure that it has a subsystem. One that was found before is not asked again while it is
    /// where it was.
    pub(crate) async fn open(
        self: &Arc<Self>,
        name: &str,
        subsystem: Subsystem,
    ) -> Result<Plugin, Reject> {
        let address = self.find(name).await?;
        let plugin = self.at(name, address);
        let known = self.lock().get(name).cloned().unwrap_or_default();
        let mut subsystems = known.subsystems;
        if subsystems.is_empty() {
            // One that was silent a moment ago is only looked for.
            let plugin = plugin.clone().hurried();
            let activated = plugin.client.activate().await;
            subsystems = plugin.heard(activated)?;
            self.note(name, |known| known.subsystems.clone_from(&subsystems));
        }
        if subsystems.iter().any(|one| one == subsystem.as_str()) {
            return Ok(plugin);
        }
        let message = format!(
            "the plugin has no {subsystem}, but {}",
            subsystems.join(", ")
        );
        Err(Reject::new(Code::PluginRefused, name, message).hint("name another plugin"))
    }

    /// The plugin that was found at an address, which is noted.
    fn at(self: &Arc<Self>, name: &str, address: Address) -> Plugin {
        self.note_address(name, address.clone());
        Plugin {
            name: name.to_owned(),
            client: Client::new(address).with_bounds(self.bounds),
            plugins: Arc::clone(self),
        }
    }

    async fn find(&self, name: &str) -> Result<Address, Reject> {
        let (places, wanted) = (self.places.clone(), name.to_owned());
        let own = self.own_socket.clone();
        let found = spawn_blocking(move || {
            let address = find_in(&places, &wanted)?;
            let is_own = own.is_some_and(|own| is_at(&address, &own));
            Ok::<_, FindError>((address, is_own))
        });
        match found.await {
            Ok(Ok((_, true))) => {
                let message = "this plugin is the daemon itself, which has its networks already";
                Err(Reject::new(Code::InvalidCombination, name, message)
                    .hint("leave it out, or use the driver bridge"))
            }
            Ok(Ok((address, false))) => Ok(address),
            Ok(Err(error)) => {
                let reject = not_found(name, &error);
                // Not of every name that somebody may have misspelt.
                self.note_known(name, |known| known.miss(&reject));
                Err(reject)
            }
            Err(error) => Err(Reject::new(Code::Kernel, name, error.to_string())),
        }
    }

    /// How a plugin is.
    pub(crate) fn status(&self, name: &str) -> PluginStatus {
        let known = self.lock().get(name).cloned().unwrap_or_default();
        PluginStatus {
            name: name.to_owned(),
            address: known.address.map(|address| address.to_string()),
            last_answer_ms: known.last_answer_ms,
            last_error: known.last_error,
            answers: match (known.silent, known.last_answer_ms) {
                (true, _) => Some(false),
                (false, Some(_)) => Some(true),
                (false, None) => None,
            },
        }
    }

    /// Asks plugins whether they are there, all at the same time and not for long.
    pub(crate) async fn probe(self: &Arc<Self>, names: Vec<String>) {
        let mut probes = tokio::task::JoinSet::new();
        for name in names {
            let plugins = Arc::clone(self);
            probes.spawn(async move { plugins.probe_one(&name).await });
        }
        while probes.join_next().await.is_some() {}
    }

    async fn probe_one(self: &Arc<Self>, name: &str) {
        let address = match self.find(name).await {
            Ok(address) => address,
            Err(reject) => return self.note(name, |known| known.miss(&reject)),
        };
        let plugin = self.at(name, address).brief();
        let activated = plugin.client.activate().await;
        // What it says is kept by `heard`.
        drop(plugin.heard(activated));
    }

    /// Asks plugins whether they are there; false if one of them does not answer.
    pub(crate) async fn answer(self: &Arc<Self>, names: Vec<String>) -> bool {
        self.probe(names.clone()).await;
        names
            .iter()
            .all(|name| self.status(name).answers == Some(true))
    }

    /// Notes where a plugin is. What another one at that place can do has to be asked anew.
    fn note_address(&self, name: &str, address: Address) {
        self.note(name, |known| {
            if known.address.as_ref() != Some(&address) {
                *known = Known {
                    address: Some(address),
                    last_answer_ms: known.last_answer_ms,
                    last_error: known.last_error.take(),
                    ..Known::default()
                };
            }
        });
    }

    /// Changes what is known of a plugin, unless too many are known and it is none of them.
    fn note(&self, name: &str, change: impl FnOnce(&mut Known)) {
        let mut known = self.lock();
        if known.contains_key(name) || known.len() < PLUGINS_KNOWN_MAX {
            change(known.entry(name.to_owned()).or_default());
        }
    }

    fn note_known(&self, name: &str, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.lock().get_mut(name) {
            change(known);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// It was not found.
    fn miss(&mut self, reject: &Reject) {
        self.last_error = Some(reject.message.clone());
        self.silent = true;
    }
}

impl Plugin {
    /// The same for what must go on without the plugin if need be: one that was silent is not waited for again.
    pub(crate) fn hurried(self) -> Self {
        let known = self.plugins.lock().get(&self.name).cloned();
        if !known.is_some_and(|known| known.silent) {
            return self;
        }
        self.brief()
    }

    /// The same for what is only asked to see what it says: it is never waited for.
    pub(crate) fn brief(self) -> Self {
        let bounds = self.plugins.bounds.hurried();
        let client = self.client.with_bounds(bounds);
        Self { client, ..self }
    }

    /// Calls a method.
    pub(crate) async fn call<Q, A>(&self, method: Method, request: &Q) -> Result<A, Reject>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        tracing::debug!(plugin = self.name, %method, "calling a plugin");
        let answer = self.client.call(method, Some(request)).await;
        self.heard(answer)
    }

    /// Calls a method that a plugin may do without; none where it does.
    pub(crate) async fn call_if_there<Q, A>(
        &self,
        method: Method,
        request: Option<&Q>,
    ) -> Result<Option<A>, Reject>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        tracing::debug!(plugin = self.name, %method, "calling a plugin");
        match self.client.call(method, request).await {
            Err(CallError::UnknownMethod { .. }) => {
                self.answered();
                Ok(None)
            }
            answer => self.heard(answer).map(Some),
        }
    }

    /// What a network driver can do.
    pub(crate) async fn driver_capabilities(&self) -> Result<Capabilities, Reject> {
        let known = self.plugins.lock().get(&self.name).cloned();
        if let Some(capabilities) = known.and_then(|known| known.driver) {
            return Ok(capabilities);
        }
        let answer = self.client.call(Method::GetCapabilities, None::<&Done>);
        let answer: Capabilities = self.heard(answer.await)?;
        let kept = answer.clone();
        self.plugins
            .note_known(&self.name, |known| known.driver = Some(kept));
        Ok(answer)
    }

    /// What an address allocator must be told.
    pub(crate) async fn ipam_capabilities(&self) -> Result<IpamCapabilities, Reject> {
        let known = self.plugins.lock().get(&self.name).cloned();
        if let Some(capabilities) = known.and_then(|known| known.ipam) {
            return Ok(capabilities);
        }
        let answer = self.call_if_there(Method::GetIpamCapabilities, None::<&Done>);
        let answer: IpamCapabilities = match answer.await {
            // Engines ask only for good measure, and take every refusal for a no.
            Err(reject) if reject.code == Code::PluginRefused => IpamCapabilities::default(),
            answer => answer?.unwrap_or_default(),
        };
        let kept = answer.clone();
        self.plugins
            .note_known(&self.name, |known| known.ipam = Some(kept));
        Ok(answer)
    }

    /// A refusal of what the plugin answered.
    pub(crate) fn senseless(&self, message: impl Into<String>) -> Reject {
        Reject::new(Code::PluginRefused, &self.name, message)
            .hint("its maker can say what is wrong with it")
    }

    fn answered(&self) {
        self.plugins.note(&self.name, |known| {
            known.last_answer_ms = Some(now_ms());
            known.silent = false;
        });
    }

    /// Notes how a call went.
    fn heard<A>(&self, answer: Result<A, CallError>) -> Result<A, Reject> {
        let error = match answer {
            Ok(answer) => {
                self.answered();
                return Ok(answer);
            }
            Err(error) => error,
        };
        let silent = is_silence(&error);
        let text = with_sources(&error);
        if !silent {
            self.answered();
        }
        self.plugins.note(&self.name, |known| {
            known.last_error = Some(text.clone());
            known.silent = silent;
        });
        let (code, hint) = match silent {
            true => (
                Code::PluginUnavailable,
                "see whether it runs, and try again",
            ),
            false => (Code::PluginRefused, "its own log may say more"),
        };
        Err(Reject::new(code, &self.name, text).hint(hint))
    }
}

/// The first of the places that has a plugin of this name.
fn find_in(places: &[Places], name: &str) -> Result<Address, FindError> {
    let mut looked_in = Vec::new();
    for place in places {
        match place.find(name) {
            Err(FindError::NotFound { looked, .. }) => looked_in.extend(looked),
            outcome => return outcome,
        }
    }
    Err(FindError::NotFound {
        name: name.to_owned(),
        looked: looked_in,
    })
}

/// Whether an address leads to a socket, perhaps by another path.
fn is_at(address: &Address, socket: &Path) -> bool {
    let Address::Unix(path) = address else {
        return false;
    };
    let real = |path: &Path| path.canonicalize().ok();
    path == socket || real(path).is_some_and(|path| Some(path) == real(socket))
}

fn not_found(name: &str, error: &FindError) -> Reject {
    let reject = Reject::new(Code::PluginUnavailable, name, with_sources(error));
    match error {
        FindError::NotFound { .. } => {
            reject.hint("start it, or see `[plugins]` of the configuration")
        }
        _ => reject,
    }
}

/// Whether a plugin said nothing, rather than no.
fn is_silence(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Connect { .. } | CallError::Timeout { .. } | CallError::Closed { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(directory: &Path) -> Arc<Plugins> {
        let config = config::Plugins {
            sockets: vec![directory.to_owned()],
            files: vec![],
            call_timeout_seconds: 1,
        };
        Arc::new(Plugins::new(&config, None))
    }

    #[tokio::test]
    async fn a_name_of_nobody_is_told_with_where_it_was_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let plugins = plugins(directory.path());
        let refused = plugins.open("peer", Subsystem::NetworkDriver).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, Code::PluginUnavailable);
        let place = directory.path().display().to_string();
        assert!(refused.message.contains(&place), "{refused}");
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_known_to_be_silent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let plugins = plugins(directory.path());
        plugins.probe(vec!["peer".to_owned()]).await;
        let status = plugins.status("peer");
        assert!(
            status.answers == Some(false) && status.last_error.is_some(),
            "{status:?}"
        );
        assert!(status.address.unwrap().contains("peer.sock"));
    }

    #[tokio::test]
    async fn one_that_is_not_there_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let plugins = plugins(directory.path());
        assert_eq!(plugins.status("peer").answers, None, "nobody has asked it");
        assert!(!plugins.answer(vec!["peer".to_owned()]).await);
        let status = plugins.status("peer");
        assert!(status.last_error.is_some_and(|text| text.contains("peer")));
    }

    #[tokio::test]
    async fn what_is_known_is_of_the_plugin_at_one_place() {
        let plugins = plugins(Path::new("/nowhere"));
        let at = |path: &str| Address::Unix(path.into());
        plugins.note_address("peer", at("/a"));
        plugins.note("peer", |known| {
            known.subsystems = vec!["IpamDriver".to_owned()]
        });
        plugins.note_address("peer", at("/a"));
        let subsystems = || plugins.lock()["peer"].subsystems.clone();
        assert_eq!(subsystems(), ["IpamDriver"]);
        plugins.note_address("peer", at("/b"));
        assert!(subsystems().is_empty());
    }

    #[test]
    fn what_is_known_has_a_limit() {
        let plugins = plugins(Path::new("/nowhere"));
        for number in 0..=PLUGINS_KNOWN_MAX {
            plugins.note(&number.to_string(), |known| known.silent = true);
        }
        assert_eq!(plugins.lock().len(), PLUGINS_KNOWN_MAX);
        plugins.note("0", |known| known.last_error = Some("x".to_owned()));
        assert!(plugins.status("0").last_error.is_some());
    }
}
