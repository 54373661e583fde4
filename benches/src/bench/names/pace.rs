//! Questions at a steady pace that no server finds hard: how long each answer takes.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::NAME;
use super::message::{self, LONGEST};
use super::server::Spot;
use crate::samples::Samples;

/// Questions in each second.
pub(super) const RATE: u32 = 20_000;
/// How long it is asked: less than as many questions as have a number of their own.
const TIME: Duration = Duration::from_secs(2);
/// So long after the last question an answer counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug)]
pub(super) struct Paced {
    /// How long the answers took.
    pub(super) took: Samples,
    /// How many there were.
    pub(super) answers: u32,
    /// Questions without an answer.
    pub(super) lost: u32,
}

/// Asks from one place. The clock of a question starts when it is sent, each at its time whether those before
/// are answered or not; one thread does nothing else and does not sleep, so that it is never woken late.
pub(super) fn measure(spot: &Spot, expected: Ipv4Addr) -> anyhow::Result<Paced> {
    let socket = spot.udp()?;
    socket.set_nonblocking(true)?;
    let mut question = message::question(0, NAME);
    let mut bytes = [0; LONGEST];
    let total = RATE * u32::try_from(TIME.as_secs())?;
    let mut sent: Vec<Instant> = Vec::with_capacity(usize::try_from(total)?);
    let mut took = Samples::default();
    let mut answered = 0;
    let step = TIME / total;
    let began = Instant::now();
    let mut due = began;
    while answered < total && began.elapsed() < TIME + PATIENCE {
        if sent.len() < sent.capacity() && Instant::now() >= due {
            let id = u16::try_from(sent.len())?;
            question[..2].copy_from_slice(&id.to_be_bytes());
            sent.push(Instant::now());
            socket.send(&question)?;
            due += step;
        }
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("no answer"),
        };
        let now = Instant::now();
        let answer = message::read(&bytes[..length]).context("no answer but other bytes")?;
        let asked = sent.get(usize::from(answer.id));
        let asked = *asked.context("an answer to nothing")?;
        if answer.code != 0 || answer.address != Some(expected) {
            bail!("it says {answer:?}, not {expected}");
        }
        took.push(now - asked);
        answered += 1;
    }
    Ok(Paced {
        took,
        answers: answered,
        lost: total - answered,
    })
}
