//! One file for each command: its flags, and what it does.

pub(crate) mod dns;
pub(crate) mod docker;
pub(crate) mod drift;
pub(crate) mod endpoint;
pub(crate) mod exec;
pub(crate) mod exited;
pub(crate) mod explain;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod plan;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod publish;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod system;
pub(crate) mod topology;
pub(crate) mod wait;
mod world;

use std::io::{self, BufRead};

use crate::args::Command;
use crate::context::Context;
use crate::error::{self, CommandError};

/// Carries out a command and returns its exit code.
pub(crate) fn execute(command: Command, context: &mut Context<'_>) -> Result<u8, CommandError> {
    match command {
        Command::Network(command) => network::execute(command, context),
        Command::Endpoint(command) => endpoint::execute(command, context),
        Command::Sandbox(command) => sandbox::execute(command, context),
        Command::Run(args) => run::execute(*args, context),
        Command::Exec(args) => exec::execute(args, context),
        Command::Port(args) => done(port::execute(&args, context)),
        Command::Publish(command) => done(publish::execute(command, context)),
        Command::Dns(command) => dns::execute(command, context),
        Command::Docker(command) => done(docker::execute(&command, context)),
        Command::Ps(args) => done(ps::execute(args, context)),
        Command::Logs(args) => done(logs::execute(args, context)),
        Command::Stop(args) => stop::execute(&args, context),
        Command::Start(args) => start::execute(&args, context),
        Command::Restart(args) => restart::execute(&args, context),
        Command::Kill(args) => kill::execute(&args, context),
        Command::Rm(args) => rm::execute(&args, context),
        Command::Wait(args) => wait::execute(&args, context),
        Command::Inspect(args) => inspect::execute(&args, context),
        Command::Plan(command) => done(plan::execute(command, context)),
        Command::Explain(args) => done(explain::execute(&args, context)),
        Command::Drift(args) => done(drift::drift(&args, context)),
        Command::Repair(args) => drift::repair(&args, context),
        Command::Doctor(args) => drift::doctor(&args, context),
        Command::Topology(args) => done(topology::execute(&args, context)),
        Command::Info(args) => done(info::info(&args, context)),
        Command::Version(args) => done(info::version(&args, context)),
        Command::System(command) => done(system::execute(&command, context)),
        Command::SandboxExited(args) => done(exited::execute(&args, context)),
    }
}

/// The exit code of a command that succeeds or fails as a whole.
fn done(outcome: Result<(), CommandError>) -> Result<u8, CommandError> {
    outcome.map(|()| 0)
}

/// Does something to each of several objects, whatever becomes of the others. Prints the names of those
/// that it was done to; the first failure decides the exit code.
fn for_each(
    names: &[String],
    context: &mut Context<'_>,
    mut act: impl FnMut(&str, &mut Context<'_>) -> Result<(), CommandError>,
) -> Result<u8, CommandError> {
    let mut code = 0;
    for name in names {
        match act(name, context) {
            Ok(()) => writeln!(context.out, "{name}")?,
            Err(failure) if failure.is_closed_output() => return Err(failure),
            Err(failure) => {
                error::write(&failure, context.err);
                if code == 0 {
                    code = failure.exit_code();
                }
            }
        }
    }
    Ok(code)
}

/// Asks the person before something is removed.
fn confirm(question: &str, context: &mut Context<'_>) -> Result<(), CommandError> {
    write!(context.err, "{question} [y/N] ")?;
    context.err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError::Unconfirmed),
    }
}
