//! `tombolo sandbox-exited`, which the shim of a process runs at its end.

use clap::Args;

use super::world::stop_sandbox;
use crate::context::Context;
use crate::error::CommandError;

/// Whose process has ended.
#[derive(Debug, Args)]
pub(crate) struct ExitedArgs {
    /// Remove the sandbox; without this it is stopped and keeps its addresses
    #[arg(long)]
    remove: bool,
    /// Id of the sandbox
    id: String,
}

/// Stops or removes the sandbox. Succeeds when there is none: whoever removed it was sooner.
pub(super) fn execute(args: &ExitedArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let client = context.running_client()?;
    if !args.remove {
        return stop_sandbox(&args.id, client);
    }
    match client
        .sandbox_delete(&args.id, false)
        .map_err(CommandError::from)
    {
        Err(error) if error.is_unknown() => Ok(()),
        outcome => outcome,
    }
}
