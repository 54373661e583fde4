//! `tombolo network inspect`.

use clap::Args;

use crate::commands::inspect::show_each;
use crate::context::Context;
use crate::error::CommandError;

/// Which networks to show.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names, ids or unambiguous starts of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Prints networks as a JSON array.
pub(super) fn execute(args: &InspectArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    show_each(&args.networks, context, |name, context| {
        Ok(context.client()?.network_inspect(name)?)
    })
}
