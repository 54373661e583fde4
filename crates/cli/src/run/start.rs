//! Starting a process: detached, or in the foreground with the caller's terminal.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use super::SHIM_WORD;
use super::attach::{AttachError, Attachment};
use super::report::{Failure, SETUP_FAILED};
use super::shim::Ready;
use super::state::{StateDir, StateError, Status};

/// Why a process cannot be started, or be followed in the foreground.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process is not known, or its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// It runs already.
    #[error("process {0} is running already")]
    Running(String),
    /// The shim cannot be started.
    #[error("cannot start the shim of process {id}")]
    Spawn {
        /// The process.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The shim ended without a word.
    #[error("the shim of process {id} ended without a word; see {log}", log = log.display())]
    Silent {
        /// The process.
        id: String,
        /// The shim's own log.
        log: std::path::PathBuf,
    },
    /// The world of the process cannot be made, or its program cannot be executed.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The process runs, but cannot be followed.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl StartError {
    /// The exit code of a command that fails with this: 126 and 127 speak of the program, 125 of all else.
    pub fn code(&self) -> i32 {
        match self {
            Self::Failure(failure) => failure.code,
            _ => SETUP_FAILED,
        }
    }
}

impl StateDir {
    /// Starts a created or ended process and returns when its program runs.
    pub fn start(&self, id: &str) -> Result<(), StartError> {
        let _lock = self.startable(id)?;
        let mut shim = self.spawn_shim(id, false)?;
        while self.hear(id, &mut shim)? != Ready::Started {}
        Ok(())
    }

    /// Starts a process with the caller's streams and returns its exit code.
    ///
    /// Signals that would end the caller go to the process; with a terminal on both sides keys go there unchanged, and
    /// so do changes of size. The caller may die at any moment: the process goes on without it.
    pub fn run_foreground(&self, id: &str) -> Result<i32, StartError> {
        let lock = self.startable(id)?;
        let spec = self.entry(id)?.spec;
        let mut shim = self.spawn_shim(id, true)?;
        self.hear(id, &mut shim)?;
        let attachment = Attachment::open(self, &spec)?;
        self.hear(id, &mut shim)?;
        drop(lock);
        Ok(attachment.follow()?)
    }

    fn startable(&self, id: &str) -> Result<impl Drop + use<>, StartError> {
        // Known first: locking would make a file in a directory that is none of ours.
        self.entry(id)?;
        let lock = self.lock(id)?;
        let state: super::state::State = super::state::read_json(&self.dir(id).join("state.json"))?;
        if state.is_live() || state.status == Status::Running {
            return Err(StartError::Running(id.to_owned()));
        }
        Ok(lock)
    }

    fn spawn_shim(&self, id: &str, foreground: bool) -> Result<BufReader<ChildStdout>, StartError> {
        let failed = |source| StartError::Spawn {
            id: id.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        let log = options
            .open(self.dir(id).join("shim.log"))
            .map_err(failed)?;
        let root = std::path::absolute(self.root()).map_err(failed)?;
        let mut child = Command::new(self.program())
            .arg0("tombolo")
            .arg(SHIM_WORD)
            .arg(root)
            .arg(id)
            .args(foreground.then_some("foreground"))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        // Only so that a long-lived caller keeps no zombie; the shim does not depend on it.
        thread::spawn(move || child.wait());
        Ok(BufReader::new(stdout))
    }

    fn hear(&self, id: &str, shim: &mut BufReader<ChildStdout>) -> Result<Ready, StartError> {
        let mut line = String::new();
        let silent = || StartError::Silent {
            id: id.to_owned(),
            log: self.dir(id).join("shim.log"),
        };
        shim.read_line(&mut line).map_err(|_| silent())?;
        match serde_json::from_str(&line).map_err(|_| silent())? {
            Ready::Failed(failure) => Err(failure.into()),
            ready @ (Ready::Listening | Ready::Started) => Ok(ready),
        }
    }
}
