//! One attach: from the request to its reply, beside the bare kernel work.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tombolo_api::{Client, EndpointCreate, SandboxCreate};

use super::{BLOCK, GONE, PAUSE, detach_all};
use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::floor::{self, Floor, Source, Style};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};

/// At most so many times the floor.
const TARGET: Target = Target::Ratio(1.3);

/// The things that take turns.
struct Stage {
    pooled: Actor,
    unpooled: Actor,
    traced: Actor,
    floor: Floor,
}

/// A daemon on a host of its own, and a connection to it.
struct Actor {
    daemon: Daemon,
    client: Client,
    names: Vec<String>,
}

#[derive(Default)]
struct Found {
    pooled: Samples,
    unpooled: Samples,
    traced: Samples,
    prepared: Samples,
    fresh: Samples,
    call: Samples,
    sandbox: Samples,
    endpoint: Samples,
    join: Samples,
}

impl Actor {
    fn start(place: &Path, name: &str, settings: Settings) -> anyhow::Result<Self> {
        floor::enter_new_host()?;
        let daemon = Daemon::start(&place.join(name), settings)?;
        let mut client = daemon.client()?;
        daemon::create_network(&mut client, NETWORK)?;
        Ok(Self {
            daemon,
            client,
            names: Vec::new(),
        })
    }

    fn attach(&mut self, name: &str, samples: &mut Samples) -> anyhow::Result<()> {
        samples.push(daemon::timed_attach(&mut self.client, name)?);
        self.names.push(name.to_owned());
        thread::sleep(PAUSE);
        Ok(())
    }
}

/// Measures attaches.
pub(crate) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let unpooled = Settings {
        prepared: Some(0),
        ..Settings::DEFAULT
    };
    let traced = Settings {
        log: "debug",
        ..Settings::DEFAULT
    };
    let mut stage = Stage {
        pooled: Actor::start(place, "pooled", Settings::DEFAULT)?,
        unpooled: Actor::start(place, "unpooled", unpooled)?,
        traced: Actor::start(place, "traced", traced)?,
        floor: Floor::open(&place.join("floor"), Style::Hub)?,
    };
    // The first attaches pay for what is made once.
    take_turns(&mut stage, 5, &mut Found::default())?;
    let mut found = Found::default();
    let mut left = rounds;
    while left > 0 {
        let count = left.min(BLOCK);
        take_turns(&mut stage, count, &mut found)?;
        left -= count;
    }
    Ok(rows(&found, &parts(&stage.traced.daemon.log()?)))
}

/// Everything once, `count` times; afterwards all is as empty as before.
fn take_turns(stage: &mut Stage, count: usize, found: &mut Found) -> anyhow::Result<()> {
    stage.floor.prepare(count)?;
    thread::sleep(GONE);
    for n in 0..count {
        let name = format!("s{n}");
        stage.pooled.attach(&name, &mut found.pooled)?;
        found.prepared.push(stage.floor.attach(Source::Prepared)?);
        thread::sleep(PAUSE);
        stage.unpooled.attach(&name, &mut found.unpooled)?;
        found.fresh.push(stage.floor.attach(Source::Fresh)?);
        thread::sleep(PAUSE);
        stage.traced.attach(&name, &mut found.traced)?;
        in_steps(&mut stage.pooled, &format!("t{n}"), found)?;
    }
    for actor in [&mut stage.pooled, &mut stage.unpooled, &mut stage.traced] {
        detach_all(&mut actor.client, &mut actor.names)?;
    }
    stage.floor.clear()?;
    thread::sleep(GONE);
    Ok(())
}

/// The same in three requests.
fn in_steps(actor: &mut Actor, name: &str, found: &mut Found) -> anyhow::Result<()> {
    let client = &mut actor.client;
    let mut began = Instant::now();
    let mut lap = |samples: &mut Samples| {
        samples.push(began.elapsed());
        thread::sleep(PAUSE);
        began = Instant::now();
    };
    client.version()?;
    lap(&mut found.call);
    client.sandbox_create(SandboxCreate {
        name: Some(name.to_owned()),
        ..SandboxCreate::default()
    })?;
    lap(&mut found.sandbox);
    let endpoint = client.endpoint_create(EndpointCreate {
        network: NETWORK.to_owned(),
        ..EndpointCreate::default()
    })?;
    lap(&mut found.endpoint);
    client.endpoint_join(&endpoint.id, name)?;
    lap(&mut found.join);
    actor.names.push(name.to_owned());
    Ok(())
}

/// What the daemon's own log says of its attaches.
#[derive(Default)]
struct Parts {
    /// From the request's arrival to its answer.
    daemon: Samples,
    /// Of that, applying plans to the kernel.
    kernel: Samples,
}

/// Reads the parts of each attach from a log at level debug: the plans before a call's answer are that call's.
fn parts(log: &str) -> Parts {
    let mut parts = Parts::default();
    let mut applied = 0;
    for line in log.lines() {
        if line.contains("applied a plan") {
            applied += number(line, "micros=").unwrap_or(0);
        } else if line.contains("call answered") {
            if let (true, Some(micros)) = (
                line.contains("\"SandboxCreate\""),
                number(line, "microseconds="),
            ) {
                parts.daemon.push(Duration::from_micros(micros));
                parts.kernel.push(Duration::from_micros(applied));
            }
            applied = 0;
        }
    }
    parts
}

/// The number after a word of a log line.
fn number(line: &str, word: &str) -> Option<u64> {
    let rest = line.split(word).nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn rows(found: &Found, parts: &Parts) -> Vec<Row> {
    let prepared = Amount::Micros(found.prepared.median());
    let fresh = Amount::Micros(found.fresh.median());
    let whole = Amount::Micros(found.traced.median());
    vec![
        Row::of(
            "attach, one request, namespaces prepared ahead",
            &found.pooled,
        )
        .beside("floor, the same", prepared)
        .target(TARGET),
        Row::of("attach, one request, new namespace", &found.unpooled)
            .beside("floor, the same", fresh)
            .target(TARGET),
        Row::of("attach, one request, as shipped", &found.pooled)
            .beside("floor, new namespace", fresh)
            .target(TARGET),
        Row::of(
            "... of which within the daemon (its own log)",
            &parts.daemon,
        )
        .beside("whole request, with that log", whole),
        Row::of("... of which applying to the kernel", &parts.kernel)
            .beside("whole request, with that log", whole),
        Row::of("a request that does nothing (version)", &found.call),
        Row::of("sandbox without networks", &found.sandbox),
        Row::of("endpoint, joined to nothing", &found.endpoint),
        Row::of("endpoint joins a sandbox", &found.join)
            .beside("floor, namespace prepared", prepared),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_belong_to_the_call_that_is_answered_next() {
        let plan =
            |micros: u32| format!("DEBUG x: applied a plan job=1 failed=0 micros={micros}\n");
        let call = |name: &str, micros: u32| {
            format!(
                "DEBUG y: call answered operation=\"{name}\" status=201 microseconds={micros}\n"
            )
        };
        let log = plan(50)
            + &call("SandboxDelete", 70)
            + &plan(300)
            + &plan(100)
            + &call("SandboxCreate", 500);
        let parts = parts(&log);
        assert!((parts.daemon.median() - 500.0).abs() < 1e-6);
        assert!((parts.kernel.median() - 400.0).abs() < 1e-6);
        assert!(self::parts("nothing").kernel.median().abs() < f64::EPSILON);
    }
}
