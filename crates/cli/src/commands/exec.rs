//! `tombolo exec`.

use std::path::PathBuf;

use clap::Args;

use crate::args::flags::EnvFlags;
use crate::context::Context;
use crate::error::CommandError;
use crate::run::ExecSpec;

/// A program to run beside a process.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Return as soon as it runs; its output is discarded
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    env: EnvFlags,
    /// User, and group if given, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Give it all capabilities
    #[arg(long)]
    privileged: bool,
    /// Name or id of the process
    name: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs a program beside a process; the exit code is its own unless it is detached.
pub(super) fn execute(args: ExecArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let id = context.states.find(&args.name)?;
    let spec = ExecSpec {
        argv: args.command,
        env: args.env.resolve()?,
        user: args.user,
        cwd: args.workdir,
        tty: args.tty,
        stdin_open: args.interactive,
        privileged: args.privileged,
        detach: args.detach,
    };
    let code = context.states.exec(&id, &spec)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
