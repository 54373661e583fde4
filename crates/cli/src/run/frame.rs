//! The words between a shim and the clients attached to its process, over the Unix socket `attach.sock`.
//!
//! A frame is one kind byte, a length as four little-endian bytes, and that many bytes.

use std::io;

use super::limits;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TerminalSize {
    /// Lines.
    pub(super) rows: u16,
    /// Characters in a line.
    pub(super) columns: u16,
}

/// What a client wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Only the end.
    End,
    /// Output and the end.
    Output,
    /// As `Output`, and this client supplies the input.
    Input,
}

/// One message in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// First word of a client.
    Hello(Interest, Option<TerminalSize>),
    /// Input for the process.
    Stdin(Vec<u8>),
    /// No more input will come.
    StdinEnd,
    /// The client's terminal has this size now.
    Resize(TerminalSize),
    /// The client's output (`false`) or error output (`true`) is closed.
    Close(bool),
    /// Output of the process.
    Stdout(Vec<u8>),
    /// Error output of the process.
    Stderr(Vec<u8>),
    /// The process has ended, with this code when it is known.
    Exit(Option<i32>),
}

const HEADER: usize = 5;

impl Frame {
    /// Appends the encoded frame; the payload must be within [`limits::FRAME_BYTES`].
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let size =
            |size: &TerminalSize| [size.rows.to_le_bytes(), size.columns.to_le_bytes()].concat();
        let (kind, payload) = match self {
            Self::Hello(interest, terminal) => {
                let kind = match interest {
                    Interest::End => b'e',
                    Interest::Output => b'o',
                    Interest::Input => b'i',
                };
                (kind, terminal.as_ref().map(size).unwrap_or_default())
            }
            Self::Stdin(bytes) => (b'0', bytes.clone()),
            Self::StdinEnd => (b'd', Vec::new()),
            Self::Resize(terminal) => (b'r', size(terminal)),
            Self::Close(error_output) => (b'c', vec![u8::from(*error_output)]),
            Self::Stdout(bytes) => (b'1', bytes.clone()),
            Self::Stderr(bytes) => (b'2', bytes.clone()),
            Self::Exit(code) => (
                b'x',
                code.map(|code| code.to_le_bytes().to_vec())
                    .unwrap_or_default(),
            ),
        };
        debug_assert!(payload.len() <= limits::FRAME_BYTES);
        into.push(kind);
        into.extend(u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
        into.extend(payload);
    }

    /// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
    pub(super) fn decode(buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *header;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > limits::FRAME_BYTES {
            return Err(io::Error::other("oversized attach frame"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame =
            Self::parse(kind, payload).ok_or_else(|| io::Error::other("odd attach frame"))?;
        buffer.drain(..HEADER + length);
        Ok(Some(frame))
    }

    fn parse(kind: u8, payload: &[u8]) -> Option<Self> {
        let size = || match *payload {
            [a, b, c, d] => Some(TerminalSize {
                rows: u16::from_le_bytes([a, b]),
                columns: u16::from_le_bytes([c, d]),
            }),
            _ => None,
        };
        let hello = |interest| {
            (payload.is_empty() || size().is_some()).then(|| Self::Hello(interest, size()))
        };
        match kind {
            b'e' => hello(Interest::End),
            b'o' => hello(Interest::Output),
            b'i' => hello(Interest::Input),
            b'0' => Some(Self::Stdin(payload.to_vec())),
            b'd' => Some(Self::StdinEnd),
            b'r' => size().map(Self::Resize),
            b'c' => payload.first().map(|&byte| Self::Close(byte == 1)),
            b'1' => Some(Self::Stdout(payload.to_vec())),
            b'2' => Some(Self::Stderr(payload.to_vec())),
            b'x' if payload.is_empty() => Some(Self::Exit(None)),
            b'x' => Some(Self::Exit(Some(i32::from_le_bytes(
                payload.try_into().ok()?,
            )))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let size = TerminalSize {
            rows: 40,
            columns: 1000,
        };
        let frames = [
            Frame::Hello(Interest::End, None),
            Frame::Hello(Interest::Input, Some(size)),
            Frame::Stdin(b"abc".to_vec()),
            Frame::StdinEnd,
            Frame::Resize(size),
            Frame::Close(true),
            Frame::Stdout(vec![0; limits::FRAME_BYTES]),
            Frame::Stderr(vec![]),
            Frame::Exit(None),
            Frame::Exit(Some(-1)),
        ];
        let mut wire = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire));
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for piece in wire.chunks(7) {
            buffer.extend(piece);
            while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
        assert!(buffer.is_empty());
    }

    #[test]
    fn oversized_and_odd_frames_are_refused() {
        let length = u32::try_from(limits::FRAME_BYTES + 1).unwrap();
        let mut oversized = [&b"0"[..], &length.to_le_bytes()].concat();
        assert!(Frame::decode(&mut oversized).is_err());
        for odd in [&b"?\0\0\0\0"[..], b"r\x01\0\0\0a", b"x\x01\0\0\0a"] {
            assert!(Frame::decode(&mut odd.to_vec()).is_err());
        }
    }
}
