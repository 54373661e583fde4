//! `cargo xtask tidy`: the house rules that a program can check.
//!
//! Each violation names its place, its rule and what to do about it.

mod architecture;
mod mask;
mod rules;
#[cfg(test)]
mod tests;
mod walls;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    message: String,
}

impl Violation {
    /// A violation at `line` (the first is 1) of `file`; `message` says what is wrong and what to
    /// do.
    fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// A file of the workspace: its path from the top, with forward slashes, and its text.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: String,
    text: String,
}

/// Checks every rule and prints what breaks it; `Ok(false)` when something does.
pub(crate) fn run() -> Result<bool> {
    let counts = check_all(workspace::root())?;
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    println!("tidy: {} rules, {total} violations", counts.len());
    Ok(total == 0)
}

/// Checks every rule on the tree at `root`, prints the violations, and returns their number for
/// each rule.
pub(crate) fn check_all(root: &Path) -> Result<Vec<(&'static str, usize)>> {
    let files = files(root)?;
    let metadata = workspace::metadata()?;
    let found = [
        ("function-length", each(&files, rules::long_functions)),
        ("file-length", each(&files, rules::long_file)),
        ("unsafe", each(&files, rules::unsafe_code)),
        ("allow", each(&files, rules::allow_attributes)),
        ("ignore", each(&files, rules::ignored_tests)),
        ("words", each(&files, rules::forbidden_words)),
        ("architecture", architecture::check(root, &files)),
        ("walls", walls::check(&metadata)),
        ("runtime-free", walls::check_reach(&metadata)),
    ];
    let mut counts = Vec::new();
    for (rule, mut violations) in found {
        violations.sort();
        for violation in &violations {
            println!("{violation} [{rule}]");
        }
        counts.push((rule, violations.len()));
    }
    Ok(counts)
}

fn each(files: &[File], rule: fn(&File) -> Vec<Violation>) -> Vec<Violation> {
    files.iter().flat_map(rule).collect()
}

/// The text files of the tree that people write, in order of their paths.
fn files(root: &Path) -> Result<Vec<File>> {
    let mut found = Vec::new();
    collect(root, root, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

const DOTTED: [&str; 4] = [".ci", ".config", ".cargo", ".github"];
const KINDS: [&str; 8] = ["rs", "md", "toml", "sh", "service", "socket", "yml", "yaml"];

fn collect(root: &Path, folder: &Path, found: &mut Vec<File>) -> Result<()> {
    let shown = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().with_context(shown)?;
        let hidden = name.starts_with('.') && !DOTTED.contains(&name.as_str());
        if hidden || (name == "target" && kind.is_dir()) {
            continue;
        }
        if kind.is_dir() {
            collect(root, &path, found)?;
            continue;
        }
        let wanted = path
            .extension()
            .is_some_and(|end| KINDS.iter().any(|kind| end == *kind));
        if kind.is_file() && (wanted || folder == root.join(".ci")) {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {} as text", path.display()))?;
            let path = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            found.push(File { path, text });
        }
    }
    Ok(())
}
