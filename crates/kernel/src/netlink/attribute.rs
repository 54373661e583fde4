//! Netlink attributes: a reader over what the kernel sent, and a writer for nf_tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tombolo_netstate::Mac;

use super::{HEADER_BYTES, align};

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Without the two flag bits.
const TYPE_MASK: u16 = 0x3fff;

/// One message of those read at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// `nlmsg_pid`: the socket on whose behalf the kernel speaks.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

/// The messages in what was read at once; stops at the first that is cut off.
#[derive(Debug, Clone)]
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.get(..HEADER_BYTES)?;
        let length = read_u32(header)? as usize;
        let message = Message {
            kind: read_u16(&header[4..])?,
            flags: read_u16(&header[6..])?,
            sequence: read_u32(&header[8..])?,
            port: read_u32(&header[12..])?,
            body: self.0.get(HEADER_BYTES..length)?,
        };
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes in a piece of a message, each with its type.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes of `bytes` after a fixed head of `skip` bytes.
    pub(crate) fn after(bytes: &'a [u8], skip: usize) -> Self {
        Self(bytes.get(skip..).unwrap_or_default())
    }

    /// The attributes nested in a value.
    pub(crate) fn of(value: &'a [u8]) -> Self {
        Self(value)
    }

    /// The value of the first attribute of that type.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find_map(|(found, value)| (found == kind).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(read_u16(self.0)?);
        let kind = read_u16(self.0.get(2..)?)? & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(crate) fn read_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.first_chunk()?))
}

pub(crate) fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

pub(crate) fn read_be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

pub(crate) fn read_be64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.first_chunk()?))
}

/// Text up to its final zero.
pub(crate) fn read_text(bytes: &[u8]) -> Option<&str> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

/// An address of four or sixteen bytes.
pub(crate) fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// A hardware address, if it is one of Ethernet.
pub(crate) fn read_mac(bytes: &[u8]) -> Option<Mac> {
    Some(Mac(bytes.try_into().ok()?))
}

/// Attributes being written.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// Appends an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = 4 + value.len();
        self.head(kind, length);
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends text with its final zero.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.head(kind, 5 + text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self.pad();
        self
    }

    /// Appends a number in network order, as nf_tables has them all.
    pub(crate) fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends what `fill` writes, nested.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.head(kind | NESTED, 0);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn head(&mut self, kind: u16, length: usize) {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.0.resize(align(self.0.len()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_attributes_are_padded_nested_and_read_back() {
        let mut writer = Writer::default();
        writer.put_text(1, "ab").nest(2, |inner| {
            inner.put_be32(3, 0x0102_0304);
        });
        assert_eq!(
            writer.0,
            [
                7, 0, 1, 0, b'a', b'b', 0, 0, // padded to eight
                12, 0, 2, 0x80, 8, 0, 3, 0, 1, 2, 3, 4
            ]
        );
        let read = Attributes::of(&writer.0);
        assert_eq!(read.find(1).and_then(read_text), Some("ab"));
        let nested = Attributes::of(read.find(2).unwrap());
        assert_eq!(nested.find(3).and_then(read_be32), Some(0x0102_0304));
        assert_eq!(read.find(9), None);
    }

    #[test]
    fn cut_off_input_ends_the_reading() {
        let mut writer = Writer::default();
        writer.put(1, &[1, 2, 3, 4]).put(2, &[5, 6, 7, 8]);
        for length in 0..writer.0.len() {
            let count = Attributes::of(&writer.0[..length]).count();
            assert_eq!(count, usize::from(length >= 8), "{length} bytes");
        }
        assert_eq!(
            Attributes::of(&[0, 0, 1, 0]).count(),
            0,
            "a length of zero does not loop"
        );
        assert_eq!(Messages(&[0; 32]).count(), 0);
    }
}
