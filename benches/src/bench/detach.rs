//! Detaching: how soon the reply comes, and how soon the kernel is rid of the links.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::GONE;
use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::floor;
use crate::floor::socket::{LINK_NEWS, Socket, removed_link};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};

/// Sandboxes that are removed together.
const TOGETHER: usize = 40;
/// Clients that remove them.
const CLIENTS: usize = 8;
/// How often forty are removed together.
const TIMES_MOST: usize = 10;
/// Longest time for links to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// The reply takes at most so many microseconds.
const REPLY_TARGET: Target = Target::Most(1_000.0);
/// Forty are gone after at most so many microseconds.
const GONE_TARGET: Target = Target::Most(150_000.0);

/// Measures detaches.
pub(crate) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    floor::enter_new_host()?;
    let mut news = Socket::open(LINK_NEWS)?;
    news.enlarge()?;
    let daemon = Daemon::start(&place.join("daemon"), Settings::DEFAULT)?;
    let mut client = daemon.client()?;
    daemon::create_network(&mut client, NETWORK)?;
    let (mut reply, mut single) = (Samples::default(), Samples::default());
    for n in 0..rounds {
        let name = format!("s{n}");
        let links = host_links(&daemon::attach(&mut client, &name)?)?;
        thread::sleep(super::PAUSE);
        drop_news(&mut news)?;
        let began = Instant::now();
        daemon::detach(&mut client, &name)?;
        reply.push(began.elapsed());
        single.push(await_gone(&mut news, links, began)?);
    }
    let mut together = Samples::default();
    let mut replies = Samples::default();
    for _ in 0..(rounds / 10).clamp(1, TIMES_MOST) {
        let (last_reply, gone) = remove_together(&daemon, &mut news)?;
        replies.push(last_reply);
        together.push(gone);
        thread::sleep(GONE);
    }
    let forty = format!("{TOGETHER} detached together");
    Ok(vec![
        Row::of("detach, until the reply", &reply).target(REPLY_TARGET),
        Row::of("detach, until the link is gone", &single),
        Row::of(format!("{forty}, until the last reply"), &replies),
        Row::of(format!("{forty}, until their links are gone"), &together)
            .beside("a single one", Amount::Micros(single.median()))
            .target(GONE_TARGET),
    ])
}

/// The time from the first request to the last reply, and until no link is left.
fn remove_together(daemon: &Daemon, news: &mut Socket) -> anyhow::Result<(Duration, Duration)> {
    let mut client = daemon.client()?;
    let names: Vec<String> = (0..TOGETHER).map(|n| format!("f{n}")).collect();
    let mut links = BTreeSet::new();
    for name in &names {
        links.extend(host_links(&daemon::attach(&mut client, name)?)?);
    }
    thread::sleep(GONE);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(daemon.client()?);
    }
    drop_news(news)?;
    let began = Instant::now();
    let last_reply = thread::scope(|scope| -> anyhow::Result<Duration> {
        let mut workers = Vec::new();
        for (mut client, names) in clients.into_iter().zip(names.chunks(TOGETHER / CLIENTS)) {
            workers.push(scope.spawn(move || -> anyhow::Result<()> {
                names
                    .iter()
                    .try_for_each(|name| daemon::detach(&mut client, name))
            }));
        }
        for worker in workers {
            worker.join().ok().context("a client panicked")??;
        }
        Ok(began.elapsed())
    })?;
    Ok((last_reply, await_gone(news, links, began)?))
}

/// The host ends of a sandbox's endpoints.
fn host_links(sandbox: &tombolo_api::Sandbox) -> anyhow::Result<BTreeSet<String>> {
    let links: BTreeSet<String> = sandbox
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.host_interface.clone())
        .collect();
    if links.is_empty() {
        bail!("sandbox {} has no interface on the host", sandbox.name);
    }
    Ok(links)
}

fn drop_news(news: &mut Socket) -> anyhow::Result<()> {
    news.listen(Instant::now(), &mut |_| false)?;
    Ok(())
}

/// Waits until the kernel has told that all the links are gone, and makes sure of it.
fn await_gone(
    news: &mut Socket,
    mut links: BTreeSet<String>,
    began: Instant,
) -> anyhow::Result<Duration> {
    let all = links.clone();
    news.listen(began + PATIENCE, &mut |message| {
        if let Some(name) = removed_link(message) {
            links.remove(&name);
        }
        links.is_empty()
    })?;
    let took = began.elapsed();
    let there = news.link_names()?;
    if let Some(link) = there.iter().find(|name| all.contains(*name)) {
        bail!("link {link} is still there after {took:?}");
    }
    Ok(took)
}
