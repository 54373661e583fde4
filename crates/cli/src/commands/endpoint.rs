//! `tombolo endpoint`.

pub(crate) mod create;
mod list;

use clap::{Args, Subcommand};

use super::inspect::show_each;
use super::{done, for_each};
use crate::context::Context;
use crate::error::CommandError;

/// What is done to endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Make an endpoint, and join it to a sandbox if one is given
    Create(create::CreateArgs),
    /// List endpoints
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Show endpoints as JSON
    Inspect(EndpointArgs),
    /// Remove endpoints, joined or not
    #[command(visible_alias = "remove")]
    Rm(EndpointArgs),
    /// Join an endpoint to a sandbox
    Join(JoinArgs),
    /// Take endpoints out of their sandboxes; they keep their addresses
    Leave(EndpointArgs),
}

/// Which endpoints are meant.
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    /// Names, ids or unambiguous starts of ids
    #[arg(required = true, value_name = "ENDPOINT")]
    endpoints: Vec<String>,
}

/// Which endpoint joins which sandbox.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinArgs {
    /// Name or id of the endpoint
    pub(crate) endpoint: String,
    /// Name or id of the sandbox
    pub(crate) sandbox: String,
}

/// Carries out a command and returns its exit code.
pub(crate) fn execute(
    command: EndpointCommand,
    context: &mut Context<'_>,
) -> Result<u8, CommandError> {
    match command {
        EndpointCommand::Create(args) => done(create::execute(args, context)),
        EndpointCommand::Ls(args) => done(list::execute(args, context)),
        EndpointCommand::Inspect(args) => show_each(&args.endpoints, context, |name, context| {
            Ok(context.client()?.endpoint_inspect(name)?)
        }),
        EndpointCommand::Rm(args) => for_each(&args.endpoints, context, |name, context| {
            Ok(context.client()?.endpoint_delete(name)?)
        }),
        EndpointCommand::Join(args) => {
            context
                .client()?
                .endpoint_join(&args.endpoint, &args.sandbox)?;
            Ok(0)
        }
        EndpointCommand::Leave(args) => for_each(&args.endpoints, context, |name, context| {
            context.client()?.endpoint_leave(name)?;
            Ok(())
        }),
    }
}
