//! The one program: the daemon when it is told so, else the command line.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

/// First word of the command line that makes this program the daemon.
const DAEMON_WORD: &str = "daemon";
/// Name of a link to this program that makes it the daemon whatever its first word.
const DAEMON_NAME: &str = "tombolod";

/// The arguments of the daemon, if it is the daemon that is called.
fn daemon_arguments(arguments: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = arguments.split_first()?;
    if name.to_str().and_then(|path| path.rsplit('/').next()) == Some(DAEMON_NAME) {
        return Some(rest);
    }
    let (word, rest) = rest.split_first()?;
    (word == DAEMON_WORD).then_some(rest)
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    match daemon_arguments(&arguments) {
        Some(rest) => tombolo_daemon::main_with(rest.to_vec()),
        None => tombolo_cli::main(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn name_or_first_word_decides() {
        for daemon in [
            &["/usr/bin/tombolo", "daemon", "--x"][..],
            &["/usr/sbin/tombolod", "--x"],
        ] {
            let arguments = words(daemon);
            assert_eq!(
                daemon_arguments(&arguments),
                Some(&words(&["--x"])[..]),
                "{daemon:?}"
            );
        }
        for other in [
            &["tombolo", "run", "daemon"][..],
            &["tombolo"],
            &[],
            &["tombolo", "-H", "daemon"],
        ] {
            assert_eq!(daemon_arguments(&words(other)), None, "{other:?}");
        }
    }
}
