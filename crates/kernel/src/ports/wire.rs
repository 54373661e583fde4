//! What the daemon and the keeper of its sockets say to each other: one message at a time, with descriptors
//! beside it. Both are the same program, but perhaps of different versions: the layout never changes.
//!
//! ```text
//! operation u8 | value u32 | count u16 | count x (length u8 | tag u8 | socket u8 | name)
//! ```
//!
//! Numbers have their least byte first. An item whose `socket` is 1 has a descriptor beside the message.

use crate::sys::ports::DESCRIPTORS_MAX;

/// Bytes before the first item.
const HEAD: usize = 7;
/// Bytes of an item before its name.
const ITEM_HEAD: usize = 3;
/// Most items in a message: no more than descriptors.
pub(super) const ITEMS_MAX: usize = DESCRIPTORS_MAX;
/// Most bytes of a name.
pub(super) const NAME_BYTES_MAX: usize = u8::MAX as usize;
/// Most bytes of a message.
pub(super) const MESSAGE_BYTES_MAX: usize = HEAD + ITEMS_MAX * (ITEM_HEAD + NAME_BYTES_MAX);

/// What is wanted; an answer repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// The first word; answered with how many sockets the keeper can keep.
    Hello,
    /// Keep these; not answered. Without a socket, the tag of one that is kept changes, or a mere name is kept.
    Put,
    /// Close these; answered once it is done.
    Drop,
    /// Say what is kept; answered in pieces, each with the number of items that are still to come.
    List,
    /// Send copies of these; answered with those that there are.
    Fetch,
}

/// Something that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    /// What else there is to know; the keeper only remembers it.
    pub(super) tag: u8,
    pub(super) has_socket: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) operation: Operation,
    pub(super) value: u32,
    pub(super) items: Vec<Item>,
}

impl Operation {
    const ALL: [Self; 5] = [Self::Hello, Self::Put, Self::Drop, Self::List, Self::Fetch];

    fn number(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Put => 2,
            Self::Drop => 3,
            Self::List => 4,
            Self::Fetch => 5,
        }
    }
}

impl Item {
    /// An item of which only the name matters.
    pub(super) fn named(name: Vec<u8>) -> Self {
        Self {
            name,
            tag: 0,
            has_socket: false,
        }
    }
}

impl Message {
    pub(super) fn new(operation: Operation, items: Vec<Item>) -> Self {
        Self {
            operation,
            value: 0,
            items,
        }
    }

    /// The bytes to be sent. A name that is too long is cut, and at most [`ITEMS_MAX`] items are told: the
    /// caller keeps to both.
    pub(super) fn encode(&self) -> Vec<u8> {
        debug_assert!(self.items.len() <= ITEMS_MAX);
        let items = &self.items[..self.items.len().min(ITEMS_MAX)];
        let mut bytes = Vec::with_capacity(HEAD + items.len() * 32);
        bytes.push(self.operation.number());
        bytes.extend_from_slice(&self.value.to_le_bytes());
        bytes.extend_from_slice(&(items.len() as u16).to_le_bytes());
        for item in items {
            debug_assert!(item.name.len() <= NAME_BYTES_MAX);
            let name = &item.name[..item.name.len().min(NAME_BYTES_MAX)];
            bytes.extend_from_slice(&[name.len() as u8, item.tag, u8::from(item.has_socket)]);
            bytes.extend_from_slice(name);
        }
        bytes
    }

    /// Reads what was sent; `None` for anything that is not a whole message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (operation, rest) = bytes.split_first()?;
        let operation = Operation::ALL
            .into_iter()
            .find(|known| known.number() == *operation)?;
        let (value, rest) = rest.split_first_chunk()?;
        let (count, mut rest) = rest.split_first_chunk()?;
        let mut items = Vec::new();
        for _ in 0..u16::from_le_bytes(*count) {
            let ([length, tag, socket], after) = rest.split_first_chunk::<ITEM_HEAD>()?;
            let (name, after) = after.split_at_checked(usize::from(*length))?;
            items.push(Item {
                name: name.to_vec(),
                tag: *tag,
                has_socket: *socket == 1,
            });
            rest = after;
        }
        rest.is_empty().then_some(Self {
            operation,
            value: u32::from_le_bytes(*value),
            items,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_message_comes_back_as_it_was() {
        let item = Item {
            name: vec![7; NAME_BYTES_MAX],
            tag: 2,
            has_socket: true,
        };
        for operation in Operation::ALL {
            let mut message = Message::new(operation, vec![item.clone(); ITEMS_MAX]);
            message.value = 70_000;
            let bytes = message.encode();
            assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
            assert_eq!(Message::decode(&bytes), Some(message));
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_no_message() {
        let bytes = Message::new(Operation::Put, vec![Item::named(b"one".to_vec())]).encode();
        for length in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..length]), None, "{length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Message::decode(&longer), None);
        let mut unknown = bytes;
        unknown[0] = 9;
        assert_eq!(Message::decode(&unknown), None);
    }
}
