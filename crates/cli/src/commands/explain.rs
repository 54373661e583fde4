//! `tombolo explain`.

use clap::Args;
use tombolo_api::Explanation;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Table, printable, write_json};

/// What to explain.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name or id of a sandbox or endpoint
    #[arg(value_name = "NAME")]
    reference: String,
}

/// Prints the kernel objects behind an endpoint, or behind every endpoint of a sandbox.
pub(super) fn execute(args: &ExplainArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let explanations = explain(&args.reference, context)?;
    if args.json {
        let values: Vec<&Explanation> = explanations
            .iter()
            .map(|(_, explanation)| explanation)
            .collect();
        return Ok(write_json(context.out, &values)?);
    }
    for (index, (title, explanation)) in explanations.iter().enumerate() {
        if index > 0 {
            writeln!(context.out)?;
        }
        writeln!(context.out, "endpoint {}", printable(title))?;
        let mut table = Table::new(&["STATE", "KIND", "OBJECT", "SPEC", "OWNERS", "LAST"]);
        for object in &explanation.objects {
            table.row([
                object.state.as_str().to_owned(),
                object.kind.clone(),
                object.object.clone(),
                object.spec.clone(),
                object
                    .owners
                    .iter()
                    .map(|owner| shorten(owner))
                    .collect::<Vec<_>>()
                    .join(", "),
                object.last.clone().unwrap_or_default(),
            ]);
        }
        table.write(context.out)?;
    }
    Ok(())
}

/// An owner with its id cut to the length that lists show.
fn shorten(owner: &str) -> String {
    let cut = |part: &str| {
        if part.len() == 32 {
            part[..12].to_owned()
        } else {
            part.to_owned()
        }
    };
    owner.split('/').map(cut).collect::<Vec<_>>().join("/")
}

/// Explanations with their titles. A sandbox comes first: its endpoints mostly have its name.
fn explain(
    reference: &str,
    context: &mut Context<'_>,
) -> Result<Vec<(String, Explanation)>, CommandError> {
    let client = context.client()?;
    match client
        .sandbox_inspect(reference)
        .map_err(CommandError::from)
    {
        Ok(sandbox) => sandbox
            .endpoints
            .iter()
            .map(|endpoint| {
                let title = format!("{} on {}", endpoint.name, endpoint.network.name);
                Ok((title, client.explain(&endpoint.id)?))
            })
            .collect(),
        Err(error) if error.is_unknown() => {
            let explanation = client.explain(reference).map_err(CommandError::from);
            match explanation {
                Err(error) if error.is_unknown() => {
                    Err(CommandError::Nothing(reference.to_owned()))
                }
                outcome => Ok(vec![(reference.to_owned(), outcome?)]),
            }
        }
        Err(error) => Err(error),
    }
}
