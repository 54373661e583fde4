//! What a daemon with many endpoints needs, and how soon it is back after a restart.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use tombolo_api::EndpointFilter;

use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};
use crate::{floor, machine};

/// Endpoints that are there.
const ENDPOINTS: usize = 1_000;
/// Restarts that are timed.
const RESTARTS: usize = 5;
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);
/// Memory, in MiB.
const MEMORY_TARGET: Target = Target::Most(40.0);
/// From the program's start to its first answer, in microseconds.
const RESTART_TARGET: Target = Target::Most(1_000_000.0);

/// Measures memory and restarts.
pub(crate) fn run(place: &Path, _rounds: usize) -> anyhow::Result<Vec<Row>> {
    floor::enter_new_host()?;
    let directory = place.join("daemon");
    let mut daemon = Daemon::start(&directory, Settings::DEFAULT)?;
    let bare = machine::memory(daemon.pid(), "VmRSS")?;
    let mut client = daemon.client()?;
    daemon::create_network(&mut client, NETWORK)?;
    for n in 0..ENDPOINTS {
        daemon::attach(&mut client, &format!("s{n}"))?;
    }
    machine::await_quiet(STORM)?;
    let (used, peak) = memory(&daemon)?;
    drop(client);
    let mut starts = Samples::default();
    for _ in 0..RESTARTS {
        daemon.stop()?;
        daemon = Daemon::start(&directory, Settings::DEFAULT)?;
        starts.push(daemon.start);
        expect_all(&daemon)?;
    }
    let (used_again, peak_again) = memory(&daemon)?;
    daemon.stop()?;
    let traced = Settings {
        log: "debug",
        ..Settings::DEFAULT
    };
    let daemon = Daemon::start(&directory, traced)?;
    expect_all(&daemon)?;
    let written = operations(&daemon.log()?);
    let drift = daemon.client()?.drift()?.operations.len();
    let with = format!("daemon with {ENDPOINTS} endpoints");
    let mebibytes = |what: &str, amount: f64| {
        Row::new(format!("{with}, {what}"), Amount::Mebibytes(amount)).target(MEMORY_TARGET)
    };
    #[expect(clippy::cast_precision_loss, reason = "at most some thousand")]
    let count = |what: &str, number: usize| {
        Row::new(format!("{with}, {what}"), Amount::Count(number as f64)).target(Target::Most(0.0))
    };
    Ok(vec![
        mebibytes("memory", used).beside("without any", Amount::Mebibytes(bare)),
        mebibytes("memory at its peak", peak),
        mebibytes("memory after a restart", used_again),
        mebibytes("memory at the restart's peak", peak_again),
        Row::of(format!("{with}, restart to first answer"), &starts).target(RESTART_TARGET),
        count("kernel operations of a restart", written),
        count("differences from the kernel after it", drift),
    ])
}

/// Memory now and at its peak, in MiB.
fn memory(daemon: &Daemon) -> anyhow::Result<(f64, f64)> {
    let pid = daemon.pid();
    Ok((
        machine::memory(pid, "VmRSS")?,
        machine::memory(pid, "VmHWM")?,
    ))
}

fn expect_all(daemon: &Daemon) -> anyhow::Result<()> {
    let there = daemon
        .client()?
        .endpoint_list(EndpointFilter::default())?
        .len();
    if there != ENDPOINTS {
        bail!("{there} endpoints came back, not {ENDPOINTS}");
    }
    Ok(())
}

/// Operations of all plans that the log tells of.
fn operations(log: &str) -> usize {
    log.lines()
        .filter(|line| line.contains("applied a plan"))
        .filter_map(|line| {
            let rest = line.split("operations=").nth(1)?;
            rest.split_whitespace().next()?.parse::<usize>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_all_plans_are_summed() {
        let log = "x applied a plan job=1 operations=3 failed=0\ny other operations=9\n\
                   z applied a plan job=2 operations=14 failed=0\n";
        assert_eq!(operations(log), 17);
        assert_eq!(operations(""), 0);
    }
}
