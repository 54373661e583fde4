//! Netlink requests as raw bytes (netlink(7), rtnetlink(7)).

use std::net::IpAddr;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACK: u16 = 4;
/// `NLM_F_CREATE | NLM_F_EXCL`.
pub(crate) const CREATE: u16 = 0x600;
/// `NLM_F_CREATE | NLM_F_REPLACE`.
pub(crate) const PUT: u16 = 0x500;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETE_LINK: u16 = 17;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const NEW_ADDRESS: u16 = 20;
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const NEW_NEIGHBOUR: u16 = 28;

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// Requests that go out together; only the last is acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// Attributes being written.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl Batch {
    /// Appends a request: its type, flags, fixed head and attributes.
    pub(crate) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(head);
        fill(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// The bytes with sequence numbers from `first`, and the number of the last request, which alone asks for
    /// an acknowledgement unless it is a dump.
    pub(crate) fn finish(mut self, first: u32, acknowledge: bool) -> (Vec<u8>, u32) {
        let mut number = first;
        for (n, start) in self.starts.iter().enumerate() {
            number = first.wrapping_add(u32::try_from(n).unwrap_or(u32::MAX));
            self.bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
        }
        if let (true, Some(start)) = (acknowledge, self.starts.last()) {
            for (byte, ack) in self.bytes[start + 6..].iter_mut().zip(ACK.to_ne_bytes()) {
                *byte |= ack;
            }
        }
        (self.bytes, number)
    }
}

impl Attributes<'_> {
    /// Appends an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a text with the zero that ends it.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub(crate) fn put_ip(&mut self, kind: u16, ip: IpAddr) -> &mut Self {
        match ip {
            IpAddr::V4(ip) => self.put(kind, &ip.octets()),
            IpAddr::V6(ip) => self.put(kind, &ip.octets()),
        }
    }

    /// Appends an attribute made of `head` and of attributes.
    pub(crate) fn nest(
        &mut self,
        kind: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(head);
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// A message of the kernel: type, sequence number and body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in `bytes`; ends at what is cut off.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(bytes, 0)?).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
            sequence: read_u32(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The value of the first attribute of that type after a head of `skip` bytes.
pub(crate) fn attribute(body: &[u8], skip: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(skip..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// A number at a place, if there are enough bytes.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_request_is_acknowledged_and_all_are_numbered() {
        let mut batch = Batch::default();
        batch.push(NEW_LINK, CREATE, &[0; 16], |a| {
            a.put_text(3, "eth0").nest(18, &[], |info| {
                info.put_text(1, "veth");
            });
        });
        batch.push(NEW_ADDRESS, PUT, &[0; 8], |a| {
            a.put(2, &[1, 2, 3]);
        });
        let (bytes, last) = batch.finish(7, true);
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(
            read.iter()
                .map(|m| (m.kind, m.sequence))
                .collect::<Vec<_>>(),
            [(NEW_LINK, 7), (NEW_ADDRESS, 8)]
        );
        assert_eq!(last, 8);
        assert_eq!(bytes[6] & 4, 0, "the first is not acknowledged");
        let second = HEADER + read[0].body.len();
        assert_eq!(bytes[second + 6] & 4, 4);
        assert_eq!(attribute(read[0].body, 16, 3), Some(&b"eth0\0"[..]));
        let info = attribute(read[0].body, 16, 18).unwrap();
        assert_eq!(attribute(info, 0, 1), Some(&b"veth\0"[..]));
        assert_eq!(attribute(read[1].body, 8, 2), Some(&[1, 2, 3][..]));
        assert_eq!(attribute(read[1].body, 8, 9), None);
    }

    #[test]
    fn what_is_cut_off_ends_the_reading() {
        assert_eq!(messages(&[20, 0, 0, 0, 1, 0]).count(), 0);
        assert_eq!(attribute(&[8, 0, 1, 0, 1], 0, 1), None);
    }
}
