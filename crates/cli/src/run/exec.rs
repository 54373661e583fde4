//! Running one more program in the namespaces of a running process.
//!
//! The caller itself is the parent. One of its threads joins the pid namespace, which only concerns children, and starts
//! a child there; the child joins the other namespaces, gives up its privileges and becomes the program. With `detach` a
//! second instance of this program is the parent instead, so that somebody outside reaps.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, thread};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::report::{Failure, ReportPipe, SETUP_FAILED};
use super::shim::exit_code;
use super::spec::{ExecSpec, SpecError};
use super::state::{StateDir, StateError, Status, write_json};
use super::terminal::{RawTerminal, SignalStream, terminal_size};
use super::{EXEC_WORD, console, limits};

/// Why a program cannot be run beside a process.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The spec is not sound.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The process is not known, or its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// It does not run.
    #[error("process {0} is not running")]
    NotRunning(String),
    /// Its pid namespace cannot be joined, or no child be started there.
    #[error("cannot enter the pid namespace of process {id}")]
    Enter {
        /// The process.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The program's world cannot be joined, or it cannot be executed.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The caller's terminal or signals cannot be taken over.
    #[error("cannot take over the terminal")]
    Terminal(#[source] io::Error),
    /// The streams or the program cannot be watched.
    #[error("cannot follow the program")]
    Follow(#[source] io::Error),
}

impl ExecError {
    /// The exit code of a command that fails with this: 126 and 127 speak of the program, 125 of all else.
    pub fn code(&self) -> i32 {
        match self {
            Self::Failure(failure) => failure.code,
            _ => SETUP_FAILED,
        }
    }
}

/// A program that runs beside a process.
struct Beside {
    child: Child,
    terminal: Option<OwnedFd>,
}

impl StateDir {
    /// Runs a program in the namespaces of a running process, with its capabilities, and returns the exit code.
    ///
    /// It gets the caller's streams, or a terminal which the caller's is connected to; with `detach` it gets none, and 0 is
    /// returned once it runs.
    pub fn exec(&self, id: &str, spec: &ExecSpec) -> Result<i32, ExecError> {
        spec.validate()?;
        let entry = self.entry(id)?;
        let process = entry
            .state
            .process
            .filter(|_| entry.state.status == Status::Running);
        let process = process.ok_or_else(|| ExecError::NotRunning(id.to_owned()))?;
        let file = SpecFile::write(self, id, spec)?;
        if spec.detach {
            return self.exec_detached(id, &file.path);
        }
        let signals = SignalStream::open().map_err(ExecError::Terminal)?;
        let keys = if spec.tty && spec.stdin_open {
            RawTerminal::enter()
        } else {
            Ok(None)
        };
        let _raw = keys.map_err(ExecError::Terminal)?;
        let beside = self.enter(id, process.pid, spec, &file.path)?;
        drop(file);
        beside
            .follow(signals, spec.stdin_open)
            .map_err(ExecError::Follow)
    }

    /// Starts the second instance of this program and waits until it says that the program runs.
    fn exec_detached(&self, id: &str, file: &Path) -> Result<i32, ExecError> {
        let failed = |source| ExecError::Enter {
            id: id.to_owned(),
            source,
        };
        let root = std::path::absolute(self.root()).map_err(failed)?;
        let mut watcher = Command::new(self.program())
            .arg0("tombolo")
            .args([EXEC_WORD, "watch"])
            .arg(root)
            .arg(id)
            .arg(std::path::absolute(file).map_err(failed)?)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut text = String::new();
        if let Some(mut stdout) = watcher.stdout.take() {
            stdout.read_to_string(&mut text).map_err(failed)?;
        }
        // Only so that a long-lived caller keeps no zombie.
        thread::spawn(move || watcher.wait());
        match serde_json::from_str::<Option<Failure>>(&text) {
            Ok(None) => Ok(0),
            Ok(Some(failure)) => Err(failure.into()),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The second instance: starts the program, says so, and waits for it.
    pub(super) fn watch_exec(&self, id: &str, file: &Path) -> Result<i32, ExecError> {
        let failed = |source| ExecError::Enter {
            id: id.to_owned(),
            source,
        };
        nix::unistd::setsid().map_err(|errno| failed(errno.into()))?;
        let spec: ExecSpec = super::state::read_json(file)?;
        let spec = ExecSpec {
            tty: false,
            stdin_open: false,
            ..spec
        };
        let process = self.entry(id)?.state.process;
        let process = process.ok_or_else(|| ExecError::NotRunning(id.to_owned()))?;
        let null = || File::options().read(true).write(true).open("/dev/null");
        let report = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        // The program must not hold the pipe that says it runs.
        rustix::stdio::dup2_stdout(&null().map_err(failed)?).map_err(|e| failed(e.into()))?;
        let outcome = self.enter(id, process.pid, &spec, file);
        let failure = outcome.as_ref().err().map(|error| Failure {
            code: error.code(),
            message: super::report::chain(error),
        });
        let text = serde_json::to_vec(&failure).map_err(|error| failed(error.into()))?;
        // With the caller gone the program runs all the same.
        let _ = File::from(report).write_all(&text);
        outcome?
            .child
            .wait()
            .map(exit_code)
            .map_err(ExecError::Follow)
    }

    fn enter(&self, id: &str, pid: i32, spec: &ExecSpec, file: &Path) -> Result<Beside, ExecError> {
        let failed = |source| ExecError::Enter {
            id: id.to_owned(),
            source,
        };
        let namespace = File::open(format!("/proc/{pid}/ns/pid")).map_err(failed)?;
        let report = ReportPipe::new().map_err(failed)?;
        let mut command = Command::new(self.program());
        command.arg0("tombolo").arg(EXEC_WORD).arg("join");
        command.arg(std::path::absolute(self.root()).map_err(failed)?);
        command
            .arg(id)
            .arg(std::path::absolute(file).map_err(failed)?);
        command
            .arg(report.number().to_string())
            .env_clear()
            .current_dir("/");
        let mut socket = None;
        if spec.tty {
            let (own, childs) = UnixStream::pair().map_err(failed)?;
            command
                .stdin(OwnedFd::from(childs))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            socket = Some(own);
        } else if !spec.stdin_open {
            command.stdin(Stdio::null());
        }
        // A thread of its own, so that other children of this program are born where it lives itself.
        let spawned = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWPID)?;
                command.spawn()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the starting thread broke")))
        });
        let mut child = spawned.map_err(failed)?;
        drop(command);
        let terminal = socket
            .map(|socket| console::receive_console(socket, terminal_size()))
            .transpose();
        if let Some(failure) = report.read() {
            let _ = child.wait();
            return Err(failure.into());
        }
        Ok(Beside {
            child,
            terminal: terminal.map_err(ExecError::Terminal)?.flatten(),
        })
    }
}

impl Beside {
    /// Passes signals and keys on until the program has ended.
    fn follow(mut self, mut signals: SignalStream, mut reads_input: bool) -> io::Result<i32> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        loop {
            let stdin = rustix::stdio::stdin();
            let mut fds = vec![
                PollFd::new(&ended, PollFlags::IN),
                PollFd::new(&signals, PollFlags::IN),
            ];
            if let Some(terminal) = &self.terminal {
                fds.push(PollFd::new(terminal, PollFlags::IN));
                if reads_input {
                    fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
                }
            }
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            let [has_ended, signal, output, input] = [ready(0), ready(1), ready(2), ready(3)];
            drop(fds);
            if output {
                self.show_output()?;
            }
            if has_ended && !output {
                return self.child.wait().map(exit_code);
            }
            if signal {
                self.pass_signal(&mut signals, &ended)?;
            }
            if input && !self.type_input()? {
                reads_input = false;
            }
        }
    }

    fn show_output(&mut self) -> io::Result<()> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        let mut chunk = [0; 16 << 10];
        match rustix::io::read(terminal, &mut chunk) {
            Ok(0) | Err(Errno::IO) => self.terminal = None,
            Ok(count) => {
                io::stdout().write_all(&chunk[..count])?;
                io::stdout().flush()?;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// `false` when no more will come.
    fn type_input(&self) -> io::Result<bool> {
        let Some(terminal) = &self.terminal else {
            return Ok(false);
        };
        let mut chunk = [0; limits::TYPED_BYTES];
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(_) => 0,
        };
        // What a person would type to end the input: ^D.
        let bytes = if count == 0 {
            &[4][..]
        } else {
            &chunk[..count]
        };
        rustix::io::write(terminal, bytes)?;
        Ok(count > 0)
    }

    fn pass_signal(&self, signals: &mut SignalStream, child: &OwnedFd) -> io::Result<()> {
        match signals.next()? {
            Some(Signal::SIGWINCH) => {
                if let (Some(terminal), Some(size)) = (&self.terminal, terminal_size()) {
                    console::resize(terminal, size)?;
                }
            }
            Some(signal) => {
                if let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) {
                    // It may have ended just now.
                    let _ = pidfd_send_signal(child, signal);
                }
            }
            None => {}
        }
        Ok(())
    }
}

/// An exec spec on its way to the child; its environment has no place in a command line.
struct SpecFile {
    path: PathBuf,
}

impl SpecFile {
    fn write(states: &StateDir, id: &str, spec: &ExecSpec) -> Result<Self, StateError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("exec-{}-{number}.json", std::process::id());
        let path = states.dir(id).join(name);
        write_json(&path, spec)?;
        Ok(Self { path })
    }
}

impl Drop for SpecFile {
    fn drop(&mut self) {
        // The directory itself may have been removed meanwhile.
        let _ = fs::remove_file(&self.path);
    }
}
