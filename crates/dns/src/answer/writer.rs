//! The bytes of an answer, written record by record until there is no more room.

use std::borrow::Cow;

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;

use super::query::{Asked, ClientEdns, HEADER_BYTES};
use crate::limits;

/// Bytes of our OPT record with an extended error.
const OPT_BYTES_MAX: usize = 17;
/// The option of an extended error.
pub(super) const EXTENDED_ERROR_OPTION: u16 = 15;

/// Why a query was not answered as asked, for clients that read it (RFC 8914, section 4).
pub(super) mod extended {
    /// The asker may not ask this.
    pub(in super::super) const PROHIBITED: u16 = 18;
    /// There is nothing to say about the name without asking others.
    pub(in super::super) const NOT_AUTHORITATIVE: u16 = 20;
    /// No server answered.
    pub(in super::super) const NO_REACHABLE_AUTHORITY: u16 = 22;
}

/// The sections after the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Section {
    Answer = 1,
    Authority = 2,
    Additional = 3,
}

impl Section {
    const ALL: [Self; 3] = [Self::Answer, Self::Authority, Self::Additional];
}

/// Where in the message the name of a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(u16);

/// An answer that grows.
#[derive(Debug)]
pub(super) struct Writer {
    asked: Asked,
    bytes: Vec<u8>,
    /// How long it may become before the OPT record, for which there is always room.
    room: usize,
    counts: [u16; 4],
    code: ResponseCode,
    flags: u16,
    extended: Option<u16>,
}

/// Flags of the header (RFC 1035, section 4.1.1, and RFC 4035, section 3.2).
pub(super) mod flag {
    pub(in super::super) const RESPONSE: u16 = 0x8000;
    pub(in super::super) const AUTHORITATIVE: u16 = 0x0400;
    pub(in super::super) const TRUNCATED: u16 = 0x0200;
    pub(in super::super) const RECURSION_DESIRED: u16 = 0x0100;
    pub(in super::super) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(in super::super) const AUTHENTIC_DATA: u16 = 0x0020;
    pub(in super::super) const CHECKING_DISABLED: u16 = 0x0010;
}

impl At {
    /// The name of the question from the label on that is at `place` in its text.
    ///
    /// Each label's length stands where the text has the dot before the label.
    pub(super) fn question(place: usize) -> Self {
        Self::offset(HEADER_BYTES + place).unwrap_or(Self(HEADER_BYTES as u16))
    }

    /// A place in the message, if a pointer can lead there.
    pub(super) fn offset(offset: usize) -> Option<Self> {
        u16::try_from(offset)
            .ok()
            .filter(|offset| offset & 0xc000 == 0)
            .map(Self)
    }

    pub(super) fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend((0xc000 | self.0).to_be_bytes());
    }
}

impl Writer {
    /// An answer with a header and the question, which is empty if it could not be read.
    pub(super) fn new(asked: &Asked, question: &[u8], code: ResponseCode) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + question.len() + 128);
        bytes.extend([0; HEADER_BYTES]);
        bytes.extend(question);
        let on = |set: bool, flag| if set { flag } else { 0 };
        Self {
            asked: *asked,
            bytes,
            room: asked.limit() - asked.edns.map_or(0, |_| OPT_BYTES_MAX),
            counts: [u16::from(!question.is_empty()), 0, 0, 0],
            code,
            flags: flag::RESPONSE
                | u16::from(asked.opcode) << 11
                | flag::RECURSION_AVAILABLE
                | on(asked.recursion_desired, flag::RECURSION_DESIRED)
                | on(asked.checking_disabled, flag::CHECKING_DISABLED),
            extended: None,
        }
    }

    /// Sets a flag of the header.
    pub(super) fn with(mut self, flag: u16) -> Self {
        self.flags |= flag;
        self
    }

    /// Says why, if the client reads it.
    pub(super) fn because(mut self, extended: Option<u16>) -> Self {
        self.extended = extended;
        self
    }

    /// Adds a record of class IN; says where its data stands, if there was room.
    ///
    /// Without room for an answer or authority, the message is marked as cut; what is in the
    /// additional section is a courtesy.
    pub(super) fn record(
        &mut self,
        section: Section,
        owner: At,
        record_type: RecordType,
        ttl_seconds: u32,
        write_data: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        let start = self.bytes.len();
        owner.write(&mut self.bytes);
        self.bytes.extend(u16::from(record_type).to_be_bytes());
        self.bytes.extend([0, 1]);
        self.bytes.extend(ttl_seconds.to_be_bytes());
        let data = self.bytes.len() + 2;
        self.bytes.extend([0, 0]);
        write_data(&mut self.bytes);
        let length = u16::try_from(self.bytes.len() - data).ok();
        let Some(length) = length.filter(|_| self.bytes.len() <= self.room) else {
            self.bytes.truncate(start);
            self.cut(section);
            return None;
        };
        self.put(data - 2, length);
        self.counts[section as usize] += 1;
        Some(data)
    }

    /// Adds as many of another message's records as there is room for.
    ///
    /// # Errors
    /// If a record cannot be written at all.
    pub(super) fn copy(&mut self, sections: [&[Cow<'_, Record>]; 3]) -> Result<(), ProtoError> {
        let start = self.bytes.len();
        // No message is longer than its carrier takes, which is less than this type holds.
        let room = u16::try_from(self.room).unwrap_or(u16::MAX);
        let mut encoder = BinEncoder::with_offset(&mut self.bytes, start as u32);
        encoder.set_max_size(room);
        point_to_question(&mut encoder, start);
        let mut full = None;
        for (section, records) in Section::ALL.into_iter().zip(sections) {
            let written = match encoder.emit_all(records.iter().map(|record| &**record)) {
                Ok(count) => count,
                Err(ProtoError::NotAllRecordsWritten { count, .. }) => {
                    full = Some(section);
                    count
                }
                Err(error) => return Err(error),
            };
            self.counts[section as usize] = u16::try_from(written).unwrap_or(u16::MAX);
            if full.is_some() {
                break;
            }
        }
        let end = encoder.offset();
        self.bytes.truncate(end);
        if let Some(section) = full {
            self.cut(section);
        }
        Ok(())
    }

    /// The finished message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some(edns) = self.asked.edns {
            self.write_opt(edns);
            self.counts[Section::Additional as usize] += 1;
        }
        self.put(0, self.asked.id);
        self.put(2, self.flags | u16::from(self.code.low()));
        let counts = self.counts;
        for (at, count) in (4..).step_by(2).zip(counts) {
            self.put(at, count);
        }
        self.bytes
    }

    /// What this side has to say about itself (RFC 6891, section 6.1.2).
    fn write_opt(&mut self, edns: ClientEdns) {
        let flags = if edns.dnssec_ok { 0x8000_u16 } else { 0 };
        self.bytes.push(0);
        for word in [u16::from(RecordType::OPT), limits::DATAGRAM_BYTES_MAX] {
            self.bytes.extend(word.to_be_bytes());
        }
        self.bytes.extend([self.code.high(), 0]);
        self.bytes.extend(flags.to_be_bytes());
        match self.extended {
            None => self.bytes.extend([0, 0]),
            Some(code) => {
                for word in [6, EXTENDED_ERROR_OPTION, 2, code] {
                    self.bytes.extend(word.to_be_bytes());
                }
            }
        }
    }

    fn cut(&mut self, section: Section) {
        if section != Section::Additional {
            self.flags |= flag::TRUNCATED;
        }
    }

    fn put(&mut self, at: usize, word: u16) {
        self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }
}

/// Lets names in records end in a pointer to the name of the question.
fn point_to_question(encoder: &mut BinEncoder<'_>, end: usize) {
    let name_end = end.saturating_sub(5);
    let mut at = HEADER_BYTES;
    while at < name_end {
        encoder.store_label_pointer(at, name_end);
        at += 1 + usize::from(encoder.slice_of(at, at + 1)[0]);
    }
}
