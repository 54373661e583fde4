//! `tombolo restart`.

use clap::Args;

use super::for_each;
use super::start::start;
use super::stop::stop;
use crate::context::Context;
use crate::error::CommandError;

/// Which processes to restart.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Seconds until a process that does not end is killed
    #[arg(
        short = 't',
        long = "time",
        value_name = "SECONDS",
        default_value_t = 10
    )]
    seconds: u32,
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Stops processes, starts them again, and prints their names.
pub(super) fn execute(args: &RestartArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    for_each(&args.names, context, |name, context| {
        let id = context.states.find(name)?;
        stop(&id, args.seconds, &context.states)?;
        start(&id, context)
    })
}
