//! How a query of our own is known when it comes back to us.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{HEADER_BYTES, OPCODE, RESPONSE};
use crate::limits;

/// What tells a query from others: its question, in the case of each letter.
///
/// An upstream server may forward to us, directly or through others. Then a query that we have
/// sent arrives at one of our own listeners, and answering it would mean asking it again. The
/// daemon keeps the fingerprints of what it has in flight, and answers a query that has one of
/// them with SERVFAIL at once: the failure travels back round the loop and ends it.
///
/// Forwarders give a query an id of their own, and some drop options they do not know, but they
/// repeat its question as it is written. With [`limits::FINGERPRINT_LETTERS_MIN`] letters in random
/// case the question alone tells, and it is never the one that a plain asker writes. With fewer, an
/// asker that mixes case itself would too often be taken for us, so the id counts as well: then a
/// loop through a server that changes it is not seen, and neither is one through a server that
/// changes case. Such a loop still costs no storm: the query joins the flight it belongs to
/// (`upstream::Flights`), and both end when patience does.
///
/// `None` if the bytes are not a query with one question. The number is not kept: it may change
/// with a new version.
#[must_use]
pub fn fingerprint(query: &[u8]) -> Option<u64> {
    let header = query.get(..HEADER_BYTES)?;
    let is_query = header[2] & (RESPONSE | OPCODE) == 0;
    if !is_query || header[4..6] != [0, 1] {
        return None;
    }
    let name_end = name_end(query)?;
    let question = query.get(HEADER_BYTES..name_end.checked_add(4)?)?;
    let letters = query[HEADER_BYTES..name_end]
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .count();
    let mut hasher = SipHasher13::new();
    hasher.write(question);
    if letters < limits::FINGERPRINT_LETTERS_MIN {
        hasher.write(&header[..2]);
    }
    Some(hasher.finish())
}

/// Where the name of the question ends.
fn name_end(query: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        match usize::from(*query.get(at)?) {
            0 => return Some(at + 1),
            label @ 1..=limits::LABEL_BYTES_MAX => at += 1 + label,
            _ => return None,
        }
        if at - HEADER_BYTES > limits::NAME_BYTES_MAX + 1 {
            return None;
        }
    }
}
