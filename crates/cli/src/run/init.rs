//! The last steps before the user's program: inside the new namespaces, as the process that becomes it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid};

use super::mounts::{self, MountError};
use super::privileges::{bound_capabilities, capability_set, keep_capabilities};
use super::program::{DEFAULT_PATH, Program, ProgramError};
use super::report::{Failure, Reporter, SETUP_FAILED, chain};
use super::spec::{ExecSpec, ProcessSpec, SpecError};
use super::state::{StateDir, StateError, read_json};
use super::user::{User, UserError, find_user};
use super::{console, reaper};

/// Why the world of a process cannot be made, or its program not be run.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cannot start a session")]
    Session(#[source] Errno),
    #[error("cannot open namespace {path}", path = path.display())]
    OpenNamespace { path: PathBuf, source: io::Error },
    #[error("cannot join namespace {path}; is it a namespace file?", path = path.display())]
    JoinNamespace { path: PathBuf, source: Errno },
    #[error("cannot make namespaces")]
    MakeNamespaces(#[source] Errno),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot set the host name {0:?}")]
    Hostname(String, #[source] Errno),
    #[error("cannot make a terminal")]
    Terminal(#[source] io::Error),
    #[error(transparent)]
    User(#[from] UserError),
    #[error("cannot enter the working directory {path}", path = path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot become {what}")]
    Identity { what: String, source: Errno },
    #[error("cannot limit capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
    #[error("cannot forbid new privileges")]
    NoNewPrivileges(#[source] Errno),
    #[error("cannot tie the process to its shim")]
    Tie(#[source] Errno),
    #[error("the shim has gone")]
    ShimGone,
    #[error("cannot reset signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Reap(#[from] reaper::ReapError),
}

/// How a program is run once its namespaces are there.
struct Launch<'a> {
    argv: &'a [String],
    env: Vec<&'a String>,
    user: Option<&'a str>,
    cwd: Option<&'a Path>,
    makes_cwd: bool,
    tty: bool,
    privileged: bool,
    capabilities: BTreeSet<u8>,
    hostname: &'a str,
}

/// Becomes the program of process `id`: pid 1 of a new pid namespace. Returns only on failure, after reporting it.
pub(super) fn init(states: &StateDir, id: &str, reporter: Reporter) -> i32 {
    let mut reporter = Some(reporter);
    finish(prepare_init(states, id, &mut reporter), reporter)
}

/// Joins the namespaces of `process` and becomes the program of `exec`. Returns only on failure, after reporting it.
pub(super) fn join(states: &StateDir, id: &str, exec: &ExecSpec, reporter: Reporter) -> i32 {
    finish(prepare_join(states, id, exec), Some(reporter))
}

fn finish(outcome: Result<Infallible, SetupError>, reporter: Option<Reporter>) -> i32 {
    let Err(error) = outcome;
    let code = match &error {
        SetupError::Program(error) | SetupError::Reap(reaper::ReapError::Program(error)) => {
            error.code()
        }
        _ => SETUP_FAILED,
    };
    if let Some(reporter) = reporter {
        reporter.fail(&Failure {
            code,
            message: chain(&error),
        });
    }
    code
}

fn prepare_init(
    states: &StateDir,
    id: &str,
    reporter: &mut Option<Reporter>,
) -> Result<Infallible, SetupError> {
    let spec: ProcessSpec = read_json(&states.dir(id).join("spec.json"))?;
    nix::unistd::setsid().map_err(SetupError::Session)?;
    if let Some(path) = &spec.netns {
        join_namespace(path, CloneFlags::CLONE_NEWNET)?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .map_err(SetupError::MakeNamespaces)?;
    mounts::make_world(&spec)?;
    nix::unistd::sethostname(&spec.hostname)
        .map_err(|source| SetupError::Hostname(spec.hostname.clone(), source))?;
    if spec.tty {
        let terminal = console::take_console().map_err(SetupError::Terminal)?;
        if spec.rootfs.is_some() {
            mounts::bind_console(&terminal)?;
        }
    }
    let launch = Launch {
        argv: &spec.argv,
        env: spec.link_env.iter().chain(&spec.env).collect(),
        user: spec.user.as_deref(),
        cwd: spec.cwd.as_deref(),
        makes_cwd: spec.rootfs.is_some(),
        tty: spec.tty,
        privileged: spec.privileged,
        capabilities: capability_set(&spec)?,
        hostname: &spec.hostname,
    };
    let program = launch.prepare()?;
    // A change of credentials undoes this, so it comes after the last one.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(SetupError::Tie)?;
    if reporter
        .as_ref()
        .is_some_and(|reporter| !reporter.is_heard())
    {
        return Err(SetupError::ShimGone);
    }
    if spec.init {
        Ok(reaper::run(program, || *reporter = None)?)
    } else {
        Ok(program.exec()?)
    }
}

fn prepare_join(states: &StateDir, id: &str, exec: &ExecSpec) -> Result<Infallible, SetupError> {
    let entry = states.entry(id)?;
    let spec = &entry.spec;
    nix::unistd::setsid().map_err(SetupError::Session)?;
    let process = entry
        .state
        .process
        .ok_or_else(|| StateError::Unknown(id.to_owned()))?;
    let kinds = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    // All are opened before the first is joined: the last one takes this /proc away.
    let mut opened = Vec::new();
    for (name, kind) in kinds {
        let path = PathBuf::from(format!("/proc/{}/ns/{name}", process.pid));
        opened.push((open_namespace(&path)?, path, kind));
    }
    if !process.is_alive() {
        return Err(StateError::Unknown(format!("{id} (it has ended)")).into());
    }
    for (file, path, kind) in opened {
        setns(&file, kind).map_err(|source| SetupError::JoinNamespace { path, source })?;
    }
    if exec.tty {
        console::take_console().map_err(SetupError::Terminal)?;
    }
    let privileged = spec.privileged || exec.privileged;
    let launch = Launch {
        argv: &exec.argv,
        env: [&spec.link_env, &spec.env, &exec.env]
            .into_iter()
            .flatten()
            .collect(),
        user: exec.user.as_deref().or(spec.user.as_deref()),
        cwd: exec.cwd.as_deref().or(spec.cwd.as_deref()),
        makes_cwd: false,
        tty: exec.tty,
        privileged,
        capabilities: capability_set(&ProcessSpec {
            privileged,
            ..spec.clone()
        })?,
        hostname: &spec.hostname,
    };
    Ok(launch.prepare()?.exec()?)
}

impl Launch<'_> {
    /// Gives up every privilege the program shall not have, and finds it.
    fn prepare(&self) -> Result<Program, SetupError> {
        let user = find_user(self.user)?;
        self.enter_directory()?;
        own_streams(&user);
        reset_signals().map_err(SetupError::Signals)?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        bound_capabilities(&self.capabilities).map_err(SetupError::Capabilities)?;
        become_user(&user)?;
        keep_capabilities(&self.capabilities).map_err(SetupError::Capabilities)?;
        if !self.privileged {
            nix::sys::prctl::set_no_new_privs().map_err(SetupError::NoNewPrivileges)?;
        }
        Ok(Program::find(self.argv, &self.environment(&user))?)
    }

    fn enter_directory(&self) -> Result<(), SetupError> {
        let path = self.cwd.unwrap_or(Path::new("/"));
        let made = if self.makes_cwd {
            fs::create_dir_all(path)
        } else {
            Ok(())
        };
        made.and_then(|()| std::env::set_current_dir(path))
            .map_err(|source| SetupError::Directory {
                path: path.to_owned(),
                source,
            })
    }

    /// The environment of the spec, and what every program expects where the spec says nothing.
    fn environment(&self, user: &User) -> Vec<(String, String)> {
        let defaults = [
            ("PATH", DEFAULT_PATH),
            ("HOSTNAME", self.hostname),
            ("HOME", user.home.to_str().unwrap_or("/")),
            ("TERM", if self.tty { "xterm" } else { "" }),
        ];
        let defaults = defaults.into_iter().filter(|(_, value)| !value.is_empty());
        let given = self.env.iter().filter_map(|entry| entry.split_once('='));
        defaults
            .chain(given)
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}

fn open_namespace(path: &Path) -> Result<File, SetupError> {
    File::open(path).map_err(|source| SetupError::OpenNamespace {
        path: path.to_owned(),
        source,
    })
}

fn join_namespace(path: &Path, kind: CloneFlags) -> Result<(), SetupError> {
    let file = open_namespace(path)?;
    setns(&file, kind).map_err(|source| SetupError::JoinNamespace {
        path: path.to_owned(),
        source,
    })
}

/// Lets the user open its own streams by name, such as `/dev/stderr`.
fn own_streams(user: &User) {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    for stream in streams {
        let is_ours = rustix::termios::isatty(stream)
            || rustix::fs::fstat(stream).is_ok_and(|stat| {
                rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo
            });
        if is_ours && user.uid != 0 {
            // A stream that stays root's still works; it only cannot be opened a second time.
            let _ = nix::unistd::fchown(stream, Some(Uid::from_raw(user.uid)), None);
        }
    }
}

/// Unblocks every signal and gives each ignored one its default action, as a program expects that was not started by
/// `nohup` or `&`.
fn reset_signals() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    for number in (1..32).filter(|number| ignored & 1 << (number - 1) != 0) {
        if !signal_hook::consts::FORBIDDEN.contains(&number) {
            // A handled signal falls back to its default on exec, which an ignored one does not: execve(2).
            signal_hook::flag::register(number, Arc::new(AtomicBool::new(false)))?;
        }
    }
    Ok(())
}

fn become_user(user: &User) -> Result<(), SetupError> {
    let failed = |what: String| move |source| SetupError::Identity { what, source };
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).map_err(failed(format!("a member of {:?}", user.groups)))?;
    let gid = Gid::from_raw(user.gid);
    nix::unistd::setresgid(gid, gid, gid).map_err(failed(format!("group {}", user.gid)))?;
    let uid = Uid::from_raw(user.uid);
    nix::unistd::setresuid(uid, uid, uid).map_err(failed(format!("user {}", user.uid)))
}
