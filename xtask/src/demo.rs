//! `cargo xtask demo`: the program at work on a scratch host.
//!
//! The scratch host is a set of namespaces whose first process takes everything with it when it
//! ends, however it ends. The real host is looked at before and after, and the two must be equal.

mod leftovers;
mod scenario;
mod scratch;
mod steps;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::leftovers::{HostState, MARK};
use self::scenario::Scenario;
use self::scratch::{REAL_NAMESPACES, Scratch};
use self::steps::Steps;
use crate::packages::{self, Use};
use crate::{process, workspace};

/// The command by which the demo starts itself again inside the scratch host.
pub(crate) const INSIDE: &str = "demo-inside";

/// Reads the words after `demo`, prepares what the demo needs and runs it; `Ok(false)` when a
/// check failed.
pub(crate) fn command(words: &[String]) -> Result<bool> {
    let release = match words {
        [] => false,
        [flag] if flag == "--release" => true,
        _ => bail!("demo knows `--release` only, not `{}`", words.join(" ")),
    };
    if !packages::is_root()? {
        bail!("the demo makes namespaces: run it as root");
    }
    packages::install(Use::Demo)?;
    let binary = workspace::build_binary(release)?;
    run(&binary)
}

/// Runs the scenario with `binary` on a scratch host, then proves that the real host is as it was.
pub(crate) fn run(binary: &Path) -> Result<bool> {
    let token = leftovers::token();
    let before = HostState::observe()?;
    let held = process::succeeds(&mut enter(binary, &token)?)?;
    let after = HostState::observe()?;
    let mut steps = Steps::new("proof: what is left on the real host");
    let different = before.differences(&after);
    for (what, changes) in &different {
        steps.check(what, changes.is_empty());
        steps.detail(changes);
    }
    let alive = leftovers::marked_processes(&token)?;
    steps.check("no process of the demo is alive", alive.is_empty());
    steps.detail(&alive);
    let clean = steps.finish();
    println!("\ndemo: {}", if held && clean { "PASS" } else { "FAIL" });
    Ok(held && clean)
}

/// Our own program in new network, mount, IPC, UTS and process namespaces.
///
/// The first process of the new process namespace is a shell: it reaps what the daemon leaves to
/// it, and the kernel ends every other process of the namespace when it ends.
fn enter(binary: &Path, token: &str) -> Result<Command> {
    let ourselves = std::env::current_exe().context("cannot find our own program")?;
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "--ipc",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
    ]);
    command.args(["--mount-proc", "--propagation", "private"]);
    command
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(ourselves)
        .arg(INSIDE)
        .arg(binary);
    command.env(REAL_NAMESPACES, scratch::namespaces()?);
    command.env(MARK, token).current_dir(workspace::root());
    Ok(command)
}

/// The part of the demo that runs inside the scratch host.
pub(crate) fn inside(binary: &Path) -> Result<bool> {
    let scratch = Scratch::build(binary)?;
    let mut steps = Steps::new("Tombolo on a scratch host");
    println!("The host and the world outside it are namespaces: nothing changes on this machine.");
    Scenario::play(&scratch, &mut steps)?;
    Ok(steps.finish())
}
