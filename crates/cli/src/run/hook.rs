//! The command that tells the rest of the program that a process has ended.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use super::limits;
use super::process::ProcessRef;
use super::program::DEFAULT_PATH;
use super::state::now_ms;

/// Runs `program` with `args` until it succeeds, at most [`limits::HOOK_ATTEMPTS`] times; failures go to `hook.log`.
pub(super) fn run_hook(program: &Path, args: &[String], dir: &Path) -> bool {
    let mut pause = limits::HOOK_PAUSE;
    for attempt in 1..=limits::HOOK_ATTEMPTS {
        let failure = match attempt_hook(program, args, dir) {
            Ok(status) if status.success() => return true,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if let Ok(mut log) = open_log(dir) {
            let at = now_ms();
            let _ = writeln!(
                log,
                "{at} attempt {attempt} of exit hook {args:?} failed: {failure}"
            );
        }
        if attempt < limits::HOOK_ATTEMPTS {
            thread::sleep(pause);
            pause *= 2;
        }
    }
    false
}

fn attempt_hook(program: &Path, args: &[String], dir: &Path) -> io::Result<ExitStatus> {
    let log = open_log(dir)?;
    let mut child = Command::new(program)
        .arg0("tombolo")
        .args(args)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let handle = ProcessRef::of(i32::try_from(child.id()).unwrap_or(0))
        .map_or(Ok(None), ProcessRef::open)?;
    let ended = handle.map_or(Ok(true), |handle| handle.wait(limits::HOOK_TIMEOUT))?;
    if !ended {
        child.kill()?;
    }
    child.wait()
}

fn open_log(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("hook.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_hook_is_tried_to_the_limit_and_logged() {
        let temp = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo x >> tries; exit 3".to_owned()];
        let script = format!("cd {}; {}", temp.path().display(), args[1]);
        let args = [args[0].clone(), script];
        assert!(!run_hook(Path::new("/bin/sh"), &args, temp.path()));
        let tries = std::fs::read_to_string(temp.path().join("tries")).unwrap();
        assert_eq!(
            tries.lines().count(),
            usize::try_from(limits::HOOK_ATTEMPTS).unwrap()
        );
        let log = std::fs::read_to_string(temp.path().join("hook.log")).unwrap();
        assert!(
            log.contains("attempt 5 of exit hook") && log.contains("exit status: 3"),
            "{log}"
        );
    }

    #[test]
    fn a_hook_that_succeeds_at_last_is_not_run_again() {
        let temp = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {}; echo x >> tries; [ $(wc -l < tries) -ge 2 ]",
            temp.path().display()
        );
        assert!(run_hook(
            Path::new("/bin/sh"),
            &["-c".to_owned(), script],
            temp.path()
        ));
        let tries = std::fs::read_to_string(temp.path().join("tries")).unwrap();
        assert_eq!(tries.lines().count(), 2);
    }
}
