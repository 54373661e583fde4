//! `tombolo publish`.

use clap::{Args, Subcommand};
use tombolo_api::{Path, Publication, PublicationSpec};

use super::world;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Table, joined, printable, write_json};
use crate::translate::publish;

/// What is done to published ports.
#[derive(Debug, Subcommand)]
pub(crate) enum PublishCommand {
    /// Publish ports of a sandbox, running or not: all of them or none
    Add(AddArgs),
    /// Withdraw published ports of a sandbox: all of them or none
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// List published ports
    #[command(visible_alias = "list")]
    Ls(ListArgs),
}

/// Which ports to publish.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name or id of the process or sandbox
    name: String,
    /// Written as for `run --publish`; what is published already with another from= is changed
    #[arg(required = true, value_name = "PORT", value_parser = publish::publication)]
    publications: Vec<PublicationSpec>,
}

/// Which ports to withdraw.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Name or id of the process or sandbox
    name: String,
    /// PORT[/PROTOCOL] for all that leads there, or with the host's side, as HOST:PORT or as `ps` shows it
    #[arg(required = true, value_name = "PORT")]
    publications: Vec<String>,
}

/// Which published ports to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name or id of a process or sandbox; those of the whole host when left out
    name: Option<String>,
}

/// Carries out a command.
pub(crate) fn execute(
    command: PublishCommand,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    match command {
        PublishCommand::Add(args) => add(args, context),
        PublishCommand::Rm(args) => remove(args, context),
        PublishCommand::Ls(args) => list(&args, context),
    }
}

/// Publishes ports and prints where.
fn add(args: AddArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    world::refuse_sharer(&args.name, context)?;
    let client = context.client()?;
    let published = client.publications_add(&args.name, args.publications)?;
    if args.json {
        return Ok(write_json(context.out, &published)?);
    }
    for publication in &published {
        writeln!(context.out, "{}", printable(&words(publication)))?;
    }
    Ok(())
}

/// Withdraws ports and prints what was given.
fn remove(args: RemoveArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    world::refuse_sharer(&args.name, context)?;
    let names = args.publications.clone();
    context
        .client()?
        .publications_remove(&args.name, args.publications)?;
    for name in &names {
        writeln!(context.out, "{name}")?;
    }
    Ok(())
}

/// Prints a table of published ports.
fn list(args: &ListArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let publications = match &args.name {
        Some(name) => {
            let owner = world::ports_owner(name, context)?;
            context.client()?.sandbox_publications(&owner)?
        }
        None => context.client()?.publication_list()?,
    };
    if args.json {
        return Ok(write_json(context.out, &publications)?);
    }
    let mut table = Table::new(&[
        "SANDBOX", "HOST", "PORT", "FROM", "NETWORK", "IPV4", "IPV6", "STATE",
    ]);
    for publication in &publications {
        let state = if publication.active {
            "active"
        } else {
            "inactive"
        };
        table.row([
            publication.sandbox.name.clone(),
            joined(host_side(publication)),
            port(publication),
            joined(&publication.from),
            joined(publication.network.as_ref()),
            joined(publication.ipv4.map(path_word)),
            joined(publication.ipv6.map(path_word)),
            state.to_owned(),
        ]);
    }
    Ok(table.write(context.out)?)
}

/// A publication in one word, such as `*:8080->80/tcp`, which `publish rm` takes.
pub(super) fn words(publication: &Publication) -> String {
    match host_side(publication) {
        Some(host) => format!("{host}->{}", port(publication)),
        None => port(publication),
    }
}

/// How packets get there, in one word.
pub(super) fn path_word(path: Path) -> &'static str {
    match path {
        Path::Kernel => "kernel",
        Path::Relay => "relay",
        Path::Routed => "routed",
        _ => "unknown",
    }
}

/// Its port or range with the protocol.
pub(super) fn port(publication: &Publication) -> String {
    format!("{}/{}", publication.container, publication.protocol)
}

fn host_side(publication: &Publication) -> Option<String> {
    if let Some(path) = &publication.socket {
        return Some(format!("unix:{path}"));
    }
    let host = publication.host.as_ref()?;
    Some(format!("{}:{host}", publication.address))
}
