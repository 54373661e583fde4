//! What a process sees of the network: where its namespace and its files are, and whose they are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tombolo_api::{Client, Sandbox, SandboxState};

use crate::context::Context;
use crate::error::CommandError;
use crate::limits;
use crate::run::{Entry, ProcessSpec, StateError, Status};

/// Label by which a process that shares another's network is known; its value is the owner's name or id.
pub(super) const OWNER_LABEL: &str = "tombolo.network.container";
/// Link in the directory of a process to the network namespace of its current run.
const NETNS_LINK: &str = "netns";
/// Link in the directory of a process to the files of its current run.
const FILES_LINK: &str = "files";

/// What a process sees of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct World {
    /// Id of the process, which is that of the sandbox where it has its own.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// Its host name.
    pub(super) hostname: String,
    /// Path of its network namespace; `None` is the host's.
    pub(super) netns: Option<PathBuf>,
    /// Directory of its hosts, hostname and resolv.conf.
    pub(super) files: Option<PathBuf>,
    /// What its links put into its environment, as `NAME=value`.
    pub(super) link_env: Vec<String>,
    /// Whose network it shares, if it has none of its own.
    pub(super) owner: Option<String>,
}

impl World {
    /// The world of a process in its own sandbox, in the host's namespace if `is_host`.
    pub(super) fn of_sandbox(sandbox: &Sandbox, is_host: bool) -> Self {
        let netns = sandbox.netns.as_ref().filter(|_| !is_host);
        let short = || sandbox.id.chars().take(limits::ID_CHARS).collect();
        Self {
            id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            hostname: sandbox.hostname.clone().unwrap_or_else(short),
            netns: netns.map(PathBuf::from),
            files: sandbox
                .files
                .as_ref()
                .map(|files| PathBuf::from(&files.directory)),
            link_env: link_env(sandbox),
            owner: None,
        }
    }

    /// The world of a process that shares the network of `owner`.
    pub(super) fn shared(
        owner: &str,
        name: Option<String>,
        context: &mut Context<'_>,
    ) -> Result<Self, CommandError> {
        let id = new_id()?;
        let name = name.unwrap_or_else(|| id.chars().take(limits::ID_CHARS).collect());
        Self::beside(owner, id, name, context)
    }

    /// The world of the known process `entry` as it is now, which starts its sandbox if it has one.
    pub(super) fn again(entry: &Entry, context: &mut Context<'_>) -> Result<Self, CommandError> {
        let spec = &entry.spec;
        if let Some(owner) = owner(spec) {
            return Self::beside(owner, spec.id.clone(), spec.name.clone(), context);
        }
        let client = context.client()?;
        let known = client.sandbox_inspect(&spec.id)?;
        let sandbox = match known.state {
            // Its end was never told to the daemon.
            SandboxState::Running => known,
            _ => client.sandbox_start(&spec.id)?,
        };
        Ok(Self::of_sandbox(&sandbox, spec.netns.is_none()))
    }

    fn beside(
        owner: &str,
        id: String,
        name: String,
        context: &mut Context<'_>,
    ) -> Result<Self, CommandError> {
        let (reference, is_host) = owning_sandbox(owner, &id, context)?;
        let sandbox = context.client()?.sandbox_inspect(&reference)?;
        if sandbox.state != SandboxState::Running {
            return Err(CommandError::OwnerStopped(owner.to_owned()));
        }
        let owner = Some(reference);
        Ok(Self {
            id,
            name,
            owner,
            link_env: Vec::new(),
            ..Self::of_sandbox(&sandbox, is_host)
        })
    }

    /// Puts this world into a spec, by way of links in the directory of the process.
    ///
    /// A sandbox has another namespace after each start, while the spec of a process stays as it is.
    pub(super) fn apply(&self, spec: &mut ProcessSpec, dir: &Path) {
        spec.id.clone_from(&self.id);
        spec.name.clone_from(&self.name);
        spec.hostname.clone_from(&self.hostname);
        spec.netns = self.netns.as_ref().map(|_| dir.join(NETNS_LINK));
        spec.files = self.files.as_ref().map(|_| dir.join(FILES_LINK));
        spec.link_env.clone_from(&self.link_env);
        if let Some(owner) = &self.owner {
            spec.labels.insert(OWNER_LABEL.to_owned(), owner.clone());
        }
    }

    /// Points the links in the directory of the process to this world.
    pub(super) fn link(&self, dir: &Path) -> Result<(), CommandError> {
        let links = [(NETNS_LINK, &self.netns), (FILES_LINK, &self.files)];
        for (name, target) in links {
            if let Some(target) = target {
                point(&dir.join(name), target).map_err(|source| CommandError::Link {
                    id: self.id.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// What the links of a sandbox put into the environment of its processes; the last of a name wins.
fn link_env(sandbox: &Sandbox) -> Vec<String> {
    let variables = sandbox.links.iter().flat_map(|link| &link.environment);
    let merged: BTreeMap<&String, &String> = variables.collect();
    let entries = merged.into_iter();
    entries
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Whose network a process shares, if it has none of its own.
pub(super) fn owner(spec: &ProcessSpec) -> Option<&str> {
    spec.labels.get(OWNER_LABEL).map(String::as_str)
}

/// Stops a sandbox, unless it is stopped or gone already.
pub(super) fn stop_sandbox(id: &str, client: &mut Client) -> Result<(), CommandError> {
    let is_running = match client.sandbox_inspect(id).map_err(CommandError::from) {
        Ok(sandbox) => sandbox.state == SandboxState::Running,
        Err(error) if error.is_unknown() => false,
        Err(error) => return Err(error),
    };
    if is_running {
        client.sandbox_stop(id)?;
    }
    Ok(())
}

/// Refuses to change the networks of a process that has none of its own, and says whose they are.
pub(super) fn refuse_sharer(name: &str, context: &Context<'_>) -> Result<(), CommandError> {
    let Ok(id) = context.states.find(name) else {
        return Ok(());
    };
    match owner(&context.states.entry(&id)?.spec) {
        Some(owner) => Err(CommandError::Sharer {
            name: name.to_owned(),
            owner: owner.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The sandbox whose ports `name` has: its own, or that of the process whose network it shares.
pub(super) fn ports_owner(name: &str, context: &Context<'_>) -> Result<String, CommandError> {
    let id = match context.states.find(name) {
        Ok(id) => id,
        // A sandbox that no process was run in.
        Err(StateError::Unknown(_)) => return Ok(name.to_owned()),
        Err(error) => return Err(error.into()),
    };
    let spec = context.states.entry(&id)?.spec;
    Ok(owner(&spec).map_or(id, ToOwned::to_owned))
}

/// The sandbox whose namespace `name` lives in, and whether that is the host's.
fn owning_sandbox(
    name: &str,
    own_id: &str,
    context: &Context<'_>,
) -> Result<(String, bool), CommandError> {
    let Some(entry) = running_entry(name, own_id, context)? else {
        // A sandbox that no process was run in.
        return Ok((name.to_owned(), false));
    };
    let Some(owner) = owner(&entry.spec) else {
        return Ok((entry.spec.id, entry.spec.netns.is_none()));
    };
    // Recorded is the sandbox itself, never another that shares: there is no chain to follow.
    let entry = running_entry(owner, own_id, context)?;
    let is_host = entry.is_some_and(|entry| entry.spec.netns.is_none());
    Ok((owner.to_owned(), is_host))
}

/// The process with this name or id, if there is one, which must run and be another.
fn running_entry(
    name: &str,
    own_id: &str,
    context: &Context<'_>,
) -> Result<Option<Entry>, CommandError> {
    let id = match context.states.find(name) {
        Ok(id) => id,
        Err(StateError::Unknown(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let entry = context.states.entry(&id)?;
    if id == own_id || entry.state.status != Status::Running {
        return Err(CommandError::OwnerStopped(entry.spec.name));
    }
    Ok(Some(entry))
}

fn new_id() -> Result<String, CommandError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CommandError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes a link, or makes it point elsewhere, in one step.
fn point(link: &Path, target: &Path) -> io::Result<()> {
    let temporary = link.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    symlink(target, &temporary)?;
    fs::rename(&temporary, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_and_moved() {
        let temp = tempfile::tempdir().unwrap();
        let link = temp.path().join("netns");
        point(&link, Path::new("/run/a")).unwrap();
        point(&link, Path::new("/run/b")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/run/b"));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn ids_are_of_the_form_that_the_daemon_gives() {
        let (one, other) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(one.len(), 32);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }
}
