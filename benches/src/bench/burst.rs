//! Many clients attach at the same time.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tombolo_api::EndpointFilter;

use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::samples::{Samples, micros};
use crate::table::{Amount, Row};
use crate::{floor, machine, say};

/// Endpoints that are attached in all.
const ENDPOINTS: usize = 1_000;
/// Clients at the same time.
const CLIENTS: usize = 16;
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);

/// Measures a thousand attaches one by one, then by many clients, on hosts of their own.
pub(crate) fn run(place: &Path, _rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (single, single_each) = attach_all(place, 1)?;
    let busy = machine::await_quiet(STORM)?;
    say(&format!(
        "burst: {CLIENTS} clients ({:.0} % busy)",
        busy * 100.0
    ));
    let (many, many_each) = attach_all(place, CLIENTS)?;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let each = |took: Duration| Amount::Micros(micros(took) / ENDPOINTS as f64);
    let by = format!("{ENDPOINTS} endpoints by {CLIENTS} clients");
    Ok(vec![
        Row::new(format!("{by}, time per endpoint"), each(many)).beside("one by one", each(single)),
        Row::new(format!("{by}, in all"), Amount::Micros(micros(many)))
            .beside("one by one", Amount::Micros(micros(single))),
        Row::of(format!("{by}, as a client sees one"), &many_each)
            .beside("one by one", Amount::Micros(single_each.median())),
    ])
}

/// Attaches all of them by so many clients; how long it took in all, and each.
fn attach_all(place: &Path, clients: usize) -> anyhow::Result<(Duration, Samples)> {
    floor::enter_new_host()?;
    let daemon = Daemon::start(&place.join(format!("clients{clients}")), Settings::DEFAULT)?;
    let mut first = daemon.client()?;
    daemon::create_network(&mut first, NETWORK)?;
    let began = Instant::now();
    let mut samples = Samples::default();
    thread::scope(|scope| -> anyhow::Result<()> {
        let mut workers = Vec::new();
        for worker in 0..clients {
            let daemon = &daemon;
            workers.push(scope.spawn(move || -> anyhow::Result<Vec<Duration>> {
                let mut client = daemon.client()?;
                (worker..ENDPOINTS)
                    .step_by(clients)
                    .map(|n| daemon::timed_attach(&mut client, &format!("s{n}")))
                    .collect()
            }));
        }
        for worker in workers {
            let each = worker.join().ok().context("a client panicked")??;
            each.into_iter().for_each(|took| samples.push(took));
        }
        Ok(())
    })?;
    let took = began.elapsed();
    let there = first.endpoint_list(EndpointFilter::default())?.len();
    if there != ENDPOINTS {
        bail!("{there} endpoints are there, not {ENDPOINTS}");
    }
    Ok((took, samples))
}
