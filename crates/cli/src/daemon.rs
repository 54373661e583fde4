//! Starts a daemon where a command finds none.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use tombolo_api::{Client, ClientError};

use crate::context::Place;
use crate::limits;

/// First word of the command line that starts a daemon in a session of its own: call [`start_main`].
pub(crate) const START_WORD: &str = "daemon-start";

/// Why no daemon could be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// There is nowhere to log to.
    #[error("cannot start a daemon: cannot write its log {path}", path = path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start a daemon")]
    Spawn(#[source] io::Error),
    /// The daemon ended before it answered.
    #[error("the daemon ended with {status} before it answered; see {log}", log = log.display())]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Where it says why.
        log: PathBuf,
    },
    /// The daemon does not answer in time.
    #[error(
        "the daemon did not answer within {seconds} s; see {log}",
        seconds = limits::DAEMON_START.as_secs(),
        log = log.display()
    )]
    Late {
        /// Where it says why.
        log: PathBuf,
    },
    /// It answers, but not us.
    #[error(transparent)]
    Connect(ClientError),
}

/// Starts `program daemon` and waits until it answers. It outlives the caller.
pub(crate) fn launch(
    place: &Place,
    program: &Path,
    err: &mut dyn Write,
) -> Result<Client, LaunchError> {
    let path = place.run_dir.join("daemon.log");
    let log = open_log(&path).map_err(|source| LaunchError::Log {
        path: path.clone(),
        source,
    })?;
    // A command goes on without its message.
    let _ = writeln!(
        err,
        "tombolo: no daemon answers at {}; starting one, which logs to {}",
        place.address,
        path.display()
    );
    let child = spawn(place, program, log).map_err(LaunchError::Spawn)?;
    await_answer(place, child, path)
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn spawn(place: &Place, program: &Path, log: File) -> io::Result<Child> {
    Command::new(program)
        .arg0("tombolo")
        .arg(START_WORD)
        .arg("--run-dir")
        .arg(&place.run_dir)
        .arg("--socket")
        .arg(place.run_dir.join("tombolo.sock"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

fn await_answer(place: &Place, mut child: Child, log: PathBuf) -> Result<Client, LaunchError> {
    let started = Instant::now();
    let mut ended = None;
    loop {
        match Client::connect(place.address.clone()) {
            Ok(client) => return Ok(client),
            Err(ClientError::NoDaemon { .. }) => {}
            Err(error) => return Err(LaunchError::Connect(error)),
        }
        if ended.is_none() {
            let status = child.try_wait().map_err(LaunchError::Spawn)?;
            ended = status.map(|status| (status, Instant::now()));
        }
        match ended {
            // Another command may have started a daemon at the same time, and that one may have won.
            Some((status, at)) if at.elapsed() > limits::DAEMON_RIVAL => {
                return Err(LaunchError::Ended { status, log });
            }
            _ if started.elapsed() > limits::DAEMON_START => return Err(LaunchError::Late { log }),
            _ => thread::sleep(limits::DAEMON_POLL),
        }
    }
}

/// Becomes the daemon in a session of its own, so that no terminal's end ends it; `args` follow
/// [`START_WORD`] and are those of the daemon. Call it before any thread or file is opened.
pub(crate) fn start_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let failed = |what: &str, error: io::Error| {
        let _ = writeln!(io::stderr(), "tombolo: {what}: {error}");
        ExitCode::FAILURE
    };
    if let Err(error) = close_inherited() {
        return failed("cannot close what the caller left open", error);
    }
    if let Err(errno) = nix::unistd::setsid() {
        return failed("cannot start a session", errno.into());
    }
    let error = Command::new("/proc/self/exe")
        .arg0("tombolo")
        .arg("daemon")
        .args(args)
        .exec();
    failed("cannot become the daemon", error)
}

fn close_inherited() -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse::<i32>();
        numbers.extend(number.ok().filter(|number| *number > 2));
    }
    for number in numbers {
        // The listing itself was open while it was read.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use tombolo_api::Address;

    use super::*;

    fn place(dir: &Path) -> Place {
        Place {
            address: Address::Unix(dir.join("tombolo.sock")),
            run_dir: dir.to_owned(),
            autostart: true,
        }
    }

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_daemon_is_started_and_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let place = place(temp.path());
        let program = script(
            temp.path(),
            &format!("echo \"$@\" > {}/told", temp.path().display()),
        );
        let told = temp.path().join("told");
        let server = thread::spawn({
            let (told, socket) = (told.clone(), temp.path().join("tombolo.sock"));
            move || {
                while !told.exists() {
                    thread::sleep(limits::DAEMON_POLL);
                }
                UnixListener::bind(socket).unwrap().accept().unwrap();
            }
        });
        let mut err = Vec::new();
        launch(&place, &program, &mut err).unwrap();
        server.join().unwrap();
        let dir = temp.path().display();
        let expected = format!("daemon-start --run-dir {dir} --socket {dir}/tombolo.sock\n");
        assert_eq!(fs::read_to_string(told).unwrap(), expected);
        assert!(String::from_utf8(err).unwrap().contains("starting one"));
    }

    #[test]
    fn a_daemon_that_ends_is_reported_with_its_log() {
        let temp = tempfile::tempdir().unwrap();
        let program = script(temp.path(), "echo broken >&2; exit 7");
        let error = launch(&place(temp.path()), &program, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, LaunchError::Ended { status, .. } if status.code() == Some(7)));
        assert_eq!(
            fs::read_to_string(temp.path().join("daemon.log")).unwrap(),
            "broken\n"
        );
    }
}
