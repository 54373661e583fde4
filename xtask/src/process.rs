//! Running other programs and saying clearly which one failed.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The cargo that started us, so that a nested call uses the same toolchain.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The command as a person would type it.
pub(crate) fn render(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,:/@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs `command` on our terminal and says whether it succeeded; an error means it did not start.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    let shown = render(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    Ok(status.success())
}

/// Runs `command` on our terminal; anything but success is an error.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    if succeeds(command)? {
        return Ok(());
    }
    bail!("`{}` failed", render(command))
}

/// Runs `command` with nothing on its standard input and returns what it printed and how it ended.
pub(crate) fn capture(command: &mut Command) -> Result<Output> {
    let shown = render(command);
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))
}

/// What `command` printed on its standard output; anything but success is an error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = capture(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            render(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where `program` lies on the search path, the administrator's directories included.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(extra);
    places.find_map(|place| Some(place.join(program)).filter(|file| file.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_commands_can_be_typed_again() {
        let mut command = Command::new("tombolo");
        command.args(["run", "--name=a", "sh", "-c", "echo it's", ""]);
        assert_eq!(
            render(&command),
            r"tombolo run --name=a sh -c 'echo it'\''s' ''"
        );
    }

    #[test]
    fn a_failing_command_is_an_error_with_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = read(&mut command).unwrap_err().to_string();
        assert!(error.contains("because"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn programs_are_found_on_the_search_path() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-here"), None);
    }
}
