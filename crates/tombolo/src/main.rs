//! The one program: it is the daemon, the command line, or a part of the process runtime, by its first word.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use tombolo_cli::{DAEMON_START_WORD, run};

/// First word of the command line that makes this program the daemon.
const DAEMON_WORD: &str = "daemon";
/// Name of a link to this program that makes it the daemon whatever its first word.
const DAEMON_NAME: &str = "tombolod";

/// What this program is on one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Daemon,
    DaemonStart,
    Shim,
    Init,
    Exec,
    Commands,
}

/// The role that the command line gives, and how many of its words say so.
fn role(arguments: &[OsString]) -> (Role, usize) {
    let name = arguments.first().and_then(|path| path.to_str()).unwrap_or_default();
    if name.rsplit('/').next() == Some(DAEMON_NAME) {
        return (Role::Daemon, 1);
    }
    let role = match arguments.get(1).and_then(|word| word.to_str()) {
        Some(DAEMON_WORD) => Role::Daemon,
        Some(DAEMON_START_WORD) => Role::DaemonStart,
        Some(run::SHIM_WORD) => Role::Shim,
        Some(run::INIT_WORD) => Role::Init,
        Some(run::EXEC_WORD) => Role::Exec,
        Some(_) | None => return (Role::Commands, 0),
    };
    (role, 2)
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let (role, consumed) = role(&arguments);
    let arguments = arguments.into_iter().skip(consumed);
    match role {
        Role::Daemon => tombolo_daemon::main_with(arguments),
        Role::DaemonStart => tombolo_cli::daemon_start_main(arguments),
        Role::Shim => run::shim_main(arguments),
        Role::Init => run::init_main(arguments),
        Role::Exec => run::exec_main(arguments),
        Role::Commands => tombolo_cli::main(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> (Role, usize) {
        role(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn name_or_first_word_decides() {
        assert_eq!(of(&["/usr/bin/tombolo", "daemon", "--run-dir", "/x"]), (Role::Daemon, 2));
        assert_eq!(of(&["/usr/sbin/tombolod", "--run-dir", "/x"]), (Role::Daemon, 1));
        assert_eq!(of(&["tombolo", "daemon-start"]), (Role::DaemonStart, 2));
        assert_eq!(of(&["tombolo", "run-shim", "/run", "id"]), (Role::Shim, 2));
        assert_eq!(of(&["tombolo", "run-init"]), (Role::Init, 2));
        assert_eq!(of(&["tombolo", "run-exec"]), (Role::Exec, 2));
        for words in [&["tombolo", "run", "daemon"][..], &["tombolo"], &[], &["tombolo", "-H", "daemon"]] {
            assert_eq!(of(words), (Role::Commands, 0), "{words:?}");
        }
    }
}
