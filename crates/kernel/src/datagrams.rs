//! Many datagrams by one system call, in memory that is used again: for whoever answers many small questions.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use crate::limits::DATAGRAMS_TOGETHER_MAX;
use crate::sys::datagrams::{Address, Heads};

/// Room for datagrams that arrive together.
pub struct Batch {
    bytes: Vec<u8>,
    each: usize,
    addresses: Vec<Address>,
    heads: Heads,
    /// Of each that was received: its length, and whether that is all of it.
    received: Vec<(usize, bool)>,
}

/// Datagrams that leave together.
pub struct Replies {
    most: usize,
    bytes: Vec<u8>,
    /// Where in the bytes each one ends.
    ends: Vec<usize>,
    addresses: Vec<Address>,
    heads: Heads,
}

impl Batch {
    /// Room for up to `count` datagrams of up to `bytes_each` bytes; at least one of each, and no more than
    /// [`DATAGRAMS_TOGETHER_MAX`] datagrams.
    pub fn new(count: usize, bytes_each: usize) -> Self {
        let (count, each) = (count.clamp(1, DATAGRAMS_TOGETHER_MAX), bytes_each.max(1));
        Self {
            bytes: vec![0; count * each],
            each,
            addresses: vec![Address::none(); count],
            heads: Heads::new(count),
            received: Vec::with_capacity(count),
        }
    }

    /// Takes what waits in a socket instead of what was taken before; how many datagrams these were.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; an error that an earlier datagram of ours met, which a socket may report once.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received.clear();
        let received = &mut self.received;
        self.heads.receive(
            socket.as_fd(),
            (&mut self.bytes, self.each),
            &mut self.addresses,
            |length, is_whole| received.push((length, is_whole)),
        )
    }

    /// What was taken, with where it came from. One that was longer than there is room for is passed over.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let slots = self.bytes.chunks_exact(self.each).zip(&self.addresses);
        slots
            .zip(&self.received)
            .filter_map(|((bytes, from), (length, is_whole))| {
                let bytes = bytes.get(..*length).filter(|_| *is_whole)?;
                Some((bytes, from.read()?))
            })
    }
}

impl Replies {
    /// Room for up to `count` datagrams; at least one, and no more than [`DATAGRAMS_TOGETHER_MAX`].
    pub fn new(count: usize) -> Self {
        let most = count.clamp(1, DATAGRAMS_TOGETHER_MAX);
        Self {
            most,
            bytes: Vec::new(),
            ends: Vec::with_capacity(most),
            addresses: Vec::with_capacity(most),
            heads: Heads::new(most),
        }
    }

    /// Appends a datagram; false, without doing so, when there is no room.
    pub fn push(&mut self, bytes: &[u8], to: SocketAddr) -> bool {
        if self.ends.len() >= self.most {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.addresses.push(Address::of(to));
        true
    }

    /// How many wait to be sent.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets what waits to be sent.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.addresses.clear();
    }

    /// Sends all that wait; how many were sent. One that the kernel refuses is forgotten and the others go on; when
    /// the socket takes no more, the rest waits for the next call.
    ///
    /// # Errors
    /// When none could be sent: `WouldBlock` when they wait on, else what became of the last.
    pub fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let (mut first, mut sent) = (0, 0);
        let mut refused = None;
        while first < self.ends.len() {
            let start = |place: usize| place.checked_sub(1).map_or(0, |before| self.ends[before]);
            let bytes = &self.bytes;
            let rest = (first..self.ends.len()).map(|place| {
                let bytes = &bytes[start(place)..self.ends[place]];
                (bytes, &self.addresses[place])
            });
            match self.heads.send(socket.as_fd(), rest) {
                Ok(count) => {
                    first += count;
                    sent += count;
                }
                Err(error) => {
                    let is_full = error.kind() == io::ErrorKind::WouldBlock;
                    refused = Some(error);
                    if is_full {
                        break;
                    }
                    first += 1;
                }
            }
        }
        self.forget(first);
        match refused {
            Some(error) if sent == 0 => Err(error),
            _ => Ok(sent),
        }
    }

    /// Forgets the first ones.
    fn forget(&mut self, count: usize) {
        if count == self.ends.len() {
            self.clear();
            return;
        }
        let Some(end) = count.checked_sub(1).map(|last| self.ends[last]) else {
            return;
        };
        self.bytes.drain(..end);
        self.ends.drain(..count);
        self.addresses.drain(..count);
        self.ends.iter_mut().for_each(|place| *place -= end);
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.ends.len();
        f.debug_struct("Replies").field("len", &waiting).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn pair(address: &str) -> Option<(UdpSocket, UdpSocket)> {
        let server = UdpSocket::bind((address, 0)).ok()?;
        Some((server, UdpSocket::bind((address, 0)).ok()?))
    }

    /// Loopback delivers at once, but to be sure.
    fn receive(batch: &mut Batch, socket: &UdpSocket) -> usize {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match batch.receive(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < end, "nothing arrives");
                }
                other => return other.unwrap(),
            }
        }
    }

    #[test]
    fn questions_are_taken_and_answered_together() {
        for address in ["127.0.0.1", "::1"] {
            let Some((server, client)) = pair(address) else {
                assert_eq!(address, "::1", "no loopback");
                continue;
            };
            let to = server.local_addr().unwrap();
            let (mut batch, mut replies) = (Batch::new(8, 16), Replies::new(8));
            for round in 0..3_u8 {
                for number in 0..5 {
                    client.send_to(&[round, number], to).unwrap();
                }
                client.send_to(&[9; 17], to).unwrap();
                client.send_to(&[round; 16], to).unwrap();
                client.send_to(&[], to).unwrap();
                assert_eq!(receive(&mut batch, &server), 8);
                let mut expected: Vec<Vec<u8>> = (0..5).map(|number| vec![round, number]).collect();
                expected.extend([vec![round; 16], vec![]]);
                let from = client.local_addr().unwrap();
                let got: Vec<_> = batch.iter().collect();
                let wanted: Vec<_> = expected.iter().map(|bytes| (&bytes[..], from)).collect();
                assert_eq!(got, wanted);
                for (bytes, from) in batch.iter() {
                    assert!(replies.push(bytes, from));
                }
                assert_eq!(replies.send(&server).unwrap(), 7);
                assert!(replies.is_empty());
                assert_eq!(receive(&mut batch, &client), 7);
                assert!(batch.iter().all(|(_, from)| from == to));
                let echoed: Vec<_> = batch.iter().map(|(bytes, _)| bytes.to_vec()).collect();
                assert_eq!(echoed, expected);
            }
            let nothing = batch.receive(&server).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.iter().count(), 0);
        }
    }

    #[test]
    fn one_that_is_refused_does_not_hold_up_the_others() {
        let (server, client) = pair("127.0.0.1").unwrap();
        let to = client.local_addr().unwrap();
        let mut replies = Replies::new(4);
        let wrong: SocketAddr = "[::1]:9".parse().unwrap();
        for (text, to) in [("a", wrong), ("b", to), ("c", wrong), ("d", to)] {
            assert!(replies.push(text.as_bytes(), to));
        }
        assert!(!replies.push(b"too many", to));
        assert_eq!(replies.len(), 4);
        assert_eq!(replies.send(&server).unwrap(), 2);
        assert!(replies.is_empty());
        let mut batch = Batch::new(4, 4);
        let mut got = Vec::new();
        while got.len() < 2 {
            receive(&mut batch, &client);
            got.extend(batch.iter().map(|(bytes, _)| bytes.to_vec()));
        }
        assert_eq!(got, [b"b", b"d"]);
        assert!(replies.push(b"e", wrong));
        assert!(replies.send(&server).is_err());
        assert!(replies.is_empty());
    }

    #[test]
    fn no_more_than_the_kernel_takes_are_tried_together() {
        let (server, client) = pair("127.0.0.1").unwrap();
        let to = client.local_addr().unwrap();
        let mut replies = Replies::new(usize::MAX);
        for _ in 0..DATAGRAMS_TOGETHER_MAX {
            assert!(replies.push(b"x", to));
        }
        assert!(!replies.push(b"x", to));
        assert_eq!(replies.send(&server).unwrap(), DATAGRAMS_TOGETHER_MAX);
        let mut batch = Batch::new(usize::MAX, 1);
        assert!(receive(&mut batch, &client) <= DATAGRAMS_TOGETHER_MAX);
        while batch.receive(&client).is_ok() {}
        client.send_to(b"x", to).unwrap();
        let mut none = Batch::new(0, 0);
        assert_eq!(receive(&mut none, &client), 1);
    }

    #[test]
    fn what_the_socket_does_not_take_waits() {
        let mut replies = Replies::new(4);
        let to = "127.0.0.1:9".parse().unwrap();
        for text in [&b"one"[..], b"", b"three", b"four"] {
            assert!(replies.push(text, to));
        }
        replies.forget(0);
        assert_eq!(replies.len(), 4);
        replies.forget(2);
        assert_eq!(
            (&replies.bytes[..], &replies.ends[..]),
            (&b"threefour"[..], &[5, 9][..])
        );
        replies.forget(2);
        assert!(replies.is_empty());
    }
}
