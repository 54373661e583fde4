//! Pieces of work under way: from the plan to the reply.

use std::collections::BTreeSet;

use tombolo_netstate::diff::vanishing;
use tombolo_netstate::object::link::LinkKind;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::port::{HostAddress, PortKey};
use tombolo_netstate::object::sysctl::SysctlKey;
use tombolo_netstate::{Action, Key, Netns, Op, Outcome, Plan, Report, Spec, diff};

use super::change::{Change, Undo};
use super::publication::not_here;
use super::{Controller, Draft, Halt};
use crate::event::{Decision, JobId, Reply, RequestId};
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::record;
use crate::reject::{Code, Reject};
use crate::subject::Subject;

/// A piece of work under way.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) request: Option<RequestId>,
    pub(super) subjects: BTreeSet<Subject>,
    pub(super) undo: Vec<Undo>,
    pub(super) stage: Stage,
    pub(super) done: Done,
    pub(super) plan: Plan,
}

/// How far a job has got.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Its plan is being carried out.
    Apply,
    /// Its plan failed for this reason; what was half made is being removed.
    Withdraw(Reject),
    /// The kernel is being read back.
    Observe,
}

/// What the success of a job means.
#[derive(Debug, Clone)]
pub(super) enum Done {
    /// The network is ready.
    NetworkReady(NetworkId),
    /// The network is gone.
    NetworkGone(NetworkId),
    /// What nothing used is gone.
    Pruned(Pruned),
    /// The endpoints are attached, or exist; the reply shows the first one.
    EndpointReady(EndpointId),
    /// The endpoint exists, and is attached unless a plugin is to be asked first; more follows before the one who asked
    /// is answered.
    EndpointHeld(EndpointId),
    /// The endpoint has left that sandbox.
    EndpointLeft(EndpointId, SandboxId),
    /// The endpoint is gone.
    EndpointGone(EndpointId),
    /// The sandbox runs with its endpoints.
    SandboxRunning(SandboxId),
    /// The sandbox has its namespace; more endpoints follow before the one who asked is answered.
    SandboxHeld(SandboxId),
    /// The sandbox's ports are published as asked.
    Published(SandboxId),
    /// Publications of the sandbox are gone.
    Unpublished(SandboxId),
    /// The sandbox has no namespace any more.
    SandboxStopped(SandboxId),
    /// The sandbox is gone, with these endpoints.
    SandboxGone(SandboxId, Vec<EndpointId>),
    /// The kernel was compared with what should be; mended unless only asked for drift.
    Compared {
        /// Nothing is to be mended.
        look_only: bool,
        /// Rounds of repair so far.
        rounds: u32,
        /// Operations of earlier rounds.
        ops: Vec<Op>,
        /// What failed in earlier rounds.
        failures: Vec<(Key, String)>,
        /// Sandboxes were looked into, too.
        full: bool,
    },
    /// Facts changed and what follows was planned anew.
    Refreshed,
    /// The namespace that an engine made for the sandbox is known.
    Adopted(SandboxId),
    /// Records changed, and no object with them.
    Recorded {
        /// The answer.
        reply: Reply,
        /// The records must survive a power cut.
        durable: bool,
        /// Sandboxes of which others are to be told.
        tell: Vec<SandboxId>,
    },
}

/// What a pruning removes, with the names to tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Pruned {
    pub(super) networks: Vec<(NetworkId, String)>,
    pub(super) endpoints: Vec<(EndpointId, String)>,
    pub(super) sandboxes: Vec<(SandboxId, String)>,
}

impl Done {
    /// Whether the records must survive a power cut before the reply. What lives in namespaces does not
    /// outlive one itself.
    pub(super) fn durable(&self) -> bool {
        match self {
            Self::NetworkReady(_)
            | Self::NetworkGone(_)
            | Self::Pruned(_)
            | Self::EndpointGone(_) => true,
            Self::Recorded { durable, .. } => *durable,
            Self::EndpointReady(_)
            | Self::EndpointHeld(_)
            | Self::EndpointLeft(..)
            | Self::SandboxRunning(_)
            | Self::SandboxHeld(_)
            | Self::Published(_)
            | Self::Unpublished(_)
            | Self::SandboxStopped(_)
            | Self::SandboxGone(..)
            | Self::Adopted(_)
            | Self::Compared { .. }
            | Self::Refreshed => false,
        }
    }
}

impl Controller {
    /// Stores a draft's records and starts its plan. A draft that halts has changed nothing.
    pub(super) fn begin(
        &mut self,
        request: Option<RequestId>,
        draft: Draft,
        decision: &mut Decision,
    ) -> Result<(), Halt> {
        let Draft { mut change, done } = draft;
        self.spread(&mut change);
        if let Some(job) = change.dirty.iter().find_map(|s| self.busy.get(s).copied()) {
            self.forget(change);
            return Err(Halt::Wait(job));
        }
        let plan = match self.plan(&change) {
            Ok(plan) => plan,
            Err(halt) => {
                self.forget(change);
                return Err(halt);
            }
        };
        self.remember_sysctls(&plan, &mut change);
        let job = self.new_job();
        Self::store(decision, change.take_writes(Some(job)), done.durable());
        for subject in &change.dirty {
            self.busy.insert(*subject, job);
        }
        self.occupy(job, &plan);
        Self::apply(decision, job, plan.clone());
        let stage = Stage::Apply;
        self.jobs.insert(
            job,
            Job {
                request,
                subjects: change.dirty,
                undo: change.undo,
                stage,
                done,
                plan,
            },
        );
        Ok(())
    }

    /// Takes back a change that was never stored.
    pub(super) fn forget(&mut self, change: Change) {
        let dirty = change.dirty;
        drop(self.state.withdraw(change.undo));
        self.replan(&dirty);
    }

    pub(super) fn new_job(&mut self) -> JobId {
        let job = JobId(self.next_job);
        self.next_job += 1;
        job
    }

    pub(super) fn applied(
        &mut self,
        now_ms: u64,
        id: JobId,
        report: &Report,
        decision: &mut Decision,
    ) {
        let Some(mut job) = self.jobs.remove(&id) else {
            return;
        };
        self.record(&job.plan, report, decision);
        self.in_flight.retain(|_, owner| *owner != id);
        let failure = report
            .failure(&job.plan)
            .map(|(key, error)| kernel_reject(&job.plan, key, error));
        match (job.stage.clone(), failure) {
            (Stage::Apply, Some(reject)) if job.done.withdraws() => {
                self.start_withdrawal(id, job, reject, decision);
                return;
            }
            (Stage::Apply, _) => {
                if let Some(next) = self.next_round(&mut job, report) {
                    self.go_on(id, job, next, decision);
                    return;
                }
                self.finish(now_ms, &job, decision);
            }
            (Stage::Withdraw(reject), _) => {
                self.return_addresses(&mut job);
                if let Some(request) = job.request {
                    decision.replies.push((request, Err(reject)));
                }
            }
            (Stage::Observe, _) => {}
        }
        self.tidy(decision);
        self.end(now_ms, id, &job, decision);
    }

    /// The store did not take the records: the plan was not carried out, so only the records go back.
    pub(super) fn not_stored(
        &mut self,
        now_ms: u64,
        id: JobId,
        reason: &str,
        decision: &mut Decision,
    ) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        self.in_flight.retain(|_, owner| *owner != id);
        // A part may have been stored: what takes it back is stored when the store takes writes again.
        let mut change = self.state.withdraw(job.undo.clone());
        Self::store(decision, change.take_writes(None), false);
        self.replan(&job.subjects);
        if let Done::Refreshed | Done::Compared { .. } = job.done {
            self.repair.abandoned(now_ms, id);
        }
        self.tidy(decision);
        let reject = Reject::new(
            Code::Store,
            "store",
            format!("the request could not be stored: {reason}"),
        )
        .hint("free space where the state is kept, then try again");
        if let Some(request) = job.request {
            decision.replies.push((request, Err(reject)));
        }
        self.end(now_ms, id, &job, decision);
    }

    /// Ends a job and wakes who waits for it.
    pub(super) fn end(&mut self, now_ms: u64, id: JobId, job: &Job, decision: &mut Decision) {
        for subject in &job.subjects {
            if self.busy.get(subject) == Some(&id) {
                self.busy.remove(subject);
            }
        }
        for waiting in self.waiting.remove(&id).unwrap_or_default() {
            self.waiting_count -= 1;
            self.command(now_ms, waiting, decision);
        }
    }

    fn start_withdrawal(
        &mut self,
        id: JobId,
        mut job: Job,
        reject: Reject,
        decision: &mut Decision,
    ) {
        // The kernel may hold the addresses until what was half made is gone.
        let leases = |step: &Undo| matches!(step, Undo::Lease(..));
        let (leases, mut undo): (_, Vec<Undo>) =
            std::mem::take(&mut job.undo).into_iter().partition(leases);
        job.undo = leases;
        self.state.keep_epochs(&mut undo);
        let mut change = self.state.withdraw(undo);
        change.dirty.extend(job.subjects.iter().copied());
        let touched = self.replan(&change.dirty);
        let plan = diff(&touched, &self.desired, &self.believed);
        Self::store(decision, change.take_writes(None), false);
        job.stage = Stage::Withdraw(reject);
        self.go_on(id, job, plan, decision);
    }

    /// After a withdrawal: gives its addresses back, those of a link that the kernel still removes later.
    fn return_addresses(&mut self, job: &mut Job) {
        let port = job
            .plan
            .ops
            .iter()
            .map(|op| &op.key)
            .find(|key| self.leaving.contains_key(key));
        for step in std::mem::take(&mut job.undo) {
            let Undo::Lease(ip, owner) = step else {
                continue;
            };
            match port {
                Some(key) if self.state.space.retire(ip, &owner).is_ok() => {
                    self.leaving
                        .entry(key.clone())
                        .or_default()
                        .push((ip, owner));
                }
                _ => drop(self.state.space.release(ip, &owner, 0)),
            }
        }
    }

    pub(super) fn go_on(&mut self, id: JobId, mut job: Job, plan: Plan, decision: &mut Decision) {
        let mut change = Change::default();
        self.remember_sysctls(&plan, &mut change);
        Self::store(decision, change.take_writes(Some(id)), false);
        self.occupy(id, &plan);
        Self::apply(decision, id, plan.clone());
        job.plan = plan;
        self.jobs.insert(id, job);
    }

    /// Keeps others away from what a plan works on, with what goes by itself when it is carried out.
    fn occupy(&mut self, id: JobId, plan: &Plan) {
        let mut keys: BTreeSet<Key> = plan.ops.iter().map(|op| op.key.clone()).collect();
        let removed = plan
            .ops
            .iter()
            .filter(|op| matches!(op.action, Action::Delete(_)));
        for op in removed {
            keys.extend(vanishing(&self.believed, &op.key));
        }
        self.repair.touched(keys.iter());
        self.in_flight.extend(keys.into_iter().map(|key| (key, id)));
    }

    /// Writes what a report says into our record of the kernel.
    fn record(&mut self, plan: &Plan, report: &Report, decision: &mut Decision) {
        let leaving = report.record(plan, &mut self.believed);
        for key in leaving {
            self.leaving.entry(key).or_default();
        }
        let mut erased = Vec::new();
        let is_setting = |op: &&Op| matches!(op.key, Key::Sysctl(_));
        self.settings_changed += plan.ops.iter().filter(is_setting).count() as u64;
        for (op, outcome) in plan.ops.iter().zip(&report.outcomes) {
            match outcome {
                Outcome::Failed { error, .. } => {
                    self.failures.insert(op.key.clone(), error.clone());
                    self.repair.failed();
                }
                Outcome::Skipped { .. } => self.repair.failed(),
                Outcome::Done | Outcome::Deferred => {
                    self.failures.remove(&op.key);
                    if let (Key::Sysctl(key), Action::Delete(_)) = (&op.key, &op.action) {
                        erased.push(record::erase_sysctl(&key.path));
                        self.sysctls_before.remove(&*key.path);
                    }
                    if let (Outcome::Deferred, Action::Delete(Spec::Link(link))) =
                        (outcome, &op.action)
                        && let LinkKind::Veth { peer, .. } = &link.kind
                    {
                        self.departing.insert(op.key.clone(), peer.clone());
                    }
                }
            }
        }
        Self::store(decision, erased, false);
    }

    /// Forgets failures of objects that are as they should be now, and what sysctls were before us once they
    /// are so again.
    pub(super) fn tidy(&mut self, decision: &mut Decision) {
        let (desired, believed) = (&self.desired, &self.believed);
        self.failures
            .retain(|key, _| desired.get(key) != believed.get(key));
        if !self.repair.has_compared() {
            return;
        }
        let mut erased = Vec::new();
        self.sysctls_before.retain(|path, _| {
            let path = path.as_str().into();
            let key = Key::Sysctl(SysctlKey { path });
            let ours = desired.get(&key).is_some() || believed.contains_key(&key);
            if let (Key::Sysctl(key), false) = (&key, ours) {
                erased.push(record::erase_sysctl(&key.path));
            }
            ours
        });
        Self::store(decision, erased, false);
    }
}

impl Done {
    /// Whether a failed plan takes the request back. Removals go on: what stays is drift and is mended.
    fn withdraws(&self) -> bool {
        match self {
            Self::NetworkReady(_)
            | Self::EndpointReady(_)
            | Self::EndpointHeld(_)
            | Self::SandboxRunning(_)
            | Self::SandboxHeld(_)
            | Self::Published(_) => true,
            Self::NetworkGone(_)
            | Self::Pruned(_)
            | Self::EndpointLeft(..)
            | Self::EndpointGone(_)
            | Self::Unpublished(_)
            | Self::SandboxStopped(_)
            | Self::SandboxGone(..)
            | Self::Adopted(_)
            | Self::Recorded { .. }
            | Self::Compared { .. }
            | Self::Refreshed => false,
        }
    }
}

fn port_reject(port: &PortKey, error: &str) -> Reject {
    match port.address {
        HostAddress::One(ip) if error.contains("has no address") => not_here(port, ip),
        _ if error.contains("can be held by sockets") => {
            Reject::new(Code::LimitReached, port, error)
                .hint("publish a range instead of its ports")
        }
        _ if error.contains("resolver of a network") => Reject::new(Code::PortTaken, port, error)
            .hint("publish it at one address of the host (`-p ADDRESS:53:53`), or make the network without \
                   `--resolver gateway`"),
        _ => Reject::new(Code::PortTaken, port, error)
            .hint("choose another port or address of the host, or end what holds it"),
    }
}

fn listener_reject(listener: &ListenerKey, error: &str) -> Reject {
    let code = match error {
        _ if error.contains("is taken") => Code::PortTaken,
        _ if error.contains("no more than") => Code::LimitReached,
        _ => Code::Kernel,
    };
    let hint = match (code, &listener.netns) {
        (Code::PortTaken, Netns::Host) => {
            "let the resolver of the network answer elsewhere (`--resolver sandbox` or `off`), or end what holds the port"
        }
        (Code::PortTaken, _) => {
            "say that the sandbox serves the port itself (`--expose 53/udp`), let the resolver of its network answer \
             elsewhere (`--resolver gateway` or `off`), or end what holds the port"
        }
        _ => "let the resolver of the network answer nowhere (`--resolver off`)",
    };
    Reject::new(code, listener, error).hint(hint)
}

fn kernel_reject(plan: &Plan, key: &Key, error: &str) -> Reject {
    let adopted = |op: &Op| matches!(op.key.netns(), Netns::Adopted { .. });
    if plan.ops.iter().any(adopted) && error.contains("namespace") {
        return Reject::new(Code::MissingNamespace, key, error)
            .hint("the namespace was somebody else's and is gone: make a sandbox for the new one");
    }
    if let Key::Port(port) = key {
        return port_reject(port, error);
    }
    if let Key::Listener(listener) = key {
        return listener_reject(listener, error);
    }
    let taken = error.contains("EEXIST") && matches!(key, Key::Link(_));
    let code = if taken {
        Code::InterfaceNameTaken
    } else {
        Code::Kernel
    };
    Reject::new(code, key, error).hint("`tombolo doctor` checks what the kernel can do")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_listener_cannot_be_had_decides_what_is_advised() {
        let adopted = Netns::Adopted {
            path: std::path::Path::new("/run/netns/theirs").into(),
            inode: 7,
        };
        for (netns, error, code, advice) in [
            (
                Netns::Host,
                "udp port 53 at 10.0.0.1 is taken by perl (pid 7)",
                Code::PortTaken,
                "`--resolver sandbox`",
            ),
            (
                adopted,
                "udp port 53 at 127.0.0.11 in the sandbox is taken",
                Code::PortTaken,
                "`--resolver gateway` or `off`",
            ),
            (
                Netns::Host,
                "there are no more than 9 listeners",
                Code::LimitReached,
                "`--resolver off`",
            ),
            (
                Netns::Host,
                "cannot take udp port 53 at 10.0.0.1",
                Code::Kernel,
                "`--resolver off`",
            ),
        ] {
            let listener = ListenerKey {
                netns,
                address: "10.0.0.1".parse().unwrap(),
                port: 53,
            };
            let reject = kernel_reject(&Plan::default(), &Key::Listener(listener), error);
            assert_eq!(reject.code, code, "{error}");
            assert!(reject.to_string().contains(error), "{reject}");
            let hint = &reject.hint;
            assert!(hint.contains(advice), "{hint}");
        }
    }
}
