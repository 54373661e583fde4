//! Which server is asked, and when.
//!
//! The order that servers are configured in is a preference and is kept, except for servers that
//! do not answer, do not want to, or are much slower than another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::exchange::Form;
use crate::limits;

mod flights;
#[cfg(test)]
mod tests;

pub use flights::{Flights, Joined};

/// One query of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<S> {
    /// The server to ask.
    pub server: S,
    /// When, since the question was put; sooner if every query so far has failed.
    pub after: Duration,
}

/// How a server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It did not answer within [`limits::QUESTION_RETRY`].
    Silent,
    /// The network says that it is not there, or it closed the connection.
    Unreachable,
    /// It answered that it will not, or what it answered cannot be read: it is alive.
    Unwilling,
}

/// What a server cannot bear in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// It does not know EDNS.
    Edns,
    /// It does not repeat the case of a question. A forger can make it look so: believe it only of
    /// an answer over a stream, or of a server that cannot be asked over one.
    MixedCase,
}

/// What is remembered of each server.
///
/// Tell it of every query that was sent, also of one that another server has outrun: wait for its
/// answer until [`limits::QUESTION_RETRY`] after it was sent, or a dead server looks as good as
/// one that has not been asked.
#[derive(Debug, Clone)]
pub struct Memory<S> {
    servers: BTreeMap<S, Health>,
    /// Counts reports; the server with the lowest number was heard of least recently.
    reports: u64,
}

#[derive(Debug, Clone, Default)]
struct Health {
    last_report: u64,
    /// The smoothed time it takes to answer.
    usual: Option<Duration>,
    measured: Duration,
    /// Failures to answer, in a row; one lost packet is not yet a sign.
    strikes: u32,
    dead: Option<Dead>,
    refusals: u32,
    refused_until: Duration,
    /// Until when queries go without EDNS, and without mixed case.
    no_edns_until: Duration,
    same_case_until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Dead {
    until: Duration,
    wait: Duration,
}

/// The order in which servers are asked; within a rank it is the configured one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    Slow,
    Unwilling,
    Dead,
}

/// Strikes that make a server dead.
const STRIKES: u32 = 2;
/// Refusals in a row that put a server behind others, and for how long.
const REFUSALS: u32 = 3;
const REFUSED: Duration = Duration::from_secs(5);
/// How long a measured time says anything about being slow, so that a slow server is tried again.
const MEASURED: Duration = Duration::from_secs(60);
/// A slow server takes this many times as long as the fastest, and this much longer.
const SLOW_FACTOR: u32 = 4;
const SLOW_EXCESS: Duration = Duration::from_millis(200);
/// What is assumed of a server that has not answered yet.
const USUAL: Duration = Duration::from_millis(100);
/// One question in so many also probes a dead server that was left alone for long enough.
const PROBE_EVERY: u32 = 8;

impl<S> Default for Memory<S> {
    fn default() -> Self {
        Self {
            servers: BTreeMap::new(),
            reports: 0,
        }
    }
}

impl<S: Ord + Clone> Memory<S> {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// When to ask which of `servers`, in order of time; each at most twice, the first at once.
    ///
    /// The first answer ends the plan. Answers that come later than
    /// [`limits::QUESTION_PATIENCE`] are not waited for. `turn` counts questions.
    #[must_use]
    pub fn plan(&self, servers: &[S], now: Duration, turn: u32) -> Vec<Step<S>> {
        let ranked = self.ranked(servers, now);
        let first_round = match ranked.first() {
            None => return Vec::new(),
            Some((Rank::Dead, _)) => all_at_once(&ranked),
            Some(_) => self.one_by_one(&ranked, now, turn),
        };
        let mut steps = Vec::with_capacity(2 * first_round.len());
        let mut at = Duration::ZERO;
        for (server, after) in &first_round {
            at = at.max(*after + limits::QUESTION_RETRY);
            steps.push((*server, at));
            at += self.hedge(server);
        }
        steps.splice(..0, first_round);
        steps.retain(|(_, after)| *after <= limits::QUESTION_LAST_STEP);
        steps.sort_by_key(|(_, after)| *after);
        let step = |(server, after): (&S, Duration)| Step {
            server: server.clone(),
            after,
        };
        steps.into_iter().map(step).collect()
    }

    /// A server answered `took` after it was asked.
    pub fn answered(&mut self, server: &S, took: Duration, now: Duration) {
        let health = self.health(server);
        let usual = health.usual.map_or(took, |usual| (usual * 7 + took) / 8);
        health.usual = Some(usual);
        health.measured = now;
        health.revive();
        health.refusals = 0;
        health.refused_until = Duration::ZERO;
    }

    /// A server turned out to have a quirk; it is spared for [`limits::QUIRK_MAX`].
    pub fn found(&mut self, server: &S, quirk: Quirk, now: Duration) {
        let health = self.health(server);
        let until = match quirk {
            Quirk::Edns => &mut health.no_edns_until,
            Quirk::MixedCase => &mut health.same_case_until,
        };
        *until = now.saturating_add(limits::QUIRK_MAX);
    }

    /// The form of a query that a server can bear, as far as is known.
    #[must_use]
    pub fn form(&self, server: &S, now: Duration) -> Form {
        let health = self.servers.get(server);
        Form {
            edns: health.is_none_or(|health| health.no_edns_until <= now),
            mixed_case: health.is_none_or(|health| health.same_case_until <= now),
        }
    }

    /// A server failed to answer a query.
    pub fn failed(&mut self, server: &S, failure: Failure, now: Duration) {
        let health = self.health(server);
        let strikes = match failure {
            Failure::Silent => 1,
            Failure::Unreachable => STRIKES,
            Failure::Unwilling => {
                health.revive();
                health.refusals = health.refusals.saturating_add(1);
                if health.refusals >= REFUSALS {
                    health.refused_until = now.saturating_add(REFUSED);
                }
                return;
            }
        };
        health.strikes = health.strikes.saturating_add(strikes);
        if health.strikes < STRIKES {
            return;
        }
        let wait = match health.dead {
            // Sent before it was given up: not one more sign.
            Some(dead) if now < dead.until => return,
            Some(dead) => (dead.wait * 2).min(limits::DEAD_MAX),
            None => limits::DEAD_MIN,
        };
        health.dead = Some(Dead {
            until: now.saturating_add(wait),
            wait,
        });
    }

    /// The smoothed time that a server takes to answer, if it ever did.
    #[must_use]
    pub fn usual_time(&self, server: &S) -> Option<Duration> {
        self.servers.get(server)?.usual
    }

    /// Whether a server has stopped answering and has not answered since.
    #[must_use]
    pub fn is_dead(&self, server: &S) -> bool {
        self.servers
            .get(server)
            .is_some_and(|health| health.dead.is_some())
    }

    /// How many servers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether no server is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The health of a server that is heard of now; forgets the one heard of least recently if
    /// there are too many.
    fn health(&mut self, server: &S) -> &mut Health {
        if !self.servers.contains_key(server) && self.servers.len() >= limits::UPSTREAMS_MAX {
            let oldest = self
                .servers
                .iter()
                .min_by_key(|(_, health)| health.last_report)
                .map(|(server, _)| server.clone());
            oldest.map(|server| self.servers.remove(&server));
        }
        self.reports += 1;
        let health = self.servers.entry(server.clone()).or_default();
        health.last_report = self.reports;
        health
    }

    /// The servers to ask, each once, best first.
    fn ranked<'s>(&self, servers: &'s [S], now: Duration) -> Vec<(Rank, &'s S)> {
        let mut seen = BTreeSet::new();
        let servers = servers.iter().filter(|server| seen.insert(*server));
        let servers: Vec<(&S, Option<&Health>)> = servers
            .map(|server| (server, self.servers.get(server)))
            .collect();
        let fastest = servers
            .iter()
            .filter_map(|(_, health)| health.filter(|health| health.dead.is_none()))
            .filter_map(|health| health.measured_time(now))
            .min();
        let mut ranked: Vec<_> = servers
            .into_iter()
            .map(|(server, health)| {
                let rank = health.map_or(Rank::Good, |health| health.rank(fastest, now));
                (rank, server)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(limits::QUESTION_SERVERS_MAX);
        ranked
    }

    /// The best server at once, each next one when the one before has had its time.
    fn one_by_one<'s>(
        &self,
        ranked: &[(Rank, &'s S)],
        now: Duration,
        turn: u32,
    ) -> Vec<(&'s S, Duration)> {
        let is_due = |server: &S| {
            let dead = self.servers.get(server).and_then(|health| health.dead);
            dead.is_some_and(|dead| dead.until <= now)
        };
        // Asked beside the best one, a probe costs the asker no time.
        let probed = turn
            .is_multiple_of(PROBE_EVERY)
            .then(|| ranked.iter().find(|(_, server)| is_due(server)))
            .flatten();
        let mut at = Duration::ZERO;
        let mut steps = Vec::with_capacity(ranked.len());
        for ranked in ranked {
            let (_, server) = *ranked;
            if probed == Some(ranked) {
                steps.push((server, Duration::ZERO));
            } else {
                steps.push((server, at));
                at += self.hedge(server);
            }
        }
        steps
    }

    /// How long a server has before the next one is asked as well.
    fn hedge(&self, server: &S) -> Duration {
        let usual = self.usual_time(server).unwrap_or(USUAL);
        usual
            .saturating_mul(2)
            .clamp(limits::HEDGE_MIN, limits::HEDGE_MAX)
    }
}

/// Two servers at once and the others within a second: none is known to be alive.
fn all_at_once<'s, S>(ranked: &[(Rank, &'s S)]) -> Vec<(&'s S, Duration)> {
    let gap = limits::QUESTION_RETRY / u32::try_from(ranked.len()).unwrap_or(u32::MAX);
    let after = |nth: u32| gap * nth.saturating_sub(1);
    (0..)
        .zip(ranked)
        .map(|(nth, (_, server))| (*server, after(nth)))
        .collect()
}

impl Health {
    fn rank(&self, fastest: Option<Duration>, now: Duration) -> Rank {
        let is_slow = |fastest: Duration| {
            self.measured_time(now).is_some_and(|usual| {
                usual >= fastest.saturating_mul(SLOW_FACTOR)
                    && usual >= fastest.saturating_add(SLOW_EXCESS)
            })
        };
        if self.dead.is_some() {
            Rank::Dead
        } else if now < self.refused_until {
            Rank::Unwilling
        } else if fastest.is_some_and(is_slow) {
            Rank::Slow
        } else {
            Rank::Good
        }
    }

    fn revive(&mut self) {
        self.strikes = 0;
        self.dead = None;
    }

    /// The usual time, if it was measured lately.
    fn measured_time(&self, now: Duration) -> Option<Duration> {
        let age = now.saturating_sub(self.measured);
        self.usual.filter(|_| age < MEASURED)
    }
}
