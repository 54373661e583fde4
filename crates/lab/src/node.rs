//! A scratch machine with the real program: network, mounts and processes of its own, an outside world, and
//! the daemon, which can be killed, stopped and started again. All of it ends with the [`Node`].
//!
//! ```text
//!   the node                    the outside
//!   eth0 192.0.2.10/24  <---->  eth0 192.0.2.1/24        the node's default route
//!        2001:db8::10/64             2001:db8::1/64
//!                               lo  198.51.100.1         an address beyond the router
//!                                   2001:db8:ffff::1
//! ```

mod traces;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::netns::{Host, HostError};

/// The node's own IPv4 address on its uplink `eth0`.
pub const NODE_V4: &str = "192.0.2.10";
/// The node's own IPv6 address on its uplink `eth0`.
pub const NODE_V6: &str = "2001:db8::10";
/// The outside's IPv4 address on its `eth0`: the node's default router.
pub const ROUTER_V4: &str = "192.0.2.1";
/// The outside's IPv6 address on its `eth0`: the node's default router.
pub const ROUTER_V6: &str = "2001:db8::1";
/// An IPv4 address that the node reaches through its router.
pub const FAR_V4: &str = "198.51.100.1";
/// An IPv6 address that the node reaches through its router.
pub const FAR_V6: &str = "2001:db8:ffff::1";

/// Environment variable with the path of the program.
const BINARY: &str = "TOMBOLO_BINARY";
/// Longest time for the daemon to answer or to end, and for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(5);
/// The daemon's log, as the node sees it.
const LOG: &str = "/run/daemon.log";
/// The daemon's process id, as the node sees it.
const PID_FILE: &str = "/run/daemon.pid";
/// Log lines that a failed test shows.
const LOG_TAIL: usize = 40;
/// Gives the holder's namespaces what is private to the node, and then reaps whatever loses its parent.
const HOLD: &str = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t sysfs none /sys \
     && mkdir /run/netns /run/scratch && ip link set lo up && : >/run/scratch/ready \
     && sleep infinity & while :; do wait; done";

/// Why a node cannot be made or its daemon not be started or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A namespace, link or address of the node or its outside could not be made.
    #[error("the scratch machine cannot be made")]
    Host(#[from] HostError),
    /// The namespaces were not furnished in time.
    #[error("the scratch machine's namespaces did not come up")]
    Holder,
    /// The program is not where it should be.
    #[error("there is no {}: build it with `cargo build -p tombolo`, or name one in {BINARY}", path.display())]
    NoProgram {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program could not be started, or a file of the node not be used.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon ended before it answered.
    #[error("the daemon ended with {status} before it answered:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The daemon does not answer, or does not end.
    #[error("the daemon did not {what} in time:\n{log}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// The end of its log.
        log: String,
    },
}

/// How a command that ran to its end did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Whether the exit code was 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A scratch machine. On drop everything in it ends: daemon, processes, namespaces, mounts.
#[derive(Debug)]
pub struct Node {
    holder: Child,
    /// Process 1 of the node, as this test sees it.
    init: u32,
    outside: Host,
    daemon: Option<Child>,
    program: PathBuf,
}

impl Node {
    /// A machine with an uplink and an outside, on which no daemon runs yet.
    pub fn new() -> Result<Self, NodeError> {
        let program = program()?;
        let outside = Host::new()?;
        // The holder dies with the thread that made it, and takes everything in the node along.
        let holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--net",
                "--mount",
                "--pid",
            ])
            .args([
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
                "sh",
                "-c",
                HOLD,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(system("start unshare(1)"))?;
        let mut node = Self {
            holder,
            init: 0,
            outside,
            daemon: None,
            program,
        };
        node.await_init()?;
        node.lay_cable()?;
        Ok(node)
    }

    /// A machine whose daemon answers.
    pub fn started() -> Result<Self, NodeError> {
        let mut node = Self::new()?;
        node.start()?;
        Ok(node)
    }

    /// The machine on the other side of the uplink: the router, and what lies beyond.
    pub fn outside(&self) -> &Host {
        &self.outside
    }

    /// The same, to start processes in it.
    pub fn outside_mut(&mut self) -> &mut Host {
        &mut self.outside
    }

    /// Where this test finds a file of the node.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        Path::new("/proc")
            .join(self.init.to_string())
            .join("root")
            .join(inside)
    }

    /// The node's own network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/proc")
            .join(self.init.to_string())
            .join("ns/net")
    }

    /// The daemon's socket, where this test reaches it.
    pub fn socket(&self) -> PathBuf {
        self.path("/run/tombolo/tombolo.sock")
    }

    /// A command that will run on the node, for the caller to complete and start.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command
            .args(["--net", "--mount", "--pid", "--"])
            .arg(program);
        command.env_remove("TOMBOLO_HOST").stdin(Stdio::null());
        command
    }

    /// Runs a command on the node to its end; fails only when it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, line: &[S]) -> Result<Outcome, NodeError> {
        let (program, arguments) = line.split_first().ok_or(NodeError::System {
            action: "run an empty command",
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        let mut command = self.command(program);
        finish(command.args(arguments))
    }

    /// Runs `tombolo` with these words on the node to its end.
    pub fn tombolo<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Outcome, NodeError> {
        finish(self.tombolo_command().arg("--no-autostart").args(words))
    }

    /// `tombolo` on the node, for the caller to complete and start.
    pub fn tombolo_command(&self) -> Command {
        self.command(&self.program)
    }

    /// Starts the daemon as it is shipped and waits until it answers.
    pub fn start(&mut self) -> Result<(), NodeError> {
        self.start_with(&[], &[])
    }

    /// Starts the daemon with these flags and variables of its environment and waits until it answers.
    pub fn start_with(
        &mut self,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(), NodeError> {
        self.spawn_daemon(flags, environment)?;
        self.await_answer()
    }

    /// Starts the daemon without waiting for it.
    pub fn spawn_daemon(
        &mut self,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(), NodeError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(LOG));
        let log = log.map_err(system("open the daemon's log"))?;
        let errors = log.try_clone().map_err(system("open the daemon's log"))?;
        let mut command = self.command("sh");
        command
            .arg("-c")
            .arg(format!("echo $$ >{PID_FILE}; exec \"$@\""))
            .arg("sh");
        command.arg(&self.program).arg("daemon").args(flags);
        command
            .envs(environment.iter().copied())
            .stdout(log)
            .stderr(errors);
        self.daemon = Some(command.spawn().map_err(system("start the daemon"))?);
        Ok(())
    }

    /// Waits until the daemon answers a request.
    pub fn await_answer(&mut self) -> Result<(), NodeError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self
                .request(b"GET /v1/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200 "))
            {
                return Ok(());
            }
            if let Some(status) = self.daemon_ended()? {
                return Err(NodeError::Ended {
                    status,
                    log: self.log_tail(),
                });
            }
            std::thread::sleep(POLL);
        }
        Err(NodeError::Late {
            what: "answer",
            log: self.log_tail(),
        })
    }

    /// How the daemon ended, if it has ended by itself; it then counts as not running.
    pub fn daemon_ended(&mut self) -> Result<Option<ExitStatus>, NodeError> {
        let Some(daemon) = &mut self.daemon else {
            return Ok(None);
        };
        let ended = daemon.try_wait().map_err(system("look at the daemon"))?;
        if ended.is_some() {
            self.daemon = None;
        }
        Ok(ended)
    }

    /// Waits until the daemon has ended by itself, as after a crash on purpose; whether it did in time.
    pub fn await_end(&mut self, patience: Duration) -> Result<bool, NodeError> {
        let end = Instant::now() + patience;
        while self.daemon.is_some() && self.daemon_ended()?.is_none() {
            if Instant::now() > end {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    /// Whether a daemon was started that has not been seen to end.
    pub fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// The daemon's process id, as the node sees it.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref()?;
        fs::read_to_string(self.path(PID_FILE))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Kills the daemon (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<(), NodeError> {
        self.end("-KILL")
    }

    /// Ends the daemon as a service manager does (SIGTERM) and waits for it.
    pub fn stop(&mut self) -> Result<(), NodeError> {
        self.end("-TERM")
    }

    fn end(&mut self, signal: &str) -> Result<(), NodeError> {
        // A daemon that has only just been started has not told its number yet.
        let known = wait_until(PATIENCE, || {
            self.daemon.is_none() || self.daemon_pid().is_some()
        });
        if let (true, Some(pid)) = (known, self.daemon_pid()) {
            self.run(&["kill", signal, &pid.to_string()])?;
        }
        if !self.await_end(PATIENCE)? {
            return Err(NodeError::Late {
                what: "end",
                log: self.log_tail(),
            });
        }
        drop(fs::remove_file(self.path(PID_FILE)));
        Ok(())
    }

    /// Sends bytes to the daemon's socket and reads until the daemon hangs up.
    pub fn request(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The daemon may answer and hang up before it has read everything.
        let written = stream.write_all(bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(_) if !answer.is_empty() => {}
            Err(error) => return written.and(Err(error)),
        }
        Ok(answer)
    }

    /// Everything that the daemons of this node have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path(LOG)).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// unshare(1) forks the process that becomes the node's first.
    fn await_init(&mut self) -> Result<(), NodeError> {
        let children = format!("/proc/{0}/task/{0}/children", self.holder.id());
        let ready = wait_until(PATIENCE, || {
            let text = fs::read_to_string(&children).unwrap_or_default();
            self.init = text.trim().parse().unwrap_or(0);
            let furnished = self.path("/run/scratch/ready").exists();
            (self.init != 0 && furnished) || !matches!(self.holder.try_wait(), Ok(None))
        });
        if ready && self.path("/run/scratch/ready").exists() {
            Ok(())
        } else {
            Err(NodeError::Holder)
        }
    }

    fn lay_cable(&self) -> Result<(), NodeError> {
        let cable = format!(
            "ip link add eth0 type veth peer name eth0 netns {}",
            self.init
        );
        self.outside.run(cable.split(' '))?;
        let inside = format!(
            "ip address add {NODE_V4}/24 dev eth0 && ip address add {NODE_V6}/64 dev eth0 nodad \
             && ip link set eth0 up && ip route add default via {ROUTER_V4} \
             && ip -6 route add default via {ROUTER_V6}"
        );
        let outside = format!(
            "ip address add {ROUTER_V4}/24 dev eth0 && ip address add {ROUTER_V6}/64 dev eth0 nodad \
             && ip address add {FAR_V4}/32 dev lo && ip address add {FAR_V6}/128 dev lo nodad \
             && ip link set eth0 up"
        );
        self.outside.run(["sh", "-c", &outside])?;
        let laid = self.run(&["sh", "-c", &inside])?;
        if !laid.success() {
            return Err(NodeError::Holder);
        }
        // Before both ends have a carrier, neighbour discovery gets no answer.
        let carrier = self.path("/sys/class/net/eth0/operstate");
        wait_until(PATIENCE, || {
            fs::read_to_string(&carrier).is_ok_and(|state| state.trim() == "up")
        });
        Ok(())
    }
}

impl Drop for Node {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what the daemon had to say"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() && self.init != 0 {
            eprintln!("--- end of the daemon's log\n{}\n---", self.log_tail());
        }
        // The death of process 1 is the death of every process in the node, and then of the holder.
        let init = nix::unistd::Pid::from_raw(i32::try_from(self.init).unwrap_or(0));
        let is_there = init.as_raw() > 0 && matches!(self.holder.try_wait(), Ok(None));
        if !(is_there && kill(init, Signal::SIGKILL).is_ok()) {
            drop(self.holder.kill());
        }
        if let Some(daemon) = &mut self.daemon {
            // nsenter(1) stops when what it started is stopped, and would take no notice of its end; but
            // the node ends only when every process in it has been waited for.
            drop(daemon.kill().and_then(|()| daemon.wait()));
        }
        drop(self.holder.wait());
    }
}

/// Looks at `holds` until it holds or `patience` is over; whether it held.
pub fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Runs `work` on a thread of its own in the network namespace at `netns`. Sockets that it opens stay there.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(netns)?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Why nodes cannot be made on this machine, if they cannot: root and namespaces are needed.
pub fn obstacle() -> Option<String> {
    let tried = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--",
            "ip",
            "link",
        ])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(format!(
            "no new namespaces, or no ip(8): {}",
            String::from_utf8_lossy(&tried.stderr).trim()
        )),
        Err(error) => Some(format!("no unshare(1): {error}")),
    }
}

/// Says that the running test is skipped, and why: on standard output, and in the file that the variable
/// `TOMBOLO_SKIP_LOG` names, where skipped tests are counted.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
pub fn skip(why: &str) {
    let why = why.replace(['\n', '\t'], " ");
    println!("SKIPPED: {why}");
    let Some(log) = std::env::var_os("TOMBOLO_SKIP_LOG") else {
        return;
    };
    let name = |variable| std::env::var(variable).unwrap_or_default();
    let line = format!(
        "{} {}\t{why}\n",
        name("NEXTEST_BINARY_ID"),
        name("NEXTEST_TEST_NAME")
    );
    let written = File::options()
        .append(true)
        .create(true)
        .open(log)
        .and_then(|mut log| {
            // One write, so that lines of tests at the same time do not mix.
            log.write(line.as_bytes())
        });
    if let Err(error) = written {
        println!("the skip log cannot be written: {error}");
    }
}

fn program() -> Result<PathBuf, NodeError> {
    let path = match std::env::var_os(BINARY) {
        Some(path) => PathBuf::from(path),
        None => {
            let me = std::env::current_exe().map_err(system("find this program"))?;
            // Tests lie in `deps` beside the program.
            let beside = me.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
            beside.join("tombolo")
        }
    };
    if path.exists() {
        Ok(path)
    } else {
        Err(NodeError::NoProgram { path })
    }
}

fn finish(command: &mut Command) -> Result<Outcome, NodeError> {
    let output = command
        .output()
        .map_err(system("run a command on the node"))?;
    Ok(Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> NodeError {
    move |source| NodeError::System { action, source }
}
