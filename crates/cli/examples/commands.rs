//! The command line as a program of its own, without the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    tombolo_cli::main(std::env::args_os())
}
