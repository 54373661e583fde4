//! `tombolo network prune`.

use clap::Args;

use crate::commands::confirm;
use crate::context::Context;
use crate::error::CommandError;

/// How to prune.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Removes networks without endpoints and prints their names.
pub(super) fn execute(args: &PruneArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    if !args.force {
        confirm("Remove all networks without endpoints?", context)?;
    }
    for name in context.client()?.network_prune()?.networks {
        writeln!(context.out, "{name}")?;
    }
    Ok(())
}
