//! What a restart of the daemon loses of questions that go on meanwhile.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::message::{self, LONGEST};
use super::ours::Ours;
use super::server::{Server, check};
use super::{ASKERS, NAME};
use crate::daemon::Daemon;
use crate::samples::micros;
use crate::table::{Amount, Row, Target};
use crate::{machine, say};

/// Restarts of each kind.
const RESTARTS: u32 = 5;
/// Pause between two questions: 200 in each second.
const STEP: Duration = Duration::from_millis(5);
/// After so long a question is asked once more, and after as long again it has failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause after a restart, in which all questions come to their ends.
const BETWEEN: Duration = Duration::from_secs(3);
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);
/// None fails.
const NONE: Target = Target::Most(0.0);

/// What became of the questions.
#[derive(Debug, Default)]
struct Outcome {
    asked: u32,
    retried: u32,
    failed: u32,
    /// Times that the sandbox's kernel said that nobody listens.
    refused: u32,
    longest: Duration,
}

/// A question without an answer so far.
struct Open {
    first: Instant,
    last: Instant,
}

/// Measures restarts.
pub(super) fn run(place: &Path) -> anyhow::Result<Vec<Row>> {
    let mut ours = Ours::with_askers(place, "restart", ASKERS)?;
    check(&ours)?;
    let busy = machine::await_quiet(STORM)?;
    say(&format!("names: restarts ({:.0} % busy)", busy * 100.0));
    let mut rows = Vec::new();
    type End = fn(Daemon) -> anyhow::Result<()>;
    let ends: [(&str, End); 2] = [("stopped", Daemon::stop), ("killed", Daemon::kill)];
    for (how, end) in ends {
        let (again, outcome) = during(ours, end)?;
        ours = again;
        check(&ours)?;
        rows.extend(rows_of(how, &outcome));
    }
    Ok(rows)
}

/// Restarts the daemon again and again while one sandbox asks.
fn during(ours: Ours, end: fn(Daemon) -> anyhow::Result<()>) -> anyhow::Result<(Ours, Outcome)> {
    let spot = ours.spots().first().context("nobody asks")?;
    let (socket, expected) = (spot.udp()?, ours.address());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asker = scope.spawn(|| ask(&socket, expected, &done));
        let restarted = again_and_again(ours, end);
        done.store(true, Ordering::Relaxed);
        let outcome = asker.join().ok().context("a thread panicked")??;
        Ok((restarted?, outcome))
    })
}

fn again_and_again(mut ours: Ours, end: fn(Daemon) -> anyhow::Result<()>) -> anyhow::Result<Ours> {
    thread::sleep(PATIENCE);
    for _ in 0..RESTARTS {
        ours = ours.restart(end)?;
        thread::sleep(BETWEEN);
    }
    Ok(ours)
}

/// Asks at a steady pace until it is enough and every question has come to its end. A refusal by the kernel is
/// counted and waited out: who takes it for the answer would not have asked again.
fn ask(socket: &UdpSocket, expected: Ipv4Addr, done: &AtomicBool) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut open: BTreeMap<u16, Open> = BTreeMap::new();
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        let is_over = done.load(Ordering::Relaxed);
        if is_over && open.is_empty() {
            return Ok(outcome);
        }
        if !is_over && now >= due {
            due += STEP;
            outcome.asked += 1;
            let id = (outcome.asked & 0xffff) as u16;
            open.insert(
                id,
                Open {
                    first: now,
                    last: now,
                },
            );
            outcome.send(socket, id)?;
        }
        for id in overdue(&mut open, now, &mut outcome) {
            outcome.send(socket, id)?;
        }
        let wait = due.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), STEP)))?;
        if let Some((id, is_right)) = outcome.hear(socket, expected)?
            && let Some(question) = open.remove(&id)
        {
            outcome.failed += u32::from(!is_right);
            outcome.longest = outcome.longest.max(question.first.elapsed());
        }
    }
}

/// Questions that are to be asked once more; those that were asked twice have failed.
fn overdue(open: &mut BTreeMap<u16, Open>, now: Instant, outcome: &mut Outcome) -> Vec<u16> {
    let mut again = Vec::new();
    open.retain(|id, question| {
        if now - question.last < PATIENCE {
            return true;
        }
        if question.last > question.first {
            outcome.failed += 1;
            return false;
        }
        outcome.retried += 1;
        question.last = now;
        again.push(*id);
        true
    });
    again
}

impl Outcome {
    fn send(&mut self, socket: &UdpSocket, id: u16) -> anyhow::Result<()> {
        match socket.send(&message::question(id, NAME)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // What is said of the one before; this one was not sent yet.
                self.refused += 1;
                self.send(socket, id)
            }
            sent => sent.map(drop).context("cannot ask"),
        }
    }

    /// The number of a question that is answered now, and whether the answer is right: who is told that there
    /// is no such name does not ask again.
    fn hear(
        &mut self,
        socket: &UdpSocket,
        expected: Ipv4Addr,
    ) -> anyhow::Result<Option<(u16, bool)>> {
        let mut bytes = [0; LONGEST];
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.refused += 1;
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("no answer"),
        };
        let answer = message::read(&bytes[..length]).context("no answer but other bytes")?;
        let is_right = answer.code == 0 && answer.address == Some(expected);
        Ok(Some((answer.id, is_right)))
    }
}

fn rows_of(how: &str, outcome: &Outcome) -> Vec<Row> {
    let count = |what: &str, number: u32| {
        let what = format!("{RESTARTS} restarts, {how}: {what}");
        let asked = Amount::Count(outcome.asked.into());
        Row::new(what, Amount::Count(number.into())).beside("of", asked)
    };
    let longest = Amount::Micros(micros(outcome.longest));
    vec![
        count("queries that failed, be it after a retry", outcome.failed).target(NONE),
        count("queries that needed a retry", outcome.retried),
        count("refusals by the kernel", outcome.refused),
        Row::new(
            format!("{RESTARTS} restarts, {how}: longest answer"),
            longest,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_twice_and_then_fails() {
        let began = Instant::now();
        let at = |seconds: f64| began + PATIENCE.mul_f64(seconds);
        let mut open = BTreeMap::from([(
            1,
            Open {
                first: began,
                last: began,
            },
        )]);
        let mut outcome = Outcome::default();
        assert!(overdue(&mut open, at(0.9), &mut outcome).is_empty());
        assert_eq!(overdue(&mut open, at(1.1), &mut outcome), [1]);
        assert!(overdue(&mut open, at(2.0), &mut outcome).is_empty());
        assert_eq!((outcome.retried, outcome.failed, open.len()), (1, 0, 1));
        assert!(overdue(&mut open, at(2.2), &mut outcome).is_empty());
        assert_eq!((outcome.retried, outcome.failed, open.len()), (1, 1, 0));
    }
}
