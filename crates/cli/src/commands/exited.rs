//! `tombolo sandbox-exited`, which the shim of a process runs at its end.

use clap::Args;

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
    let told = if args.remove {
        client.sandbox_delete(&args.id, false)
    } else {
        client.sandbox_stop(&args.id).map(drop)
    };
    match told.map_err(CommandError::from) {
        Err(error) if error.is_unknown() => Ok(()),
        // It is stopped already.
        Err(error) if error.is_wrong_state() && !args.remove => Ok(()),
        outcome => outcome,
    }
}
