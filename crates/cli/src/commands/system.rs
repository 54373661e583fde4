//! `tombolo system`.

use clap::{Args, Subcommand};

use super::confirm;
use super::rm::remove;
use crate::context::Context;
use crate::error::CommandError;
use crate::run::Status;

/// What is done to the whole.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Remove ended processes, stopped sandboxes, endpoints joined to nothing and networks without endpoints
    Prune(PruneArgs),
}

/// How to prune.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Carries out a command.
pub(super) fn execute(
    command: &SystemCommand,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    let SystemCommand::Prune(args) = command;
    if !args.force {
        let question = "Remove ended processes, stopped sandboxes, endpoints joined to nothing and \
                        networks without endpoints?";
        confirm(question, context)?;
    }
    for entry in context.states.list()? {
        if entry.state.status == Status::Exited {
            remove(&entry.spec.id, false, context)?;
            writeln!(context.out, "process {}", entry.spec.name)?;
        }
    }
    let pruned = context.client()?.prune()?;
    let kinds = [
        ("sandbox", pruned.sandboxes),
        ("endpoint", pruned.endpoints),
        ("network", pruned.networks),
    ];
    for (kind, names) in kinds {
        for name in names {
            writeln!(context.out, "{kind} {name}")?;
        }
    }
    Ok(())
}
