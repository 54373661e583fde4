//! A small pid 1: it starts the program, forwards signals to it, reaps orphans, and ends with it.

use std::convert::Infallible;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::program::{Program, ProgramError};

/// Why the init cannot start or watch its program.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReapError {
    #[error("cannot watch signals")]
    Signals(#[source] Errno),
    #[error("cannot hide the init from its program")]
    Hide(#[source] Errno),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Starts the program, calls `started`, and exits with its code; returns only when it cannot be started.
pub(super) fn run(program: Program, started: impl FnOnce()) -> Result<Infallible, ReapError> {
    // The init runs a binary of the host: its program must not reach that through /proc/1/exe.
    nix::sys::prctl::set_dumpable(false).map_err(ReapError::Hide)?;
    // Before signals are blocked, which a child would inherit. None is lost: nobody knows of the process yet.
    let child = program.spawn()?;
    let main = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let everything = SigSet::all();
    everything.thread_block().map_err(ReapError::Signals)?;
    let signals = SignalFd::new(&everything).map_err(ReapError::Signals)?;
    started();
    if let Some(code) = reap(main) {
        std::process::exit(code);
    }
    loop {
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(ReapError::Signals(error)),
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        if number == Signal::SIGCHLD as i32 {
            if let Some(code) = reap(main) {
                std::process::exit(code);
            }
        } else if info.ssi_code != nix::libc::SI_KERNEL {
            // What the kernel sends comes from the terminal, and the program's group gets it as well.
            if let Ok(signal) = Signal::try_from(number) {
                let _ = kill(main, signal);
            }
        }
    }
}

/// Reaps every ended child; the exit code when `main` was among them.
fn reap(main: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == main => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
