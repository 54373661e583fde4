//! Rust source with everything that is not code blanked out.

/// `source` with comments, strings and character literals replaced by blanks; the line breaks stay
/// where they are.
///
/// Follows the lexical structure chapter of the Rust reference: nested block comments, raw strings
/// with any number of `#`, and lifetimes told from characters.
pub(crate) fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut masked = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let length = blank_length(&text, at);
        if length == 0 {
            masked.push(text[at]);
            at += 1;
            continue;
        }
        let end = text.len().min(at + length);
        masked.extend(
            text[at..end]
                .iter()
                .map(|&c| if c == '\n' { c } else { ' ' }),
        );
        at = end;
    }
    masked
}

/// How many characters from `at` are no code; 0 when `at` is code.
fn blank_length(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => text[at..].iter().take_while(|&&c| c != '\n').count(),
        '/' if next == Some('*') => block_comment(&text[at..]),
        '"' => quoted(&text[at..], '"'),
        '\'' => character(&text[at..]),
        'r' if at == 0 || !is_word(text[at - 1]) || is_prefix(text, at) => raw_string(&text[at..]),
        _ => 0,
    }
}

/// Whether the `r` at `at` follows the `b` or `c` of a raw byte or C string.
fn is_prefix(text: &[char], at: usize) -> bool {
    matches!(text[at - 1], 'b' | 'c') && (at == 1 || !is_word(text[at - 2]))
}

pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn block_comment(text: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(text: &[char], end: char) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != end {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a character literal, or 0 for a lifetime.
fn character(text: &[char]) -> usize {
    match (text.get(1), text.get(2)) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(_), Some('\'')) => 3,
        _ => 0,
    }
}

fn raw_string(text: &[char]) -> usize {
    let hashes = text[1..].iter().take_while(|&&c| c == '#').count();
    if text.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let body = hashes + 2;
    let closes = |at: usize| {
        text[at] == '"' && text[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes
    };
    (body..text.len())
        .find(|&at| closes(at))
        .map_or(text.len(), |at| at + 1 + hashes)
}
