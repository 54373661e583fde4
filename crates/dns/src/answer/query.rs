//! What a client asks, read from the bytes it sent.
//!
//! Only the header, the question and the OPT record count, so nothing else is decoded and nothing
//! is allocated.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RecordType};

use super::Carrier;
use crate::limits;

/// Bytes of the header (RFC 1035, section 4.1.1).
pub(super) const HEADER_BYTES: usize = 12;
/// Bytes of a name in a message, with its final zero (RFC 1035, section 3.1).
const WIRE_NAME_BYTES_MAX: usize = limits::NAME_BYTES_MAX + 2;

/// The parts of a query that shape every answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) recursion_desired: bool,
    pub(super) authentic_data: bool,
    pub(super) checking_disabled: bool,
    pub(super) edns: Option<ClientEdns>,
    pub(super) carrier: Carrier,
}

/// What a client says about itself in an OPT record (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientEdns {
    /// The largest datagram it takes, in bytes, as it wrote it.
    pub size: u16,
    /// Whether it wants the records of DNSSEC.
    pub dnssec_ok: bool,
    pub(super) version: u8,
}

/// A query with one question.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) asked: Asked,
    /// The question as the client wrote it: name, type and class.
    pub(super) wire: &'a [u8],
    pub(super) name: NameText,
    pub(super) record_type: RecordType,
    pub(super) class: DNSClass,
}

/// Why there is no query to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not a query: to answer it could begin an exchange without end.
    NoQuery,
    /// The client is told so.
    Told(Asked, ResponseCode),
}

/// A name as text: in lower case, labels joined by dots, without the final one.
///
/// A byte that no host name has stands there as `?`, so that a dot inside a label is no border.
#[derive(Clone)]
pub(super) struct NameText {
    bytes: [u8; WIRE_NAME_BYTES_MAX],
    len: usize,
}

impl Asked {
    /// How long an answer may be.
    pub(super) fn limit(&self) -> usize {
        let bytes = match (self.carrier, self.edns) {
            (Carrier::Stream, _) => limits::STREAM_BYTES_MAX,
            (Carrier::Datagram, None) => limits::DATAGRAM_BYTES,
            (Carrier::Datagram, Some(edns)) => edns
                .size
                .clamp(limits::DATAGRAM_BYTES, limits::DATAGRAM_BYTES_MAX),
        };
        usize::from(bytes)
    }
}

impl NameText {
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(self.bytes.get(..self.len).unwrap_or_default()).unwrap_or_default()
    }

    /// Takes a name as it is in a message, its labels known to be well-formed.
    fn from_wire(wire: &[u8]) -> Self {
        let mut bytes = [0; WIRE_NAME_BYTES_MAX];
        let mut border = 0;
        for (at, (to, &from)) in bytes.iter_mut().zip(wire).enumerate() {
            *to = match from {
                length if at == border => {
                    border += usize::from(length) + 1;
                    b'.'
                }
                b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' => from,
                b'A'..=b'Z' => from.to_ascii_lowercase(),
                _ => b'?',
            };
        }
        // Each label's length became the dot before it, and the final zero one too many.
        bytes.copy_within(1.., 0);
        Self {
            bytes,
            len: wire.len().saturating_sub(2),
        }
    }
}

impl std::fmt::Debug for NameText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl<'a> Query<'a> {
    pub(super) fn read(message: &'a [u8], carrier: Carrier) -> Result<Self, Fault> {
        let header = message.first_chunk::<HEADER_BYTES>();
        let header = header.ok_or(Fault::NoQuery)?;
        let flags = u16::from_be_bytes([header[2], header[3]]);
        if flags & 0x8000 != 0 {
            return Err(Fault::NoQuery);
        }
        let asked = Asked {
            id: u16::from_be_bytes([header[0], header[1]]),
            opcode: (flags >> 11 & 0xf) as u8,
            recursion_desired: flags & 0x0100 != 0,
            authentic_data: flags & 0x0020 != 0,
            checking_disabled: flags & 0x0010 != 0,
            edns: None,
            carrier,
        };
        if asked.opcode != 0 {
            return Err(Fault::Told(asked, ResponseCode::NotImp));
        }
        Self::read_sections(message, asked).ok_or(Fault::Told(asked, ResponseCode::FormErr))
    }

    fn read_sections(message: &'a [u8], mut asked: Asked) -> Option<Self> {
        if u16_at(message, 4)? != 1 || message.len() > usize::from(limits::STREAM_BYTES_MAX) {
            return None;
        }
        // The name of the question is the first, so there is nothing it could point to.
        let (name_end, pointed) = end_of_name(message, HEADER_BYTES)?;
        let name = message.get(HEADER_BYTES..name_end)?;
        if pointed || name.len() > WIRE_NAME_BYTES_MAX {
            return None;
        }
        let record_type = u16_at(message, name_end)?.into();
        let class = u16_at(message, name_end + 2)?.into();
        let end = name_end + 4;
        asked.edns = read_edns(message, end)?;
        Some(Self {
            asked,
            wire: message.get(HEADER_BYTES..end)?,
            name: NameText::from_wire(name),
            record_type,
            class,
        })
    }
}

/// Goes through the records after the question for the OPT record.
fn read_edns(message: &[u8], start: usize) -> Option<Option<ClientEdns>> {
    let mut edns = None;
    let mut at = start;
    for _ in 0..u32::from(u16_at(message, 6)?) + u32::from(u16_at(message, 8)?) {
        at = read_record(message, at)?.end;
    }
    for _ in 0..u16_at(message, 10)? {
        let record = read_record(message, at)?;
        at = record.end;
        if record.record_type == RecordType::OPT {
            // There may be one, and it belongs to no name (RFC 6891, section 6.1).
            if edns.is_some() || !record.of_root {
                return None;
            }
            edns = Some(ClientEdns {
                size: record.class,
                dnssec_ok: record.ttl & 0x8000 != 0,
                version: (record.ttl >> 16 & 0xff) as u8,
            });
        }
    }
    Some(edns)
}

/// What is read of a record.
struct RawRecord {
    record_type: RecordType,
    class: u16,
    ttl: u32,
    of_root: bool,
    end: usize,
}

fn read_record(message: &[u8], start: usize) -> Option<RawRecord> {
    let (at, _) = end_of_name(message, start)?;
    let end = at + 10 + usize::from(u16_at(message, at + 8)?);
    (end <= message.len()).then_some(())?;
    Some(RawRecord {
        record_type: u16_at(message, at)?.into(),
        class: u16_at(message, at + 2)?,
        ttl: u32::from(u16_at(message, at + 4)?) << 16 | u32::from(u16_at(message, at + 6)?),
        of_root: message.get(start) == Some(&0),
        end,
    })
}

/// Where a name ends, and whether by a pointer, which is not followed.
fn end_of_name(message: &[u8], start: usize) -> Option<(usize, bool)> {
    let mut at = start;
    loop {
        let length = *message.get(at)?;
        match length >> 6 {
            0 if length == 0 => return Some((at + 1, false)),
            0 => at += 1 + usize::from(length),
            3 => return (at + 2 <= message.len()).then_some((at + 2, true)),
            _ => return None,
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}
