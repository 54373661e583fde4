//! The process that starts one process, watches it, and outlives whoever asked.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::frame::TerminalSize;
use super::hook::run_hook;
use super::logs::{LogWriter, Stream};
use super::process::ProcessRef;
use super::relay::{Relay, Streams};
use super::report::{Failure, ReportPipe};
use super::spec::ProcessSpec;
use super::state::{Hook, State, StateDir, StateError, Status, now_ms};
use super::{INIT_WORD, console};

/// What the shim tells whoever started it, one JSON line each on its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ready {
    /// Clients can attach; in the foreground the first one is awaited before the process starts.
    Listening,
    /// The program runs.
    Started,
    /// The program does not run, and the exit hook has been run.
    Failed(Failure),
}

/// Why the shim cannot start the process.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot leave the caller's session")]
    Detach(#[source] Errno),
    #[error("cannot listen on {path}", path = path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot open log {path}", path = path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot wait for the client")]
    Client(#[source] io::Error),
    #[error("cannot make a pipe for the process")]
    Pipe(#[source] io::Error),
    #[error("cannot make a pid namespace")]
    PidNamespace(#[source] io::Error),
    #[error("cannot start the init")]
    Spawn(#[source] io::Error),
    #[error("cannot take over the terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot watch the process")]
    Watch(#[source] io::Error),
    #[error(transparent)]
    Failure(#[from] Failure),
}

struct Started {
    child: Child,
    process: Option<ProcessRef>,
    ended: OwnedFd,
    streams: Streams,
}

/// Runs process `id` from its start to its end.
pub(super) fn watch(states: &StateDir, id: &str, foreground: bool) -> i32 {
    let (spec, mut state) = match prepare(states, id) {
        Ok(prepared) => prepared,
        Err(error) => return tell_failure(error),
    };
    let mut relay = match listen(states, &spec) {
        Ok(relay) => relay,
        Err(error) => return give_up(states, &spec, state, error),
    };
    tell(&Ready::Listening);
    let size = if foreground {
        relay.await_client().map_err(ShimError::Client)
    } else {
        Ok(None)
    };
    let started = match size.and_then(|size| start(states, &spec, size)) {
        Ok(started) => started,
        Err(error) => return give_up(states, &spec, state, error),
    };
    state.process = started.process;
    state.started_ms = Some(now_ms());
    if let Err(error) = states.write_state(id, &state) {
        complain(&error);
    }
    tell(&Ready::Started);
    silence();
    let Started {
        mut child,
        ended,
        streams,
        ..
    } = started;
    if let Err(error) = relay.run(streams, &ended) {
        complain(&error);
    }
    let code = child.wait().ok().map(exit_code);
    state.exit_code = code;
    end(states, &spec, state);
    relay.finish(code);
    0
}

/// The exit code that stands for how a process ended: 128 + signal when killed by one.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}

/// Closes every descriptor beyond the standard streams but `kept`: they belong to whoever started this process.
pub(super) fn close_inherited(kept: Option<RawFd>) {
    let Ok(names) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<RawFd> = names
        .flatten()
        .filter_map(|name| name.file_name().to_str()?.parse().ok())
        .filter(|&number| number > 2 && Some(number) != kept)
        .collect();
    for number in numbers {
        // The descriptor of the listing itself is closed by now: an error means no more than that.
        let _ = nix::unistd::close(number);
    }
}

fn prepare(states: &StateDir, id: &str) -> Result<(ProcessSpec, State), ShimError> {
    nix::unistd::setsid().map_err(ShimError::Detach)?;
    // A failure only leaves an odd name in the process list.
    let _ = nix::sys::prctl::set_name(c"tombolo-shim");
    let entry = states.entry(id)?;
    let shim = ProcessRef::of(i32::try_from(std::process::id()).unwrap_or(0));
    let due = if entry.spec.on_exit.is_empty() {
        Hook::None
    } else {
        Hook::Due
    };
    let state = State {
        status: Status::Running,
        process: None,
        shim,
        exit_code: None,
        error: None,
        started_ms: None,
        finished_ms: None,
        hook: due,
        ..entry.state
    };
    states.write_state(id, &state)?;
    Ok((entry.spec, state))
}

fn listen(states: &StateDir, spec: &ProcessSpec) -> Result<Relay, ShimError> {
    let dir = states.dir(&spec.id);
    let path = dir.join("attach.sock");
    let bind = || -> io::Result<UnixListener> {
        if path.exists() {
            fs::remove_file(&path)?;
        }
        // Bound through a descriptor: the path itself may be longer than a socket address.
        let held = File::open(&dir)?;
        UnixListener::bind(format!("/proc/self/fd/{}/attach.sock", held.as_raw_fd()))
    };
    let listener = bind().map_err(|source| ShimError::Listen {
        path: path.clone(),
        source,
    })?;
    let log_path = states.log_path(spec);
    let failed = |source| ShimError::Log {
        path: log_path.clone(),
        source,
    };
    let log = LogWriter::open(&log_path, spec.log_max_bytes).map_err(failed)?;
    Relay::new(listener, log).map_err(|source| ShimError::Listen { path, source })
}

fn start(
    states: &StateDir,
    spec: &ProcessSpec,
    size: Option<TerminalSize>,
) -> Result<Started, ShimError> {
    let report = ReportPipe::new().map_err(ShimError::Pipe)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("tombolo")
        .arg(INIT_WORD)
        .arg(states.root())
        .arg(&spec.id);
    command
        .arg(report.number().to_string())
        .env_clear()
        .current_dir("/");
    let pipes = if spec.tty {
        None
    } else {
        Some(make_pipes(&mut command, spec.stdin_open)?)
    };
    let socket = if spec.tty {
        Some(make_socket(&mut command)?)
    } else {
        None
    };
    let mut child = spawn_in_new_pid_namespace(&mut command)?;
    // The command holds the child's ends; with them open no end of file would ever come.
    drop(command);
    let outcome = (|| {
        let terminal = socket
            .map(|socket| console::receive_console(socket, size))
            .transpose();
        if let Some(failure) = report.read() {
            return Err(failure.into());
        }
        let streams = match (terminal.map_err(ShimError::Terminal)?.flatten(), pipes) {
            (Some(terminal), _) => terminal_streams(terminal).map_err(ShimError::Terminal)?,
            (None, Some(streams)) => streams,
            (None, None) => return Err(ShimError::Terminal(io::ErrorKind::UnexpectedEof.into())),
        };
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let ended = Pid::from_raw(pid)
            .ok_or(Errno::ESRCH.into())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from))
            .map_err(ShimError::Watch)?;
        Ok((ProcessRef::of(pid), ended, streams))
    })();
    match outcome {
        Ok((process, ended, streams)) => Ok(Started {
            child,
            process,
            ended,
            streams,
        }),
        Err(error) => {
            // It ends by itself after a failure of its own; otherwise it must not be left behind.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn spawn_in_new_pid_namespace(command: &mut Command) -> Result<Child, ShimError> {
    let own = File::open("/proc/self/ns/pid").map_err(ShimError::PidNamespace)?;
    let failed = |errno: Errno| ShimError::PidNamespace(errno.into());
    unshare(CloneFlags::CLONE_NEWPID).map_err(failed)?;
    let child = command.spawn().map_err(ShimError::Spawn)?;
    // The exit hook must be born in the shim's own namespace: the new one ends with its init.
    setns(&own, CloneFlags::CLONE_NEWPID).map_err(failed)?;
    Ok(child)
}

fn make_pipes(command: &mut Command, stdin_open: bool) -> Result<Streams, ShimError> {
    let pipe = || io::pipe().map_err(ShimError::Pipe);
    let ((stdout, child_stdout), (stderr, child_stderr)) = (pipe()?, pipe()?);
    command
        .stdout(child_stdout)
        .stderr(child_stderr)
        .stdin(Stdio::null());
    let mut input = None;
    if stdin_open {
        let (child_stdin, stdin) = pipe()?;
        command.stdin(child_stdin);
        input = Some(OwnedFd::from(stdin));
    }
    let outputs = vec![
        (Stream::Stdout, stdout.into()),
        (Stream::Stderr, stderr.into()),
    ];
    Ok(Streams {
        outputs,
        input,
        terminal: None,
    })
}

fn make_socket(command: &mut Command) -> Result<UnixStream, ShimError> {
    let (socket, childs) = UnixStream::pair().map_err(ShimError::Pipe)?;
    command
        .stdin(OwnedFd::from(childs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(socket)
}

fn terminal_streams(terminal: OwnedFd) -> io::Result<Streams> {
    let outputs = vec![(Stream::Stdout, terminal.try_clone()?)];
    let input = Some(terminal.try_clone()?);
    Ok(Streams {
        outputs,
        input,
        terminal: Some(terminal),
    })
}

fn give_up(states: &StateDir, spec: &ProcessSpec, mut state: State, error: ShimError) -> i32 {
    let failure = failure(error);
    state.exit_code = Some(failure.code);
    state.error = Some(failure.message.clone());
    end(states, spec, state);
    tell_failure(ShimError::Failure(failure))
}

/// Records the end, runs the exit hook, and forgets the process if that was asked.
fn end(states: &StateDir, spec: &ProcessSpec, mut state: State) {
    state.status = Status::Exited;
    state.finished_ms = Some(now_ms());
    let record = |state: &State| {
        if let Err(error) = states.write_state(&spec.id, state) {
            complain(&error);
        }
    };
    record(&state);
    if state.hook == Hook::Due {
        let done = run_hook(
            Path::new("/proc/self/exe"),
            &spec.on_exit,
            &states.dir(&spec.id),
        );
        state.hook = if done { Hook::Done } else { Hook::Failed };
        record(&state);
    }
    // What a failed hook would have cleaned up is still there: the record of it must stay.
    if spec.auto_remove
        && state.hook != Hook::Failed
        && let Err(error) = states.erase(&spec.id)
    {
        complain(&error);
    }
}

fn failure(error: ShimError) -> Failure {
    match error {
        ShimError::Failure(failure) => failure,
        other => Failure::setup(&other),
    }
}

fn tell_failure(error: ShimError) -> i32 {
    let failure = failure(error);
    let code = failure.code;
    tell(&Ready::Failed(failure));
    code
}

fn tell(ready: &Ready) {
    if let Ok(mut line) = serde_json::to_vec(ready) {
        line.push(b'\n');
        // Whoever started the shim may be gone; the process is run all the same.
        let _ = io::stdout()
            .write_all(&line)
            .and_then(|()| io::stdout().flush());
    }
}

/// Lets go of the pipe to whoever started the shim.
fn silence() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn complain(error: &dyn std::error::Error) {
    let _ = writeln!(io::stderr(), "{} {}", now_ms(), super::report::chain(error));
}
