//! The proof that a demo leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::process;

/// The environment variable by which every process of a demo is known.
pub(crate) const MARK: &str = "TOMBOLO_DEMO";

/// A value for [`MARK`] that no other run has.
pub(crate) fn token() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}-{}", std::process::id(), now.as_nanos())
}

/// What a demo might leave behind on a host, as lines of text by subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostState {
    subjects: Vec<(&'static str, BTreeSet<String>)>,
}

impl HostState {
    /// Looks at the host.
    pub(crate) fn observe() -> Result<Self> {
        let subjects = vec![
            ("the links are as before", links()?),
            (
                "the addresses are as before",
                command("ip -brief address show")?,
            ),
            (
                "the IPv4 routes are as before",
                command("ip -4 route show table all")?,
            ),
            ("the routing rules are as before", command("ip rule show")?),
            (
                "the firewall is as before",
                command("nft --stateless list ruleset")?,
            ),
            (
                "the named network namespaces are as before",
                names("/run/netns")?,
            ),
            ("the mounts are as before", mounts()?),
            ("/run is as before", names("/run")?),
            ("/var/lib is as before", names("/var/lib")?),
        ];
        Ok(Self { subjects })
    }

    /// For each subject the lines that `after` has more (`+`) or less (`-`).
    pub(crate) fn differences(&self, after: &Self) -> Vec<(&'static str, Vec<String>)> {
        let pairs = self.subjects.iter().zip(&after.subjects);
        pairs
            .map(|((what, before), (_, after))| {
                let more = after.difference(before).map(|line| format!("+ {line}"));
                let less = before.difference(after).map(|line| format!("- {line}"));
                (*what, more.chain(less).collect())
            })
            .collect()
    }
}

fn links() -> Result<BTreeSet<String>> {
    let lines = command("ip -brief link show")?;
    // Flags and states may change by themselves; a name, a parent and a MAC do not.
    let stable = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!(
            "{} {}",
            words.first().unwrap_or(&""),
            words.get(2).unwrap_or(&"")
        )
    };
    Ok(lines.iter().map(stable).collect())
}

fn command(line: &str) -> Result<BTreeSet<String>> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let place = process::find(program).with_context(|| format!("no program `{program}`"))?;
    let text = process::read(Command::new(place).args(words))?;
    Ok(text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect())
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

fn names(folder: &str) -> Result<BTreeSet<String>> {
    let folder = Path::new(folder);
    if !folder.exists() {
        return Ok(BTreeSet::new());
    }
    let shown = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(shown)?;
    entries
        .map(|entry| {
            Ok(entry
                .with_context(shown)?
                .file_name()
                .to_string_lossy()
                .into_owned())
        })
        .collect()
}

/// The processes whose environment carries `token`, ours excepted.
pub(crate) fn marked_processes(token: &str) -> Result<Vec<String>> {
    let mark = format!("{MARK}={token}");
    let mut found = Vec::new();
    for id in names("/proc")?
        .iter()
        .filter_map(|name| name.parse::<u32>().ok())
    {
        // A process may end while we look.
        let Ok(environment) = fs::read(format!("/proc/{id}/environ")) else {
            continue;
        };
        let carries = environment
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes());
        if carries && id != std::process::id() {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            found.push(format!("{id} {}", name.trim()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(links: &[&str]) -> HostState {
        let links = links.iter().map(ToString::to_string).collect();
        HostState {
            subjects: vec![("links", links), ("mounts", BTreeSet::new())],
        }
    }

    #[test]
    fn differences_name_what_came_and_what_went() {
        let found = state(&["lo", "eth0"]).differences(&state(&["lo", "veth1"]));
        let expected = vec!["+ veth1".to_owned(), "- eth0".to_owned()];
        assert_eq!(found, [("links", expected), ("mounts", Vec::new())]);
        let same = state(&["lo"]).differences(&state(&["lo"]));
        assert!(same.iter().all(|(_, changes)| changes.is_empty()));
    }

    #[test]
    fn a_marked_process_is_found_while_it_lives() {
        let token = token();
        let mut sleep = Command::new("sleep");
        let mut child = sleep.arg("60").env(MARK, &token).spawn().unwrap();
        let id = child.id();
        let start = std::time::Instant::now();
        // Until it has replaced our image, the child shows our environment.
        while marked_processes(&token).unwrap().is_empty() && start.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        assert_eq!(marked_processes(&token).unwrap(), [format!("{id} sleep")]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(marked_processes(&token).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn tokens_differ_and_missing_folders_are_empty() {
        assert_ne!(token(), token());
        assert_eq!(names("/no/such/folder").unwrap(), BTreeSet::new());
    }
}
