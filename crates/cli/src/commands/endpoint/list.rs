//! `tombolo endpoint ls`.

use clap::Args;
use tombolo_api::{EndpointFilter, EndpointState};

use crate::args::flags::ListFlags;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Table, joined, short_id, write_json};

/// Which endpoints to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Only those of this network
    #[arg(long)]
    network: Option<String>,
    /// Only those joined to this sandbox
    #[arg(long)]
    sandbox: Option<String>,
}

/// Prints a table of endpoints.
pub(super) fn execute(args: ListArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let filter = EndpointFilter {
        network: args.network,
        sandbox: args.sandbox,
    };
    let endpoints = context.client()?.endpoint_list(filter)?;
    if args.list.json {
        return Ok(write_json(context.out, &endpoints)?);
    }
    if args.list.quiet {
        for endpoint in &endpoints {
            writeln!(context.out, "{}", short_id(&endpoint.id))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "NETWORK",
        "SANDBOX",
        "ADDRESSES",
        "MAC",
        "INTERFACE",
        "STATE",
    ]);
    for endpoint in &endpoints {
        table.row([
            short_id(&endpoint.id),
            endpoint.name.clone(),
            endpoint.network.name.clone(),
            joined(endpoint.sandbox.as_ref().map(|sandbox| &sandbox.name)),
            joined(&endpoint.addresses),
            joined(endpoint.mac.as_ref()),
            joined(endpoint.interface.as_ref()),
            state(endpoint.state).to_owned(),
        ]);
    }
    Ok(table.write(context.out)?)
}

fn state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Allocated => "allocated",
        EndpointState::Attached => "attached",
        EndpointState::Leaving => "leaving",
        _ => "unknown",
    }
}
