//! `tombolo network rm`.

use clap::Args;

use crate::commands::for_each;
use crate::context::Context;
use crate::error::CommandError;

/// Which networks to remove.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Names, ids or unambiguous starts of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// Do not fail when there is no such network
    #[arg(short, long)]
    force: bool,
}

/// Removes networks and prints their names.
pub(super) fn execute(args: &RemoveArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    for_each(&args.networks, context, |name, context| {
        let removed = context
            .client()?
            .network_delete(name)
            .map_err(CommandError::from);
        match removed {
            Err(error) if args.force && error.is_unknown() => Ok(()),
            outcome => outcome,
        }
    })
}
