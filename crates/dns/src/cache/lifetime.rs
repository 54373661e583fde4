//! How long an answer may be kept, and what of it.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record, RecordType};

use crate::limits;

/// The option with an extended error, and its codes for an answer that the server itself served
/// after its end (RFC 8914).
const EXTENDED_ERROR: EdnsCode = EdnsCode::Unknown(15);
const STALE_CODES: [u16; 2] = [3, 19];
/// Where the question begins in a message.
const QUESTION_AT: usize = 12;

/// Whether the message says what is so: a cut one and a failure do not.
pub(super) fn is_proper(message: &Message) -> bool {
    let code = message.response_code;
    !message.truncation && matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// How long a proper answer to a question for records of `kind` may be kept.
///
/// The lowest time to live of any record counts, for the message is kept and ends as a whole. That
/// there is nothing is kept only with the SOA record that says for how long (RFC 2308, section 5).
pub(super) fn of(message: &Message, kind: RecordType) -> Option<Duration> {
    let lowest = message.all_sections().map(|record| record.ttl).min()?;
    let is_asked = |record: &Record| kind.is_any() || record.record_type() == kind;
    let has_records =
        message.response_code == ResponseCode::NoError && message.answers.iter().any(is_asked);
    let (seconds, max) = if has_records {
        (lowest, limits::CACHE_ANSWER_MAX)
    } else {
        let minimum = message.authorities.iter().filter_map(minimum).min()?;
        (lowest.min(minimum), limits::CACHE_NOTHING_MAX)
    };
    let max = if is_stale(message) {
        limits::CACHE_STALE_TTL
    } else {
        max
    };
    let life = Duration::from_secs(seconds.into()).min(max);
    (!life.is_zero()).then_some(life)
}

/// The bytes of a message that are kept, with its question for `name`; `None` if it is too large.
pub(super) fn bytes_to_keep(message: &Message, name: &[u8]) -> Option<Box<[u8]>> {
    let mut message = message.clone();
    message.metadata.id = 0;
    message.metadata.authoritative = false;
    // EDNS is between two neighbours and is not kept (RFC 6891, section 6.1.1).
    message.edns = None;
    message.signature = None;
    let mut bytes = message.to_vec().ok()?;
    let asked = bytes.get_mut(QUESTION_AT..QUESTION_AT + name.len())?;
    // One asker does not see in which case another has asked.
    asked.copy_from_slice(name);
    (bytes.len() <= limits::CACHE_ANSWER_BYTES_MAX).then(|| bytes.into())
}

/// Gives every record the same time to live, of whole seconds and at least one.
pub(super) fn set_ttls(message: &mut Message, ttl: Duration) {
    let seconds = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1);
    let sections = [
        &mut message.answers,
        &mut message.authorities,
        &mut message.additionals,
    ];
    for record in sections.into_iter().flatten() {
        record.ttl = seconds;
    }
}

fn minimum(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(soa.minimum),
        _ => None,
    }
}

fn is_stale(message: &Message) -> bool {
    let options = message.edns.iter().flat_map(|edns| &edns.options().options);
    options
        .filter(|(code, _)| *code == EXTENDED_ERROR)
        .any(|(_, option)| match option {
            EdnsOption::Unknown(_, data) => STALE_CODES
                .iter()
                .any(|code| data.starts_with(&code.to_be_bytes())),
            _ => false,
        })
}
