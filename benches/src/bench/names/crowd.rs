//! Questions from many sandboxes at once, as fast as they are answered.
//!
//! A hundred programs that ask would fight for the processors of a small machine, and what they lose by that
//! would be measured as the server's. So one thread asks for all: it has one socket in each sandbox, opened
//! there, some questions open on each, and asks the next when an answer has come. All servers are asked by the
//! same loop, over the way that their sandboxes have. With one question open on each socket the loop has as much to
//! do for a question as the servers, and cannot show how fast they are; with several it takes turns less often.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::NAME;
use super::message::{self, Answer, LONGEST};
use super::server::{Server, Spot, framed};

/// How long it is asked.
const TIME: Duration = Duration::from_secs(2);
/// After so long an answer counts as lost. By UDP the sandbox asks again then; a connection loses nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked for lost ones, in milliseconds.
const LOOK_MS: u16 = 100;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Answers in each second.
    pub(super) rate: f64,
    /// Answers.
    pub(super) answers: u32,
    /// Questions without an answer.
    pub(super) lost: u32,
}

/// A sandbox that asks.
struct Asker {
    line: Line,
    questions: Vec<Question>,
    /// Counts questions.
    turn: u16,
}

/// A question that may be open.
struct Question {
    id: u16,
    sent: Instant,
    open: bool,
}

enum Line {
    Udp(UdpSocket),
    /// With what has arrived of an answer.
    Tcp(TcpStream, Vec<u8>),
}

/// Asks from all places of a server, with so many questions open in each.
pub(super) fn measure(
    server: &dyn Server,
    protocol: Protocol,
    open_each: usize,
) -> anyhow::Result<Measured> {
    let mut askers = Vec::new();
    for spot in server.spots() {
        askers.push(Asker::open(spot, protocol, open_each)?);
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (n, asker) in askers.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(n)?);
        epoll.add(asker.line.as_fd(), event)?;
    }
    let began = Instant::now();
    for asker in &mut askers {
        asker.ask(began)?;
    }
    let mut events = vec![EpollEvent::empty(); askers.len()];
    let (mut answered, mut lost) = (0_u32, 0);
    let mut looked = began;
    while began.elapsed() < TIME + PATIENCE && askers.iter().any(Asker::is_waiting) {
        let count = epoll.wait(&mut events, EpollTimeout::from(LOOK_MS))?;
        let going = began.elapsed() < TIME;
        for event in &events[..count] {
            let asker = &mut askers[usize::try_from(event.data())?];
            let heard = asker.hear(server.address())?;
            if going {
                answered += heard;
                asker.ask(Instant::now())?;
            }
        }
        if looked.elapsed() >= Duration::from_millis(LOOK_MS.into()) {
            looked = Instant::now();
            for asker in &mut askers {
                if going && protocol == Protocol::Udp {
                    lost += asker.give_up();
                    asker.ask(looked)?;
                }
            }
        }
    }
    let open = |asker: &Asker| asker.questions.iter().filter(|one| one.open).count();
    let still_open: usize = askers.iter().map(open).sum();
    Ok(Measured {
        rate: f64::from(answered) / TIME.as_secs_f64(),
        answers: answered,
        lost: lost + u32::try_from(still_open)?,
    })
}

impl Asker {
    fn open(spot: &Spot, protocol: Protocol, open_each: usize) -> anyhow::Result<Self> {
        let line = match protocol {
            Protocol::Udp => {
                let socket = spot.udp()?;
                socket.set_nonblocking(true)?;
                Line::Udp(socket)
            }
            Protocol::Tcp => {
                let stream = spot.tcp()?;
                stream.set_nonblocking(true)?;
                Line::Tcp(stream, Vec::new())
            }
        };
        let question = || Question {
            id: 0,
            sent: Instant::now(),
            open: false,
        };
        Ok(Self {
            line,
            questions: (0..open_each).map(|_| question()).collect(),
            turn: 0,
        })
    }

    /// Asks as many questions as may be open.
    fn ask(&mut self, now: Instant) -> anyhow::Result<()> {
        for question in self.questions.iter_mut().filter(|one| !one.open) {
            self.turn = self.turn.wrapping_add(1);
            *question = Question {
                id: self.turn,
                sent: now,
                open: true,
            };
            let question = message::question(self.turn, NAME);
            match &mut self.line {
                Line::Udp(socket) => socket.send(&question).map(drop),
                Line::Tcp(stream, _) => stream.write_all(&framed(&question)),
            }
            .context("cannot ask")?;
        }
        Ok(())
    }

    /// How many open questions are answered now.
    fn hear(&mut self, expected: Ipv4Addr) -> anyhow::Result<u32> {
        let mut heard = 0;
        while let Some(answer) = self.line.read()? {
            let mut open = self.questions.iter_mut().filter(|one| one.open);
            let Some(question) = open.find(|one| one.id == answer.id) else {
                // To a question that counts as lost.
                continue;
            };
            if answer.code != 0 || answer.address != Some(expected) {
                bail!("it says {answer:?}, not {expected}");
            }
            question.open = false;
            heard += 1;
        }
        Ok(heard)
    }

    fn is_waiting(&self) -> bool {
        self.questions.iter().any(|one| one.open)
    }

    /// Counts questions as lost that have waited for too long; how many.
    fn give_up(&mut self) -> u32 {
        let mut lost = 0;
        for question in &mut self.questions {
            if question.open && question.sent.elapsed() > PATIENCE {
                question.open = false;
                lost += 1;
            }
        }
        lost
    }
}

impl Line {
    /// An answer, if a whole one is there.
    fn read(&mut self) -> anyhow::Result<Option<Answer>> {
        let mut bytes = [0; LONGEST];
        let read = match self {
            Self::Udp(socket) => socket.recv(&mut bytes),
            Self::Tcp(stream, _) => stream.read(&mut bytes),
        };
        let length = match read {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("no answer"),
        };
        let message = match self {
            Self::Udp(_) => &bytes[..length],
            Self::Tcp(_, _) if length == 0 => bail!("the server has closed the connection"),
            Self::Tcp(_, there) => {
                there.extend(&bytes[..length]);
                match whole(there) {
                    Some(message) => message,
                    None => return Ok(None),
                }
            }
        };
        let answer = message::read(message).context("no answer but other bytes")?;
        if let Self::Tcp(_, there) = self {
            there.clear();
        }
        Ok(Some(answer))
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(stream, _) => stream.as_fd(),
        }
    }
}

/// The message after its length, once all of it has arrived.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (rest.len() >= length).then(|| &rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_its_length_is_there() {
        assert_eq!(whole(&[0]), None);
        assert_eq!(whole(&[0, 2, 7]), None);
        assert_eq!(whole(&[0, 2, 7, 8]), Some(&[7, 8][..]));
    }
}
