//! The speed table: what the real daemon does beside the bare kernel work that it cannot do without.
//!
//! Everything runs in scratch namespaces, one set for each bench, and alternates between the things compared.
//! Times belong to the machine; the ratios are the message. Nothing is asserted of a time: the exit code is 1
//! only when something did not work.

mod bench;
mod daemon;
mod floor;
mod machine;
mod netns;
mod peer;
mod reach;
mod samples;
mod scene;
mod table;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use crate::bench::Bench;
use crate::table::Row;

/// Measures the daemon beside the bare kernel work.
#[derive(Debug, Parser)]
#[command(name = "tombolo-benches")]
struct Arguments {
    /// What to measure.
    #[arg(default_value = "all")]
    bench: Chosen,
    /// Samples of each thing that is measured.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Write the results as JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Plays one bench at this place, with the namespaces of the caller.
    #[arg(long, value_name = "DIR", hide = true)]
    scene: Option<PathBuf>,
    /// Answers every question for an address in these namespaces, as one of the programs that are compared.
    #[arg(long, value_name = "NETNS", num_args = 1.., hide = true)]
    answer: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Chosen {
    All,
    Attach,
    Flat,
    Detach,
    Burst,
    Daemon,
    Publish,
    Names,
    Docker,
}

impl Chosen {
    fn benches(self) -> Vec<(Self, Bench)> {
        let all = [
            (Self::Attach, bench::attach::run as Bench),
            (Self::Detach, bench::detach::run),
            (Self::Flat, bench::flat::run),
            (Self::Burst, bench::burst::run),
            (Self::Daemon, bench::daemon::run),
            (Self::Publish, bench::publish::run),
            (Self::Names, bench::names::run),
            (Self::Docker, bench::docker::run),
        ];
        all.into_iter()
            .filter(|(chosen, _)| matches!(self, Self::All) || self == *chosen)
            .collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.scene {
        _ if !arguments.answer.is_empty() => bench::names::answer(&arguments.answer),
        Some(place) => play(&arguments, place),
        None => conduct(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tombolo-benches: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says how things go, to a person who waits.
pub(crate) fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Plays the chosen benches, each in a scene of its own, and prints what came out.
fn conduct(arguments: &Arguments) -> anyhow::Result<()> {
    let began = machine::describe();
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = Vec::new();
    for (chosen, _) in arguments.bench.benches() {
        let name = chosen
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        let busy = machine::await_quiet(std::time::Duration::from_secs(30))?;
        say(&format!(
            "{name}: {} ({:.0} % busy)",
            machine::describe(),
            busy * 100.0
        ));
        let words = [
            name.clone().into(),
            "--rounds".into(),
            arguments.rounds.to_string().into(),
        ];
        let words: Vec<&std::ffi::OsStr> = words.iter().map(OsString::as_os_str).collect();
        match scene::play(&words) {
            Ok(found) => rows.extend(found),
            Err(error) => {
                say(&format!("{name}: {error:#}"));
                failed.push(name);
            }
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", table::markdown(&rows))?;
    writeln!(
        out,
        "Machine: {began} at the start; {} at the end.",
        machine::describe()
    )?;
    writeln!(
        out,
        "{} samples of each thing; state and logs in memory.",
        arguments.rounds
    )?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let broken = rows.iter().filter(|row| row.is_broken());
    failed.extend(broken.map(|row| row.what.clone()));
    if failed.is_empty() {
        writeln!(
            out,
            "Nothing was left behind: no process, mount, link or file."
        )?;
        return Ok(());
    }
    anyhow::bail!("failed: {}", failed.join(", "))
}

/// Plays one bench; its rows go to standard output.
fn play(arguments: &Arguments, place: &Path) -> anyhow::Result<()> {
    scene::furnish(place)?;
    let mut rows = Vec::new();
    for (_, run) in arguments.bench.benches() {
        rows.extend(run(place, arguments.rounds.max(1))?);
    }
    serde_json::to_writer(std::io::stdout().lock(), &rows)?;
    Ok(())
}
