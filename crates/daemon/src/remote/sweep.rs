//! What was begun and not ended: by a daemon that was killed, or in a sandbox whose namespace vanished. Plugins are told
//! once they answer. One that stays away is done without in the end: it may never be back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tombolo_core::driver::remote::is_told_way_out;
use tombolo_core::id::{EndpointId, NetworkId, SandboxId};
use tombolo_core::model::{Driver, Endpoint, Network, NetworkState, SandboxState};
use tombolo_core::{Controller, Subject};

use super::{Remote, note, subjects};
use crate::limits::{PLUGIN_LEFT_PATIENCE, PLUGIN_LEFT_PAUSE_MAX, PLUGIN_LEFT_TOGETHER_MAX};

/// How often it is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is to be done about something that nobody works on. Endpoints come before their networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// An endpoint that is to go.
    Endpoint(EndpointId, Option<SandboxId>),
    /// An endpoint that has lost its sandbox's namespace: its plugin is to forget it.
    Known(EndpointId, Option<SandboxId>),
    /// A running sandbox some of whose endpoints are not attached: its start or its end was cut short.
    Half(SandboxId),
    /// A sandbox of whose way out its plugins know something else.
    WayOut(SandboxId),
    /// A network whose plugin for addresses may have forgotten what it gave out.
    Forgotten(NetworkId),
    /// A network that is to go.
    Network(NetworkId),
}

/// When something that was left is looked at next.
#[derive(Debug)]
struct Tries(BTreeMap<Left, Try>);

#[derive(Debug)]
struct Try {
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Tries {
    /// What of all that is left is due, and whether its plugins may be waited for any longer.
    fn due(&mut self, left: Vec<Left>, now: Instant) -> Vec<(Left, bool)> {
        let all: BTreeSet<Left> = left.into_iter().collect();
        self.0.retain(|one, _| all.contains(one));
        let mut due = Vec::new();
        for one in all {
            let tried = self.0.entry(one).or_insert(Try {
                since: now,
                next: now,
                pause: SWEEP_EVERY,
            });
            if now >= tried.next {
                tried.next = now + tried.pause;
                tried.pause = PLUGIN_LEFT_PAUSE_MAX.min(tried.pause * 2);
                due.push((one, now - tried.since < PLUGIN_LEFT_PATIENCE));
            }
        }
        due
    }
}

/// Puts right what was left, and goes on to look for more.
pub(crate) async fn run(remote: Remote) {
    let mut look = interval(SWEEP_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let slots = Arc::new(Semaphore::new(PLUGIN_LEFT_TOGETHER_MAX));
    let mut tries = Tries(BTreeMap::new());
    loop {
        look.tick().await;
        for (left, patient) in tries.due(remote.left(), Instant::now()) {
            remote.put_right(left, patient, &slots);
        }
    }
}

/// Everything that was left, as the records tell.
fn left(records: &Controller) -> Vec<Left> {
    let endpoints = records.endpoints().filter_map(|endpoint| {
        let network = records.network(endpoint.network)?;
        left_of_endpoint(records, network, endpoint)
    });
    let networks = records.networks().filter(|network| {
        let unfinished = matches!(
            network.state,
            NetworkState::Reserved | NetworkState::Deleting
        );
        unfinished && network.spec.has_plugin()
    });
    endpoints
        .chain(networks.map(|network| Left::Network(network.id)))
        .collect()
}

/// What was left of an endpoint, or of the sandbox that it is in: each of a sandbox's endpoints may say the same of it.
fn left_of_endpoint(records: &Controller, network: &Network, endpoint: &Endpoint) -> Option<Left> {
    if !network.spec.has_plugin() {
        return None;
    }
    let (id, sandbox) = (endpoint.id, endpoint.sandbox);
    if endpoint.deleting {
        return Some(Left::Endpoint(id, sandbox));
    }
    let is_running = |id: &SandboxId| {
        let sandbox = records.sandbox(*id);
        sandbox.is_some_and(|sandbox| sandbox.state == SandboxState::Running)
    };
    let is_driven = network.spec.driver == Driver::Remote;
    let driven_in = sandbox.filter(|id| is_driven && is_running(id));
    match (&endpoint.attachment, driven_in) {
        (Some(_), Some(sandbox)) => {
            let leads_out = records.ways_out(sandbox).contains(&id);
            (is_told_way_out(endpoint) != leads_out).then_some(Left::WayOut(sandbox))
        }
        (Some(_), None) => None,
        (None, Some(sandbox)) => Some(Left::Half(sandbox)),
        (None, None) => endpoint.plugin.as_ref().map(|_| Left::Known(id, sandbox)),
    }
}

impl Remote {
    fn left(&self) -> Vec<Left> {
        let mut all = self.shared.look(left);
        all.extend(self.replays.networks().into_iter().map(Left::Forgotten));
        all
    }

    /// Puts something right unless somebody is at it, or enough of its kind is under way.
    fn put_right(&self, what: Left, patient: bool, slots: &Arc<Semaphore>) {
        let all = match what {
            Left::Endpoint(id, sandbox) | Left::Known(id, sandbox) => {
                let mut all = subjects(&[Subject::Endpoint(id)]);
                all.extend(sandbox.map(Subject::Sandbox));
                all
            }
            Left::Half(id) | Left::WayOut(id) => subjects(&[Subject::Sandbox(id)]),
            Left::Forgotten(id) | Left::Network(id) => subjects(&[Subject::Network(id)]),
        };
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            return;
        };
        let Some(turn) = self.turns.try_take(&all) else {
            return;
        };
        let remote = self.clone();
        // Others need not wait for a plugin that hangs.
        tokio::spawn(async move {
            if !patient || remote.plugins.answer(remote.asked_about(what)).await {
                remote.put_right_now(what).await;
            }
            drop((turn, slot));
        });
    }

    /// The plugins that are to be told.
    fn asked_about(&self, what: Left) -> Vec<String> {
        self.shared.look(|records| {
            let network = |id: NetworkId| records.network(id);
            let networks = match what {
                Left::Endpoint(id, _) | Left::Known(id, _) => {
                    let endpoint = records.endpoint(id);
                    Vec::from_iter(endpoint.and_then(|endpoint| network(endpoint.network)))
                }
                Left::Half(id) | Left::WayOut(id) => {
                    let endpoints = records.endpoints_of_sandbox(id).into_iter();
                    endpoints.map(|(network, _)| network).collect()
                }
                Left::Forgotten(id) | Left::Network(id) => Vec::from_iter(network(id)),
            };
            let names = networks
                .into_iter()
                .flat_map(|network| network.spec.plugins());
            names.map(str::to_owned).collect()
        })
    }

    async fn put_right_now(&self, what: Left) {
        // Things may have changed since they were looked at.
        if !self.left().contains(&what) {
            return;
        }
        match what {
            Left::Endpoint(id, _) => note("ending a removal", self.erase_endpoint(id).await),
            Left::Known(id, _) => note("telling a plugin what is gone", self.detach(id).await),
            Left::Half(id) => self.start_again(id).await,
            Left::WayOut(id) => {
                let settled = self.settle_ways_out(id).await;
                note("telling plugins of a way out", settled);
            }
            Left::Forgotten(id) => note("asking for addresses again", self.replay(id).await),
            Left::Network(id) => {
                let is_used = self
                    .shared
                    .look(|records| records.endpoints_of_network(id).next().is_some());
                if !is_used {
                    self.undo_network(id).await;
                }
            }
        }
    }

    /// Attaches what was not attached yet. Its plugin may know of it from the time before.
    async fn start_again(&self, id: SandboxId) {
        let half_known: Vec<EndpointId> = self.shared.look(|records| {
            let endpoints = records.endpoints_of_sandbox(id).into_iter();
            let known = endpoints.filter(|(_, e)| e.plugin.is_some() && e.attachment.is_none());
            known.map(|(_, endpoint)| endpoint.id).collect()
        });
        for endpoint in half_known {
            let told = self.detach(endpoint).await;
            note("telling a plugin what is gone", told);
        }
        note("going on with a start", self.attach_all(id).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_tried_ever_less_often_and_not_for_ever_with_its_plugin() {
        let mut tries = Tries(BTreeMap::new());
        let one = Left::Network(NetworkId(1));
        let begin = Instant::now();
        let mut at = Vec::new();
        for second in 0..=PLUGIN_LEFT_PATIENCE.as_secs() + 60 {
            for (left, patient) in tries.due(vec![one], begin + Duration::from_secs(second)) {
                assert_eq!(left, one);
                assert_eq!(patient, second < PLUGIN_LEFT_PATIENCE.as_secs());
                at.push(second);
            }
        }
        assert_eq!(at[..6], [0, 1, 3, 7, 15, 31]);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] <= 60), "{at:?}");
        assert!(at.len() < 20, "{at:?}");
        // What went and comes again begins anew.
        assert!(tries.due(vec![], begin).is_empty());
        assert_eq!(tries.due(vec![one], begin), [(one, true)]);
    }
}
