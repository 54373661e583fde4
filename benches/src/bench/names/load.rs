//! How fast the same name is answered, ours and that of others, to one sandbox and to many at once.

use std::path::Path;
use std::time::Duration;

use super::aardvark::{self, Aardvark};
use super::crowd::{self, Protocol};
use super::hickory::Hickory;
use super::ours::Ours;
use super::server::{Server, check};
use super::{ASKERS, dnsperf, median, pace};
use crate::samples::micros;
use crate::table::{Amount, Row, Target};
use crate::{machine, say};

/// Most rounds, of two seconds for each thing that is measured of each program.
const ROUNDS: usize = 7;
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);
/// At least so many times the rate of aardvark-dns by UDP.
const FASTER: Target = Target::RatioLeast(1.6);
/// An answer takes no longer than that of aardvark-dns.
const NO_SLOWER: Target = Target::Ratio(1.0);
/// None is lost.
const NO_LOSS: Target = Target::Most(0.0);

/// What is measured, in this order.
const MEASURES: [Measure; 6] = [
    Measure::Alone("udp"),
    Measure::Together(Protocol::Udp, OPEN_EACH),
    Measure::Together(Protocol::Udp, 1),
    Measure::Pace,
    Measure::Alone("tcp"),
    Measure::Together(Protocol::Tcp, 1),
];
/// Questions that a sandbox has open at once, as a program with several threads has.
const OPEN_EACH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// dnsperf in one sandbox.
    Alone(&'static str),
    /// All sandboxes, with so many questions open in each.
    Together(Protocol, usize),
    /// One sandbox, with a steady pace.
    Pace,
}

/// A program and what was measured of it.
struct Party<'a> {
    server: &'a dyn Server,
    is_goal: bool,
    /// By the place of the measure; of the steady pace the 99th of 100, in microseconds.
    found: [Vec<f64>; MEASURES.len()],
    /// Of the steady pace, the middle one, in microseconds.
    usual: Vec<f64>,
    /// Processor time of the server for a query, in microseconds, by the place of the measure.
    effort: [Vec<f64>; MEASURES.len()],
    lost: [f64; MEASURES.len()],
    bytes: f64,
}

/// Measures rates and times.
pub(super) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let ours = Ours::with_askers(place, "load", ASKERS)?;
    let hickory = Hickory::start(place, ASKERS)?;
    let aardvark = match aardvark::find() {
        Ok(program) => {
            let place = place.join("load-aardvark");
            Some(Aardvark::start(&program, &place, ASKERS, &[])?)
        }
        Err(error) => {
            say(&format!("names: its rows are left out: {error:#}"));
            None
        }
    };
    let on_host = aardvark.as_ref().map(Aardvark::on_its_host).transpose()?;
    let mut parties = vec![Party::new(&ours, false)];
    parties.extend(aardvark.iter().map(|server| Party::new(server, true)));
    parties.extend(on_host.iter().map(|server| Party::new(server, false)));
    parties.push(Party::new(&hickory, false));
    for party in &parties {
        check(party.server)?;
    }
    let busy = machine::await_quiet(STORM)?;
    say(&format!("names: rates ({:.0} % busy)", busy * 100.0));
    for turn in 0..rounds.min(ROUNDS) {
        for index in 0..MEASURES.len() {
            // Everybody is first sometimes.
            let first = turn % parties.len();
            let (after, before) = parties.split_at_mut(first);
            for party in before.iter_mut().chain(after) {
                party.measure(place, index)?;
            }
        }
    }
    for party in &parties {
        check(party.server)?;
    }
    Ok(rows(&parties))
}

impl<'a> Party<'a> {
    fn new(server: &'a dyn Server, is_goal: bool) -> Self {
        Self {
            server,
            is_goal,
            found: Default::default(),
            usual: Vec::new(),
            effort: Default::default(),
            lost: Default::default(),
            bytes: 0.0,
        }
    }

    fn measure(&mut self, place: &Path, index: usize) -> anyhow::Result<()> {
        let Some(spot) = self.server.spots().first() else {
            return Ok(());
        };
        let before = machine::processor_time_of(self.server.pid())?;
        let (found, answers, lost) = match MEASURES[index] {
            Measure::Alone(protocol) => {
                let measured = dnsperf::measure(place, spot, protocol)?;
                self.bytes = measured.bytes;
                (measured.rate, measured.answers, measured.lost)
            }
            Measure::Together(..) if self.server.spots().len() == 1 => return Ok(()),
            Measure::Together(protocol, open_each) => {
                let measured = crowd::measure(self.server, protocol, open_each)?;
                (measured.rate, measured.answers.into(), measured.lost.into())
            }
            Measure::Pace => {
                let paced = pace::measure(spot, self.server.address())?;
                self.usual.push(paced.took.median());
                let answers = f64::from(paced.answers);
                (paced.took.percentile(99), answers, paced.lost.into())
            }
        };
        let used = machine::processor_time_of(self.server.pid())? - before;
        self.effort[index].push(micros(used) / answers.max(1.0));
        self.found[index].push(found);
        self.lost[index] += lost;
        Ok(())
    }

    fn amount(&self, index: usize) -> Option<Amount> {
        let numbers = self.found.get(index).filter(|found| !found.is_empty())?;
        let number = median(numbers);
        Some(match MEASURES[index] {
            Measure::Pace => Amount::Micros(number),
            Measure::Alone(_) | Measure::Together(..) => Amount::Rate(number),
        })
    }
}

fn rows(parties: &[Party<'_>]) -> Vec<Row> {
    let Some((ours, others)) = parties.split_first() else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for (index, measure) in MEASURES.into_iter().enumerate() {
        for other in others {
            rows.extend(compared(ours, other, (index, measure)));
        }
        let lost = Amount::Count(ours.lost[index]);
        let mut row = Row::new(format!("{}, lost", asked(measure)), lost);
        if is_by_udp(measure) {
            row = row.target(NO_LOSS);
        }
        rows.push(match others.iter().find(|other| other.is_goal) {
            Some(other) => row.beside(other.server.name(), Amount::Count(other.lost[index])),
            None => row,
        });
    }
    for other in others {
        let row = Row::new("size of an answer", Amount::Bytes(ours.bytes));
        rows.push(row.beside(other.server.name(), Amount::Bytes(other.bytes)));
    }
    rows
}

/// What one measure says of us and of another.
fn compared(ours: &Party<'_>, other: &Party<'_>, (index, measure): (usize, Measure)) -> Vec<Row> {
    let (Some(amount), Some(theirs)) = (ours.amount(index), other.amount(index)) else {
        return Vec::new();
    };
    let name = other.server.name();
    let asked = asked(measure);
    let mut rows = Vec::new();
    if measure == Measure::Pace {
        let row = Row::new(format!("{asked}, 99 of 100 answered within"), amount);
        let row = row.beside(name, theirs);
        rows.push(if other.is_goal {
            row.target(NO_SLOWER)
        } else {
            row
        });
        let [usual, theirs] = [ours, other].map(|party| Amount::Micros(median(&party.usual)));
        rows.push(Row::new(format!("{asked}, half answered within"), usual).beside(name, theirs));
    } else {
        let row = Row::new(asked.clone(), amount).beside(name, theirs);
        rows.push(if other.is_goal && is_by_udp(measure) {
            row.target(FASTER)
        } else {
            row
        });
    }
    let [effort, theirs] = [ours, other].map(|party| Amount::Micros(median(&party.effort[index])));
    let what = format!("{asked}, the server's processor time for each");
    rows.push(Row::new(what, effort).beside(name, theirs));
    rows
}

fn is_by_udp(measure: Measure) -> bool {
    matches!(
        measure,
        Measure::Alone("udp") | Measure::Together(Protocol::Udp, _) | Measure::Pace
    )
}

fn asked(measure: Measure) -> String {
    match measure {
        Measure::Alone(protocol) => {
            let protocol = protocol.to_ascii_uppercase();
            format!("queries by {protocol} from 1 sandbox")
        }
        Measure::Together(protocol, open_each) => {
            let protocol = match protocol {
                Protocol::Udp => "UDP",
                Protocol::Tcp => "TCP",
            };
            format!("queries by {protocol} from {ASKERS} sandboxes, {open_each} open in each")
        }
        Measure::Pace => format!("{} queries/s by UDP", pace::RATE),
    }
}
