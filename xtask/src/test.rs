//! `cargo xtask test`: every check and every test, counted in one last line.
//!
//! A test that cannot run on this machine does not fail and does not pass in silence: it appends
//! `<binary id> <test name>`, a tab and the reason to the file named by [`SKIP_LOG`], prints
//! `SKIPPED: <reason>` and returns.

mod results;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use self::results::{Tally, junit_cases, libtest_tally, skips, tally};
use crate::packages::{self, Use};
use crate::{process, tidy, workspace};

/// Names the file to which a test that cannot run here appends one line.
const SKIP_LOG: &str = "TOMBOLO_SKIP_LOG";
/// Names the `tombolo` binary for tests that start it.
const BINARY: &str = "TOMBOLO_BINARY";
/// The profile of `.config/nextest.toml` that writes a report.
const PROFILE: &str = "counted";
/// The report, from the top; cargo-nextest puts it here whatever the target directory is.
const REPORT: &str = "target/nextest/counted/junit.xml";
/// The tests that `--fast` leaves out, in the filter language of cargo-nextest.
const SLOW: &str = "package(tombolo-tests)";

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    fast: bool,
    filter: Option<String>,
}

impl Options {
    /// Reads the words after `test`.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for word in words {
            match word.as_str() {
                "--fast" => options.fast = true,
                flag if flag.starts_with('-') => bail!("test knows no option `{flag}`"),
                _ if options.filter.is_some() => bail!("test takes one filter, not two: `{word}`"),
                filter => options.filter = Some(filter.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Runs what `options` ask for, prints the count as the last line, and says whether all held.
pub(crate) fn run(options: &Options) -> Result<bool> {
    packages::install(Use::Test)?;
    packages::install_cargo_tools()?;
    let mut total = Tally::default();
    if options.filter.is_none() {
        total.add(static_checks()?);
    }
    total.add(tests(options)?);
    if options.filter.is_none() {
        total.add(doc_tests()?);
    }
    if options.fast {
        println!("--fast: the tests of {SLOW} were left out and are not counted");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(total.failed == 0)
}

fn static_checks() -> Result<Tally> {
    let mut total = Tally::default();
    total.count(check("fmt", &["fmt", "--all", "--check"], "")?);
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    total.count(check("clippy", &clippy, "")?);
    headline("tidy");
    for (_, violations) in tidy::check_all(workspace::root())? {
        total.count(violations == 0);
    }
    let doc = ["doc", "--workspace", "--no-deps", "--quiet"];
    total.count(check("doc", &doc, "-D warnings")?);
    Ok(total)
}

fn check(title: &str, words: &[&str], rustdoc_flags: &str) -> Result<bool> {
    headline(title);
    let mut cargo = process::cargo();
    cargo.args(words).current_dir(workspace::root());
    if !rustdoc_flags.is_empty() {
        cargo.env("RUSTDOCFLAGS", rustdoc_flags);
    }
    let passed = process::succeeds(&mut cargo)?;
    if !passed {
        println!("FAIL {title}: `{}`", process::render(&cargo));
    }
    Ok(passed)
}

fn headline(title: &str) {
    println!("== {title}");
}

/// Builds the binary and runs the tests; what cannot be built counts as one failure.
fn tests(options: &Options) -> Result<Tally> {
    headline("build");
    let binary = match workspace::build_binary(false) {
        Ok(binary) => binary,
        Err(error) => {
            println!("FAIL build: {error:#}");
            return Ok(Tally {
                failed: 1,
                ..Tally::default()
            });
        }
    };
    headline("tests");
    let target = workspace::target_directory(&workspace::metadata()?)?;
    let report = workspace::root().join(REPORT);
    let skip_log = target.join("skipped-tests.txt");
    remove_if_there(&report)?;
    fs::write(&skip_log, "").context("cannot empty the skip log")?;
    let passed = nextest(options, &binary, &skip_log)?;
    let skips = skips(&fs::read_to_string(&skip_log).context("cannot read the skip log")?);
    for (test, reason) in &skips {
        println!("SKIPPED: {test}: {reason}");
    }
    let cases = junit_cases(&fs::read_to_string(&report).unwrap_or_default());
    let mut counted = tally(&cases, &skips);
    // The runner also fails without a failed test: no build, no match, an interrupt. And a report
    // that is not there must not look like a run without failures.
    if counted.failed == 0 && (!passed || cases.is_empty()) {
        println!("FAIL tests: the runner reported no test, or failed without naming one");
        counted.failed = 1;
    }
    Ok(counted)
}

fn nextest(options: &Options, binary: &Path, skip_log: &Path) -> Result<bool> {
    let mut cargo = process::cargo();
    cargo.args([
        "nextest",
        "run",
        "--workspace",
        "--no-fail-fast",
        "--profile",
        PROFILE,
    ]);
    if options.fast {
        cargo.arg("--filterset").arg(format!("not {SLOW}"));
    }
    cargo.args(&options.filter);
    cargo
        .env(BINARY, binary)
        .env(SKIP_LOG, skip_log)
        .current_dir(workspace::root());
    process::succeeds(&mut cargo)
}

fn remove_if_there(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

fn doc_tests() -> Result<Tally> {
    headline("doc tests");
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--doc", "--quiet", "--no-fail-fast"]);
    cargo
        .current_dir(workspace::root())
        .stderr(Stdio::inherit());
    let output = process::capture(&mut cargo)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut counted = libtest_tally(&text);
    if !output.status.success() {
        print!("{text}");
        counted.failed = counted.failed.max(1);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_a_flag_and_one_filter() {
        let both = Options {
            fast: true,
            filter: Some("ipam".to_owned()),
        };
        assert_eq!(parse(&["--fast", "ipam"]).unwrap(), both);
        assert_eq!(parse(&[]).unwrap(), Options::default());
        assert!(parse(&["--slow"]).is_err());
        assert!(parse(&["a", "b"]).is_err());
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let file = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        remove_if_there(&file).unwrap();
        fs::write(&file, "x").unwrap();
        remove_if_there(&file).unwrap();
        assert!(!file.exists());
        assert!(remove_if_there(Path::new("/proc/self/status")).is_err());
    }
}
