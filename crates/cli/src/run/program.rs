//! Finding a program the way Docker does, and becoming it.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};

use super::report::{NOT_EXECUTABLE, NOT_FOUND};

/// The search path of a process whose environment has none.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program cannot be executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("program {0:?} was not found in PATH")]
    NotInPath(String),
    #[error("cannot execute {program:?}")]
    Execute { program: PathBuf, source: io::Error },
}

impl ProgramError {
    /// The exit code that stands for this error.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::NotInPath(_) => NOT_FOUND,
            Self::Execute { source, .. } => match source.raw_os_error() {
                Some(nix::libc::ENOENT | nix::libc::ENOTDIR) => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            },
        }
    }
}

/// A program with the environment it will have, and nothing else.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    command: Command,
}

impl Program {
    /// Finds the program of `argv` by the `PATH` in `env`, as the current user and in the current root.
    pub(super) fn find(argv: &[String], env: &[(String, String)]) -> Result<Self, ProgramError> {
        let name = argv.first().map_or("", String::as_str);
        let search = env.iter().rev().find(|(key, _)| key == "PATH");
        let path = search_path(name, search.map_or(DEFAULT_PATH, |(_, value)| value))?;
        let mut command = Command::new(&path);
        command.arg0(name).args(argv.iter().skip(1)).env_clear();
        command.envs(env.iter().map(|(key, value)| (key, value)));
        Ok(Self { path, command })
    }

    /// Replaces the current process; returns only on failure.
    pub(super) fn exec(mut self) -> Result<Infallible, ProgramError> {
        let source = self.command.exec();
        Err(ProgramError::Execute {
            program: self.path,
            source,
        })
    }

    /// Starts the program as a child, with the standard streams of the current process.
    pub(super) fn spawn(mut self) -> Result<std::process::Child, ProgramError> {
        self.command
            .spawn()
            .map_err(|source| ProgramError::Execute {
                program: self.path,
                source,
            })
    }
}

fn search_path(name: &str, path: &str) -> Result<PathBuf, ProgramError> {
    if name.contains('/') {
        // The standard library would search PATH for nothing here: a name with a slash is taken as it is.
        return Ok(name.into());
    }
    let mut refused = None;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        if !candidate.is_file() {
            continue;
        }
        match eaccess(&candidate, AccessFlags::X_OK) {
            Ok(()) => return Ok(candidate),
            Err(errno) => refused = refused.or(Some((candidate, errno))),
        }
    }
    let refuse = |(program, errno): (PathBuf, Errno)| ProgramError::Execute {
        program,
        source: errno.into(),
    };
    Err(refused.map_or_else(|| ProgramError::NotInPath(name.to_owned()), refuse))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_executable_in_the_path_wins_and_codes_are_dockers() {
        let temp = tempfile::tempdir().unwrap();
        let (plain, good) = (temp.path().join("plain"), temp.path().join("good"));
        for (dir, mode) in [(&plain, 0o644), (&good, 0o755)] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("tool"), "").unwrap();
            fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let both = format!("{}:{}", plain.display(), good.display());
        assert_eq!(search_path("tool", &both).unwrap(), good.join("tool"));
        let code = |name: &str, path: &str| search_path(name, path).unwrap_err().code();
        assert_eq!(code("tool", &plain.display().to_string()), NOT_EXECUTABLE);
        assert_eq!(code("nothing", &both), NOT_FOUND);
        let absent = Program::find(&["/no/such".into()], &[])
            .unwrap()
            .spawn()
            .unwrap_err();
        assert_eq!(absent.code(), NOT_FOUND);
        let directory = Program::find(&["/etc".into()], &[])
            .unwrap()
            .spawn()
            .unwrap_err();
        assert_eq!(directory.code(), NOT_EXECUTABLE);
    }
}
