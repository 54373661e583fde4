//! `tombolo wait`.

use clap::Args;

use crate::context::Context;
use crate::error::{self, CommandError};

/// Which processes to wait for.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Waits until processes end, and prints their exit codes, each on a line.
pub(super) fn execute(args: &WaitArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let mut first = 0;
    for name in &args.names {
        match wait(name, context) {
            Ok(Some(code)) => writeln!(context.out, "{code}")?,
            Ok(None) => writeln!(context.out, "unknown")?,
            Err(failure) => {
                error::write(&failure, context.err);
                if first == 0 {
                    first = failure.exit_code();
                }
            }
        }
    }
    Ok(first)
}

fn wait(name: &str, context: &Context<'_>) -> Result<Option<i32>, CommandError> {
    let id = context.states.find(name)?;
    Ok(context.states.wait(&id, None)?.flatten())
}
