//! The real dockerd, with containerd and runc, in the namespaces that the calling thread is in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use super::api::{self, Request};
use crate::peer::installed;

/// The image, a single static program.
pub(super) const IMAGE: &str = "box";
/// What the engine consists of, with Debian's names of the packages.
const PROGRAMS: [(&str, &str); 6] = [
    ("dockerd", "docker.io"),
    ("docker-proxy", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
];
/// Longest time to start.
const LONG: Duration = Duration::from_secs(40);
/// Longest time for killed processes to be gone.
const GOING: Duration = Duration::from_secs(20);
/// How often it is looked again.
const POLL: Duration = Duration::from_millis(20);
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Lines of the log that are shown when something failed.
const TAIL: usize = 12;

/// How an engine lets connections of the host itself reach published ports of its own bridges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Userland {
    /// As shipped: by a process for each port.
    Proxy,
    /// By rules alone.
    None,
}

/// A running dockerd; it goes on drop with all that it has started.
pub(super) struct Engine {
    child: Child,
    _group: Group,
    directory: PathBuf,
}

/// A control group, removed on drop with every process in it.
struct Group(PathBuf);

/// Fails when a part of the engine is not on this machine.
pub(super) fn find() -> anyhow::Result<()> {
    match PROGRAMS.iter().find(|(name, _)| installed(name).is_none()) {
        Some((name, package)) => bail!("there is no {name}: install Debian's {package}"),
        None => Ok(()),
    }
}

/// Where the engine in a directory listens.
pub(super) fn socket(directory: &Path) -> PathBuf {
    directory.join("docker.sock")
}

impl Engine {
    /// Starts one that has all its files in `directory`, waits for its first answer and gives it an image. `name`
    /// is that of its control groups.
    pub(super) fn start(directory: &Path, name: &str, userland: Userland) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let group = Group::create(name)?;
        let path = |file: &str| directory.join(file);
        fs::write(path("docker.json"), "{}")?;
        let log = File::create(path("log"))?;
        let child = Command::new("sh")
            .args(["-c", "echo $$ >\"$0\" && exec dockerd \"$@\""])
            .arg(group.0.join("daemon/cgroup.procs"))
            .args(["--storage-driver", "vfs", "--iptables=true"])
            .arg(format!("--userland-proxy={}", userland == Userland::Proxy))
            .arg(format!("--cgroup-parent=/{name}/containers"))
            .args(["--bip", "10.201.0.1/24"])
            .arg(format!("--host=unix://{}", socket(directory).display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("docker.pid"))
            .arg("--config-file")
            .arg(path("docker.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start sh(1)")?;
        let mut engine = Self {
            child,
            _group: group,
            directory: directory.to_owned(),
        };
        engine.await_answer()?;
        engine.import()?;
        Ok(engine)
    }

    /// Asks it for something.
    pub(super) fn call(&self, what: &str, value: &Value) -> anyhow::Result<Value> {
        api::call(&socket(&self.directory), what, value)
    }

    /// Asks it for something, whose end is waited for later.
    pub(super) fn send(&self, what: &str) -> anyhow::Result<Request> {
        Request::send(&socket(&self.directory), what, "application/json", b"")
    }

    fn await_answer(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < LONG {
            if self.call("GET /version", &Value::Null).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("dockerd ended with {status}:\n{}", self.log_tail());
            }
            thread::sleep(POLL);
        }
        bail!("dockerd does not answer:\n{}", self.log_tail());
    }

    fn import(&self) -> anyhow::Result<()> {
        let root = self.directory.join("image");
        fs::create_dir_all(root.join("bin"))?;
        let busybox = installed("busybox").context("there is no busybox")?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        let mut tar = Command::new("tar");
        let archive = tar.arg("-C").arg(&root).args(["-c", "."]);
        let archive = archive.output().context("cannot start tar(1)")?;
        let what = format!("POST /images/create?fromSrc=-&repo={IMAGE}");
        let socket = socket(&self.directory);
        let request = Request::send(&socket, &what, "application/x-tar", &archive.stdout)?;
        let told = request.answer()?;
        if told.contains("errorDetail") {
            bail!("the image is refused: {told}");
        }
        Ok(())
    }

    /// The end of what it has logged.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // One that was stopped in order would stop each container in order; none of them is needed any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Group {
    /// One for the engine and what it starts, beside which it makes one for its containers.
    fn create(name: &str) -> anyhow::Result<Self> {
        let root = Path::new(CGROUPS);
        if !root.join("cgroup.procs").exists() {
            let none = None::<&str>;
            mount(Some("none"), root, Some("cgroup2"), MsFlags::empty(), none)
                .context("cannot mount control groups")?;
        }
        let group = Self(root.join(name));
        fs::create_dir_all(group.0.join("daemon")).context("cannot make a control group")?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel's own way reaches what has been started meanwhile, too.
        drop(fs::write(self.0.join("cgroup.kill"), "1"));
        let end = Instant::now() + GOING;
        while remove(&self.0).is_err() && Instant::now() < end {
            thread::sleep(POLL);
        }
        if self.0.exists() {
            crate::say(&format!("docker: left behind: {}", self.0.display()));
        }
    }
}

/// Removes a control group and those below it. Their files go with them.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
