//! A query that others have to be asked about, and the answers to the client.

use std::borrow::Cow;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::Carrier;
use super::query::{Asked, ClientEdns, Query};
use super::writer::{Writer, extended, flag};

/// A query that others have to be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    asked: Asked,
    name: Name,
    record_type: RecordType,
    class: DNSClass,
    /// Name, type and class as the client wrote them.
    wire: Box<[u8]>,
}

impl Question {
    /// `None` if the name is none after all.
    pub(super) fn new(query: &Query<'_>) -> Option<Self> {
        Some(Self {
            asked: query.asked,
            name: Name::read(&mut BinDecoder::new(query.wire)).ok()?,
            record_type: query.record_type,
            class: query.class,
            wire: query.wire.into(),
        })
    }

    /// The client's number for the query.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.asked.id
    }

    /// The name as the client wrote it.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The type of records.
    #[must_use]
    pub const fn record_type(&self) -> RecordType {
        self.record_type
    }

    /// The class of records.
    #[must_use]
    pub const fn class(&self) -> DNSClass {
        self.class
    }

    /// Whether the client wants a whole answer (RD).
    #[must_use]
    pub const fn recursion_desired(&self) -> bool {
        self.asked.recursion_desired
    }

    /// Whether the client wants to know if the answer was validated (AD, RFC 6840).
    #[must_use]
    pub const fn authentic_data(&self) -> bool {
        self.asked.authentic_data
    }

    /// Whether the client validates the answer itself (CD).
    #[must_use]
    pub const fn checking_disabled(&self) -> bool {
        self.asked.checking_disabled
    }

    /// What the client says about itself, if it does.
    #[must_use]
    pub const fn edns(&self) -> Option<ClientEdns> {
        self.asked.edns
    }

    /// Whether the client wants the records of DNSSEC (DO).
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.asked.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// How the query came.
    #[must_use]
    pub const fn carrier(&self) -> Carrier {
        self.asked.carrier
    }

    /// The longest answer that the client takes, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.asked.limit()
    }

    /// The answer that no server could be asked or none answered.
    #[must_use]
    pub fn failed(&self) -> Vec<u8> {
        self.error(ResponseCode::ServFail, extended::NO_REACHABLE_AUTHORITY)
    }

    /// The answer made of another server's message: with the client's id and its way to write the
    /// name, with no more records than it takes and understands.
    #[must_use]
    pub fn reply(&self, message: &Message) -> Vec<u8> {
        let metadata = &message.metadata;
        // Codes that need EDNS speak of the way to the other server (RFC 6891, section 6.1.3).
        if metadata.op_code != OpCode::Query || metadata.response_code.high() > 0 {
            return self.failed();
        }
        let mut writer = self
            .writer(metadata.response_code)
            .because(extended_error(message));
        if metadata.truncation {
            writer = writer.with(flag::TRUNCATED);
        }
        // Only who asks for it is told that the data was validated (RFC 6840, section 5.8).
        if metadata.authentic_data && (self.dnssec_ok() || self.asked.authentic_data) {
            writer = writer.with(flag::AUTHENTIC_DATA);
        }
        let sections = [&message.answers, &message.authorities, &message.additionals];
        let sections = sections.map(|records| self.wanted(records));
        match writer.copy([&sections[0], &sections[1], &sections[2]]) {
            Ok(()) => writer.finish(),
            Err(_) => self.failed(),
        }
    }

    /// The records that the client gets of a section.
    fn wanted<'r>(&self, records: &'r [Record]) -> Vec<Cow<'r, Record>> {
        let wanted = |record: &&Record| match record.record_type() {
            // Signatures of whole messages end with each server, and OPT records are made anew.
            RecordType::TSIG | RecordType::SIG | RecordType::OPT => false,
            RecordType::RRSIG
            | RecordType::NSEC
            | RecordType::NSEC3
            | RecordType::DNSKEY
            | RecordType::DS => self.dnssec_ok() || record.record_type() == self.record_type,
            _ => true,
        };
        let named = |record: &'r Record| {
            if record.name != self.name || record.name.eq_case(&self.name) {
                return Cow::Borrowed(record);
            }
            // Written as in the question, so that a pointer to it will do.
            let mut record = record.clone();
            record.name = self.name.clone();
            Cow::Owned(record)
        };
        records.iter().filter(wanted).map(named).collect()
    }

    fn error(&self, code: ResponseCode, why: u16) -> Vec<u8> {
        self.writer(code).because(Some(why)).finish()
    }

    fn writer(&self, code: ResponseCode) -> Writer {
        Writer::new(&self.asked, &self.wire, code)
    }
}

/// Why another server could not answer as asked. Its words are left out: they may be any length.
fn extended_error(message: &Message) -> Option<u16> {
    let code = EdnsCode::from(super::writer::EXTENDED_ERROR_OPTION);
    match message.edns.as_ref()?.option(code)? {
        EdnsOption::Unknown(_, data) => data.first_chunk().copied().map(u16::from_be_bytes),
        _ => None,
    }
}
