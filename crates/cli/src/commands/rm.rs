//! `tombolo rm`.

use clap::Args;

use super::for_each;
use super::stop::stop;
use super::world::owner;
use crate::context::Context;
use crate::error::CommandError;
use crate::run::{RemoveError, StateError, Status};

/// Which processes to remove.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill those that run; do not fail when there is no such process
    #[arg(short, long)]
    force: bool,
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Removes processes with their sandboxes and prints their names.
pub(super) fn execute(args: &RmArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    for_each(&args.names, context, |name, context| {
        match context.states.find(name) {
            Ok(id) => remove(&id, args.force, context),
            Err(StateError::Unknown(_)) if args.force => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}

/// Removes a process, its sandbox and its log.
pub(super) fn remove(id: &str, force: bool, context: &mut Context<'_>) -> Result<(), CommandError> {
    let entry = context.states.entry(id)?;
    if entry.state.status == Status::Running {
        if !force {
            return Err(RemoveError::Running(entry.spec.name).into());
        }
        stop(id, 0, &context.states)?;
    }
    if owner(&entry.spec).is_none() {
        // The sandbox goes before its record: what is left by a failure can still be named.
        let deleted = context
            .client()?
            .sandbox_delete(id, false)
            .map_err(CommandError::from);
        match deleted {
            Err(error) if !error.is_unknown() => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    match context.states.remove(id, true) {
        // It was removed at its end, as asked when it was run.
        Err(RemoveError::State(StateError::Unknown(_))) => Ok(()),
        outcome => Ok(outcome?),
    }
}
