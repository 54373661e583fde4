//! Whether an attach stays as fast when its network has many endpoints already.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tombolo_api::{Client, Sandbox};

use super::{BLOCK, GONE, PAUSE, detach_all};
use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::floor::{self, Floor, Source, Style};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};
use crate::{machine, reach, say};

/// Endpoints that are there.
const LEVELS: [usize; 5] = [0, 100, 300, 1_000, 1_500];
/// The level of the target.
const AIMED: usize = 1_000;
/// Endpoints measured on a plain bridge; they stay, and a bridge has 1,023 ports (`BR_MAX_PORTS`).
const PLAIN_MOST: usize = 20;
/// Highest level of a plain bridge.
const PLAIN_LEVEL: usize = 1_000;
/// At most so many times the empty network.
const TARGET: Target = Target::Ratio(1.4);
/// Pairs of endpoints that must reach each other.
const PAIRS: usize = 50;
/// How long endpoints that have just started may keep the machine busy.
const STORM: Duration = Duration::from_secs(15);

/// A host with one network and what is attached to it.
struct Host {
    client: Client,
    /// Kept for its end.
    _daemon: Daemon,
    there: Vec<Sandbox>,
}

impl Host {
    fn start(place: &Path, name: &str) -> anyhow::Result<Self> {
        floor::enter_new_host()?;
        let daemon = Daemon::start(&place.join(name), Settings::DEFAULT)?;
        let mut client = daemon.client()?;
        daemon::create_network(&mut client, NETWORK)?;
        Ok(Self {
            client,
            _daemon: daemon,
            there: Vec::new(),
        })
    }

    fn fill(&mut self, level: usize) -> anyhow::Result<()> {
        while self.there.len() < level {
            let name = format!("s{}", self.there.len());
            self.there.push(daemon::attach(&mut self.client, &name)?);
        }
        Ok(())
    }
}

/// Measures how an attach grows with the network.
pub(crate) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut full = Host::start(place, "full")?;
    let mut empty = Host::start(place, "empty")?;
    let mut medians: Vec<(usize, Samples, Samples)> = Vec::new();
    measure(&mut full, &mut empty, 5)?;
    for level in LEVELS {
        full.fill(level)?;
        let busy = machine::await_quiet(STORM)?;
        say(&format!(
            "flat: {level} endpoints ({:.0} % busy)",
            busy * 100.0
        ));
        let (filled, beside) = measure(&mut full, &mut empty, rounds)?;
        medians.push((level, filled, beside));
    }
    let reached = reach::pairs(&full.there, PAIRS)?;
    drop((full, empty));
    machine::await_quiet(STORM)?;
    let peer = plain(place, rounds)?;
    rows(&medians, &peer, reached)
}

/// Attaches to the full network and to the empty one in turn.
fn measure(full: &mut Host, empty: &mut Host, rounds: usize) -> anyhow::Result<(Samples, Samples)> {
    let (mut filled, mut beside) = (Samples::default(), Samples::default());
    let mut left = rounds;
    while left > 0 {
        let count = left.min(BLOCK);
        let mut names = Vec::new();
        for n in 0..count {
            let name = format!("m{n}");
            filled.push(daemon::timed_attach(&mut full.client, &name)?);
            thread::sleep(PAUSE);
            beside.push(daemon::timed_attach(&mut empty.client, &name)?);
            thread::sleep(PAUSE);
            names.push(name);
        }
        detach_all(&mut full.client, &mut names.clone())?;
        detach_all(&mut empty.client, &mut names)?;
        thread::sleep(GONE);
        left -= count;
    }
    Ok((filled, beside))
}

/// The same on a bridge with the kernel's defaults, without a daemon.
fn plain(place: &Path, rounds: usize) -> anyhow::Result<Vec<(usize, Samples)>> {
    let mut medians = Vec::new();
    let count = rounds.min(PLAIN_MOST);
    for level in LEVELS.into_iter().filter(|level| *level <= PLAIN_LEVEL) {
        let name = format!("plain{level}");
        let mut bridge = Floor::open(&place.join(name), Style::Plain)?;
        for _ in 0..level {
            bridge.attach(Source::Fresh)?;
        }
        let busy = machine::await_quiet(STORM)?;
        say(&format!(
            "flat: plain bridge, {level} ports ({:.0} % busy)",
            busy * 100.0
        ));
        bridge.prepare(count)?;
        let mut samples = Samples::default();
        for _ in 0..count {
            samples.push(bridge.attach(Source::Prepared)?);
            thread::sleep(2 * PAUSE);
        }
        bridge.clear()?;
        medians.push((level, samples));
    }
    Ok(medians)
}

fn rows(
    medians: &[(usize, Samples, Samples)],
    peer: &[(usize, Samples)],
    reached: usize,
) -> anyhow::Result<Vec<Row>> {
    let (_, at_first, _) = medians.first().context("nothing was measured")?;
    let mut rows = Vec::new();
    for (level, filled, beside) in medians {
        let aimed = |row: Row| {
            if *level == AIMED {
                row.target(TARGET)
            } else {
                row
            }
        };
        let name = format!("attach with {level} endpoints on the network");
        rows.push(aimed(
            Row::of(name.clone(), filled)
                .beside("with none, at first", Amount::Micros(at_first.median())),
        ));
        rows.push(aimed(Row::of(name, filled).beside(
            "empty network, in turn",
            Amount::Micros(beside.median()),
        )));
    }
    let first = peer.first().map_or(0.0, |(_, samples)| samples.median());
    for (level, samples) in peer {
        rows.push(
            Row::of(
                format!("plain bridge without a daemon, {level} ports"),
                samples,
            )
            .beside("with none", Amount::Micros(first)),
        );
    }
    let most = LEVELS.last().copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a few dozen pairs")]
    let (reached, pairs) = (reached as f64, PAIRS as f64);
    rows.push(
        Row::new(
            format!("pairs of {most} that reach each other, IPv4 and IPv6, by the first packet"),
            Amount::Count(reached),
        )
        .target(Target::Least(pairs)),
    );
    Ok(rows)
}
