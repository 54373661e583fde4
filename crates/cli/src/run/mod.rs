//! Processes in networks: what is behind `tombolo run`, `exec`, `logs`, `stop`, `start`, `rm` and `ps`.
//!
//! A process gets mount, pid, UTS and IPC namespaces of its own, a *given* network namespace, and Docker's default
//! capabilities, on the host's root file system or on a directory. This is no image runtime, and no wall against a hostile
//! root: there are no user namespaces, control groups or seccomp filters here.
//!
//! # Who runs
//!
//! ```text
//! caller -> run-shim <state dir> <id> [foreground]     session of its own, watches, logs, runs the exit hook
//!             -> run-init <state dir> <id> <pipe>      pid 1 in the new namespaces; becomes the program
//! caller -> run-exec join <state dir> <id> <file> <pipe>   joins the namespaces; becomes the program
//! ```
//!
//! The shim depends on nobody: neither on the daemon nor on the caller. Every run has one, a foreground run too, which
//! is a client of its shim on `attach.sock` and may be killed at any moment. The other way round the process depends on
//! its shim: when that is killed, the kernel kills the process, and the next look at its state shows it as exited with an
//! unknown code. A process that changed its credentials by a set-user-id program escapes that; it is shown as running as
//! long as it lives, and can be stopped.
//!
//! The shim lives in the host's namespaces. Only its child is born into the new pid namespace, and makes or joins the
//! others itself, so that nothing of the host is held busy by the shim and the exit hook runs where it should.
//!
//! A failure before the program runs travels up a pipe that closes on exec, and arrives as a [`Failure`] with Docker's
//! codes: 125 for the setup, 126 for what cannot be executed, 127 for what is not there.
//!
//! # What is kept
//!
//! `/run/tombolo/run/<id>/` holds `spec.json`, `state.json`, `log` (JSON lines, rotated once to `log.1`), `attach.sock`,
//! `shim.log` and `hook.log`. Files are replaced by renaming, so each is whole whenever its writer dies. While it runs
//! only the shim writes the state; at other times whoever holds the lock on `.lock`. A process is named by pid *and*
//! start time, and signalled through a pidfd, so a reused pid is never hit.
//!
//! The exit hook runs once after every start, also one that failed, and again when the process is removed if it never
//! succeeded.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

mod attach;
mod console;
mod control;
mod exec;
mod frame;
mod hook;
mod init;
pub mod limits;
mod logs;
mod mountinfo;
mod mounts;
mod privileges;
mod process;
mod program;
mod reaper;
mod relay;
mod report;
mod shim;
mod spec;
mod start;
mod state;
mod terminal;
mod user;

pub use attach::AttachError;
pub use control::{RemoveError, SignalError};
pub use exec::ExecError;
pub use logs::{LogEntry, LogError, LogQuery, Stream};
pub use nix::sys::signal::Signal;
pub use process::{ProcessHandle, ProcessRef};
pub use report::{Failure, NOT_EXECUTABLE, NOT_FOUND, SETUP_FAILED};
pub use spec::{Bind, ExecSpec, ProcessSpec, SpecError};
pub use start::StartError;
pub use state::{CreateError, Entry, Hook, State, StateDir, StateError, Status};

use report::Reporter;

/// First word of the command line that makes this program a shim: call [`shim_main`].
pub const SHIM_WORD: &str = "run-shim";
/// First word of the command line that makes this program an init: call [`init_main`].
pub const INIT_WORD: &str = "run-init";
/// First word of the command line that makes this program join a process: call [`exec_main`].
pub const EXEC_WORD: &str = "run-exec";

/// Runs a shim; `args` follow [`SHIM_WORD`]. Call it before any thread or file is opened.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    shim::close_inherited(None);
    let args: Vec<_> = args.into_iter().collect();
    match args.as_slice() {
        [root, id] => code(shim::watch(
            &StateDir::new(root),
            &id.to_string_lossy(),
            false,
        )),
        [root, id, mode] if mode == "foreground" => code(shim::watch(
            &StateDir::new(root),
            &id.to_string_lossy(),
            true,
        )),
        _ => code(SETUP_FAILED),
    }
}

/// Runs an init; `args` follow [`INIT_WORD`]. Call it before any thread or file is opened.
pub fn init_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let [root, id, pipe] = args.as_slice() else {
        return code(SETUP_FAILED);
    };
    let Some(reporter) = take_reporter(pipe) else {
        return code(SETUP_FAILED);
    };
    code(init::init(
        &StateDir::new(root),
        &id.to_string_lossy(),
        reporter,
    ))
}

/// Joins a process; `args` follow [`EXEC_WORD`]. Call it before any thread or file is opened.
pub fn exec_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    match args.as_slice() {
        [mode, root, id, file, pipe] if mode == "join" => {
            let Some(reporter) = take_reporter(pipe) else {
                return code(SETUP_FAILED);
            };
            let (states, id) = (StateDir::new(root), id.to_string_lossy());
            code(match state::read_json::<ExecSpec>(Path::new(file)) {
                Ok(spec) => init::join(&states, &id, &spec, reporter),
                Err(error) => {
                    reporter.fail(&Failure::setup(&error));
                    SETUP_FAILED
                }
            })
        }
        [mode, root, id, file] if mode == "watch" => {
            shim::close_inherited(None);
            let watched = StateDir::new(root).watch_exec(&id.to_string_lossy(), Path::new(file));
            code(watched.unwrap_or_else(|error| error.code()))
        }
        _ => code(SETUP_FAILED),
    }
}

fn take_reporter(pipe: &OsString) -> Option<Reporter> {
    let number: RawFd = pipe.to_str()?.parse().ok()?;
    shim::close_inherited(Some(number));
    Reporter::inherit(number).ok()
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
