//! Other programs that do the same work, run as their callers run them.

mod cni;
mod netavark;

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

pub(crate) use cni::Cni;
pub(crate) use netavark::Netavark;

use crate::netns::{Named, Netns};

/// What is to be attached.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Counts the attaches of a host, from 0.
    pub(crate) number: u32,
    /// Path of the network namespace.
    pub(crate) netns: &'a Path,
    /// Ports of the host, each with the port that it leads to.
    pub(crate) ports: &'a [(u16, u16)],
}

/// A program that attaches namespaces to one network of both families.
pub(crate) trait Program {
    /// What it is called in the table.
    fn name(&self) -> &'static str;

    /// Attaches a namespace and publishes its ports; its addresses.
    fn attach(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<Vec<IpAddr>>;

    /// Undoes it.
    fn detach(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<()>;
}

/// A host of its own on which a program attaches.
pub(crate) struct Host {
    pub(crate) home: Netns,
    program: Box<dyn Program>,
    directory: PathBuf,
    attached: Vec<Attached>,
    count: u32,
}

/// What a program has attached.
pub(crate) struct Attached {
    number: u32,
    ports: Vec<(u16, u16)>,
    pub(crate) place: Named,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Host {
    /// A new host with nothing on it.
    pub(crate) fn new(directory: &Path, program: Box<dyn Program>) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            home: Netns::enter_new()?,
            program,
            directory: directory.to_owned(),
            attached: Vec::new(),
            count: 0,
        })
    }

    /// What its program is called.
    pub(crate) fn name(&self) -> &'static str {
        self.program.name()
    }

    /// How many are attached.
    pub(crate) fn len(&self) -> usize {
        self.attached.len()
    }

    /// Attaches a namespace that was made before the time begins; how long it took.
    pub(crate) fn attach(&mut self, ports: &[(u16, u16)]) -> anyhow::Result<Duration> {
        self.home.enter()?;
        let number = self.count;
        self.count += 1;
        let place = Named::create(self.directory.join(format!("n{number}")), &self.home)?;
        let wanted = Wanted {
            number,
            netns: &place.path,
            ports,
        };
        let began = Instant::now();
        let addresses = self.program.attach(&wanted);
        let took = began.elapsed();
        let addresses = addresses.with_context(|| format!("{}: attach", self.name()))?;
        self.attached.push(Attached {
            number,
            ports: ports.to_vec(),
            place,
            addresses,
        });
        Ok(took)
    }

    /// The newest.
    pub(crate) fn last(&self) -> anyhow::Result<&Attached> {
        self.attached.last().context("nothing is attached")
    }

    /// Detaches the newest.
    pub(crate) fn detach(&mut self) -> anyhow::Result<()> {
        let Some(attached) = self.attached.pop() else {
            return Ok(());
        };
        self.home.enter()?;
        let wanted = Wanted {
            number: attached.number,
            netns: &attached.place.path,
            ports: &attached.ports,
        };
        let detached = self.program.detach(&wanted);
        detached.with_context(|| format!("{}: detach", self.name()))?;
        attached.place.remove()
    }
}

/// Runs a program with a text on its standard input to its end.
pub(crate) fn run(command: &mut Command, input: &str) -> anyhow::Result<Output> {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}{}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// The first of these files that is there.
fn first(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.into_iter().find(|path| path.is_file())
}

/// A program that Cargo or the machine's owner has installed.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = [cargo, home].into_iter().flatten();
    let places = places.map(|directory| directory.join("bin"));
    first(
        places
            .chain(std::env::split_paths(&path))
            .map(|directory| directory.join(name)),
    )
}
