//! `tombolo docker`.

mod elf;
mod files;
pub(crate) mod install;
pub(crate) mod plugin;
mod staged;

use clap::Subcommand;

use crate::context::Context;
use crate::error::CommandError;

/// What is done for Docker's engine. No daemon is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum DockerCommand {
    /// Write what makes Docker's engine on this host find us as a plugin
    Install(install::InstallArgs),
    /// Write a directory from which `docker plugin create` makes a managed plugin
    Plugin(plugin::PluginArgs),
}

/// Carries out a command.
pub(super) fn execute(
    command: &DockerCommand,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    match command {
        DockerCommand::Install(args) => install::execute(args, context),
        DockerCommand::Plugin(args) => plugin::execute(args, context),
    }
}
