//! The real daemon, started in the namespaces that the calling thread is in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tombolo_api::{
    Address, Client, NetworkAttachment, NetworkCreate, Sandbox, SandboxCreate, SubnetConfig,
};

/// Environment variable with the path of the program.
const BINARY: &str = "TOMBOLO_BINARY";
/// The network that everything is attached to.
pub(crate) const NETWORK: &str = "net";
/// Longest time to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a starting daemon is asked whether it is there.
const POLL: Duration = Duration::from_micros(500);
/// Lines of the log that are shown when something failed.
const TAIL: usize = 12;

/// What a daemon is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Namespaces prepared ahead; the daemon's own default when none is given.
    pub(crate) prepared: Option<usize>,
    /// Its log level.
    pub(crate) log: &'static str,
    /// Where it listens as a plugin of engines, if it does.
    pub(crate) docker: Option<&'static str>,
}

impl Settings {
    /// As it is shipped.
    pub(crate) const DEFAULT: Self = Self {
        prepared: None,
        log: "info",
        docker: None,
    };
}

/// A running daemon; it is ended on drop.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    directory: PathBuf,
    /// From the program's start to its first answer.
    pub(crate) start: Duration,
}

impl Daemon {
    /// Starts a daemon whose directories are in `directory`, and waits for its first answer.
    pub(crate) fn start(directory: &Path, settings: Settings) -> anyhow::Result<Self> {
        Self::start_beside(directory, settings, &[])
    }

    /// The same; it asks these engines for names.
    pub(crate) fn start_beside(
        directory: &Path,
        settings: Settings,
        engines: &[PathBuf],
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut config = format!(
            "run-dir = {:?}\nstate-dir = {:?}\nlog-level = {:?}\n",
            directory.join("run"),
            directory.join("state"),
            settings.log
        );
        if let Some(prepared) = settings.prepared {
            config.push_str(&format!("prepared-namespaces = {prepared}\n"));
        }
        if let Some(plugin) = settings.docker {
            config.push_str(&format!(
                "[docker]\nplugin-socket = {plugin:?}\nengines = {engines:?}\n"
            ));
        }
        let path = directory.join("tombolo.toml");
        fs::write(&path, config)?;
        let log = File::create(directory.join("log"))?;
        let program = binary()?;
        let began = Instant::now();
        let child = Command::new(&program)
            .arg("daemon")
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self {
            child,
            directory: directory.to_owned(),
            start: Duration::ZERO,
        };
        daemon.await_answer(began)?;
        daemon.start = began.elapsed();
        Ok(daemon)
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let socket = self.directory.join("run/tombolo.sock");
        Client::connect(Address::Unix(socket)).context("cannot connect to the daemon")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.directory.join("log"))?)
    }

    /// Ends it as a service manager does; the networks stay.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends it without a word, as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL)
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal)?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("the daemon did not end within {} s", PATIENCE.as_secs());
    }

    fn await_answer(&mut self, began: Instant) -> anyhow::Result<()> {
        while began.elapsed() < PATIENCE {
            if let Ok(mut client) = self.client()
                && client.version().is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", self.log_tail());
            }
            thread::sleep(POLL);
        }
        bail!("the daemon did not answer:\n{}", self.log_tail());
    }

    fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that was stopped has been waited for; what else survives goes with the process namespace.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.end(Signal::SIGKILL));
        }
    }
}

fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(path.into());
    }
    let beside = std::env::current_exe()?.with_file_name("tombolo");
    if !beside.exists() {
        bail!(
            "there is no {}: build it with `cargo build --release -p tombolo`, or name one in {BINARY}",
            beside.display()
        );
    }
    Ok(beside)
}

/// Makes a dual-stack network with room for tens of thousands.
pub(crate) fn create_network(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let subnet = |text: &str| SubnetConfig {
        subnet: Some(text.to_owned()),
        ..SubnetConfig::default()
    };
    client
        .network_create(NetworkCreate {
            ipv6: Some(true),
            subnets: vec![subnet("10.77.0.0/16"), subnet("fd77::/64")],
            ..NetworkCreate::new(name)
        })
        .with_context(|| format!("network {name}"))?;
    Ok(())
}

/// Makes a sandbox on the network in one request.
pub(crate) fn attach(client: &mut Client, name: &str) -> anyhow::Result<Sandbox> {
    let attachment = NetworkAttachment {
        network: NETWORK.to_owned(),
        ..NetworkAttachment::default()
    };
    client
        .sandbox_create(SandboxCreate {
            name: Some(name.to_owned()),
            networks: vec![attachment],
            ..SandboxCreate::default()
        })
        .with_context(|| format!("sandbox {name}"))
}

/// How long one attach takes, from the request to its reply.
pub(crate) fn timed_attach(client: &mut Client, name: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    attach(client, name)?;
    Ok(began.elapsed())
}

/// Removes a sandbox with its endpoints.
pub(crate) fn detach(client: &mut Client, name: &str) -> anyhow::Result<()> {
    client
        .sandbox_delete(name, false)
        .with_context(|| format!("removing sandbox {name}"))
}
