//! `tombolo inspect`.

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{self, CommandError};
use crate::output::write_json;
use crate::run::StateError;

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Look among these only
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// Names, ids or unambiguous starts of ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A process that was run
    Process,
    /// A sandbox
    Sandbox,
    /// A network
    Network,
    /// An endpoint
    Endpoint,
}

/// Prints whatever has these names as a JSON array.
pub(super) fn execute(args: &InspectArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    show_each(&args.names, context, |name, context| {
        let kinds = match args.kind {
            Some(kind) => vec![kind],
            None => vec![Kind::Process, Kind::Sandbox, Kind::Network, Kind::Endpoint],
        };
        for kind in kinds {
            if let Some(value) = look_up(kind, name, context)? {
                return Ok(value);
            }
        }
        Err(CommandError::Nothing(name.to_owned()))
    })
}

fn look_up(
    kind: Kind,
    name: &str,
    context: &mut Context<'_>,
) -> Result<Option<Value>, CommandError> {
    let found = match kind {
        Kind::Process => return process(name, context),
        Kind::Sandbox => context
            .client()?
            .sandbox_inspect(name)
            .map(|found| json!(found)),
        Kind::Network => context
            .client()?
            .network_inspect(name)
            .map(|found| json!(found)),
        Kind::Endpoint => context
            .client()?
            .endpoint_inspect(name)
            .map(|found| json!(found)),
    };
    known(found.map_err(CommandError::from))
}

/// A process and, where the daemon answers, its sandbox.
fn process(name: &str, context: &mut Context<'_>) -> Result<Option<Value>, CommandError> {
    let id = match context.states.find(name) {
        Ok(id) => id,
        Err(StateError::Unknown(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let entry = context.states.entry(&id)?;
    let sandbox = context
        .running_client()
        .and_then(|client| Ok(client.sandbox_inspect(&id)?));
    let sandbox = match known(sandbox) {
        Err(failure) if failure.is_unavailable() => {
            error::write(&failure, context.err);
            None
        }
        outcome => outcome?,
    };
    let (spec, state) = (entry.spec, entry.state);
    let name = spec.name.clone();
    Ok(Some(
        json!({ "id": id, "name": name, "spec": spec, "state": state, "sandbox": sandbox }),
    ))
}

fn known<T>(found: Result<T, CommandError>) -> Result<Option<T>, CommandError> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unknown() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Prints objects as a JSON array, whatever becomes of the others. The first failure decides the exit code.
pub(super) fn show_each<T: Serialize>(
    names: &[String],
    context: &mut Context<'_>,
    mut look_up: impl FnMut(&str, &mut Context<'_>) -> Result<T, CommandError>,
) -> Result<u8, CommandError> {
    let (mut found, mut code) = (Vec::new(), 0);
    for name in names {
        match look_up(name, context) {
            Ok(value) => found.push(value),
            Err(failure) => {
                error::write(&failure, context.err);
                if code == 0 {
                    code = failure.exit_code();
                }
            }
        }
    }
    write_json(context.out, &found)?;
    Ok(code)
}
