//! The one place where state changes: takes an input, lets the controller decide, performs what follows.
//!
//! Small plans are carried out at once, on the thread of the runtime: the kernel serialises them anyway, and
//! every hand-over between threads would cost a good part of an attach. What may take long, large plans and
//! reading the kernel back, has a thread of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tombolo_api::{ApiError, Request, Response, types};
use tombolo_core::{
    Code, Command, Controller, Decision, Effect, EngineCommand, Event, JobId, Notice, Reject,
    Reply, RequestId, Write, record,
};
use tombolo_kernel::{Kernel, Scope};
use tombolo_netstate::object::netns::NetnsKey;
use tombolo_netstate::{Key, Netns, Plan};
use tombolo_store::{Durability, Embedded, Store};

use crate::adopted::{self, Vanished};
use crate::config::Config;
use crate::crash;
use crate::limits::{INLINE_OPS_MAX, OUTCOME_BYTES};
use crate::outside::Outside;
use crate::publish::{self, Chosen};
use crate::queries::{self, Daemon, Show};
use crate::translate::{self, NetnsLookup, view};
use crate::user_rules;

mod storing;

pub(crate) use storing::{commit_in_parts, store_write};

/// What reaches the engine from other threads.
#[derive(Debug)]
pub(crate) enum Input {
    /// For the controller.
    Event(Box<Event>),
    /// Links or routes of the host changed: the facts are to be read again.
    HostChanged,
}

/// Everything that the daemon holds.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) controller: Controller,
    pub(crate) store: Arc<Embedded>,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) outside: Outside,
    daemon: Daemon,
    vanished: Vanished,
    pending: BTreeMap<RequestId, Pending>,
    next_request: u64,
    /// Outcomes that the store did not take yet.
    unsaved: BTreeMap<String, Option<Vec<u8>>>,
    inputs: mpsc::Sender<Input>,
    /// Plans that threads of their own carry out.
    away: usize,
    /// What the kernel removed meanwhile: told once the reports are in, which say that it is being removed.
    early: Vec<Key>,
    /// When the controller wants to be woken, in milliseconds since 1970.
    pub(crate) wake_at: Option<u64>,
}

/// Who waits for a reply.
#[derive(Debug)]
struct Pending {
    /// Ports that were chosen for it.
    chosen: Chosen,
    who: Who,
}

#[derive(Debug)]
enum Who {
    /// A client of the API, who is shown this of the outcome.
    Client(Show, oneshot::Sender<Result<Response, ApiError>>),
    /// A front end of ours that speaks for another engine.
    FrontEnd(oneshot::Sender<Result<Reply, Reject>>),
}

/// Looks at namespaces as the kernel shows them.
pub(crate) struct Namespaces;

impl NetnsLookup for Namespaces {
    fn inode(&self, path: &std::path::Path) -> Result<u64, String> {
        tombolo_kernel::netns_inode(path).map_err(|error| error.to_string())
    }
}

impl Engine {
    pub(crate) fn new(
        controller: Controller,
        store: Arc<Embedded>,
        kernel: Arc<Kernel>,
        (config, outside): (&Config, Outside),
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let daemon = Daemon::new(config, now_ms());
        Self {
            controller,
            store,
            kernel,
            outside,
            daemon,
            vanished: Vanished::default(),
            pending: BTreeMap::new(),
            next_request: 1,
            unsaved: BTreeMap::new(),
            inputs,
            away: 0,
            early: Vec::new(),
            wake_at: None,
        }
    }

    /// Answers a request, now or when it is done.
    pub(crate) fn submit(
        &mut self,
        request: Request,
        reply: oneshot::Sender<Result<Response, ApiError>>,
    ) {
        if let Request::DnsResolve(question) = request {
            return queries::resolve(&self.controller, &self.outside, &question, reply);
        }
        let show = Show::of(&request);
        let answer = match self.understand(request.clone()) {
            Ok(Some((command, chosen))) => {
                let who = Who::Client(show.with(&command), reply);
                return self.command(command, None, Some(Pending { chosen, who }));
            }
            Ok(None) => self.look(request),
            Err(reject) => Err(translate::api_error(&reject)),
        };
        // An error means that nobody waits any more.
        drop(reply.send(answer));
    }

    /// The command that a request stands for, with the ports that were chosen for it; `None` for one that only
    /// looks.
    fn understand(&self, request: Request) -> Result<Option<(Command, Chosen)>, Reject> {
        let command = match request {
            Request::PublicationsRemove { reference, remove } => {
                publish::unpublish(&self.controller, reference, &remove).map(Some)
            }
            request => translate::command(request, &Namespaces),
        };
        let Some(mut command) = command? else {
            return Ok(None);
        };
        let chosen = publish::choose(&self.controller, &self.kernel, &mut command)?;
        Ok(Some((command, chosen)))
    }

    /// Carries out a command for a front end of ours. The first id that it needs is made of `seed`, if there is one.
    pub(crate) fn order(
        &mut self,
        mut command: Command,
        seed: Option<u128>,
        reply: oneshot::Sender<Result<Reply, Reject>>,
    ) {
        match publish::choose(&self.controller, &self.kernel, &mut command) {
            Ok(chosen) => {
                let who = Who::FrontEnd(reply);
                self.command(command, seed, Some(Pending { chosen, who }));
            }
            // An error means that nobody waits any more.
            Err(reject) => drop(reply.send(Err(reject))),
        }
    }

    /// Carries out a command of the daemon's own, or of somebody who waits.
    fn command(&mut self, command: Command, seed: Option<u128>, pending: Option<Pending>) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        if let Some(pending) = pending {
            self.pending.insert(request, pending);
        }
        match seed.map_or_else(random, Ok) {
            Ok(seed) => self.run(Event::Command {
                request,
                command,
                seed,
            }),
            Err(error) => {
                let message = format!("no random number can be had: {error}");
                self.reply(request, Err(Reject::new(Code::Kernel, "random", message)));
            }
        }
    }

    /// Carries out a command of the daemon's own.
    pub(crate) fn own_command(&mut self, command: Command) {
        self.command(command, None, None);
    }

    /// Handles what another thread sent.
    pub(crate) fn arrived(&mut self, event: Event) {
        if matches!(event, Event::KernelChanged(Notice::NftChanged)) {
            // Before a repair may make the table anew.
            user_rules::learn(&*self.store, &self.kernel);
        }
        let link_gone = matches!(event, Event::KernelChanged(Notice::LinkGone(_)));
        match event {
            Event::Gone(keys) if self.away > 0 => self.early.extend(keys),
            Event::Applied { .. } => {
                self.away -= 1;
                self.run(event);
                if self.away == 0 && !self.early.is_empty() {
                    let early = std::mem::take(&mut self.early);
                    self.run(Event::Gone(early));
                }
            }
            other => self.run(other),
        }
        if link_gone {
            // Perhaps an engine has taken what it was lent.
            self.adopt_sandboxes();
        }
    }

    /// Notes the namespaces of sandboxes that engines have made by now.
    fn adopt_sandboxes(&mut self) {
        for (sandbox, inode) in adopted::appeared(&self.controller) {
            self.own_command(Command::Engine(EngineCommand::Adopt { sandbox, inode }));
        }
    }

    /// Handles an event and everything that follows from it at once.
    pub(crate) fn run(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let compared = match &event {
                Event::Observed { job, .. } => Some(*job),
                _ => None,
            };
            let decision = self.controller.handle(now_ms(), event);
            if let Some(job) = compared {
                tell_repair(job, &decision);
            }
            self.perform(decision, &mut queue);
        }
    }

    /// Tries again to store outcomes that the store did not take.
    pub(crate) fn save_outcomes(&mut self) {
        if !self.unsaved.is_empty() && self.commit(Vec::new(), false).is_ok() {
            tracing::info!("the store takes writes again");
        }
    }

    /// Removes files of sandboxes that do not exist and writes those of the others.
    pub(crate) fn refresh_files(&mut self) {
        if let Err(error) = self.outside.sweep(&self.controller) {
            tracing::warn!(%error, "files of removed sandboxes cannot be swept");
        }
        let ids: Vec<_> = self
            .controller
            .sandboxes()
            .map(|sandbox| sandbox.id)
            .collect();
        for id in ids {
            self.refresh_outside(id);
        }
        self.outside.tell_networks(&self.controller);
    }

    /// Looks for what the kernel does not tell of: changes of the host's own settings for names, and the end of
    /// namespaces of others, which our sockets keep alive without their names.
    pub(crate) fn look_around(&mut self) {
        if self.outside.follow_host() {
            tracing::info!("the host's settings for names have changed");
            self.refresh_files();
        }
        self.adopt_sandboxes();
        if self.vanished.look(&self.controller) {
            self.own_command(Command::Repair);
        }
    }

    fn perform(&mut self, decision: Decision, queue: &mut VecDeque<Event>) {
        self.wake_at = decision.wake_at;
        let Decision {
            writes,
            durable,
            effects,
            replies,
            ..
        } = decision;
        let networks = writes.iter().any(|w| w.key.starts_with(record::NETWORK));
        let intents: Vec<JobId> = writes.iter().filter_map(|write| write.intent_of).collect();
        let stored = if writes.is_empty() {
            Ok(())
        } else {
            self.commit(writes, durable)
        };
        let refused = match stored {
            Ok(()) => None,
            Err(reason) => {
                tracing::error!(reason, "the store does not take writes");
                Some(reason)
            }
        };
        let held = |job: &JobId| refused.is_some() && intents.contains(job);
        let mut plans = Vec::new();
        for effect in effects {
            match effect {
                Effect::WriteFiles(id) => self.refresh_outside(id),
                Effect::RemoveFiles(id) => self.outside.remove(id),
                Effect::Apply { job, plan } if !held(&job) => plans.push((job, plan)),
                Effect::Observe {
                    job,
                    sandboxes,
                    sysctls,
                } => {
                    self.observe(
                        job,
                        Scope {
                            host: true,
                            sandboxes,
                            sysctls,
                            ..Scope::default()
                        },
                    );
                }
                Effect::Apply { .. } => {}
            }
        }
        if networks {
            self.outside.tell_networks(&self.controller);
        }
        for (request, reply) in replies {
            self.reply(request, reply);
        }
        for (job, plan) in plans {
            self.apply(job, plan, queue);
        }
        if let (Some(reason), false) = (refused, intents.is_empty()) {
            let jobs: BTreeSet<JobId> = intents.into_iter().collect();
            queue.push_back(Event::NotStored {
                jobs: jobs.into_iter().collect(),
                reason,
            });
        }
    }

    /// Stores writes together with outcomes that are still unsaved. When the store refuses, outcomes are
    /// kept for later and intents are dropped.
    fn commit(&mut self, writes: Vec<Write>, durable: bool) -> Result<(), String> {
        let durability = if durable {
            Durability::Power
        } else {
            Durability::Process
        };
        let newer = writes.iter().map(|write| (&write.key, &write.value));
        let batch: BTreeMap<_, _> = self.unsaved.iter().chain(newer).collect();
        let done = self
            .make_room(&writes)
            .and_then(|()| {
                let pairs = batch.into_iter();
                pairs
                    .map(|(key, value)| store_write(key, value.clone()))
                    .collect()
            })
            .and_then(|writes| commit_in_parts(&*self.store, writes, durability));
        if done.is_ok() {
            self.unsaved.clear();
        } else {
            let outcomes = writes.into_iter().filter(|write| write.intent_of.is_none());
            self.unsaved
                .extend(outcomes.map(|write| (write.key, write.value)));
        }
        done
    }

    /// What is begun must be able to say how it ended: intents are refused where their outcomes may not fit.
    fn make_room(&self, writes: &[Write]) -> Result<(), String> {
        if writes.iter().all(|write| write.intent_of.is_none()) {
            return Ok(());
        }
        let bytes = |write: &Write| write.value.as_ref().map_or(0, Vec::len);
        let own: usize = writes.iter().map(bytes).sum();
        let room = self.store.make_room(OUTCOME_BYTES + 2 * own as u64);
        room.map_err(|error| with_sources(&error))
    }

    fn apply(&mut self, job: JobId, plan: Plan, queue: &mut VecDeque<Event>) {
        let operations = plan.ops.len();
        if operations == 0 && plan.edges.is_empty() {
            let report = tombolo_netstate::Report::done(&plan);
            queue.push_back(Event::Applied { job, report });
        } else if operations <= INLINE_OPS_MAX {
            queue.push_back(Event::Applied {
                job,
                report: carry_out(&self.kernel, job, &plan),
            });
        } else {
            let kernel = Arc::clone(&self.kernel);
            self.away += 1;
            self.elsewhere("apply", move || Event::Applied {
                job,
                report: carry_out(&kernel, job, &plan),
            });
        }
    }

    fn observe(&self, job: JobId, mut scope: Scope) {
        let kernel = Arc::clone(&self.kernel);
        scope.sandboxes.extend(self.forsaken_namespaces());
        let adopted = adopted::namespaces(&self.controller);
        self.elsewhere("observe", move || {
            let missing = adopted.into_iter().filter(adopted::is_missing).collect();
            let found = kernel
                .observe(&scope)
                .map(|observed| Box::new(observed.objects))
                .map_err(|error| with_sources(&error));
            Event::Observed {
                job,
                found,
                missing,
            }
        });
    }

    /// Namespaces of ours that nobody wants any more. What others made and we took into them is to be given back.
    fn forsaken_namespaces(&self) -> Vec<Netns> {
        let names = self.kernel.netns_names().unwrap_or_default().into_iter();
        let forsaken = names.filter(|name| {
            let key = Key::Netns(NetnsKey { name: name.clone() });
            !self.controller.is_expected(&key)
        });
        forsaken.map(Netns::Owned).collect()
    }

    /// Does slow work on a thread of its own; its event comes back as an input.
    fn elsewhere(&self, name: &str, work: impl FnOnce() -> Event + Send + 'static) {
        let inputs = self.inputs.clone();
        let run = move || {
            // Fails only when the daemon ends.
            drop(inputs.blocking_send(Input::Event(Box::new(work()))));
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        if let Err(error) = spawned {
            // Its event would never come, and everything that waits for it would wait for ever: a restart
            // begins from what is stored.
            tracing::error!(%error, name, "no thread can be started; ending");
            std::process::exit(1);
        }
    }

    fn refresh_outside(&mut self, id: tombolo_core::id::SandboxId) {
        self.outside.refresh(&self.controller, &self.kernel, id);
    }

    /// What a request would do.
    fn plan(&self, request: Request) -> Result<Response, Reject> {
        let Some((command, chosen)) = self.understand(request)? else {
            let message = "this command changes nothing";
            return Err(Reject::new(Code::InvalidCombination, "plan", message));
        };
        let run = self.controller.dry_run(now_ms(), command);
        publish::release(&self.kernel, &chosen);
        let run = run?;
        let operations = run.ops.into_iter();
        let operations = operations.map(|(op, owners)| view::operation(&op, owners));
        Ok(Response::Operations(types::Operations {
            operations: operations
                .chain(run.edges.iter().map(view::message))
                .collect(),
        }))
    }

    fn look(&self, request: Request) -> Result<Response, ApiError> {
        if let Request::Plan(plan) = request {
            let request = translate::planned_request(plan.command);
            return self.plan(request).map_err(|r| translate::api_error(&r));
        }
        queries::answer(
            &self.controller,
            &self.kernel,
            &self.daemon,
            &self.outside,
            request,
        )
    }

    /// How the outcome of a command is shown.
    pub(crate) fn shown(&self, show: &Show, reply: Reply) -> Result<Response, ApiError> {
        let places = self.daemon.places(&self.outside);
        queries::reply(&self.controller, (&self.daemon, places), show, reply)
    }

    /// What does not change while the daemon runs.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn reply(&mut self, request: RequestId, reply: Result<Reply, Reject>) {
        let Some(Pending { chosen, who }) = self.pending.remove(&request) else {
            if let Err(reject) = &reply {
                tracing::warn!(%reject, "a task of the daemon's own failed");
            }
            return;
        };
        publish::release(&self.kernel, &chosen);
        // An error means that nobody waits any more.
        match who {
            Who::FrontEnd(waiting) => drop(waiting.send(reply)),
            Who::Client(show, waiting) => drop(waiting.send(match reply {
                Ok(reply) => self.shown(&show, reply),
                Err(reject) => Err(translate::api_error(&reject)),
            })),
        }
    }
}

/// Milliseconds since 1970, by a clock that never steps back: the wall clock at the first call, and the time
/// since then.
pub(crate) fn now_ms() -> u64 {
    static START: OnceLock<(Duration, Instant)> = OnceLock::new();
    let (wall, began) = START.get_or_init(|| {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        (wall, Instant::now())
    });
    u64::try_from((*wall + began.elapsed()).as_millis()).unwrap_or(u64::MAX)
}

/// A random number from the kernel.
pub(crate) fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_ne_bytes(bytes))
}

/// An error with everything that caused it, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn carry_out(kernel: &Kernel, job: JobId, plan: &Plan) -> tombolo_netstate::Report {
    let began = Instant::now();
    let report = crash::apply(plan, |plan| kernel.apply(plan));
    let failed = report
        .outcomes
        .iter()
        .filter(|outcome| !outcome.is_done())
        .count();
    let micros = began.elapsed().as_micros();
    tracing::debug!(
        job = job.0,
        operations = plan.ops.len(),
        failed,
        micros,
        "applied a plan"
    );
    if let Some((key, error)) = report.failure(plan) {
        tracing::warn!(job = job.0, %key, error, failed, "a plan failed");
    }
    report
}

/// Says what a comparison with the kernel found to mend.
fn tell_repair(compared: JobId, decision: &Decision) {
    for effect in &decision.effects {
        match effect {
            Effect::Apply { job, plan } if *job == compared && !plan.ops.is_empty() => {
                let first: Vec<String> = plan.ops.iter().take(3).map(ToString::to_string).collect();
                tracing::info!(
                    operations = plan.ops.len(),
                    first = first.join("; "),
                    "repairing drift"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
