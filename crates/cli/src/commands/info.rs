//! `tombolo info` and `tombolo version`.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{age, joined, now_ms, printable, write_json};

/// How it is written.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints how the daemon is set up and what it holds.
pub(super) fn info(args: &InfoArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let info = context.client()?.info()?;
    if args.json {
        return Ok(write_json(context.out, &info)?);
    }
    let counts = info.counts;
    let lines = [
        ("Version", info.version),
        ("Node", info.node),
        ("Host name", info.hostname),
        ("Kernel", info.kernel),
        ("Store", info.store),
        ("State directory", info.state_dir),
        ("Run directory", info.run_dir),
        ("Drivers", joined(&info.drivers)),
        ("Networks", counts.networks.to_string()),
        ("Endpoints", counts.endpoints.to_string()),
        ("Sandboxes", counts.sandboxes.to_string()),
        ("Kernel objects", counts.objects.to_string()),
        ("Started", age(now_ms(), info.started_ms)),
    ];
    for (what, value) in lines {
        writeln!(
            context.out,
            "{:<17}{}",
            format!("{what}:"),
            printable(&value)
        )?;
    }
    Ok(())
}

/// Prints the versions of this program and of the daemon. Without a daemon only the first, and a failure.
pub(super) fn version(args: &InfoArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let ours = env!("CARGO_PKG_VERSION");
    let daemon = context
        .running_client()
        .and_then(|client| Ok(client.version()?));
    if args.json {
        let value = json!({ "client": { "version": ours }, "daemon": daemon.as_ref().ok() });
        write_json(context.out, &value)?;
        return daemon.map(drop);
    }
    writeln!(context.out, "Client:  {ours}")?;
    let daemon = daemon?;
    let commit = daemon
        .commit
        .map(|commit| format!(", commit {commit}"))
        .unwrap_or_default();
    let text = format!(
        "{} (API {}, {}/{}{commit})",
        daemon.version, daemon.api_version, daemon.os, daemon.arch
    );
    Ok(writeln!(context.out, "Daemon:  {}", printable(&text))?)
}
