//! One query to an upstream server, and what may be believed of what comes back.
//!
//! Off the path, a forger has to guess the id, the port and the case of every letter of the name
//! (draft-vixie-dnsext-dns0x20). What passes is still cut down to what answers the question.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;

use crate::limits;

mod believe;
mod fingerprint;
#[cfg(test)]
mod tests;

pub use fingerprint::fingerprint;

/// What a query asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// Name, type and class; the name in the case that the asker wrote it.
    pub query: Query,
    /// RD: the server should ask others.
    pub recursion_desired: bool,
    /// CD: the server should not check signatures.
    pub checking_disabled: bool,
    /// AD: the server should say whether it has checked signatures (RFC 6840, section 5.7).
    pub authentic_data: bool,
    /// DO: signatures should come along; needs EDNS.
    pub dnssec_ok: bool,
}

/// What a query is dressed in; less of it for servers that cannot bear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Every letter of the name is in random case, and has to come back in the same.
    pub mixed_case: bool,
    /// There is an OPT record, which offers larger datagrams and carries DO.
    pub edns: bool,
}

/// Bytes of randomness that a query takes: two for the id, a bit for each letter of its name.
pub const RANDOM_BYTES: usize = 2 + 256 / 8;

/// A query for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// The name as it was asked, encoded; as long as the one in `bytes`.
    asked_name: Vec<u8>,
    form: Form,
    dnssec_ok: bool,
}

/// What an answer came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// UDP: anyone can have sent it.
    Datagram,
    /// TCP: the server has sent it.
    Stream,
}

/// What to do with bytes that came back.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Verdict {
    /// Pass it on: it has the question as asked, and only records that belong to it.
    Answer(Message),
    /// It did not fit: ask the same server over a stream.
    Truncated,
    /// The server is alive but will not answer this: ask another.
    Unwilling(ResponseCode),
    /// The server does not know EDNS: ask it again without.
    NoEdns,
    /// All is right but the case: a forgery, or a server that changes case. Ask it over a stream.
    OtherCase(Message),
    /// It is the answer, but cannot be read: ask another server.
    Garbled,
    /// It is not an answer to this query: ignore it and wait on.
    Foreign,
}

const HEADER_BYTES: usize = 12;
/// Bits of the third byte of a header.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
/// Bits of the fourth.
const AUTHENTIC_DATA: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;
const RESPONSE_CODE: u8 = 0x0f;

impl Default for Form {
    /// Everything: what a server is tried with first.
    fn default() -> Self {
        Self {
            mixed_case: true,
            edns: true,
        }
    }
}

impl Outgoing {
    /// A query in the given form; `random` must be fresh for each.
    #[must_use]
    pub fn new(asking: &Asking, form: Form, random: &[u8; RANDOM_BYTES]) -> Self {
        let (id, case) = random.split_at(2);
        let asked_name = wire_name(&asking.query.name);
        let name = if form.mixed_case {
            mix_case(&asked_name, case)
        } else {
            asked_name.clone()
        };
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 4 + 11);
        bytes.extend_from_slice(id);
        bytes.push(flag(asking.recursion_desired, RECURSION_DESIRED));
        bytes.push(
            flag(asking.authentic_data, AUTHENTIC_DATA)
                | flag(asking.checking_disabled, CHECKING_DISABLED),
        );
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(form.edns)]);
        bytes.extend_from_slice(&name);
        bytes.extend_from_slice(&u16::from(asking.query.query_type).to_be_bytes());
        bytes.extend_from_slice(&u16::from(asking.query.query_class).to_be_bytes());
        if form.edns {
            bytes.extend_from_slice(&[0, 0, 41]);
            bytes.extend_from_slice(&limits::DATAGRAM_BYTES_MAX.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, flag(asking.dnssec_ok, 0x80), 0, 0, 0]);
        }
        Self {
            bytes,
            asked_name,
            form,
            dnssec_ok: asking.dnssec_ok && form.edns,
        }
    }

    /// The query as it is sent; over a stream, its length goes before it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What [`fingerprint`] says of the query while it is in flight; `None` if an asker's own query
    /// may look the same.
    #[must_use]
    pub fn fingerprint(&self) -> Option<u64> {
        self.form.mixed_case.then(|| fingerprint(&self.bytes))?
    }

    /// Judges what came from the server and port that the query was sent to.
    pub fn judge(&self, bytes: &[u8], carrier: Carrier) -> Verdict {
        let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Verdict::Foreign;
        };
        let is_answer = header[2] & (RESPONSE | OPCODE) == RESPONSE;
        if header[..2] != self.bytes[..2] || !is_answer {
            return Verdict::Foreign;
        }
        let code = ResponseCode::from_low(header[3] & RESPONSE_CODE);
        match u16::from_be_bytes([header[4], header[5]]) {
            1 => {}
            // A server that cannot read a query cannot repeat its question.
            0 => return self.refusal(code, false).unwrap_or(Verdict::Foreign),
            _ => return Verdict::Foreign,
        }
        let Some(is_same_case) = self.compare_question(rest) else {
            return Verdict::Foreign;
        };
        if header[2] & TRUNCATED != 0 {
            return match carrier {
                Carrier::Datagram => Verdict::Truncated,
                Carrier::Stream => Verdict::Garbled,
            };
        }
        let Some(mut message) = self.read(bytes) else {
            return self.refusal(code, false).unwrap_or(Verdict::Garbled);
        };
        if let Some(refusal) = self.refusal(message.response_code, message.edns.is_some()) {
            return refusal;
        }
        believe::keep_believable(&mut message, self.dnssec_ok);
        if is_same_case || carrier == Carrier::Stream || !self.form.mixed_case {
            Verdict::Answer(message)
        } else {
            Verdict::OtherCase(message)
        }
    }

    /// Whether an answer repeats the question in the case it was sent; `None` if it has another
    /// question.
    #[must_use]
    pub fn is_case_kept(&self, bytes: &[u8]) -> Option<bool> {
        self.compare_question(bytes.get(HEADER_BYTES..)?)
    }

    /// The verdict on an answer that is none.
    fn refusal(&self, code: ResponseCode, has_edns: bool) -> Option<Verdict> {
        match code {
            ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::YXDomain => None,
            // Read from a message, BADVERS has the name of its twin.
            ResponseCode::FormErr | ResponseCode::BADVERS | ResponseCode::BADSIG
                if self.form.edns =>
            {
                Some(Verdict::NoEdns)
            }
            ResponseCode::NotImp if self.form.edns && !has_edns => Some(Verdict::NoEdns),
            code => Some(Verdict::Unwilling(code)),
        }
    }

    /// Whether the question in an answer is ours to the letter; `None` if it is another.
    fn compare_question(&self, rest: &[u8]) -> Option<bool> {
        let name_bytes = self.asked_name.len();
        let ours = self
            .bytes
            .get(HEADER_BYTES..HEADER_BYTES + name_bytes + 4)?;
        let theirs = rest.get(..ours.len())?;
        let is_same = theirs[name_bytes..] == ours[name_bytes..]
            && theirs[..name_bytes].eq_ignore_ascii_case(&ours[..name_bytes]);
        is_same.then(|| theirs == ours)
    }

    /// Reads an answer to our question.
    ///
    /// The name in the question is put back into the case it was asked in before the rest is read:
    /// names in records are mostly pointers to it, and the asker should not see our random case.
    fn read(&self, bytes: &[u8]) -> Option<Message> {
        let counts = bytes.get(6..HEADER_BYTES)?.chunks_exact(2);
        let records: usize = counts
            .map(|count| usize::from(count[0]) << 8 | usize::from(count[1]))
            .sum();
        if records > limits::READ_RECORDS_MAX {
            return None;
        }
        let mut bytes = bytes.to_vec();
        let name = bytes.get_mut(HEADER_BYTES..HEADER_BYTES + self.asked_name.len())?;
        name.copy_from_slice(&self.asked_name);
        Message::from_vec(&bytes).ok()
    }
}

/// A name as it is in a message, not compressed, in the case it is written.
pub(crate) fn wire_name(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Name::MAX_LENGTH);
    for label in name.iter() {
        // A label has at most 63 bytes, or it would not have become part of a name.
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// The name with each letter in the case that a bit of `random` says.
///
/// A long name never comes out as it was asked or in lower case, so that no asker's own query can
/// be taken for ours: see [`fingerprint`].
fn mix_case(asked: &[u8], random: &[u8]) -> Vec<u8> {
    let mut name = asked.to_vec();
    // The length of a label is less than any letter.
    let letters: Vec<usize> = (0..name.len())
        .filter(|at| name[*at].is_ascii_alphabetic())
        .collect();
    for (nth, at) in letters.iter().enumerate() {
        let is_upper = random
            .get(nth / 8)
            .is_some_and(|byte| byte >> (nth % 8) & 1 == 1);
        name[*at] = if is_upper {
            name[*at].to_ascii_uppercase()
        } else {
            name[*at].to_ascii_lowercase()
        };
    }
    if letters.len() >= limits::FINGERPRINT_LETTERS_MIN {
        let lower = asked.to_ascii_lowercase();
        // Two letters make three names, of which one is neither.
        for at in letters {
            if name != lower && name != asked {
                break;
            }
            name[at] ^= 0x20;
        }
    }
    name
}
