//! An attach with published ports, ours and that of others, on hosts with and without many ports.

use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{BLOCK, GONE, PAUSE};
use super::hosts::{Host, ports, ports_of};
use crate::netns::Netns;
use crate::peer::{self, Cni, Netavark, Program};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};
use crate::{machine, reach, say};

/// Ports that are published by one attach.
const COUNTS: [u16; 4] = [0, 1, 10, 100];
/// The number of ports of the target.
const AIMED: u16 = 10;
/// Endpoints of our populated host, each with ten ports.
const POPULATED: usize = 1_000;
/// The first port that a measured attach publishes.
const FIRST: u16 = 20_000;
/// Attaches of others that are timed for each number of ports.
const TURNS: usize = 10;
/// The same where they take seconds each.
const LONG_TURNS: usize = 5;
/// How long others are given to become populated.
const FILLING: Duration = Duration::from_secs(120);
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);
/// At most so many times another program: ten times as fast.
const AHEAD: Target = Target::Ratio(0.1);
/// At most so many times the empty host.
const FLAT: Target = Target::Ratio(1.25);
/// A further port costs at most so many microseconds.
const FURTHER: Target = Target::Most(20.0);

/// An empty and a populated host of the same kind, and what was measured there.
struct Pair<H> {
    hosts: [H; 2],
    /// By number of ports, on the empty and on the populated host.
    found: [[Samples; 2]; COUNTS.len()],
}

/// A host on which attaches are timed.
trait Timed {
    fn attach(&mut self, ports: &[(u16, u16)]) -> anyhow::Result<Duration>;
    /// Detaches what was attached within measured time.
    fn detach(&mut self) -> anyhow::Result<()>;
    /// The host's own namespace, that of the newest, and its addresses.
    fn newest(&self) -> anyhow::Result<(&Netns, &Netns, &[IpAddr])>;
}

/// Measures attaches.
pub(super) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut ours = Pair::new([
        Host::start(place, "empty")?,
        Host::start(place, "populated")?,
    ]);
    ours.hosts[1].fill(POPULATED)?;
    let mut others = peers(place)?;
    for (index, count) in COUNTS.into_iter().enumerate() {
        let busy = machine::await_quiet(STORM)?;
        say(&format!(
            "publish: {count} ports ({:.0} % busy)",
            busy * 100.0
        ));
        measure(&mut ours, &mut others, index, rounds)?;
    }
    let mut rows = own_rows(&ours);
    for other in &others {
        rows.extend(other_rows(&ours, other));
    }
    Ok(rows)
}

impl<H: Timed> Pair<H> {
    fn new(hosts: [H; 2]) -> Self {
        Self {
            hosts,
            found: Default::default(),
        }
    }

    /// Attaches once on each host. Now and then a packet proves that the ports lead somewhere.
    fn turn(&mut self, index: usize, turn: usize) -> anyhow::Result<()> {
        let count = COUNTS[index];
        // Ports of the attach before may still be on their way out.
        let ports = ports(FIRST + count * u16::try_from(turn % 50)?, count);
        for (host, samples) in self.hosts.iter_mut().zip(&mut self.found[index]) {
            samples.push(host.attach(&ports)?);
            if let (0, Some((port, inside))) = (turn, ports.last()) {
                let (home, place, addresses) = host.newest()?;
                reach::published(home, *port, (place, addresses, *inside))?;
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        self.hosts.iter_mut().try_for_each(Timed::detach)
    }

    fn median(&self, index: usize, host: usize) -> f64 {
        self.found[index][host].median()
    }

    /// What each port beyond ten costs, in microseconds.
    fn further(&self, host: usize) -> f64 {
        let last = COUNTS.len() - 1;
        let ports = f64::from(COUNTS[last] - COUNTS[last - 1]);
        (self.median(last, host) - self.median(last - 1, host)) / ports
    }
}

/// Everybody in turn, so that all suffer alike from what else the machine does.
fn measure(
    ours: &mut Pair<Host>,
    others: &mut [Pair<peer::Host>],
    index: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let long = COUNTS[index] >= 100;
    let turns = rounds.min(if long { LONG_TURNS } else { TURNS });
    let stride = rounds.div_ceil(turns);
    for turn in 0..rounds {
        ours.turn(index, turn)?;
        if turn % BLOCK == BLOCK - 1 {
            ours.detach()?;
        }
        if turn % stride == 0 {
            for other in &mut *others {
                other.turn(index, turn)?;
                other.detach()?;
            }
        }
    }
    ours.detach()
}

/// The programs that are on this machine; those that are not are named.
fn peers(place: &Path) -> anyhow::Result<Vec<Pair<peer::Host>>> {
    let mut pairs = Vec::new();
    for (name, find) in [
        ("netavark", (|d| Ok(Box::new(Netavark::find(d)?))) as Find),
        ("cni", |d| Ok(Box::new(Cni::find(d)?))),
    ] {
        let directory = |level: &str| place.join(format!("{name}-{level}"));
        let [empty, full] = ["empty", "populated"].map(directory);
        let (program, other) = match (find(&empty), find(&full)) {
            (Ok(program), Ok(other)) => (program, other),
            (Err(error), _) | (_, Err(error)) => {
                say(&format!("publish: its rows are left out: {error:#}"));
                continue;
            }
        };
        let mut pair = Pair::new([
            peer::Host::new(&empty, program)?,
            peer::Host::new(&full, other)?,
        ]);
        // One that stays, so that the network is neither made nor removed within a measured time.
        pair.hosts[0].attach(&[])?;
        fill(&mut pair.hosts[1])?;
        pairs.push(pair);
    }
    Ok(pairs)
}

type Find = fn(&Path) -> anyhow::Result<Box<dyn Program>>;

fn fill(host: &mut peer::Host) -> anyhow::Result<()> {
    let began = Instant::now();
    while host.len() < POPULATED && began.elapsed() < FILLING {
        host.attach(&ports_of(host.len()))?;
    }
    say(&format!(
        "publish: {} attached {} endpoints in {} s",
        host.name(),
        host.len(),
        began.elapsed().as_secs()
    ));
    Ok(())
}

fn own_rows(ours: &Pair<Host>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, count) in COUNTS.into_iter().enumerate() {
        let [empty, populated] = &ours.found[index];
        rows.push(Row::of(format!("attach with {}", named(count)), empty));
        rows.push(
            Row::of(
                format!(
                    "attach with {}, beside {}",
                    named(count),
                    population(POPULATED)
                ),
                populated,
            )
            .beside("empty host", Amount::Micros(empty.median()))
            .target(FLAT),
        );
    }
    for (host, where_) in [
        (0, "empty host".to_owned()),
        (1, format!("beside {}", population(POPULATED))),
    ] {
        let further = Amount::Micros(ours.further(host));
        rows.push(
            Row::new(format!("each further port of a request, {where_}"), further).target(FURTHER),
        );
    }
    rows
}

fn other_rows(ours: &Pair<Host>, other: &Pair<peer::Host>) -> Vec<Row> {
    let name = other.hosts[0].name();
    let there = other.hosts[1].len();
    let mut rows = Vec::new();
    for (index, count) in COUNTS.into_iter().enumerate() {
        let full = format!("beside {}", population(POPULATED));
        let theirs = format!("{name} beside {}", population(there));
        let empty = ("empty host", name.to_owned());
        for (host, (where_, beside)) in [empty, (full.as_str(), theirs)].into_iter().enumerate() {
            let what = format!("attach with {}, {where_}", named(count));
            let row = Row::of(what, &ours.found[index][host])
                .beside(beside, Amount::Micros(other.median(index, host)));
            rows.push(if count == AIMED {
                row.target(AHEAD)
            } else {
                row
            });
        }
    }
    let further = |host| Amount::Micros(other.further(host));
    let what = "each further port of a request, empty host";
    rows.push(Row::new(what, Amount::Micros(ours.further(0))).beside(name, further(0)));
    rows
}

fn named(count: u16) -> String {
    match count {
        0 => "no port".to_owned(),
        1 => "1 port".to_owned(),
        _ => format!("{count} ports"),
    }
}

fn population(endpoints: usize) -> String {
    let ports = endpoints * usize::from(super::hosts::EACH);
    format!("{endpoints} endpoints with {ports} ports")
}

impl Timed for Host {
    fn attach(&mut self, ports: &[(u16, u16)]) -> anyhow::Result<Duration> {
        Self::attach(self, ports)
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        Self::detach(self)
    }

    fn newest(&self) -> anyhow::Result<(&Netns, &Netns, &[IpAddr])> {
        let newest = Self::newest(self)?;
        Ok((&self.home, &newest.place.netns, &newest.addresses))
    }
}

impl Timed for peer::Host {
    fn attach(&mut self, ports: &[(u16, u16)]) -> anyhow::Result<Duration> {
        Self::attach(self, ports)
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        Self::detach(self)?;
        thread::sleep(GONE);
        Ok(())
    }

    fn newest(&self) -> anyhow::Result<(&Netns, &Netns, &[IpAddr])> {
        let last = self.last()?;
        Ok((&self.home, &last.place.netns, &last.addresses))
    }
}
