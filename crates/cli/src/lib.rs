//! The command line of tombolo: its commands, and the process runtime behind `tombolo run`.
//!
//! A command reads its flags (`args`), turns them into a request (`translate`, which does no I/O), sends it through
//! the typed client of `tombolo-api`, and writes what comes back (`output`). Only `run` and its relatives also use the
//! process runtime. Data goes to standard output, everything else to standard error; exit codes follow the table of
//! errors of the API, except that `run` and `exec` end as Docker's do: with the code of the program, or with 125, 126
//! or 127 when it did not get to run.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

mod args;
mod commands;
mod context;
mod daemon;
mod error;
mod limits;
mod output;
mod reference;
pub mod run;
#[cfg(test)]
mod tests;
mod translate;

pub use reference::reference;

use args::Cli;
use context::Context;
use error::CommandError;

/// Runs the command line `arguments`, of which the first is the name of the program, on the standard streams.
///
/// The program starts itself again for the parts of the process runtime and for a daemon of its own: their words come
/// first, and are no commands for people. Call it before any thread or file is opened.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let rest = || arguments.iter().skip(2).cloned();
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some(run::SHIM_WORD) => run::shim_main(rest()),
        Some(run::INIT_WORD) => run::init_main(rest()),
        Some(run::EXEC_WORD) => run::exec_main(rest()),
        Some(daemon::START_WORD) => daemon::start_main(rest()),
        Some(_) | None => ExitCode::from(execute(arguments, &mut io::stdout(), &mut io::stderr())),
    }
}

/// The commands with all their flags, for whoever documents them.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs a command line and returns its exit code.
fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments, out, err),
    };
    let runs_program = cli.command.runs_program();
    let outcome = Context::new(&cli.global, out, err)
        .and_then(|mut context| commands::execute(cli.command, &mut context));
    match outcome {
        Ok(code) => code,
        Err(error) => report(&error, runs_program, err),
    }
}

/// Tells why the arguments are not understood, or shows the help that they ask for.
fn refuse(
    error: &clap::Error,
    arguments: &[OsString],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let text = error.render();
    if !error.use_stderr() {
        return if write!(out, "{text}").is_ok() { 0 } else { 1 };
    }
    // Nobody is left to be told when standard error is closed.
    let _ = write!(err, "{text}");
    let is_program = |word: &OsString| word == "run" || word == "exec";
    if arguments
        .iter()
        .skip(1)
        .find(|word| !word.as_encoded_bytes().starts_with(b"-"))
        .is_some_and(is_program)
    {
        return error::SETUP_EXIT_CODE;
    }
    tombolo_api::ErrorKind::Invalid.exit_code()
}

/// Tells why a command failed, and returns its exit code.
fn report(error: &CommandError, runs_program: bool, err: &mut dyn Write) -> u8 {
    if error.is_closed_output() {
        return 0;
    }
    error::write(error, err);
    if runs_program {
        error.program_exit_code()
    } else {
        error.exit_code()
    }
}
