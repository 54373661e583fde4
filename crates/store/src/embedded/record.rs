//! The bytes of the log.
//!
//! A log is a header, a snapshot of as many entries as the header says, and any number of commits.
//! Snapshot and commits are records: marker, length, checksum, payload. All numbers are little-endian.
//! The checksum also covers the place of the record in the file, so that a value that looks like a
//! record is never taken for one.

use std::io::{self, Read};
use std::sync::Arc;

use crate::limits::{
    COMMIT_BYTES, COMMIT_WRITES, KEY_BYTES, RECORD_BYTES, SNAPSHOT_CHUNK_BYTES, VALUE_BYTES,
};
use crate::{Change, Key, Revision, Versioned};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes of a record before its payload.
pub(super) const FRAME_BYTES: usize = 12;
/// First bytes of every record; 0xf5 never occurs in UTF-8.
pub(super) const MARKER: [u8; 4] = *b"\xf5TBR";
/// Bytes that an entry of a snapshot has besides its key and value.
pub(super) const ENTRY_BYTES: usize = 13;

const MAGIC: [u8; 8] = *b"tombolo\x1a";
const VERSION: u32 = 1;
const SNAPSHOT: u8 = 1;
const COMMIT: u8 = 2;
const REMOVED: u32 = u32::MAX;

const _: () = assert!(19 + COMMIT_BYTES + COMMIT_WRITES * 5 <= RECORD_BYTES);
const _: () =
    assert!(3 + SNAPSHOT_CHUNK_BYTES + ENTRY_BYTES + KEY_BYTES + VALUE_BYTES <= RECORD_BYTES);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES / ENTRY_BYTES < u16::MAX as usize);
const _: () = assert!(KEY_BYTES <= u8::MAX as usize);

/// What a log starts with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The revision of the snapshot.
    pub(super) revision: Revision,
    /// Entries in the snapshot.
    pub(super) entries: u64,
}

/// Why bytes are not a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Magic,
    Version(u32),
    Checksum,
}

/// The content of one record.
#[derive(Debug)]
pub(super) enum Record {
    Snapshot(Vec<(Key, Versioned)>),
    Commit {
        /// Length of the log that was known to survive a loss of power when this was written.
        synced: u64,
        revision: Revision,
        changes: Vec<Change>,
    },
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The file ends before the record does.
    #[error("file ends inside the record")]
    Cut,
    /// No record starts here.
    #[error("record does not start with the marker")]
    Marker,
    /// No record is that long.
    #[error("length is impossible")]
    Length,
    /// Some byte is not what was written.
    #[error("checksum differs")]
    Checksum,
    /// The checksum holds, but the content makes no sense.
    #[error("content is not valid here")]
    Content,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.revision.0.to_le_bytes());
        bytes[24..].copy_from_slice(&self.entries.to_le_bytes());
        let checksum = crc32fast::hash(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderFault> {
        let mut fields = Fields(bytes);
        if fields.take(8) != Some(&MAGIC) {
            return Err(HeaderFault::Magic);
        }
        let version = fields.u32().ok_or(HeaderFault::Magic)?;
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let (_, revision, entries) = (fields.u32(), fields.u64(), fields.u64());
        let header = Self {
            revision: Revision(revision.ok_or(HeaderFault::Checksum)?),
            entries: entries.ok_or(HeaderFault::Checksum)?,
        };
        if header.encode() == *bytes {
            Ok(header)
        } else {
            Err(HeaderFault::Checksum)
        }
    }
}

/// Appends to `buffer` the commit that will stand at `offset` of the log.
pub(super) fn push_commit(
    buffer: &mut Vec<u8>,
    offset: u64,
    synced: u64,
    revision: Revision,
    changes: &[Change],
) {
    push_record(buffer, offset, |payload| {
        payload.push(COMMIT);
        payload.extend(synced.to_le_bytes());
        payload.extend(revision.0.to_le_bytes());
        push_count(payload, changes.len());
        for change in changes {
            push_entry(payload, &change.key, change.value.as_deref());
        }
    });
}

/// Appends to `buffer` the part of a snapshot that will stand at `offset` of the log.
pub(super) fn push_snapshot(buffer: &mut Vec<u8>, offset: u64, entries: &[(&Key, &Versioned)]) {
    push_record(buffer, offset, |payload| {
        payload.push(SNAPSHOT);
        push_count(payload, entries.len());
        for (key, versioned) in entries {
            payload.extend(versioned.revision.0.to_le_bytes());
            push_entry(payload, key, Some(&versioned.value));
        }
    });
}

/// Appends to `buffer` a record for `offset` with the payload that `fill` appends.
pub(super) fn push_record(buffer: &mut Vec<u8>, offset: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend([0; FRAME_BYTES]);
    fill(buffer);
    let (frame, payload) = buffer[start..].split_at_mut(FRAME_BYTES);
    assert!(
        payload.len() <= RECORD_BYTES,
        "limits keep records below {RECORD_BYTES} bytes"
    );
    let length = u32::try_from(payload.len())
        .expect("RECORD_BYTES fits 32 bits")
        .to_le_bytes();
    frame[..4].copy_from_slice(&MARKER);
    frame[4..8].copy_from_slice(&length);
    frame[8..].copy_from_slice(&checksum(offset, length, payload).to_le_bytes());
}

fn push_count(payload: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("limits keep counts below 16 bits");
    payload.extend(count.to_le_bytes());
}

fn push_entry(payload: &mut Vec<u8>, key: &Key, value: Option<&[u8]>) {
    payload.push(u8::try_from(key.as_str().len()).expect("KEY_BYTES fits 8 bits"));
    payload.extend(key.as_str().as_bytes());
    let length = value.map_or(REMOVED, |value| {
        u32::try_from(value.len()).expect("VALUE_BYTES fits 32 bits")
    });
    payload.extend(length.to_le_bytes());
    payload.extend(value.unwrap_or_default());
}

fn checksum(offset: u64, length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads the record at `offset` of a log of `end` bytes from `source`, which stands there, and
/// returns it with the offset behind it. The outer error is of the disk, the inner of the content.
pub(super) fn read_record(
    source: &mut impl Read,
    offset: u64,
    end: u64,
) -> io::Result<Result<(Record, u64), RecordFault>> {
    let left = end.saturating_sub(offset);
    if left < FRAME_BYTES as u64 {
        return Ok(Err(RecordFault::Cut));
    }
    let mut frame = [0; FRAME_BYTES];
    source.read_exact(&mut frame)?;
    let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3] = frame;
    if [m0, m1, m2, m3] != MARKER {
        return Ok(Err(RecordFault::Marker));
    }
    let length = [l0, l1, l2, l3];
    let payload_bytes = u32::from_le_bytes(length) as usize;
    if payload_bytes == 0 || payload_bytes > RECORD_BYTES {
        return Ok(Err(RecordFault::Length));
    }
    if left < (FRAME_BYTES + payload_bytes) as u64 {
        return Ok(Err(RecordFault::Cut));
    }
    let mut payload = vec![0; payload_bytes];
    source.read_exact(&mut payload)?;
    if checksum(offset, length, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(Err(RecordFault::Checksum));
    }
    let next = offset + (FRAME_BYTES + payload_bytes) as u64;
    Ok(decode(&payload)
        .map(|record| (record, next))
        .ok_or(RecordFault::Content))
}

fn decode(payload: &[u8]) -> Option<Record> {
    let mut fields = Fields(payload);
    let record = match fields.u8()? {
        SNAPSHOT => {
            let count = fields.u16()?;
            let entries = (0..count).map(|_| {
                let revision = Revision(fields.u64()?);
                let (key, value) = fields.entry()?;
                Some((
                    key,
                    Versioned {
                        value: value?,
                        revision,
                    },
                ))
            });
            Record::Snapshot(entries.collect::<Option<_>>()?)
        }
        COMMIT => {
            let synced = fields.u64()?;
            let revision = Revision(fields.u64()?);
            let count = fields.u16()?;
            let changes = (0..count).map(|_| {
                let (key, value) = fields.entry()?;
                Some(Change {
                    key,
                    value,
                    revision,
                })
            });
            Record::Commit {
                synced,
                revision,
                changes: changes.collect::<Option<_>>()?,
            }
        }
        _ => return None,
    };
    fields.0.is_empty().then_some(record)
}

/// Bytes that are still to be decoded.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn entry(&mut self) -> Option<(Key, Option<Arc<[u8]>>)> {
        let length = self.u8()?;
        let key = std::str::from_utf8(self.take(length.into())?).ok()?;
        let key = Key::new(key).ok()?;
        let value = match self.u32()? {
            REMOVED => None,
            length => Some(self.take(length as usize)?.into()),
        };
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_any_flipped_bit_is_seen() {
        let header = Header {
            revision: Revision(77),
            entries: 3,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bent = bytes;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bent).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_valid_at_its_own_place_only() {
        let change = Change {
            key: Key::new("a").unwrap(),
            value: None,
            revision: Revision(9),
        };
        let mut bytes = Vec::new();
        push_commit(
            &mut bytes,
            100,
            32,
            Revision(9),
            std::slice::from_ref(&change),
        );
        let end = 100 + bytes.len() as u64;
        let read = read_record(&mut bytes.as_slice(), 100, end).unwrap();
        let (
            Record::Commit {
                synced,
                revision,
                changes,
            },
            next,
        ) = read.unwrap()
        else {
            panic!("a commit was written")
        };
        assert_eq!((synced, revision, next), (32, Revision(9), end));
        assert_eq!(changes, [change]);
        let moved = read_record(&mut bytes.as_slice(), 101, end + 1).unwrap();
        assert_eq!(moved.unwrap_err(), RecordFault::Checksum);
    }

    #[test]
    fn a_record_of_the_limit_is_read_and_a_longer_one_refused() {
        let payload = |bytes: usize| {
            let mut record = MARKER.to_vec();
            let length = u32::try_from(bytes).unwrap().to_le_bytes();
            record.extend(length);
            record.extend(checksum(0, length, &vec![0; bytes]).to_le_bytes());
            record.extend(vec![0; bytes]);
            let end = record.len() as u64;
            read_record(&mut record.as_slice(), 0, end)
                .unwrap()
                .unwrap_err()
        };
        assert_eq!(payload(RECORD_BYTES), RecordFault::Content);
        assert_eq!(payload(RECORD_BYTES + 1), RecordFault::Length);
    }
}
