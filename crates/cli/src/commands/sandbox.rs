//! `tombolo sandbox`.

pub(crate) mod create;
pub(crate) mod list;

use clap::{Args, Subcommand};

use super::inspect::show_each;
use super::{done, for_each};
use crate::context::Context;
use crate::error::CommandError;

/// What is done to sandboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Make a sandbox with all its networks, or nothing
    Create(Box<create::CreateArgs>),
    /// List sandboxes
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Show sandboxes as JSON
    Inspect(SandboxArgs),
    /// Remove sandboxes with their endpoints
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Give up the network namespaces of sandboxes; their addresses are kept
    Stop(SandboxArgs),
    /// Give stopped sandboxes network namespaces again
    Start(SandboxArgs),
}

/// Which sandboxes are meant.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Names, ids or unambiguous starts of ids
    #[arg(required = true, value_name = "SANDBOX")]
    sandboxes: Vec<String>,
}

/// Which sandboxes to remove.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Names, ids or unambiguous starts of ids
    #[arg(required = true, value_name = "SANDBOX")]
    sandboxes: Vec<String>,
    /// Keep their endpoints with their addresses, joined to nothing
    #[arg(long)]
    keep_endpoints: bool,
}

/// Carries out a command and returns its exit code.
pub(crate) fn execute(
    command: SandboxCommand,
    context: &mut Context<'_>,
) -> Result<u8, CommandError> {
    match command {
        SandboxCommand::Create(args) => done(create::execute(*args, context)),
        SandboxCommand::Ls(args) => done(list::execute(args, context)),
        SandboxCommand::Inspect(args) => show_each(&args.sandboxes, context, |name, context| {
            Ok(context.client()?.sandbox_inspect(name)?)
        }),
        SandboxCommand::Rm(args) => for_each(&args.sandboxes, context, |name, context| {
            Ok(context
                .client()?
                .sandbox_delete(name, args.keep_endpoints)?)
        }),
        SandboxCommand::Stop(args) => for_each(&args.sandboxes, context, |name, context| {
            context.client()?.sandbox_stop(name)?;
            Ok(())
        }),
        SandboxCommand::Start(args) => for_each(&args.sandboxes, context, |name, context| {
            context.client()?.sandbox_start(name)?;
            Ok(())
        }),
    }
}
