//! The controller: one place where events become decisions.
//!
//! A request changes records in memory, from which the planners make the objects that should exist; the
//! difference to what is believed to exist is the plan. Records are stored before the plan is carried out
//! (the daemon stores a decision's writes before it performs its effects), and the outcome is stored before the
//! reply. When a plan fails, the records are withdrawn and planned again: the same difference removes what
//! was half made.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::{Action, Desired, Key, Objects, Plan, Spec};

use crate::command::Command;
use crate::driver::{self, Context};
use crate::event::{Decision, Effect, Event, JobId, RequestId, Write};
use crate::facts::{Facts, Settings};
use crate::id::NetworkId;
use crate::ipam::DefaultPools;
use crate::limits::WAITING_MAX;
use crate::record;
use crate::reject::{Code, Reject};
use crate::subject::Subject;

mod address;
mod change;
mod endpoint;
mod engine;
mod job;
mod loan;
mod network;
mod outcome;
mod planning;
mod plugin;
mod publication;
mod query;
mod repair;
mod restore;
mod sandbox;
mod state;

#[cfg(test)]
mod tests;

pub use publication::{Linked, Published, RelayTask};
pub use query::{DryRun, ExplainedObject, ObjectState};
pub use restore::Restored;

use change::Change;
use job::{Done, Job};
use state::State;

/// Decides what follows from each event. Cloning it gives a copy on which a request can be tried out.
#[derive(Debug, Clone)]
pub struct Controller {
    settings: Settings,
    pools: DefaultPools,
    facts: Facts,
    state: State,
    desired: Desired,
    believed: Objects,
    /// Last failure of an object, until it succeeds or goes.
    failures: BTreeMap<Key, String>,
    jobs: BTreeMap<JobId, Job>,
    next_job: u64,
    busy: BTreeMap<Subject, JobId>,
    in_flight: BTreeMap<Key, JobId>,
    waiting: BTreeMap<JobId, Vec<Waiting>>,
    waiting_count: usize,
    /// Addresses to give back once the kernel has removed a key.
    leaving: BTreeMap<Key, Vec<(std::net::IpAddr, String)>>,
    repair: repair::Schedule,
    /// The far ends of veths that the kernel is still removing.
    departing: BTreeMap<Key, LinkKey>,
    /// What the sysctls that we set were before us.
    sysctls_before: BTreeMap<String, String>,
    /// Counts changes of sysctls, wanted or put back.
    settings_changed: u64,
    /// Leaf bridges that exist or may exist.
    live_leaves: BTreeSet<(NetworkId, u16)>,
    /// Subjects whose plan is out of date because facts changed while they were busy.
    stale: BTreeSet<Subject>,
}

/// A request that waits for a job to end.
#[derive(Debug, Clone)]
struct Waiting {
    request: RequestId,
    command: Command,
    seed: u128,
}

/// Why a request does not go on at once.
#[derive(Debug)]
enum Halt {
    /// It never will.
    Reject(Reject),
    /// It will, once that job has ended.
    Wait(JobId),
}

impl From<Reject> for Halt {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

/// A request that passed its checks: the change of records, and what its success means.
#[derive(Debug)]
struct Draft {
    change: Change,
    done: Done,
}

impl Controller {
    /// A controller that knows nothing yet; see [`Controller::restore`].
    pub fn new(settings: Settings, pools: DefaultPools, facts: Facts) -> Self {
        Self {
            state: State::new(settings.cooldown_ms),
            settings,
            pools,
            facts,
            desired: Desired::default(),
            believed: Objects::new(),
            failures: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 1,
            busy: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            leaving: BTreeMap::new(),
            repair: repair::Schedule::default(),
            departing: BTreeMap::new(),
            sysctls_before: BTreeMap::new(),
            settings_changed: 0,
            live_leaves: BTreeSet::new(),
            stale: BTreeSet::new(),
        }
    }

    /// Decides what follows from `event` at `now_ms` (milliseconds since 1970).
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Decision {
        let mut decision = Decision::default();
        match event {
            Event::Command {
                request,
                command,
                seed,
            } => {
                self.command(
                    now_ms,
                    Waiting {
                        request,
                        command,
                        seed,
                    },
                    &mut decision,
                );
            }
            Event::Applied { job, report } => self.applied(now_ms, job, &report, &mut decision),
            Event::NotStored { jobs, reason } => {
                for job in jobs {
                    self.not_stored(now_ms, job, &reason, &mut decision);
                }
            }
            Event::Observed {
                job,
                found,
                missing,
            } => {
                self.observed(now_ms, job, found.map(|f| *f), &missing, &mut decision);
            }
            Event::Gone(keys) => self.gone(now_ms, &keys),
            Event::KernelChanged(notice) => self.kernel_changed(now_ms, notice),
            Event::Facts(facts) => self.set_facts(now_ms, *facts, &mut decision),
            Event::Tick => {}
        }
        self.scheduled(now_ms, &mut decision);
        decision.wake_at = self.repair.next();
        decision
    }

    fn command(&mut self, now_ms: u64, waiting: Waiting, decision: &mut Decision) {
        let request = waiting.request;
        match self.draft(now_ms, &waiting) {
            Ok(Some(draft)) => match self.begin(Some(request), draft, decision) {
                Ok(()) => {}
                Err(Halt::Reject(reject)) => decision.replies.push((request, Err(reject))),
                Err(Halt::Wait(job)) => self.wait(job, waiting, decision),
            },
            Ok(None) => self.observe_for(now_ms, request, &waiting.command, decision),
            Err(Halt::Reject(reject)) => decision.replies.push((request, Err(reject))),
            Err(Halt::Wait(job)) => self.wait(job, waiting, decision),
        }
    }

    /// Checks a request and changes the records; `None` for one that only looks.
    fn draft(&mut self, now_ms: u64, waiting: &Waiting) -> Result<Option<Draft>, Halt> {
        let seed = waiting.seed;
        let draft = match waiting.command.clone() {
            Command::CreateNetwork { spec, predefined } => {
                self.create_network(now_ms, seed, *spec, predefined)
            }
            Command::DeleteNetwork(reference) => self.delete_network(&reference),
            Command::PruneNetworks => self.prune_networks(),
            Command::Prune => self.prune(),
            Command::CreateEndpoint {
                network,
                sandbox,
                spec,
            } => self.create_endpoint(now_ms, seed, (&network, sandbox.as_ref()), *spec),
            Command::DeleteEndpoint(reference) => self.delete_endpoint(&reference),
            Command::Join { endpoint, sandbox } => self.join(&endpoint, &sandbox),
            Command::Leave(reference) => self.leave(&reference),
            Command::Disconnect { network, sandbox } => self.disconnect(&network, &sandbox),
            Command::CreateSandbox { spec, networks } => {
                self.create_sandbox(now_ms, seed, *spec, networks)
            }
            Command::DeleteSandbox {
                sandbox,
                keep_endpoints,
            } => self.delete_sandbox(&sandbox, keep_endpoints),
            Command::StopSandbox(reference) => self.stop_sandbox(&reference),
            Command::StartSandbox { sandbox, picked } => self.start_sandbox(&sandbox, &picked),
            Command::Publish {
                sandbox,
                publications,
            } => self.publish(&sandbox, publications),
            Command::Unpublish {
                sandbox,
                publications,
            } => self.unpublish(&sandbox, &publications),
            Command::Engine(command) => self.engine_command(now_ms, seed, command),
            Command::Plugin(command) => self.plugin_command(now_ms, seed, command),
            Command::Drift | Command::Repair => return Ok(None),
        };
        draft.map(Some)
    }

    fn wait(&mut self, job: JobId, waiting: Waiting, decision: &mut Decision) {
        if self.waiting_count >= WAITING_MAX {
            let message = format!("{WAITING_MAX} requests wait already");
            let reject = Reject::new(Code::Busy, "daemon", message).hint("try again in a moment");
            decision.replies.push((waiting.request, Err(reject)));
            return;
        }
        self.waiting_count += 1;
        self.waiting.entry(job).or_default().push(waiting);
    }

    /// Halts a request that concerns something another job is working on.
    fn must_be_free(&self, subject: Subject) -> Result<(), Halt> {
        match self.busy.get(&subject) {
            None => Ok(()),
            Some(job) => Err(Halt::Wait(*job)),
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            facts: &self.facts,
            settings: &self.settings,
        }
    }

    /// The objects that `subject` should have, as its records stand.
    fn objects_of(&self, subject: Subject) -> Result<Objects, Reject> {
        match subject {
            Subject::Host => {
                let existing = self.state.networks().filter(|network| network.existing);
                let kept: Vec<&str> = existing.map(|network| network.device.as_str()).collect();
                Ok(driver::host_objects(
                    &self.large_ranges(),
                    &kept,
                    self.context(),
                ))
            }
            Subject::Network(id) => match self.state.network(id) {
                Some(network) if network.is_made() => {
                    driver::network_objects(network, self.context())
                }
                _ => Ok(Objects::new()),
            },
            Subject::Leaf(id, leaf) => {
                let wanted = self.state.leaves(id).any(|(other, _)| other == leaf);
                match self.state.network(id) {
                    Some(network) if wanted => driver::leaf_objects(network, leaf, self.context()),
                    _ => Ok(Objects::new()),
                }
            }
            Subject::Sandbox(id) => self.sandbox_objects(id),
            Subject::Endpoint(id) => self.endpoint_objects(id),
        }
    }

    fn remember_sysctls(&mut self, plan: &Plan, change: &mut Change) {
        for op in &plan.ops {
            if let (Key::Sysctl(key), Action::Create(Spec::Sysctl(spec))) = (&op.key, &op.action) {
                change.write(record::put_sysctl(&key.path, &spec.restore));
                self.sysctls_before
                    .insert(key.path.to_string(), spec.restore.to_string());
            }
        }
    }

    fn store(decision: &mut Decision, writes: Vec<Write>, durable: bool) {
        decision.writes.extend(writes);
        decision.durable |= durable;
    }

    fn apply(decision: &mut Decision, job: JobId, plan: Plan) {
        decision.effects.push(Effect::Apply { job, plan });
    }
}
