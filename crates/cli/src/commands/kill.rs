//! `tombolo kill`.

use clap::Args;

use super::for_each;
use crate::context::Context;
use crate::error::CommandError;
use crate::run::Signal;

/// Which processes to send which signal.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: Signal,
    /// Names or ids of processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Sends a signal to processes and prints their names.
pub(super) fn execute(args: &KillArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    for_each(&args.names, context, |name, context| {
        let id = context.states.find(name)?;
        Ok(context.states.kill(&id, args.signal)?)
    })
}

fn signal(text: &str) -> Result<Signal, String> {
    let unknown = || format!("there is no signal `{text}`");
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| unknown());
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    format!("SIG{name}").parse().map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["HUP", "sighup", "SIGHUP", "1"] {
            assert_eq!(signal(text), Ok(Signal::SIGHUP), "{text}");
        }
        for text in ["", "0", "99", "NOPE", "SIG"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
