//! Showing a scenario: numbered steps, commands with their output, checks.

use std::process::{Command, Output};

use anyhow::Result;

use crate::process;

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

    /// Shows `command`, runs it, shows what it printed, and returns it; only a command that cannot
    /// start is an error.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<Output> {
        println!("   {}", prompt(&process::render(command)));
        let output = process::capture(command)?;
        for stream in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(stream).lines() {
                println!("      {line}");
            }
        }
        if !output.status.success() {
            println!("      ({})", output.status);
        }
        Ok(output)
    }

    /// Runs `command` as [`Steps::run`] does and checks that it succeeds; returns its output as
    /// text.
    pub(crate) fn must(&mut self, what: &str, command: &mut Command) -> Result<String> {
        let output = self.run(command)?;
        self.check(what, output.status.success());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
    fn one_failed_check_fails_the_scenario() {
        let mut steps = Steps::new("sample");
        steps.step("first");
        let text = steps
            .must("echo works", Command::new("echo").arg("hello"))
            .unwrap();
        assert_eq!(text, "hello\n");
        steps
            .must("false fails", &mut Command::new("false"))
            .unwrap();
        assert_eq!((steps.number, steps.passed), (1, 1));
        assert_eq!(steps.failed, ["false fails"]);
        assert!(!steps.finish());
        assert!(Steps::new("empty").finish());
    }
}
