//! Automation of the workspace, started as `cargo xtask <command>`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

mod demo;
mod packages;
mod process;
mod test;
mod tidy;
mod workspace;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--fast] [FILTER]   every check and every test; the last line counts them
                           --fast    without the tests that build network namespaces
                           FILTER    only the tests whose name contains FILTER, no other check
  tidy                     the house rules alone
  demo [--release]         show the program at work on a scratch host made of namespaces
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that `words` name; `Ok(false)` says that it ran and found failures.
fn dispatch(words: &[String]) -> Result<bool> {
    let Some((command, rest)) = words.split_first() else {
        bail!("no command given\n\n{USAGE}");
    };
    match command.as_str() {
        "test" => test::run(&test::Options::parse(rest)?),
        "tidy" if rest.is_empty() => tidy::run(),
        "demo" => demo::command(rest),
        demo::INSIDE => match rest {
            [binary] => demo::inside(Path::new(binary)),
            _ => bail!("{} takes the path of the binary", demo::INSIDE),
        },
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(true)
        }
        _ => bail!("unknown command `{}`\n\n{USAGE}", words.join(" ")),
    }
}
