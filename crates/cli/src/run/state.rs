//! What is kept of each process: `spec.json`, `state.json` and its log, in one directory each.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessRef;
use super::spec::{ProcessSpec, SpecError};

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Known, never started.
    Created,
    /// Started and not yet recorded as ended.
    Running,
    /// Ended, or never got as far as its program.
    Exited,
}

/// What became of the exit hook of the last run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Not due, or there is none.
    #[default]
    None,
    /// Due: the process was started and the hook has not succeeded since.
    Due,
    /// Tried as often as allowed without success; removing the process tries again.
    Failed,
    /// Has succeeded.
    Done,
}

/// The changing half of what is kept of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// Pid 1 of the process' namespace, as the host sees it.
    pub process: Option<ProcessRef>,
    /// The shim that watches it.
    pub shim: Option<ProcessRef>,
    /// Exit code, 128 + signal when killed by one; `None` when unknown.
    pub exit_code: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it was last started, in milliseconds since the Unix epoch.
    pub started_ms: Option<u64>,
    /// When it ended or was found ended, in milliseconds since the Unix epoch.
    pub finished_ms: Option<u64>,
    /// What became of the exit hook.
    pub hook: Hook,
}

/// One process with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What was asked.
    pub spec: ProcessSpec,
    /// What it is now.
    pub state: State,
}

/// The directory that holds one directory per process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
    program: PathBuf,
}

/// Why the state of a process cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No process has this id, name or id prefix.
    #[error("no such process: {0}")]
    Unknown(String),
    /// Several ids start with this text.
    #[error("{0} is the beginning of several ids")]
    Ambiguous(String),
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("cannot understand {path}", path = path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Why a process cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The spec is not sound.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The name or id belongs to another process.
    #[error("name {name} is taken by process {id}; remove that one or choose another name")]
    Taken {
        /// The contested name or id.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

impl StateDir {
    /// A state directory at `root`, which is made when first written to.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            program: "/proc/self/exe".into(),
        }
    }

    /// The same with another program to start as shim, init and exit hook than the running one.
    #[must_use]
    pub fn with_program(self, program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            ..self
        }
    }

    /// The one of this host: `/run/tombolo/run`.
    pub fn system() -> Self {
        Self::new("/run/tombolo/run")
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one process.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Records a process without starting it.
    pub fn create(&self, spec: &ProcessSpec) -> Result<(), CreateError> {
        spec.validate()?;
        make_dir(&self.root)?;
        let _lock = lock(&self.root)?;
        for entry in self.list()? {
            let own = [&entry.spec.id, &entry.spec.name];
            if let Some(name) = [&spec.id, &spec.name]
                .into_iter()
                .find(|name| own.contains(name))
            {
                return Err(CreateError::Taken {
                    name: name.clone(),
                    id: entry.spec.id,
                });
            }
        }
        let dir = self.dir(&spec.id);
        make_dir(&dir)?;
        write_json(&dir.join("spec.json"), spec)?;
        let state = State {
            status: Status::Created,
            process: None,
            shim: None,
            exit_code: None,
            error: None,
            created_ms: now_ms(),
            started_ms: None,
            finished_ms: None,
            hook: Hook::None,
        };
        // The state comes last: a directory without one is an unfinished create and never listed.
        Ok(self.write_state(&spec.id, &state)?)
    }

    /// Replaces what its links put into the environment of a process, from its next start on.
    pub fn set_link_env(&self, id: &str, link_env: &[String]) -> Result<(), StateError> {
        let _lock = self.lock(id)?;
        let path = self.dir(id).join("spec.json");
        let mut spec: ProcessSpec = read_json(&path)?;
        if spec.link_env == link_env {
            return Ok(());
        }
        spec.link_env = link_env.to_vec();
        write_json(&path, &spec)
    }

    /// The id of the process with this id, name or unambiguous beginning of an id.
    pub fn find(&self, key: &str) -> Result<String, StateError> {
        let entries = self.list()?;
        if let Some(entry) = entries
            .iter()
            .find(|e| e.spec.id == key || e.spec.name == key)
        {
            return Ok(entry.spec.id.clone());
        }
        let mut matches = entries
            .into_iter()
            .filter(|entry| entry.spec.id.starts_with(key));
        match (key.is_empty(), matches.next(), matches.next()) {
            (false, Some(entry), None) => Ok(entry.spec.id),
            (false, Some(_), Some(_)) => Err(StateError::Ambiguous(key.to_owned())),
            _ => Err(StateError::Unknown(key.to_owned())),
        }
    }

    /// What is known of one process, by its full id; a stale state is first put right.
    pub fn entry(&self, id: &str) -> Result<Entry, StateError> {
        let dir = self.dir(id);
        // The process may remove itself at any time: a file that is gone means that it is.
        let known = |error| match error {
            StateError::Read { source, .. } if is_absent(&source) => {
                StateError::Unknown(id.to_owned())
            }
            other => other,
        };
        let entry = Entry {
            state: read_json(&dir.join("state.json")).map_err(known)?,
            spec: read_json(&dir.join("spec.json")).map_err(known)?,
        };
        if !is_stale(&entry.state) {
            return Ok(entry);
        }
        // Under the lock, so that a start which is under way is not taken for a dead shim.
        let _lock = lock(&dir)?;
        let mut state: State = read_json(&dir.join("state.json"))?;
        if is_stale(&state) {
            state.status = Status::Exited;
            state.exit_code = None;
            state.finished_ms = Some(now_ms());
            self.write_state(id, &state)?;
        }
        Ok(Entry { state, ..entry })
    }

    /// Every known process, oldest first.
    pub fn list(&self) -> Result<Vec<Entry>, StateError> {
        let names = match fs::read_dir(&self.root) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(StateError::Read {
                    path: self.root.clone(),
                    source,
                });
            }
        };
        let mut entries = Vec::new();
        for name in names.flatten() {
            match self.entry(&name.file_name().to_string_lossy()) {
                Ok(entry) => entries.push(entry),
                Err(StateError::Unknown(_)) => {}
                // It was removed between the listing and the reading.
                Err(_) if !name.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| {
            (a.state.created_ms, &a.spec.id).cmp(&(b.state.created_ms, &b.spec.id))
        });
        Ok(entries)
    }

    /// The program that knows the words of the entry points.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The log file of a process.
    pub fn log_path(&self, spec: &ProcessSpec) -> PathBuf {
        spec.log_path
            .clone()
            .unwrap_or_else(|| self.dir(&spec.id).join("log"))
    }

    /// Replaces the state of a process as a whole.
    pub(super) fn write_state(&self, id: &str, state: &State) -> Result<(), StateError> {
        write_json(&self.dir(id).join("state.json"), state)
    }

    /// Keeps other commands from changing the same process until dropped.
    pub(super) fn lock(&self, id: &str) -> Result<Flock<File>, StateError> {
        lock(&self.dir(id))
    }

    /// Forgets a process; its log elsewhere is kept.
    pub(super) fn erase(&self, id: &str) -> Result<(), StateError> {
        let dir = self.dir(id);
        // The state goes first: what remains after a crash is never listed again.
        for result in [
            fs::remove_file(dir.join("state.json")),
            fs::remove_dir_all(&dir),
        ] {
            match result {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Write { path: dir, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl State {
    /// Whether the process, or the shim that must still record its end, is alive.
    pub fn is_live(&self) -> bool {
        self.shim.is_some_and(ProcessRef::is_alive)
            || self.process.is_some_and(ProcessRef::is_alive)
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a path leads to nothing, or to a file where a directory would have to be.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    let bytes = fs::read(path).map_err(|source| StateError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| StateError::Decode {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that is either the old or the new one, whenever the writer dies.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StateError::Decode {
        path: path.to_owned(),
        source,
    })?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&temporary)?.write_all(&bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| StateError::Write {
        path: path.to_owned(),
        source,
    })
}

fn is_stale(state: &State) -> bool {
    state.status == Status::Running && !state.is_live()
}

fn make_dir(path: &Path) -> Result<(), StateError> {
    // Environments hold secrets: nobody but root looks in.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::Write {
            path: path.to_owned(),
            source,
        })
}

fn lock(dir: &Path) -> Result<Flock<File>, StateError> {
    let path = dir.join(".lock");
    let failed = |source| StateError::Write {
        path: path.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(id: &str, name: &str) -> ProcessSpec {
        ProcessSpec {
            name: name.into(),
            ..ProcessSpec::new(id, vec!["true".into()])
        }
    }

    #[test]
    fn names_and_ids_are_unique_and_found() {
        let temp = tempfile::tempdir().unwrap();
        let states = StateDir::new(temp.path().join("run"));
        assert_eq!(states.list().unwrap(), []);
        states.create(&spec("abc1", "web")).unwrap();
        states.create(&spec("abd2", "db")).unwrap();
        assert_eq!(states.find("web").unwrap(), "abc1");
        assert_eq!(states.find("abd").unwrap(), "abd2");
        assert!(matches!(states.find("ab"), Err(StateError::Ambiguous(_))));
        assert!(matches!(states.find(""), Err(StateError::Unknown(_))));
        for taken in [spec("abc1", "other"), spec("new", "web"), spec("db", "x")] {
            assert!(matches!(
                states.create(&taken),
                Err(CreateError::Taken { .. })
            ));
        }
        states.erase("abc1").unwrap();
        assert!(matches!(states.find("web"), Err(StateError::Unknown(_))));
        assert_eq!(states.list().unwrap().len(), 1);
    }

    #[test]
    fn a_running_state_whose_processes_are_gone_reads_as_exited() {
        let temp = tempfile::tempdir().unwrap();
        let states = StateDir::new(temp.path());
        states.create(&spec("a", "a")).unwrap();
        let mut state = states.entry("a").unwrap().state;
        let me = ProcessRef::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        state.status = Status::Running;
        state.shim = Some(ProcessRef {
            start: me.start + 1,
            ..me
        });
        states.write_state("a", &state).unwrap();
        let found = states.entry("a").unwrap().state;
        assert_eq!((found.status, found.exit_code), (Status::Exited, None));
        assert!(found.finished_ms.is_some());
        state.shim = Some(me);
        states.write_state("a", &state).unwrap();
        assert_eq!(states.entry("a").unwrap().state.status, Status::Running);
    }
}
