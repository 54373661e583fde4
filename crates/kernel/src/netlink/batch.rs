//! Many requests in one message to the socket, of which only the last asks for an acknowledgement. The kernel
//! answers a request that fails in any case, and names it by its sequence number.

use std::io;
use std::ops::Range;

use netlink_packet_core::Emitable;

use super::attribute::{Attributes, Message, read_text, read_u32};
use super::{HEADER_BYTES, ReadBuffer, Socket, align};
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use crate::sys::Errno;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACK: u16 = 4;
/// `NLMSG_ERROR`, which also acknowledges.
const ERROR: u16 = 2;
/// `NLM_F_ACK_TLVS`: the answer explains itself.
const ACK_TLVS: u16 = 0x200;
/// `NLM_F_CAPPED`: the answer does not repeat the request's body.
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`.
const ATTR_MSG: u16 = 1;

/// What the kernel had against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    /// In the kernel's own words, where it gave any.
    pub(crate) reason: Option<String>,
}

impl Refusal {
    pub(crate) fn is(&self, errno: i32) -> bool {
        self.errno == Errno(errno)
    }

    pub(crate) fn from_io(error: &io::Error) -> Self {
        Self {
            errno: Errno::of(error),
            reason: None,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.errno)?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// What a request may be answered without having failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pardon {
    /// The request's place in its batch.
    pub(crate) place: usize,
    pub(crate) errors: &'static [i32],
}

/// Lets requests count as done that were refused for a reason which does not matter.
pub(crate) fn pardon(results: &mut [Result<(), Refusal>], pardons: Vec<Pardon>) {
    for Pardon { place, errors } in pardons {
        let pardoned = |refusal: &Refusal| errors.contains(&refusal.errno.0);
        if let Some(result) = results.get_mut(place)
            && result.as_ref().is_err_and(pardoned)
        {
            *result = Ok(());
        }
    }
}

/// Requests that do not depend on each other's success, except that they are carried out in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each message starts.
    starts: Vec<usize>,
}

impl Batch {
    /// Appends a request of the route family; returns its place in the results.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, message: &impl Emitable) -> usize {
        let start = self.begin(kind, flags);
        let body = self.bytes.len();
        self.bytes.resize(body + message.buffer_len(), 0);
        message.emit(&mut self.bytes[body..]);
        self.end(start)
    }

    /// Appends a request whose body is at hand.
    pub(crate) fn push_bytes(&mut self, kind: u16, flags: u16, body: &[u8]) -> usize {
        let start = self.begin(kind, flags);
        self.bytes.extend_from_slice(body);
        self.end(start)
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Sends everything and returns what became of each request, in order.
    pub(crate) fn run(self, socket: &Socket, buffer: &mut ReadBuffer) -> Vec<Result<(), Refusal>> {
        self.run_seeing(socket, buffer, &mut |_| {})
    }

    /// The same, and shows every other message that came meanwhile to `see`.
    pub(crate) fn run_seeing(
        mut self,
        socket: &Socket,
        buffer: &mut ReadBuffer,
        see: &mut dyn FnMut(Message<'_>),
    ) -> Vec<Result<(), Refusal>> {
        let mut results = Vec::with_capacity(self.len());
        let mut first = 0;
        while first < self.len() {
            let last = self.chunk_end(first);
            let chunk = Chunk {
                range: first..last,
                acknowledged: last - 1,
            };
            results.extend(self.send_chunk(socket, buffer, &chunk, see));
            first = last;
        }
        results
    }

    /// Sends everything as one nf_tables transaction, whose first and last messages are its brackets. The
    /// first result tells of the transaction as a whole.
    pub(crate) fn run_transaction(
        mut self,
        socket: &Socket,
        buffer: &mut ReadBuffer,
    ) -> Vec<Result<(), Refusal>> {
        let chunk = Chunk {
            range: 0..self.len(),
            acknowledged: self.len() - 2,
        };
        self.send_chunk(socket, buffer, &chunk, &mut |_| {})
    }

    fn begin(&mut self, kind: u16, flags: u16) -> usize {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        start
    }

    fn end(&mut self, start: usize) -> usize {
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(align(self.bytes.len()), 0);
        self.starts.len() - 1
    }

    fn end_of(&self, index: usize) -> usize {
        self.starts
            .get(index + 1)
            .copied()
            .unwrap_or(self.bytes.len())
    }

    fn chunk_end(&self, first: usize) -> usize {
        let start = self.starts[first];
        let mut last = first + 1;
        while last < self.len()
            && last - first < BATCH_MESSAGES_MAX
            && self.end_of(last) - start <= BATCH_BYTES_MAX
        {
            last += 1;
        }
        last
    }

    fn send_chunk(
        &mut self,
        socket: &Socket,
        buffer: &mut ReadBuffer,
        chunk: &Chunk,
        see: &mut dyn FnMut(Message<'_>),
    ) -> Vec<Result<(), Refusal>> {
        let Range {
            start: first,
            end: last,
        } = chunk.range;
        let count = last - first;
        let base = socket.next_sequences(count);
        for (sequence, start) in (0..count)
            .map(|n| base.wrapping_add(n as u32))
            .zip(&self.starts[first..])
        {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        let flags = self.starts[chunk.acknowledged] + 6;
        for (byte, ack) in self.bytes[flags..].iter_mut().zip(ACK.to_ne_bytes()) {
            *byte |= ack;
        }
        if let Err(error) = socket.send(&self.bytes[self.starts[first]..self.end_of(last - 1)]) {
            return vec![Err(Refusal::from_io(&error)); count];
        }
        let mut results = vec![Ok(()); count];
        let mut answered = false;
        let trouble = socket.drain(buffer, |message| {
            let index = message.sequence.wrapping_sub(base) as usize;
            if message.kind == ERROR && index < count {
                let refused = refusal(message.flags, message.body);
                // A transaction that cannot begin or be committed is answered at its first message only.
                let whole = chunk.acknowledged + 1 < last && index == 0;
                answered |= first + index == chunk.acknowledged || whole;
                results[index] = refused.map_or(Ok(()), Err);
            } else {
                see(message);
            }
        });
        if !answered {
            // The kernel works within `send`: an answer that is not there was lost, and with it any error.
            let error = trouble
                .err()
                .unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS));
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(Refusal::from_io(&error));
            }
        }
        results
    }
}

/// Messages of a batch that are sent together.
#[derive(Debug)]
struct Chunk {
    range: Range<usize>,
    /// The message that is acknowledged even when it succeeds.
    acknowledged: usize,
}

/// The refusal in the body of an error message; none when it acknowledges.
pub(crate) fn refusal(flags: u16, body: &[u8]) -> Option<Refusal> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    if code == 0 {
        return None;
    }
    let echoed = body.get(4..).and_then(read_u32).unwrap_or(0) as usize;
    let skip = if flags & CAPPED != 0 {
        HEADER_BYTES
    } else {
        align(echoed).max(HEADER_BYTES)
    };
    let reason = if flags & ACK_TLVS != 0 {
        Attributes::after(body, 4 + skip)
            .find(ATTR_MSG)
            .and_then(read_text)
            .map(str::to_owned)
    } else {
        None
    };
    Some(Refusal {
        errno: Errno(code.wrapping_neg()),
        reason,
    })
}

/// The messages of `bytes` as (type, flags, body); for tests of the encoders.
#[cfg(test)]
pub(crate) fn messages(batch: &Batch) -> Vec<(u16, u16, Vec<u8>)> {
    super::attribute::Messages(&batch.bytes)
        .map(|message| (message.kind, message.flags, message.body.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answer_is_read_with_its_reason() {
        let mut body = (-libc::EEXIST).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER_BYTES]);
        body.extend_from_slice(&[9, 0, 1, 0, b'b', b'u', b's', b'y', 0, 0, 0, 0]);
        let read = refusal(ACK_TLVS | CAPPED, &body).unwrap();
        assert_eq!(read.to_string(), "EEXIST: File exists (busy)");
        assert_eq!(refusal(0, &[0; 20]), None);
        assert_eq!(refusal(0, &[1, 2]), None, "cut off");
    }

    #[test]
    fn messages_are_aligned_and_chunks_respect_both_limits() {
        let mut batch = Batch::default();
        for _ in 0..BATCH_MESSAGES_MAX + 5 {
            batch.push_bytes(16, 0, &[1, 2, 3]);
        }
        assert_eq!(batch.chunk_end(0), BATCH_MESSAGES_MAX);
        assert_eq!(batch.chunk_end(BATCH_MESSAGES_MAX), BATCH_MESSAGES_MAX + 5);
        assert!(batch.starts.iter().all(|start| start % 4 == 0));
        let read = messages(&batch);
        assert_eq!(read.len(), batch.len());
        assert_eq!(read[0], (16, REQUEST, vec![1, 2, 3]));
        let mut big = Batch::default();
        for _ in 0..3 {
            big.push_bytes(16, 0, &vec![0; BATCH_BYTES_MAX / 2]);
        }
        assert_eq!(
            big.chunk_end(0),
            1,
            "two would be too long with their headers"
        );
    }
}
