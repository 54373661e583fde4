//! `tombolo network`.

pub(crate) mod connect;
pub(crate) mod create;
mod inspect;
mod list;
mod names;
mod prune;
mod remove;

use clap::Subcommand;

use super::done;
use crate::context::Context;
use crate::error::CommandError;

/// What is done to networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network
    Create(Box<create::CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Show networks as JSON
    Inspect(inspect::InspectArgs),
    /// Remove networks without endpoints
    #[command(visible_alias = "remove")]
    Rm(remove::RemoveArgs),
    /// Remove all networks without endpoints, except those that always exist
    Prune(prune::PruneArgs),
    /// Tie a sandbox to a network
    Connect(connect::ConnectArgs),
    /// Untie a sandbox from a network
    Disconnect(connect::DisconnectArgs),
}

/// Carries out a command and returns its exit code.
pub(crate) fn execute(
    command: NetworkCommand,
    context: &mut Context<'_>,
) -> Result<u8, CommandError> {
    match command {
        NetworkCommand::Create(args) => done(create::execute(*args, context)),
        NetworkCommand::Ls(args) => done(list::execute(args, context)),
        NetworkCommand::Inspect(args) => inspect::execute(&args, context),
        NetworkCommand::Rm(args) => remove::execute(&args, context),
        NetworkCommand::Prune(args) => done(prune::execute(&args, context)),
        NetworkCommand::Connect(args) => done(connect::connect(args, context)),
        NetworkCommand::Disconnect(args) => done(connect::disconnect(&args, context)),
    }
}
