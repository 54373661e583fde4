//! `tombolo stop`.

use std::time::Duration;

use clap::Args;

use super::for_each;
use crate::context::Context;
use crate::error::CommandError;
use crate::run::{StateError, Status};

/// Which processes to stop.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until a process that does not end is killed
    #[arg(short, long = "time", value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Stops processes and prints their names.
pub(super) fn execute(args: &StopArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    for_each(&args.names, context, |name, context| {
        let id = context.states.find(name)?;
        stop(&id, args.seconds, context)
    })
}

/// Stops a process and waits until its end is recorded and told to the daemon.
pub(super) fn stop(id: &str, seconds: u32, context: &Context<'_>) -> Result<(), CommandError> {
    let shim = context.states.entry(id)?.state.shim;
    context.states.stop(id, Duration::from_secs(seconds.into()))?;
    if let Some(shim) = shim {
        settle(shim)?;
    }
    Ok(())
}

/// Waits until a shim has run the exit hook of its process, however long that may take within its own limits.
pub(super) fn settle(shim: crate::run::ProcessRef) -> Result<(), CommandError> {
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
