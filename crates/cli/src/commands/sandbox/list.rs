//! `tombolo sandbox ls`.

use clap::Args;

use crate::args::flags::ListFlags;
use crate::args::value::{KeyValue, key_with_value};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Table, age, joined, now_ms, short_id, write_json};
use crate::translate::filter::sandbox_filter;

/// Which sandboxes to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Only those with name=TEXT or label=KEY[=VALUE]; may be repeated
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = key_with_value)]
    filters: Vec<KeyValue>,
}

/// Prints a table of sandboxes.
pub(super) fn execute(args: ListArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let sandboxes = context
        .client()?
        .sandbox_list(sandbox_filter(args.filters)?)?;
    if args.list.json {
        return Ok(write_json(context.out, &sandboxes)?);
    }
    if args.list.quiet {
        for sandbox in &sandboxes {
            writeln!(context.out, "{}", short_id(&sandbox.id))?;
        }
        return Ok(());
    }
    let now_ms = now_ms();
    let mut table = Table::new(&["ID", "NAME", "STATE", "CREATED", "NETWORKS", "NAMESPACE"]);
    for sandbox in &sandboxes {
        table.row([
            short_id(&sandbox.id),
            sandbox.name.clone(),
            state(sandbox.state).to_owned(),
            age(now_ms, sandbox.created_ms),
            networks(sandbox),
            joined(sandbox.netns.as_ref()),
        ]);
    }
    Ok(table.write(context.out)?)
}

/// Its networks, each with its addresses there.
pub(crate) fn networks(sandbox: &tombolo_api::Sandbox) -> String {
    joined(sandbox.endpoints.iter().map(|endpoint| {
        let addresses = endpoint.addresses.iter().map(|cidr| {
            cidr.split_once('/')
                .map_or(cidr.as_str(), |(address, _)| address)
        });
        let words: Vec<&str> = std::iter::once(endpoint.network.name.as_str())
            .chain(addresses)
            .collect();
        words.join(" ")
    }))
}

/// A state in one word.
pub(crate) fn state(state: tombolo_api::SandboxState) -> &'static str {
    use tombolo_api::SandboxState;
    match state {
        SandboxState::Running => "running",
        SandboxState::Stopped => "stopped",
        _ => "unknown",
    }
}
