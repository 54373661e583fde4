//! Showing a scenario: numbered steps, commands with their output, checks.

use std::process::{Command, Output};

use anyhow::Result;

use crate::process;

/// Which lines of a command's output are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View {
    /// All of them.
    All,
    /// None of them.
    Nothing,
    /// Those that contain one of these words.
    With(&'static [&'static str]),
}

/// A scenario as it is shown and counted.
#[derive(Debug)]
pub(crate) struct Steps {
    number: usize,
    passed: usize,
    failed: Vec<String>,
}

impl Steps {
    /// Prints `title` and starts to count.
    pub(crate) fn new(title: &str) -> Self {
        println!("\n=== {title} ===");
        Self {
            number: 0,
            passed: 0,
            failed: Vec::new(),
        }
    }

    /// Prints the next step.
    pub(crate) fn step(&mut self, title: &str) {
        self.number += 1;
        println!("\n{}. {title}", self.number);
    }

    /// Prints a line that is a command beside the others, such as one that goes on in the background.
    pub(crate) fn typed(&self, line: &str) {
        println!("   {}", prompt(line));
    }

    /// Shows `command`, runs it, shows what `view` leaves of its output, and returns it; only a command that
    /// cannot start is an error.
    pub(crate) fn run(&mut self, view: View, command: &mut Command) -> Result<Output> {
        self.typed(&process::render(command));
        let output = process::capture(command)?;
        let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
        // What a failure says is never cut.
        let view = if output.status.success() {
            view
        } else {
            View::All
        };
        for line in view.of(&lines) {
            println!("      {line}");
        }
        Ok(output)
    }

    /// Runs `command` as [`Steps::run`] does and checks that it succeeds; returns its output as
    /// text.
    pub(crate) fn must(&mut self, what: &str, view: View, command: &mut Command) -> Result<String> {
        let output = self.run(view, command)?;
        self.check(what, output.status.success());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `command` as [`Steps::run`] does and checks that it fails.
    pub(crate) fn must_fail(&mut self, what: &str, command: &mut Command) -> Result<()> {
        let output = self.run(View::All, command)?;
        self.check(what, !output.status.success());
        Ok(())
    }

    /// Shows and counts whether `what` holds.
    pub(crate) fn check(&mut self, what: &str, holds: bool) {
        if holds {
            self.passed += 1;
            println!("   PASS {what}");
        } else {
            self.failed.push(what.to_owned());
            println!("   FAIL {what}");
        }
    }

    /// Shows why a check could not be made; it is not counted.
    pub(crate) fn note(&self, text: &str) {
        println!("   NOTE {text}");
    }

    /// Shows lines that explain the check before.
    pub(crate) fn detail(&self, lines: &[String]) {
        for line in lines {
            println!("      {line}");
        }
    }

    /// Prints the count, names the failed checks, and says whether all held.
    pub(crate) fn finish(self) -> bool {
        println!(
            "\n   {} checks held, {} failed",
            self.passed,
            self.failed.len()
        );
        for what in &self.failed {
            println!("   FAIL {what}");
        }
        self.failed.is_empty()
    }
}

impl View {
    /// What is left of `lines`, with those without text dropped.
    fn of(self, lines: &[&str]) -> Vec<String> {
        let lines = lines.iter().map(|line| line.trim_end());
        let lines = lines.filter(|line| !line.is_empty());
        match self {
            Self::All => lines.map(str::to_owned).collect(),
            Self::Nothing => Vec::new(),
            Self::With(words) => lines
                .filter(|line| words.iter().any(|word| line.contains(word)))
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// The typed line, with the place where it runs before it.
fn prompt(line: &str) -> String {
    match line
        .strip_prefix("nsenter --net=/run/netns/")
        .and_then(|rest| rest.split_once(' '))
    {
        Some((place, rest)) => format!("{place}# {rest}"),
        None => format!("host# {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_says_where() {
        assert_eq!(prompt("tombolo network ls"), "host# tombolo network ls");
        assert_eq!(
            prompt("nsenter --net=/run/netns/outside curl x"),
            "outside# curl x"
        );
    }

    #[test]
    fn views_leave_what_they_say() {
        let lines = ["one", "", "two  ", "three"];
        assert_eq!(View::All.of(&lines), ["one", "two", "three"]);
        assert!(View::Nothing.of(&lines).is_empty());
        assert_eq!(View::With(&["t"]).of(&lines), ["two", "three"]);
    }

    #[test]
    fn one_failed_check_fails_the_scenario() {
        let mut steps = Steps::new("sample");
        steps.step("first");
        let text = steps
            .must("echo works", View::All, Command::new("echo").arg("hello"))
            .unwrap();
        assert_eq!(text, "hello\n");
        steps
            .must_fail("false fails", &mut Command::new("false"))
            .unwrap();
        steps
            .must("false works", View::All, &mut Command::new("false"))
            .unwrap();
        assert_eq!((steps.number, steps.passed), (1, 2));
        assert_eq!(steps.failed, ["false works"]);
        assert!(!steps.finish());
        assert!(Steps::new("empty").finish());
    }
}
