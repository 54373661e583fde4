//! What commands write: tables for people, JSON for machines.

use std::io::{self, Write};

use serde::Serialize;

/// Rows in aligned columns, with a heading.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no rows.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()],
        }
    }

    /// Adds a row, one cell for each heading.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(self.rows[0].len(), N, "a row is as wide as its table");
        self.rows
            .push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// Writes heading and rows; the last column is not padded.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes a value as indented JSON.
pub(crate) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// The same text without characters that would move the cursor or start a command of the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The same text, cut to `limit` characters with a mark where it was cut.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars()
        .take(limit.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// An id as tables show it.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(crate::limits::ID_CHARS).collect()
}

/// The texts joined by commas, or `-` when there are none.
pub(crate) fn joined<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut line = String::new();
    for text in texts {
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(text.as_ref());
    }
    if line.is_empty() {
        "-".to_owned()
    } else {
        line
    }
}

/// How long `duration_ms` milliseconds are, in the largest unit that tells something, as Docker says it.
pub(crate) fn duration_words(duration_ms: u64) -> String {
    let seconds = duration_ms / 1000;
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".to_owned(),
        5400..172_800 => format!("{hours} hours"),
        172_800..1_209_600 => format!("{} days", hours / 24),
        1_209_600..5_184_000 => format!("{} weeks", hours / 24 / 7),
        5_184_000..63_072_000 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago `then_ms` was at `now_ms`, both in milliseconds since 1970-01-01 UTC.
pub(crate) fn age(now_ms: u64, then_ms: u64) -> String {
    format!("{} ago", duration_words(now_ms.saturating_sub(then_ms)))
}

/// Now, in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&["NAME", "X"]);
        table.row(["åäö-long".to_owned(), "1".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME       X\nåäö-long   1\nb\n"
        );
    }

    #[test]
    fn cells_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
    }

    #[test]
    fn durations_read_as_in_docker() {
        let cases = [
            (999, "Less than a second"),
            (1_000, "1 second"),
            (59_999, "59 seconds"),
            (60_000, "About a minute"),
            (120_000, "2 minutes"),
            (3_600_000, "About an hour"),
            (7_200_000, "2 hours"),
            (3 * 86_400_000, "3 days"),
            (15 * 86_400_000, "2 weeks"),
            (90 * 86_400_000, "3 months"),
            (800 * 86_400_000, "2 years"),
        ];
        for (duration_ms, words) in cases {
            assert_eq!(duration_words(duration_ms), words);
        }
        assert_eq!(age(5, 10), "Less than a second ago");
    }
}
