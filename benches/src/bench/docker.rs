//! `docker run`, as the real dockerd does it on a network of ours and on one of its own bridge driver.
//!
//! A start is timed from the request to the first packet of the container, an echo request to its gateway. Both
//! networks are on the same host and take turns. Our daemon logs its calls meanwhile, which is counted as its time.

mod api;
mod calls;
mod echo;
mod engine;
mod host;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::mount::{MsFlags, mount};

use self::calls::Calls;
use self::engine::Userland;
use self::host::{Host, Network, PLUGIN};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};
use crate::{machine, say};

/// Ports that are published by one start, one by one.
const COUNTS: [u16; 3] = [0, 10, 100];
/// The number of ports at which we are to be far ahead.
const MANY: u16 = 100;
/// Containers on each network of the populated host.
const POPULATED: usize = 100;
/// Starts that are timed in each case on an empty host.
const TURNS: usize = 10;
/// The same on a populated host.
const FULL_TURNS: usize = 6;
/// The same without the userland proxy.
const BARE_TURNS: usize = 5;
/// After so long no further start is timed.
const LONGEST: Duration = Duration::from_secs(12 * 60);
/// How much of that may be spent to populate a host.
const FILLING: Duration = Duration::from_secs(5 * 60);
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(10);
/// Never slower.
const LEVEL: Target = Target::Ratio(1.0);
/// Three times as fast.
const AHEAD: Target = Target::Ratio(0.33);

/// Starts of one case.
#[derive(Default)]
struct Found {
    ports: u16,
    ours: Samples,
    docker: Samples,
    /// On the host's own network; only where no port is published.
    none: Samples,
    calls: Calls,
}

/// Measures starts.
pub(crate) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    engine::find()?;
    // Engines keep things there, of which the machine's own are none of our business.
    let none = None::<&str>;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    let plugins = Path::new(PLUGIN)
        .parent()
        .context("a path in a directory")?;
    fs::create_dir_all(plugins)?;
    let end = Instant::now() + LONGEST;
    let bare = {
        let host = Host::start(place, "bare", Userland::None)?;
        measure(&host, MANY, rounds.min(BARE_TURNS), end)?
    };
    let host = Host::start(place, "usual", Userland::Proxy)?;
    let mut rows = Vec::new();
    let empty = measure_all(&host, rounds.min(TURNS), end)?;
    rows.extend(table(&empty, "empty host"));
    rows.extend(compared(&bare, "empty host, no userland proxy"));
    let began = Instant::now();
    let there = host.fill(POPULATED, (began + FILLING).min(end))?;
    let took = began.elapsed().as_secs();
    say(&format!("docker: 2 x {there} containers in {took} s"));
    let full = measure_all(&host, rounds.min(FULL_TURNS), end)?;
    let where_ = format!("beside {} containers", 2 * there);
    rows.extend(table(&full, &where_));
    Ok(rows)
}

fn measure_all(host: &Host, turns: usize, end: Instant) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for ports in COUNTS {
        if Instant::now() > end {
            say(&format!("docker: no time is left for {}", named(ports)));
            continue;
        }
        all.push(measure(host, ports, turns, end)?);
    }
    Ok(all)
}

/// Both networks in turn, so that both suffer alike from what else the machine does.
fn measure(host: &Host, ports: u16, turns: usize, end: Instant) -> anyhow::Result<Found> {
    let busy = machine::await_quiet(STORM)?;
    let began = Instant::now();
    let mut found = Found {
        ports,
        ..Found::default()
    };
    let mut done = 0;
    while done == 0 || (done < turns && Instant::now() < end) {
        let is_first = done == 0;
        // Who is first changes, too.
        let mut order = [Network::Ours, Network::Docker];
        order.rotate_left(done % 2);
        for network in order {
            let started = host.start_one(network, ports, is_first)?;
            match network {
                Network::Ours => {
                    found.ours.push(started.took);
                    found.calls.add(&started.log);
                }
                Network::Docker | Network::Host => found.docker.push(started.took),
            }
        }
        if ports == 0 {
            let started = host.start_one(Network::Host, ports, false)?;
            found.none.push(started.took);
        }
        done += 1;
    }
    say(&format!(
        "docker: {ports} ports, {done} of {turns} starts in {} s ({:.0} % busy before)",
        began.elapsed().as_secs(),
        busy * 100.0
    ));
    Ok(found)
}

/// The rows of a host: all cases, then the plugin's share of them.
fn table(all: &[Found], where_: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = all
        .iter()
        .flat_map(|found| compared(found, where_))
        .collect();
    for found in all {
        let named = named(found.ports);
        rows.push(
            Row::of(
                format!("... of which all calls of the plugin, {named}, {where_}"),
                &found.calls.whole,
            )
            .beside("whole start", Amount::Micros(found.ours.median())),
        );
        if found.ports != MANY {
            continue;
        }
        for method in found.calls.methods() {
            let what = format!(
                "... ... {}, {:.1} a start, {named}, {where_}",
                method.name, method.calls
            );
            rows.push(Row::of(what, method.took));
        }
    }
    rows
}

fn compared(found: &Found, where_: &str) -> Vec<Row> {
    let what = format!("docker run, {}, {where_}", named(found.ports));
    let docker = Amount::Micros(found.docker.median());
    let target = if found.ports == MANY { AHEAD } else { LEVEL };
    let mut rows = vec![
        Row::of(&what, &found.ours)
            .beside("Docker's bridge", docker)
            .target(target),
    ];
    if found.ports == 0 {
        let none = Amount::Micros(found.none.median());
        rows.push(Row::of(&what, &found.ours).beside("the host's own network", none));
    }
    rows
}

fn named(ports: u16) -> String {
    match ports {
        0 => "no port".to_owned(),
        _ => format!("{ports} ports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_without_ports_is_beside_the_hosts_own_network_too() {
        let mut found = Found::default();
        found.ours.push(Duration::from_millis(300));
        found.docker.push(Duration::from_millis(400));
        found.none.push(Duration::from_millis(200));
        let rows = compared(&found, "empty host");
        assert_eq!(rows[0].is_hit(), Some(true));
        assert_eq!(rows[1].is_hit(), None);
        found.ports = MANY;
        let rows = compared(&found, "empty host");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].is_hit(), Some(false), "it is to be far ahead");
    }
}
