//! A scene: this program again, with network, mounts and processes of its own, so that whatever happens in
//! it ends with it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};

use crate::table::Row;

/// How long what a scene leaves to the kernel to remove may take.
const CLEANUP: Duration = Duration::from_secs(20);

/// Plays a scene and reads its rows; fails also when it leaves something behind.
pub(crate) fn play(words: &[&OsStr]) -> anyhow::Result<Vec<Row>> {
    let place = tempfile::Builder::new()
        .prefix("tombolo-bench-")
        .tempdir()?;
    let before = traces(place.path())?;
    // Whoever ends this program ends the scene, too.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(std::env::current_exe()?)
        .arg("--scene")
        .arg(place.path())
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start setpriv(1) and unshare(1)")?;
    await_traces(place.path(), &before)?;
    if !output.status.success() {
        bail!("the scene ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the scene's results cannot be read")
}

/// Called inside a scene: an empty place in memory.
pub(crate) fn furnish(place: &Path) -> anyhow::Result<()> {
    let none = None::<&str>;
    let kind = Some("tmpfs");
    mount(kind, place, kind, MsFlags::empty(), none).context("a place in memory")
}

/// What a scene could leave: links of our namespace, mounts and files at its place, processes that name it.
fn traces(place: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut traces = BTreeSet::new();
    let links = fs::read_to_string("/proc/self/net/dev")?;
    let names = links.lines().filter_map(|line| line.split_once(':'));
    traces.extend(names.map(|(name, _)| format!("link {}", name.trim())));
    let text = place.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = mounts.lines().filter(|line| line.contains(&*text));
    traces.extend(ours.map(|line| format!("mount {line}")));
    for entry in fs::read_dir(place)? {
        traces.insert(format!("file {}", entry?.path().display()));
    }
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while it is looked at.
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        if command.contains(&*text) {
            traces.insert(format!("process {} {command}", path.display()));
        }
    }
    Ok(traces)
}

fn await_traces(place: &Path, before: &BTreeSet<String>) -> anyhow::Result<()> {
    let end = Instant::now() + CLEANUP;
    loop {
        let after = traces(place)?;
        let left: Vec<&String> = after.difference(before).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("the scene left behind: {left:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
