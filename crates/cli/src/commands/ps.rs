//! `tombolo ps`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use tombolo_api::{Sandbox, SandboxFilter, SandboxState};

use super::publish;
use super::sandbox::list::networks;
use super::world::owner;
use crate::args::flags::ListFlags;
use crate::context::Context;
use crate::error::{self, CommandError};
use crate::limits;
use crate::output::{Table, age, duration_words, joined, now_ms, short_id, shortened, write_json};
use crate::run::{Entry, State, Status};

/// Which processes to list, and how.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// List those that do not run, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListFlags,
}

/// A process as machines read it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    command: &'a [String],
    status: Status,
    pid: Option<i32>,
    exit_code: Option<i32>,
    created_ms: u64,
    started_ms: Option<u64>,
    finished_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shares: Option<&'a str>,
    endpoints: &'a [tombolo_api::Endpoint],
    publications: &'a [tombolo_api::Publication],
}

/// Prints a table of processes, newest first.
pub(super) fn execute(args: PsArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut entries = context.states.list()?;
    entries.retain(|entry| args.all || entry.state.status == Status::Running);
    entries.reverse();
    if args.list.quiet {
        for entry in &entries {
            writeln!(context.out, "{}", short_id(&entry.spec.id))?;
        }
        return Ok(());
    }
    let sandboxes = if entries.is_empty() {
        BTreeMap::new()
    } else {
        sandboxes(context)?
    };
    if args.list.json {
        let rows: Vec<Row<'_>> = entries.iter().map(|entry| row(entry, &sandboxes)).collect();
        return Ok(write_json(context.out, &rows)?);
    }
    let now_ms = now_ms();
    let mut table = Table::new(&[
        "ID", "NAME", "COMMAND", "CREATED", "STATUS", "PORTS", "NETWORKS",
    ]);
    for entry in &entries {
        let (spec, state) = (&entry.spec, &entry.state);
        table.row([
            short_id(&spec.id),
            spec.name.clone(),
            shortened(&spec.argv.join(" "), limits::COMMAND_CHARS),
            age(now_ms, state.created_ms),
            status(state, now_ms),
            sandboxes
                .get(&spec.id)
                .map_or_else(|| "-".to_owned(), ports),
            networks_of(entry, &entries, &sandboxes),
        ]);
    }
    Ok(table.write(context.out)?)
}

/// The sandboxes by id. Processes are there without the daemon, so without it they are listed all the same.
fn sandboxes(context: &mut Context<'_>) -> Result<BTreeMap<String, Sandbox>, CommandError> {
    let asked = context
        .running_client()
        .and_then(|client| Ok(client.sandbox_list(SandboxFilter::default())?));
    match asked {
        Ok(sandboxes) => Ok(sandboxes
            .into_iter()
            .map(|sandbox| (sandbox.id.clone(), sandbox))
            .collect()),
        Err(failure) if failure.is_unavailable() => {
            error::write(&failure, context.err);
            Ok(BTreeMap::new())
        }
        Err(failure) => Err(failure),
    }
}

fn row<'a>(entry: &'a Entry, sandboxes: &'a BTreeMap<String, Sandbox>) -> Row<'a> {
    let (spec, state) = (&entry.spec, &entry.state);
    let sandbox = sandboxes.get(&spec.id);
    Row {
        id: &spec.id,
        name: &spec.name,
        command: &spec.argv,
        status: state.status,
        pid: state
            .process
            .filter(|_| state.status == Status::Running)
            .map(|process| process.pid),
        exit_code: state.exit_code,
        created_ms: state.created_ms,
        started_ms: state.started_ms,
        finished_ms: state.finished_ms,
        shares: owner(spec),
        endpoints: sandbox.map_or(&[], |sandbox| &sandbox.endpoints),
        publications: sandbox.map_or(&[], |sandbox| &sandbox.publications),
    }
}

/// Its published ports, and those that are exposed only; as in Docker, nothing that leads nowhere now.
fn ports(sandbox: &Sandbox) -> String {
    let publications = &sandbox.publications;
    let is_exposed_only =
        |port: &&String| !publications.iter().any(|one| publish::port(one) == **port);
    let is_running = sandbox.state == SandboxState::Running;
    let exposed = sandbox.expose.iter().filter(|_| is_running);
    let exposed = exposed.filter(is_exposed_only).cloned();
    let active = publications.iter().filter(|one| one.active);
    joined(active.map(publish::words).chain(exposed))
}

fn networks_of(entry: &Entry, entries: &[Entry], sandboxes: &BTreeMap<String, Sandbox>) -> String {
    let Some(owner) = owner(&entry.spec) else {
        return sandboxes
            .get(&entry.spec.id)
            .map_or_else(|| "-".to_owned(), networks);
    };
    let named = entries.iter().find(|other| other.spec.id == owner);
    let name = named.map_or_else(|| short_id(owner), |other| other.spec.name.clone());
    format!("container:{name}")
}

fn status(state: &State, now_ms: u64) -> String {
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let since = state.started_ms.unwrap_or(state.created_ms);
            format!("Up {}", duration_words(now_ms.saturating_sub(since)))
        }
        Status::Exited => {
            let code = state
                .exit_code
                .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            let at = state.finished_ms.unwrap_or(state.created_ms);
            format!("Exited ({code}) {}", age(now_ms, at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Hook;

    #[test]
    fn a_status_tells_how_long_and_how_it_ended() {
        let mut state = State {
            status: Status::Created,
            process: None,
            shim: None,
            exit_code: None,
            error: None,
            created_ms: 0,
            started_ms: Some(10_000),
            finished_ms: Some(15_000),
            hook: Hook::None,
        };
        assert_eq!(status(&state, 20_000), "Created");
        state.status = Status::Running;
        assert_eq!(status(&state, 20_000), "Up 10 seconds");
        state.status = Status::Exited;
        assert_eq!(status(&state, 20_000), "Exited (unknown) 5 seconds ago");
        state.exit_code = Some(137);
        assert_eq!(status(&state, 20_000), "Exited (137) 5 seconds ago");
    }
}
