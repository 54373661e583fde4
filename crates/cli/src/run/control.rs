//! Signals, stopping, waiting and removing.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::attach::await_end;
use super::hook::run_hook;
use super::limits;
use super::process::{ProcessHandle, ProcessRef};
use super::state::{Entry, Hook, StateDir, StateError, Status};

/// Why a process cannot be signalled or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The process is not known, or its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// It does not run.
    #[error("process {0} is not running")]
    NotRunning(String),
    /// The kernel refuses.
    #[error("cannot signal process {id}")]
    Refused {
        /// The process.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// It did not end even when killed.
    #[error("process {0} does not end even when killed; it may hang in the kernel")]
    Stuck(String),
}

/// Why a process cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The process is not known, or its state cannot be changed.
    #[error(transparent)]
    State(#[from] StateError),
    /// It runs; it must be stopped first, or removed with force.
    #[error("process {0} is running; stop it first or force its removal")]
    Running(String),
    /// It cannot be killed.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The exit hook fails, so what it would clean up would be forgotten.
    #[error("the exit hook of process {id} fails; see {log}", log = log.display())]
    Hook {
        /// The process.
        id: String,
        /// Where its failures are.
        log: std::path::PathBuf,
    },
}

impl StateDir {
    /// Sends a signal to pid 1 of a running process.
    pub fn kill(&self, id: &str, signal: Signal) -> Result<(), SignalError> {
        let handle = self.handle(id)?;
        if self.signal(id, &handle, signal)? {
            Ok(())
        } else {
            Err(SignalError::NotRunning(id.to_owned()))
        }
    }

    /// Asks a process to end with `SIGTERM`, kills it after `timeout`, and returns when its end is recorded.
    pub fn stop(&self, id: &str, timeout: Duration) -> Result<(), SignalError> {
        let handle = match self.handle(id) {
            Ok(handle) => handle,
            Err(SignalError::NotRunning(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.signal(id, &handle, Signal::SIGTERM)?;
        if !self.await_handle(id, &handle, timeout)? {
            self.signal(id, &handle, Signal::SIGKILL)?;
            if !self.await_handle(id, &handle, limits::KILL_WAIT)? {
                return Err(SignalError::Stuck(id.to_owned()));
            }
        }
        self.await_record(id)
    }

    /// Waits for the end of a process; `None` when `timeout` passed first, `Some(None)` when the code is unknown.
    ///
    /// A running process' end comes after its exit hook and automatic removal.
    pub fn wait(
        &self,
        id: &str,
        timeout: Option<Duration>,
    ) -> Result<Option<Option<i32>>, StateError> {
        let entry = self.entry(id)?;
        if entry.state.status != Status::Running {
            return Ok(Some(entry.state.exit_code));
        }
        match await_end(&self.dir(id), timeout) {
            Ok(code) => Ok(code),
            // The shim ended in between, or was killed.
            Err(_) => Ok(Some(self.entry(id)?.state.exit_code)),
        }
    }

    /// Forgets a process and its log; with `force` a running one is killed first.
    ///
    /// An exit hook that has not succeeded yet is tried again. With `force` its failure is no obstacle.
    pub fn remove(&self, id: &str, force: bool) -> Result<(), RemoveError> {
        let entry = self.entry(id)?;
        if entry.state.status == Status::Running {
            if !force {
                return Err(RemoveError::Running(id.to_owned()));
            }
            self.stop(id, Duration::ZERO)?;
        }
        self.await_shim(&entry)?;
        match self.entry(id) {
            Ok(_) => {}
            // It has removed itself.
            Err(StateError::Unknown(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let _lock = self.lock(id)?;
        if !self.finish_hook(id)? && !force {
            let log = self.dir(id).join("hook.log");
            return Err(RemoveError::Hook {
                id: id.to_owned(),
                log,
            });
        }
        Ok(self.erase(id)?)
    }

    /// Runs the exit hook of an ended process if its shim could not; `false` when it fails.
    pub fn finish_hook(&self, id: &str) -> Result<bool, StateError> {
        let Entry { spec, mut state } = self.entry(id)?;
        let is_due = matches!(state.hook, Hook::Due | Hook::Failed) && !state.is_live();
        if !is_due {
            return Ok(true);
        }
        let done = run_hook(self.program(), &spec.on_exit, &self.dir(id));
        state.hook = if done { Hook::Done } else { Hook::Failed };
        self.write_state(id, &state)?;
        Ok(done)
    }

    fn handle(&self, id: &str) -> Result<ProcessHandle, SignalError> {
        let state = self.entry(id)?.state;
        let process = state.process.filter(|_| state.status == Status::Running);
        let handle = process.map_or(Ok(None), ProcessRef::open);
        handle
            .map_err(|source| SignalError::Refused {
                id: id.to_owned(),
                source,
            })?
            .ok_or_else(|| SignalError::NotRunning(id.to_owned()))
    }

    fn signal(
        &self,
        id: &str,
        handle: &ProcessHandle,
        signal: Signal,
    ) -> Result<bool, SignalError> {
        let refused = |source| SignalError::Refused {
            id: id.to_owned(),
            source,
        };
        let number = rustix::process::Signal::from_named_raw(signal as i32)
            .ok_or_else(|| refused(io::ErrorKind::InvalidInput.into()))?;
        handle.signal(number).map_err(refused)
    }

    fn await_handle(
        &self,
        id: &str,
        handle: &ProcessHandle,
        timeout: Duration,
    ) -> Result<bool, SignalError> {
        handle.wait(timeout).map_err(|source| SignalError::Refused {
            id: id.to_owned(),
            source,
        })
    }

    fn await_record(&self, id: &str) -> Result<(), SignalError> {
        let deadline = Instant::now() + limits::KILL_WAIT;
        loop {
            match self.entry(id) {
                Ok(entry) if entry.state.status != Status::Running => return Ok(()),
                Err(StateError::Unknown(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(_) if Instant::now() > deadline => {
                    return Err(SignalError::Stuck(id.to_owned()));
                }
                Ok(_) => thread::sleep(limits::POLL_PAUSE),
            }
        }
    }

    /// Waits for a shim that still runs the exit hook: it would write into the directory.
    fn await_shim(&self, entry: &Entry) -> Result<(), SignalError> {
        let id = &entry.spec.id;
        let refused = |source| SignalError::Refused {
            id: id.clone(),
            source,
        };
        let Some(shim) = entry.state.shim else {
            return Ok(());
        };
        let Some(handle) = shim.open().map_err(refused)? else {
            return Ok(());
        };
        let hook = (limits::HOOK_TIMEOUT + limits::HOOK_PAUSE * 16) * limits::HOOK_ATTEMPTS;
        if handle.wait(limits::KILL_WAIT + hook).map_err(refused)? {
            Ok(())
        } else {
            Err(SignalError::Stuck(id.clone()))
        }
    }
}
