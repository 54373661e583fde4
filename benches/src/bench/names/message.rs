//! Questions and answers of DNS, as much of them as a bench needs (RFC 1035, section 4).

use std::net::Ipv4Addr;

/// Bytes before the question.
const HEADER: usize = 12;
/// A question for addresses, of the Internet.
const A_IN: [u8; 4] = [0, 1, 0, 1];
/// Type, class, lifetime and length before a record's data.
const RECORD: usize = 10;
/// Longest message that is expected.
pub(super) const LONGEST: usize = 1_232;

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The number of the question.
    pub(super) id: u16,
    /// 0 where the name is known, 3 where it is not.
    pub(super) code: u8,
    /// The only address; none where there is not exactly one record.
    pub(super) address: Option<Ipv4Addr>,
}

impl Answer {
    /// Code for a name that is not there.
    pub(super) const NO_SUCH_NAME: u8 = 3;
}

/// A question for the IPv4 addresses of a name.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut bytes = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        // Names of benches are short.
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(A_IN);
    bytes
}

/// Reads an answer; none where the bytes are something else.
pub(super) fn read(bytes: &[u8]) -> Option<Answer> {
    let header = bytes.get(..HEADER)?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if header[2] & 0x80 == 0 || number(4) != 1 {
        return None;
    }
    Some(Answer {
        id: number(0),
        code: header[3] & 0x0f,
        address: if number(6) == 1 {
            Some(address(bytes)?)
        } else {
            None
        },
    })
}

/// The address of the first record.
fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let question = after_name(bytes, HEADER)? + A_IN.len();
    let record = after_name(bytes, question)?;
    if bytes.get(record..)?.get(..A_IN.len())? != A_IN {
        return None;
    }
    let data = bytes.get(record + RECORD..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*data))
}

/// The place after the name at a place.
fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u8, records: u8) -> Vec<u8> {
        let mut bytes = question(7, "web.net");
        (bytes[2], bytes[3], bytes[7]) = (0x85, 0x80 | code, records);
        for _ in 0..records {
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
        }
        bytes
    }

    #[test]
    fn an_answer_is_read_with_its_address() {
        let answer = read(&answered(0, 1)).unwrap();
        assert_eq!((answer.id, answer.code), (7, 0));
        assert_eq!(answer.address, Some(Ipv4Addr::new(10, 1, 2, 3)));
    }

    #[test]
    fn what_is_no_single_address_is_seen_to_be_none() {
        assert_eq!(read(&question(7, "web")), None);
        assert_eq!(read(&[0; 11]), None);
        assert_eq!(read(&answered(0, 2)).unwrap().address, None);
        let refused = read(&answered(Answer::NO_SUCH_NAME, 0)).unwrap();
        assert_eq!((refused.code, refused.address), (3, None));
        let whole = answered(0, 1);
        assert_eq!(read(&whole[..whole.len() - 1]), None);
    }
}
