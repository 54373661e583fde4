//! What a process has written, as lines of JSON in a file that is rotated once.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use serde::{Deserialize, Serialize};

use super::limits;
use super::state::{StateDir, StateError, Status, now_ms};

/// Where a process has written something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Where it was written.
    pub stream: Stream,
    /// When it was read from the process, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// The line with its line end; without one when it is a piece of a longer line or the last.
    pub text: String,
}

/// Which lines of a log are wanted, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on until the process ends.
    pub follow: bool,
    /// At most this many of the latest lines so far.
    pub tail: Option<usize>,
    /// Only lines from this time on, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Start each line with its time in RFC 3339.
    pub timestamps: bool,
}

/// Why a log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The process is not known.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log file cannot be read.
    #[error("cannot read log {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The reader of the output has gone, or its disk is full.
    #[error("cannot write the log out")]
    Write(#[source] io::Error),
}

impl StateDir {
    /// Writes the log of a process to `out` and `err`, each line to where the process wrote it.
    pub fn logs(
        &self,
        id: &str,
        query: LogQuery,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<(), LogError> {
        let path = self.log_path(&self.entry(id)?.spec);
        let failed = |source| LogError::Read {
            path: path.clone(),
            source,
        };
        let mut follower = Follower::open(&path).map_err(failed)?;
        let mut latest = VecDeque::new();
        follower
            .read(|entry| {
                if query.since_ms.is_none_or(|since| entry.ts >= since) {
                    latest.push_back(entry);
                }
                if query.tail.is_some_and(|tail| latest.len() > tail) {
                    latest.pop_front();
                }
            })
            .map_err(failed)?;
        let mut show = |entry: &LogEntry| {
            let to: &mut dyn Write = if entry.stream == Stream::Stdout {
                &mut *out
            } else {
                &mut *err
            };
            let time = if query.timestamps {
                rfc3339(entry.ts) + " "
            } else {
                String::new()
            };
            write!(to, "{time}{}", entry.text)
                .and_then(|()| to.flush())
                .map_err(LogError::Write)
        };
        latest.iter().try_for_each(&mut show)?;
        let mut ended = !query.follow;
        while !ended {
            // Asked before reading: what is written before the end is then read after it.
            ended = match self.entry(id) {
                Ok(entry) => entry.state.status != Status::Running,
                Err(StateError::Unknown(_)) => true,
                Err(error) => return Err(error.into()),
            };
            let mut fresh = Vec::new();
            follower.read(|entry| fresh.push(entry)).map_err(failed)?;
            fresh.iter().try_for_each(&mut show)?;
            if !ended {
                thread::sleep(limits::POLL_PAUSE);
            }
        }
        Ok(())
    }
}

/// Reads a log that is still written, across its rotation.
struct Follower {
    path: PathBuf,
    older: Option<BufReader<File>>,
    current: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl Follower {
    fn open(path: &Path) -> io::Result<Self> {
        let older = open_log(&rotated(path))?;
        Ok(Self {
            path: path.to_owned(),
            older,
            current: None,
            partial: Vec::new(),
        })
    }

    fn read(&mut self, mut each: impl FnMut(LogEntry)) -> io::Result<()> {
        if let Some(older) = self.older.take() {
            self.current = Some(older);
        }
        loop {
            if let Some(reader) = &mut self.current {
                read_entries(reader, &mut self.partial, &mut each)?;
            }
            let inode = |file: &BufReader<File>| file.get_ref().metadata().map(|meta| meta.ino());
            let Some(next) = open_log(&self.path)? else {
                return Ok(());
            };
            if let Some(held) = &mut self.current {
                if inode(held)? == inode(&next)? {
                    return Ok(());
                }
                // What came between the last look and the rotation.
                read_entries(held, &mut self.partial, &mut each)?;
            }
            self.partial.clear();
            self.current = Some(next);
        }
    }
}

fn read_entries(
    reader: &mut BufReader<File>,
    partial: &mut Vec<u8>,
    each: &mut impl FnMut(LogEntry),
) -> io::Result<()> {
    while reader.read_until(b'\n', partial)? > 0 {
        if partial.ends_with(b"\n") {
            // A line cut short by a full disk is skipped, not the rest of the log.
            if let Ok(entry) = serde_json::from_slice(partial) {
                each(entry);
            }
            partial.clear();
        }
    }
    Ok(())
}

fn open_log(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Appends to a log file and rotates it.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl LogWriter {
    pub(super) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            max_bytes,
        })
    }

    /// Appends one entry; the file is rotated first when it would grow beyond its limit.
    pub(super) fn append(&mut self, stream: Stream, text: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(text).into_owned();
        let mut line = serde_json::to_vec(&LogEntry {
            stream,
            ts: now_ms(),
            text,
        })?;
        line.push(b'\n');
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.max_bytes {
            fs::rename(&self.path, rotated(&self.path))?;
            *self = Self::open(&self.path, self.max_bytes)?;
        }
        self.file.write_all(&line)?;
        self.bytes += length;
        Ok(())
    }
}

/// Cuts what a process writes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes more bytes, and gives each line that is complete or as long as one may be.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        self.rest.extend(bytes);
        let mut done = 0;
        loop {
            let rest = &self.rest[done..];
            let window = &rest[..rest.len().min(limits::LOG_TEXT_BYTES)];
            let cut = match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => end + 1,
                None if window.len() == limits::LOG_TEXT_BYTES => whole_characters(window),
                None => break,
            };
            each(&rest[..cut]);
            done += cut;
        }
        self.rest.drain(..done);
    }

    /// What is left without a line end.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }
}

/// The length of `bytes` less a UTF-8 character cut at its end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// A time in RFC 3339 with milliseconds, in UTC.
fn rfc3339(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hours, minutes) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (seconds, ms) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z")
}

/// Year, month and day of a day since the Unix epoch in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day comes last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_001), "2000-02-28T23:59:59.001Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_225_599_999), "2025-12-31T23:59:59.999Z");
    }

    #[test]
    fn lines_are_cut_at_their_end_at_the_limit_and_between_characters() {
        let mut lines = Lines::default();
        let mut seen: Vec<Vec<u8>> = Vec::new();
        lines.push(b"one\ntw", |line| seen.push(line.to_vec()));
        lines.push(b"o\n\nx", |line| seen.push(line.to_vec()));
        assert_eq!(seen, [&b"one\n"[..], b"two\n", b"\n"]);
        assert_eq!(lines.finish(), Some(b"x".to_vec()));
        assert_eq!(lines.finish(), None);
        let long = "a".repeat(limits::LOG_TEXT_BYTES - 1) + "é" + "b\n";
        seen.clear();
        lines.push(long.as_bytes(), |line| seen.push(line.to_vec()));
        assert_eq!(seen[0].len(), limits::LOG_TEXT_BYTES - 1);
        assert_eq!(seen[1], "éb\n".as_bytes());
    }

    #[test]
    fn a_log_is_rotated_once_and_followed_across_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let mut writer = LogWriter::open(&path, 300).unwrap();
        let mut follower = Follower::open(&path).unwrap();
        let mut seen = Vec::new();
        for number in 0..40 {
            writer
                .append(Stream::Stdout, format!("line {number}\n").as_bytes())
                .unwrap();
            follower.read(|entry| seen.push(entry.text)).unwrap();
        }
        let expected: Vec<_> = (0..40).map(|number| format!("line {number}\n")).collect();
        assert_eq!(seen, expected);
        let names = fs::read_dir(temp.path()).unwrap().count();
        assert_eq!(names, 2);
        let total: u64 = ["log", "log.1"]
            .iter()
            .map(|name| fs::metadata(temp.path().join(name)).unwrap().len())
            .sum();
        assert!(total <= 600, "{total}");
        let mut late = Vec::new();
        Follower::open(&path)
            .unwrap()
            .read(|entry| late.push(entry.text))
            .unwrap();
        assert_eq!(late, expected[40 - late.len()..]);
        assert!(late.len() >= 4, "{late:?}");
    }
}
