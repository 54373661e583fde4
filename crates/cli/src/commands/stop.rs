//! `tombolo stop`.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::for_each;
use crate::context::Context;
use crate::error::CommandError;
use crate::limits;
use crate::run::{ProcessRef, StateDir, StateError, Status};

/// Which processes to stop.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until a process that does not end is killed
    #[arg(
        short = 't',
        long = "time",
        value_name = "SECONDS",
        default_value_t = 10
    )]
    seconds: u32,
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Stops processes, several at a time, and prints their names.
pub(super) fn execute(args: &StopArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let mut outcomes = BTreeMap::new();
    for names in args.names.chunks(limits::STOP_AT_ONCE) {
        let states = &context.states;
        thread::scope(|scope| {
            let started: Vec<_> = names
                .iter()
                .map(|name| {
                    (
                        name,
                        scope.spawn(move || stop_named(name, args.seconds, states)),
                    )
                })
                .collect();
            for (name, thread) in started {
                let outcome = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
                outcomes.insert(name.clone(), outcome);
            }
        });
    }
    for_each(&args.names, context, |name, _| {
        outcomes.remove(name).unwrap_or(Ok(()))
    })
}

fn stop_named(name: &str, seconds: u32, states: &StateDir) -> Result<(), CommandError> {
    stop(&states.find(name)?, seconds, states)
}

/// Stops a process and waits until its end is recorded and told to the daemon.
pub(super) fn stop(id: &str, seconds: u32, states: &StateDir) -> Result<(), CommandError> {
    let shim = states.entry(id)?.state.shim;
    states.stop(id, Duration::from_secs(seconds.into()))?;
    if let Some(shim) = shim {
        settle(shim)?;
    }
    Ok(())
}

/// Waits until a shim has run the exit hook of its process, however long that may take within its own limits.
fn settle(shim: ProcessRef) -> Result<(), CommandError> {
    use crate::run::limits::{HOOK_ATTEMPTS, HOOK_PAUSE, HOOK_TIMEOUT, KILL_WAIT};
    let longest = KILL_WAIT + (HOOK_TIMEOUT + HOOK_PAUSE * (1 << HOOK_ATTEMPTS)) * HOOK_ATTEMPTS;
    if let Some(handle) = shim.open()? {
        handle.wait(longest)?;
    }
    Ok(())
}

/// Makes sure that the end of a process was told to the daemon; `false` when it runs.
pub(super) fn is_ended(id: &str, context: &Context<'_>) -> Result<bool, CommandError> {
    let entry = context.states.entry(id)?;
    if entry.state.status == Status::Running {
        return Ok(false);
    }
    if let Some(shim) = entry.state.shim {
        settle(shim)?;
    }
    match context.states.finish_hook(id) {
        // A hook that fails again leaves the sandbox running, which a start or a removal can deal with.
        Ok(_) | Err(StateError::Unknown(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
