//! `ARCHITECTURE.md`: short, and every path it names is there.

use std::path::Path;

use super::{File, Violation};

const NAME: &str = "ARCHITECTURE.md";
const LINES: usize = 300;
const ENDINGS: [&str; 3] = [".rs", ".md", ".toml"];

/// Checks the length of the file and the paths named in it; its absence is a violation too.
pub(super) fn check(root: &Path, files: &[File]) -> Vec<Violation> {
    let Some(file) = files.iter().find(|file| file.path == NAME) else {
        return vec![Violation::new(
            NAME,
            1,
            "missing: write the map of the code",
        )];
    };
    let mut found = Vec::new();
    let lines = file.text.lines().count();
    if lines > LINES {
        let message = format!("{lines} lines, more than {LINES}: move detail to docs/design");
        found.push(Violation::new(NAME, lines, message));
    }
    for (line, path) in named_paths(&file.text) {
        let exists = if path.contains('/') {
            root.join(&path).exists()
        } else {
            let end = format!("/{path}");
            files
                .iter()
                .any(|file| file.path == path || file.path.ends_with(&end))
        };
        if !exists {
            let message = format!("`{path}` is not there: name it as it is now, from the top");
            found.push(Violation::new(NAME, line, message));
        }
    }
    found
}

/// The paths in backticks, with their lines; fenced blocks are left out.
///
/// A path holds a slash or ends like a source file, has no blank or wildcard, and starts with
/// neither `/` (a path of the host) nor a digit (an address).
pub(super) fn named_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let quoted = line.split('`').skip(1).step_by(2);
        found.extend(
            quoted
                .filter(|word| is_path(word))
                .map(|word| (index + 1, word.to_owned())),
        );
    }
    found
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let starts_well = |c: char| c.is_ascii_alphabetic() || c == '.' || c == '_';
    word.starts_with(starts_well)
        && word.chars().all(plain)
        && (word.contains('/') || ENDINGS.iter().any(|end| word.ends_with(end)))
}
