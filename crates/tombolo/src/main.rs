//! The one program: the daemon or its keeper of ports when it is told so, else the command line.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// First word of the command line that makes this program the daemon.
const DAEMON_WORD: &str = "daemon";
/// Name of a link to this program that makes it the daemon whatever its first word.
const DAEMON_NAME: &str = "tombolod";

/// First word of the command line by which the daemon starts the keeper of its directory, the second word.
const KEEPER_WORD: &str = "keeper";

/// The arguments of the daemon, if it is the daemon that is called.
fn daemon_arguments(arguments: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = arguments.split_first()?;
    if name.to_str().and_then(|path| path.rsplit('/').next()) == Some(DAEMON_NAME) {
        return Some(rest);
    }
    let (word, rest) = rest.split_first()?;
    (word == DAEMON_WORD).then_some(rest)
}

/// The directory of the keeper, if it is the keeper that is called.
fn keeper_directory(arguments: &[OsString]) -> Option<&Path> {
    match arguments {
        [_, word, directory] if word == KEEPER_WORD => Some(Path::new(directory)),
        _ => None,
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if let Some(directory) = keeper_directory(&arguments) {
        return tombolo_daemon::keep_ports(directory);
    }
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

    #[test]
    fn the_keeper_wants_one_directory() {
        let arguments = words(&["/proc/self/exe", "keeper", "/run/tombolo"]);
        assert_eq!(
            keeper_directory(&arguments),
            Some(Path::new("/run/tombolo"))
        );
        for other in [
            &["tombolo", "keeper"][..],
            &["tombolo", "keeper", "/run", "more"],
            &["tombolo", "run", "keeper"],
        ] {
            assert_eq!(keeper_directory(&words(other)), None, "{other:?}");
        }
    }
}
