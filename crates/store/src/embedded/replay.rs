//! From the bytes of a log to a state.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::record::{
    FRAME_BYTES, HEADER_BYTES, Header, HeaderFault, MARKER, Record, RecordFault, read_record,
};
use super::state::State;
use crate::limits::SCAN_CANDIDATES;
use crate::{Revision, Versioned};

const SCAN_BYTES: u64 = 1 << 20;

/// What opening a log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Commits that were read after the snapshot.
    pub commits: u64,
    /// The end of the log that was cut off because it was never written completely.
    pub torn: Option<Torn>,
}

/// An incomplete end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Length of the log without it, in bytes.
    pub offset: u64,
    /// Its own length, in bytes.
    pub bytes: u64,
}

/// Why a log cannot be used. All of these need a decision by a person.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The system could not read the file.
    #[error("cannot read at offset {offset}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// This is another kind of file.
    #[error("file is not a tombolo store; move it away to start with an empty one")]
    Foreign,
    /// It was written by another release.
    #[error("log has format {found}, this release knows format 1; run the release that wrote it")]
    Version {
        /// The format of the file.
        found: u32,
    },
    /// The start of the file is damaged or missing; it is synced before the file gets its name.
    #[error("header is damaged; restore the file from a backup, or move it away to start empty")]
    Header,
    /// Bytes changed that had been written safely.
    #[error(
        "record at offset {offset} is damaged: {fault}; restore the file from a backup, or cut it \
         to {offset} bytes to lose the commits from there on"
    )]
    Damaged {
        /// Start of the record, in bytes.
        offset: u64,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// A part of the snapshot is damaged, and nothing behind it makes sense without it.
    #[error(
        "snapshot is damaged at offset {offset}: {fault}; restore the file from a backup, or move \
         it away to start empty"
    )]
    Snapshot {
        /// Start of the record, in bytes.
        offset: u64,
        /// What is wrong with it.
        fault: RecordFault,
    },
}

/// A state and the good part of the log it came from.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) state: State,
    pub(super) len: u64,
    pub(super) recovery: Recovery,
}

/// Reads a whole log. It changes nothing.
pub(super) fn replay(file: &File) -> Result<Replayed, ReplayError> {
    let end = file
        .metadata()
        .map_err(|source| ReplayError::Read { offset: 0, source })?
        .len();
    let header = read_header(file, end)?;
    let mut log = Reading {
        source: at(file, HEADER_BYTES as u64)?,
        offset: HEADER_BYTES as u64,
        end,
    };
    let mut state = read_snapshot(&mut log, &header)?;
    let mut commits = 0;
    while log.offset < end {
        let start = log.offset;
        match log.next()? {
            Ok(Record::Commit {
                revision, changes, ..
            }) if revision.0 == state.revision().0 + 1 => {
                state.apply(revision, changes);
                commits += 1;
            }
            Ok(_) => {
                return Err(ReplayError::Damaged {
                    offset: start,
                    fault: RecordFault::Content,
                });
            }
            Err(fault) => {
                reject_damage(file, start, end, fault, state.revision())?;
                let torn = Some(Torn {
                    offset: start,
                    bytes: end - start,
                });
                return Ok(Replayed {
                    state,
                    len: start,
                    recovery: Recovery { commits, torn },
                });
            }
        }
    }
    Ok(Replayed {
        state,
        len: end,
        recovery: Recovery {
            commits,
            torn: None,
        },
    })
}

fn read_header(file: &File, end: u64) -> Result<Header, ReplayError> {
    let mut bytes = [0; HEADER_BYTES];
    let present = end.min(HEADER_BYTES as u64) as usize;
    file.read_exact_at(&mut bytes[..present], 0)
        .map_err(|source| ReplayError::Read { offset: 0, source })?;
    if present < HEADER_BYTES {
        return Err(ReplayError::Header);
    }
    Header::decode(&bytes).map_err(|fault| match fault {
        HeaderFault::Magic => ReplayError::Foreign,
        HeaderFault::Version(found) => ReplayError::Version { found },
        HeaderFault::Checksum => ReplayError::Header,
    })
}

fn read_snapshot(log: &mut Reading<'_>, header: &Header) -> Result<State, ReplayError> {
    let mut state = State::at(header.revision);
    let mut left = header.entries;
    while left > 0 {
        let start = log.offset;
        let damaged = |fault| ReplayError::Snapshot {
            offset: start,
            fault,
        };
        let record = log.next()?.map_err(damaged)?;
        let Record::Snapshot(entries) = record else {
            return Err(damaged(RecordFault::Content));
        };
        let count = entries.len() as u64;
        let restored = entries
            .into_iter()
            .all(|(key, versioned): (_, Versioned)| state.restore(key, versioned));
        if count == 0 || count > left || !restored {
            return Err(damaged(RecordFault::Content));
        }
        left -= count;
    }
    Ok(state)
}

/// Tells damage from an incomplete end. Before a sync, the system may write later pages of the file and
/// not earlier ones; so a record that cannot be read is damage only if a later one says that the
/// log had been synced beyond it. Too many false starts of a record count as damage too.
fn reject_damage(
    file: &File,
    start: u64,
    end: u64,
    fault: RecordFault,
    last: Revision,
) -> Result<(), ReplayError> {
    let damaged = Err(ReplayError::Damaged {
        offset: start,
        fault,
    });
    if fault == RecordFault::Content {
        return damaged;
    }
    let mut markers = Markers {
        file,
        chunk: Vec::new(),
        chunk_offset: 0,
        end,
    };
    let mut from = start + 1;
    for _ in 0..SCAN_CANDIDATES {
        let Some(place) = markers.first_from(from)? else {
            return Ok(());
        };
        let mut log = Reading {
            source: at(file, place)?,
            offset: place,
            end,
        };
        while let Ok(record) = log.next()? {
            if let Record::Commit {
                synced, revision, ..
            } = record
                && revision > last
                && synced > start
            {
                return damaged;
            }
        }
        from = log.offset.max(place + 1);
    }
    damaged
}

/// The places in a file where a record may start.
struct Markers<'a> {
    file: &'a File,
    chunk: Vec<u8>,
    chunk_offset: u64,
    end: u64,
}

impl Markers<'_> {
    /// The first marker at or after `from`.
    fn first_from(&mut self, mut from: u64) -> Result<Option<u64>, ReplayError> {
        while from + FRAME_BYTES as u64 <= self.end {
            if from + MARKER.len() as u64 > self.chunk_offset + self.chunk.len() as u64 {
                self.load(from)?;
            }
            let rest = &self.chunk[(from - self.chunk_offset) as usize..];
            let found = rest.windows(MARKER.len()).position(|bytes| bytes == MARKER);
            if let Some(position) = found {
                return Ok(Some(from + position as u64));
            }
            from += (rest.len() - MARKER.len() + 1) as u64;
        }
        Ok(None)
    }

    fn load(&mut self, offset: u64) -> Result<(), ReplayError> {
        self.chunk
            .resize((self.end - offset).min(SCAN_BYTES) as usize, 0);
        self.chunk_offset = offset;
        let read = self.file.read_exact_at(&mut self.chunk, offset);
        read.map_err(|source| ReplayError::Read { offset, source })
    }
}

/// A place in a log.
struct Reading<'a> {
    source: BufReader<&'a File>,
    offset: u64,
    end: u64,
}

impl Reading<'_> {
    /// The record here; moves behind it if it is good.
    fn next(&mut self) -> Result<Result<Record, RecordFault>, ReplayError> {
        let read = read_record(&mut self.source, self.offset, self.end).map_err(|source| {
            ReplayError::Read {
                offset: self.offset,
                source,
            }
        })?;
        Ok(read.map(|(record, next)| {
            self.offset = next;
            record
        }))
    }
}

fn at(mut file: &File, offset: u64) -> Result<BufReader<&File>, ReplayError> {
    file.seek(SeekFrom::Start(offset))
        .map_err(|source| ReplayError::Read { offset, source })?;
    Ok(BufReader::new(file))
}
