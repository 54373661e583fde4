//! Rules that look at one file.

use super::mask::{code_only, is_word};
use super::{File, Violation};

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 600;
/// The one folder that may hold `unsafe` code.
const UNSAFE_FOLDER: &str = "crates/kernel/";

// Written in two halves so that this file does not break its own rule.
const WORDS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
const MACROS: [&str; 2] = [concat!("to", "do!"), concat!("unimple", "mented!")];
const PHRASE: &str = concat!("for ", "now");

/// Functions outside tests longer than 70 lines, from `fn` to the closing brace.
pub(super) fn long_functions(file: &File) -> Vec<Violation> {
    let Some(code) = production_code(file) else {
        return Vec::new();
    };
    let functions = functions(&code).into_iter();
    let long = functions.filter(|function| function.lines > FUNCTION_LINES);
    long.map(|function| {
        let Function { name, line, lines } = function;
        let message = format!(
            "function `{name}` has {lines} lines, more than {FUNCTION_LINES}: split it by what \
             its parts do"
        );
        Violation::new(&file.path, line, message)
    })
    .collect()
}

/// Rust files of more than 600 lines, inline tests not counted.
pub(super) fn long_file(file: &File) -> Vec<Violation> {
    let Some(code) = production_code(file) else {
        return Vec::new();
    };
    let tests = test_lines(&code);
    let lines = code.lines().count() - tests;
    if lines <= FILE_LINES {
        return Vec::new();
    }
    let message = format!(
        "{lines} lines without tests, more than {FILE_LINES}: move one idea to a file of its own"
    );
    vec![Violation::new(&file.path, lines, message)]
}

/// The keyword `unsafe` outside the kernel crate.
pub(super) fn unsafe_code(file: &File) -> Vec<Violation> {
    if !is_rust(file) || file.path.starts_with(UNSAFE_FOLDER) {
        return Vec::new();
    }
    let message = "`unsafe` outside crates/kernel: use a safe call, or move it there behind one";
    find_words(&code_only(&file.text), &["unsafe"])
        .map(|line| Violation::new(&file.path, line, message))
        .collect()
}

/// Attributes that silence a lint for ever.
pub(super) fn allow_attributes(file: &File) -> Vec<Violation> {
    let message = "an `allow` attribute never goes away: use `expect` with a reason";
    attributes(file, "allow(")
        .map(|line| Violation::new(&file.path, line, message))
        .collect()
}

/// Tests that never run.
pub(super) fn ignored_tests(file: &File) -> Vec<Violation> {
    let message = "an ignored test is not counted: let it skip with a reason (CONTRIBUTING.md)";
    attributes(file, "ignore")
        .map(|line| Violation::new(&file.path, line, message))
        .collect()
}

/// Words that put work off.
pub(super) fn forbidden_words(file: &File) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line: usize, word: &str| {
        let message = format!("`{word}` puts work off: do it, or write an issue");
        found.push(Violation::new(&file.path, line, message));
    };
    for (index, text) in file.text.lines().enumerate() {
        for word in WORDS.iter().filter(|word| has_word(text, word)) {
            report(index + 1, word);
        }
        for word in MACROS
            .iter()
            .filter(|word| is_rust(file) && has_word(text, word))
        {
            report(index + 1, word);
        }
        if has_word(&text.to_lowercase(), PHRASE) {
            report(index + 1, PHRASE);
        }
    }
    found
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

/// The masked text of a Rust file that is not wholly tests.
fn production_code(file: &File) -> Option<String> {
    let folders_and_name: Vec<&str> = file.path.split('/').collect();
    let is_test = folders_and_name
        .iter()
        .any(|part| *part == "tests" || *part == "tests.rs");
    (is_rust(file) && !is_test).then(|| without_tests(&code_only(&file.text)))
}

/// The lines that hold `attribute` within `#[..]` or `#![..]`, masked text.
fn attributes(file: &File, attribute: &'static str) -> impl Iterator<Item = usize> {
    let code = if is_rust(file) {
        code_only(&file.text)
    } else {
        String::new()
    };
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some(start) = code[from..].find('#').map(|at| from + at) {
        from = start + 1;
        let rest = code[from..].trim_start_matches('!');
        if !rest.starts_with('[') {
            continue;
        }
        let inside = &rest[..closing(rest, '[', ']').unwrap_or(rest.len())];
        if has_word(inside, attribute) {
            lines.push(line_at(&code, start));
        }
    }
    lines.into_iter()
}

/// Whether `text` holds `word` with no letter, digit or underscore beside it.
fn has_word(text: &str, word: &str) -> bool {
    let ends_in_word = word.chars().next_back().is_some_and(is_word);
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let joined_after = ends_in_word && after.is_some_and(is_word);
        !joined_after && !before.is_some_and(is_word)
    })
}

fn find_words(code: &str, words: &'static [&'static str]) -> impl Iterator<Item = usize> {
    code.lines()
        .enumerate()
        .filter(move |(_, line)| words.iter().any(|word| has_word(line, word)))
        .map(|(index, _)| index + 1)
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The offset of the bracket that closes the first `open` of `text`, if it is closed.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close && depth > 0 {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

/// A marker that [`without_tests`] leaves on each line it blanked, for [`test_lines`] to count.
const TEST_LINE: char = '\u{1}';

/// Masked `code` whose `#[cfg(test)]` modules are blanked line by line.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, module) = rest.split_at(at);
        kept.push_str(before);
        // A module in a file of its own ends at `;` and has no brace to match.
        let body = module
            .find(['{', ';'])
            .filter(|&at| module[at..].starts_with('{'));
        let end = body.and_then(|at| closing(&module[at..], '{', '}').map(|end| at + end + 1));
        let end = end.unwrap_or_else(|| module.find(';').map_or(module.len(), |at| at + 1));
        for _ in 0..module[..end].matches('\n').count() {
            kept.push(TEST_LINE);
            kept.push('\n');
        }
        kept.push(TEST_LINE);
        rest = &module[end..];
    }
    kept.push_str(rest);
    kept
}

fn test_lines(code: &str) -> usize {
    code.matches(TEST_LINE).count()
}

/// A function and the number of lines from its `fn` to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The functions with a body in masked `code`, nested ones too.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let after = &code[at + 3..];
        let name: String = after.chars().take_while(|&c| is_word(c)).collect();
        let joined = code[..at].chars().next_back().is_some_and(is_word);
        if joined || name.is_empty() {
            continue;
        }
        let Some(body) = body_start(after) else {
            continue;
        };
        let length = closing(&after[body..], '{', '}').unwrap_or(after.len() - body);
        let lines = after[..body + length].matches('\n').count() + 1;
        found.push(Function {
            name,
            line: line_at(code, at),
            lines,
        });
    }
    found
}

/// Where the body of a function begins, given the text after its `fn`; none for a declaration.
fn body_start(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}
