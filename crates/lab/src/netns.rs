//! Scratch hosts: a network namespace each, with commands run inside it, veths between them, and nothing
//! left behind. The namespace of the calling process is never changed.
//!
//! A host's namespace is held by a process of its own (sleep(1), started by unshare(1)) and so needs no name
//! in the file system; commands enter it with nsenter(1). Root is needed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Longest time for a new namespace to appear.
const START_SECONDS: u64 = 5;

/// Why a scratch host or a link between two could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A program could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process that should hold the namespace ended or never got one.
    #[error("no namespace after {START_SECONDS} s: are you root?")]
    NoNamespace,
    /// A command inside the host failed.
    #[error("`{command}` failed with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
}

/// A host in a network namespace of its own. The namespace goes on drop, after the processes in it that
/// [`Host::spawn`] started.
#[derive(Debug)]
pub struct Host {
    holder: Child,
    children: Vec<Child>,
}

/// What is run to its end inside a host said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Whether the exit code was 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Host {
    /// A host with nothing but its loopback interface, which is up.
    pub fn new() -> Result<Self, HostError> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let holder = command.spawn().map_err(|source| HostError::Start {
            program: "unshare".into(),
            source,
        })?;
        let mut host = Self {
            holder,
            children: vec![],
        };
        host.await_namespace()?;
        host.run(["ip", "link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// A path that leads to the namespace for as long as the host lives.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("ns/net")
    }

    /// A command that will run inside the host, for the caller to complete and start. The caller also ends
    /// it: see [`Host::spawn`] for what ends with the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let mut net = std::ffi::OsString::from("--net=");
        net.push(self.path());
        command.arg(net).arg("--").arg(program);
        command
    }

    /// Runs a command to its end and returns its standard output; fails unless it exits with 0.
    pub fn run<I, S>(&self, line: I) -> Result<String, HostError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let (line, output) = self.output(line)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(HostError::Command {
            command: line,
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned(),
        })
    }

    /// Runs a command to its end, whatever that is; fails only when it cannot be started.
    pub fn try_run<I, S>(&self, line: I) -> Result<Ran, HostError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let (_, output) = self.output(line)?;
        Ok(Ran {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a command made by [`Host::command`]; it is killed and waited for when the host goes. Returns
    /// its process id, which is the program's own: nsenter(1) becomes it.
    pub fn spawn(&mut self, mut command: Command) -> Result<u32, HostError> {
        let child = command.spawn().map_err(|source| HostError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        let id = child.id();
        self.children.push(child);
        Ok(id)
    }

    /// Kills (SIGKILL) the process that [`Host::spawn`] started under this id and waits for it; whether
    /// there was one.
    pub fn kill(&mut self, id: u32) -> bool {
        let Some(n) = self.children.iter().position(|child| child.id() == id) else {
            return false;
        };
        end(&mut self.children.swap_remove(n));
        true
    }

    /// Joins this host and another by a veth with these names, both ends up, without addresses.
    pub fn connect(&self, name: &str, other: &Self, other_name: &str) -> Result<(), HostError> {
        let pid = other.holder.id().to_string();
        self.run([
            "ip",
            "link",
            "add",
            "dev",
            name,
            "type",
            "veth",
            "peer",
            "name",
            other_name,
            "netns",
            pid.as_str(),
        ])?;
        self.run(["ip", "link", "set", "dev", name, "up"])?;
        other.run(["ip", "link", "set", "dev", other_name, "up"])?;
        Ok(())
    }

    /// Gives a link an address, usable at once.
    pub fn address(&self, link: &str, address: IpNet) -> Result<(), HostError> {
        let text = address.to_string();
        let nodad: &[&str] = if address.addr().is_ipv6() {
            &["nodad"]
        } else {
            &[]
        };
        let line = ["ip", "address", "add", text.as_str(), "dev", link];
        self.run(line.iter().chain(nodad))?;
        Ok(())
    }

    /// A new host beyond this one's uplink `link`: another machine on the outside, joined by a veth. Each
    /// pair of addresses is this host's and the outside's. The outside is given no route back to what lies
    /// behind this host, as a machine on the internet has none.
    pub fn outside(&self, link: &str, addresses: &[(IpNet, IpNet)]) -> Result<Self, HostError> {
        let outside = Self::new()?;
        self.connect(link, &outside, "eth0")?;
        for (here, there) in addresses {
            self.address(link, *here)?;
            outside.address("eth0", *there)?;
            let via = there.addr().to_string();
            let family = if there.addr().is_ipv6() { "-6" } else { "-4" };
            self.run(["ip", family, "route", "add", "default", "via", via.as_str()])?;
        }
        Ok(outside)
    }

    fn output<I, S>(&self, line: I) -> Result<(String, std::process::Output), HostError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let words: Vec<S> = line.into_iter().collect();
        let text = words
            .iter()
            .map(|word| word.as_ref().to_string_lossy().into_owned());
        let text = text.collect::<Vec<_>>().join(" ");
        let Some((program, arguments)) = words.split_first() else {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(HostError::Start {
                program: text,
                source,
            });
        };
        let mut command = self.command(program);
        let output = command.args(arguments).stdin(Stdio::null()).output();
        match output {
            Ok(output) => Ok((text, output)),
            Err(source) => Err(HostError::Start {
                program: text,
                source,
            }),
        }
    }

    /// The holder starts in our namespace and leaves it a moment later.
    fn await_namespace(&mut self) -> Result<(), HostError> {
        let ours = fs::read_link("/proc/self/ns/net").ok();
        let end = Instant::now() + Duration::from_secs(START_SECONDS);
        while Instant::now() < end {
            if !matches!(self.holder.try_wait(), Ok(None)) {
                return Err(HostError::NoNamespace);
            }
            match fs::read_link(self.path()).ok() {
                Some(theirs) if Some(&theirs) != ours.as_ref() => return Ok(()),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(HostError::NoNamespace)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in &mut self.children {
            end(child);
        }
        end(&mut self.holder);
    }
}

/// Kills a child and takes its exit status, so that no zombie stays; one that has ended already is fine.
fn end(child: &mut Child) {
    let killed = child.kill();
    if killed.is_ok() {
        drop(child.wait());
    }
}

#[cfg(test)]
mod tests;
