//! Comparing with the kernel: when, and what follows.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_netstate::diff::vanishing;
use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{Action, IfName, Key, Netns, Objects, Plan, Report, Spec, diff};

use super::change::Change;
use super::job::{Done, Job, Stage};
use super::{Controller, Draft, Halt, Waiting};
use crate::command::Command;
use crate::driver;
use crate::event::{Decision, Effect, JobId, Notice, RequestId};
use crate::facts::Facts;
use crate::limits::REPAIR_ROUNDS_MAX;
use crate::model::{SandboxNetns, SandboxState};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

/// Milliseconds between two comparisons of everything.
const FULL_EVERY_MS: u64 = 300_000;
/// Milliseconds from news of a change to the comparison, so that changes made together are seen together.
const SOON_MS: u64 = 20;
/// Milliseconds of the longest pause between two repairs of what somebody keeps changing.
const PAUSE_MAX_MS: u64 = 10_000;

/// When the kernel is compared next.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    open: Option<JobId>,
    /// Keys that were worked on since the open comparison began: it may have seen them half-way.
    touched: BTreeSet<Key>,
    full_at: Option<u64>,
    soon_at: Option<u64>,
    failed: bool,
    compared: bool,
    pause_ms: u64,
    mended_at: u64,
}

impl Schedule {
    pub(super) fn touched<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        if self.open.is_some() {
            self.touched.extend(keys.cloned());
        }
    }

    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    /// Whether the kernel was compared since the start.
    pub(super) fn has_compared(&self) -> bool {
        self.compared
    }

    /// The work of a job was held back: everything is to be compared again, after a pause.
    pub(super) fn abandoned(&mut self, now_ms: u64, job: JobId) {
        if self.open == Some(job) {
            self.open = None;
        }
        let at = now_ms + PAUSE_MAX_MS;
        self.full_at = Some(self.full_at.map_or(at, |other| other.min(at)));
    }

    pub(super) fn next(&self) -> Option<u64> {
        // What is due while the kernel is being read waits for the outcome.
        if self.open.is_some() {
            return None;
        }
        match (self.soon_at, self.full_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn soon(&mut self, now_ms: u64, delay_ms: u64) {
        let at = (now_ms + delay_ms).max(self.mended_at + self.pause_ms);
        self.soon_at = Some(self.soon_at.map_or(at, |other| other.min(at)));
    }

    /// A repair found work: the next one waits longer if this happens again and again.
    fn mended(&mut self, now_ms: u64) {
        let again = now_ms.saturating_sub(self.mended_at) < PAUSE_MAX_MS;
        let longer = (self.pause_ms * 2).clamp(SOON_MS * 5, PAUSE_MAX_MS);
        self.pause_ms = if again { longer } else { SOON_MS * 5 };
        self.mended_at = now_ms;
    }
}

impl Controller {
    /// Starts a comparison that somebody asked for.
    pub(super) fn observe_for(
        &mut self,
        _now_ms: u64,
        request: RequestId,
        command: &Command,
        decision: &mut Decision,
    ) {
        if let Some(open) = self.repair.open {
            let waiting = Waiting {
                request,
                command: command.clone(),
                seed: 0,
            };
            self.wait(open, waiting, decision);
            return;
        }
        self.observe(Some(request), *command == Command::Drift, true, decision);
    }

    fn observe(
        &mut self,
        request: Option<RequestId>,
        look_only: bool,
        full: bool,
        decision: &mut Decision,
    ) {
        let job = self.new_job();
        self.repair.open = Some(job);
        self.repair.touched = self.in_flight.keys().cloned().collect();
        let done = Done::Compared {
            look_only,
            rounds: 0,
            ops: vec![],
            failures: vec![],
            full,
        };
        let plan = Plan::default();
        let (subjects, undo) = (BTreeSet::new(), Vec::new());
        self.jobs.insert(
            job,
            Job {
                request,
                subjects,
                undo,
                stage: Stage::Observe,
                done,
                plan,
            },
        );
        let sandboxes = if full {
            self.live_namespaces()
        } else {
            Vec::new()
        };
        decision.effects.push(Effect::Observe {
            job,
            sandboxes,
            sysctls: self.wanted_sysctls(),
        });
    }

    /// Does what the clock asks for.
    pub(super) fn scheduled(&mut self, now_ms: u64, decision: &mut Decision) {
        if std::mem::take(&mut self.repair.failed) {
            self.repair.mended(now_ms);
            self.repair.soon(now_ms, SOON_MS);
            // What failed may be in a sandbox.
            self.repair.full_at = self.repair.soon_at;
        }
        self.refresh(decision);
        let full_at = *self.repair.full_at.get_or_insert(now_ms + FULL_EVERY_MS);
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now_ms);
        if self.repair.open.is_some() || !(due(self.repair.soon_at) || full_at <= now_ms) {
            return;
        }
        let full = full_at <= now_ms;
        if full {
            self.repair.full_at = Some(now_ms + FULL_EVERY_MS);
            self.stale.extend(self.idle_leaves());
        }
        self.repair.soon_at = None;
        self.observe(None, false, full, decision);
    }

    pub(super) fn observed(
        &mut self,
        now_ms: u64,
        id: JobId,
        found: Result<Objects, String>,
        missing: &[Netns],
        decision: &mut Decision,
    ) {
        let Some(mut job) = self.jobs.remove(&id) else {
            return;
        };
        self.repair.open = None;
        let touched = std::mem::take(&mut self.repair.touched);
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                self.repair.soon(now_ms, PAUSE_MAX_MS);
                let reject = Reject::new(
                    Code::Kernel,
                    "host",
                    format!("the kernel could not be read: {reason}"),
                )
                .hint("`tombolo doctor` checks what the kernel can do");
                if let Some(request) = job.request {
                    decision.replies.push((request, Err(reject)));
                }
                self.end(now_ms, id, &job, decision);
                return;
            }
        };
        let Done::Compared {
            look_only, full, ..
        } = job.done
        else {
            return;
        };
        if self.stop_missing(missing, decision) && look_only {
            // Who only looks leaves behind what the sandbox had; nothing else may tell of it.
            self.repair.soon(now_ms, SOON_MS);
        }
        let keys = self.believe(found, full, &touched);
        self.repair.compared = true;
        let plan = diff(&keys, &self.desired, &self.believed);
        if look_only || plan.is_empty() {
            if let (Done::Compared { ops, .. }, true) = (&mut job.done, look_only) {
                ops.extend(plan.ops);
            }
            self.finish(now_ms, &job, decision);
            self.tidy(decision);
            self.end(now_ms, id, &job, decision);
            return;
        }
        self.repair.mended(now_ms);
        job.stage = Stage::Apply;
        self.go_on(id, job, plan, decision);
    }

    /// After a round of repair: what still differs, unless it only failed again.
    pub(super) fn next_round(&mut self, job: &mut Job, report: &Report) -> Option<Plan> {
        let Done::Compared {
            rounds,
            ops,
            failures,
            ..
        } = &mut job.done
        else {
            return None;
        };
        *rounds += 1;
        for (op, outcome) in job.plan.ops.iter().zip(&report.outcomes) {
            match outcome {
                tombolo_netstate::Outcome::Failed { error, .. } => {
                    failures.push((op.key.clone(), error.clone()));
                }
                _ if !matches!(op.action, Action::Close(_)) => ops.push(op.clone()),
                _ => {}
            }
        }
        if *rounds >= REPAIR_ROUNDS_MAX || !report.is_done() {
            return None;
        }
        let keys: BTreeSet<Key> = job.plan.ops.iter().map(|op| op.key.clone()).collect();
        let plan = diff(&keys, &self.desired, &self.believed);
        (!plan.is_empty()).then_some(plan)
    }

    /// Takes what was found as what is there, except for keys that were worked on meanwhile. Returns the keys
    /// that were compared.
    fn believe(
        &mut self,
        mut found: Objects,
        full: bool,
        touched: &BTreeSet<Key>,
    ) -> BTreeSet<Key> {
        // Namespaces and listeners are listed whole, whichever sandboxes are looked into.
        let listed = |key: &Key| matches!(key, Key::Netns(_) | Key::Listener(_));
        let seen = |key: &Key| full || listed(key) || key.netns() == Netns::Host;
        let mut keys: BTreeSet<Key> = self.desired.keys().filter(|k| seen(k)).cloned().collect();
        keys.extend(self.believed.keys().filter(|k| seen(k)).cloned());
        keys.extend(found.keys().filter(|k| seen(k)).cloned());
        keys.retain(|key| !touched.contains(key) && !self.leaving.contains_key(key));
        let mut lost = Vec::new();
        for key in &keys {
            match found.remove(key) {
                Some(spec) => drop(self.believed.insert(key.clone(), spec)),
                None if self.believed.contains_key(key) => lost.push(key.clone()),
                None => {}
            }
        }
        for key in lost {
            for gone in vanishing(&self.believed, &key) {
                if !full && !touched.contains(&gone) && !seen(&gone) {
                    self.believed.remove(&gone);
                    keys.insert(gone);
                }
            }
            self.believed.remove(&key);
        }
        keys
    }

    /// Sandboxes in namespaces of others that are gone have stopped; says whether there are any.
    fn stop_missing(&mut self, missing: &[Netns], decision: &mut Decision) -> bool {
        let mut change = Change::default();
        let gone: Vec<_> = self
            .state
            .sandboxes()
            .filter(|s| s.state == SandboxState::Running && missing.contains(&driver::netns_of(s)))
            .filter(|s| !self.busy.contains_key(&Subject::Sandbox(s.id)))
            .cloned()
            .collect();
        let any = !gone.is_empty();
        for mut sandbox in gone {
            let endpoints: Vec<_> = self
                .state
                .endpoints_of_sandbox(sandbox.id)
                .into_iter()
                .cloned()
                .collect();
            for mut endpoint in endpoints {
                endpoint.attachment = None;
                self.state
                    .set_endpoint(endpoint.id, Some(endpoint), &mut change);
            }
            sandbox.state = SandboxState::Stopped;
            let told = self.state.linked_to(sandbox.id).into_iter();
            let told = told.chain([sandbox.id]).map(Effect::WriteFiles);
            decision.effects.extend(told);
            self.state
                .set_sandbox(sandbox.id, Some(sandbox), &mut change);
        }
        self.replan(&change.dirty);
        Self::store(decision, change.take_writes(None), false);
        any
    }

    pub(super) fn kernel_changed(&mut self, now_ms: u64, notice: Notice) {
        let ours =
            |key: Key| self.believed.contains_key(&key) && !self.in_flight.contains_key(&key);
        let link = |name: IfName| {
            Key::Link(LinkKey {
                netns: Netns::Host,
                name,
            })
        };
        let delay = match notice {
            Notice::LinkGone(name) if ours(link(name)) => SOON_MS,
            Notice::LinkChanged(name) if ours(link(name)) => SOON_MS,
            Notice::AddressGone(name, ip) => {
                let netns = Netns::Host;
                let key = tombolo_netstate::object::address::AddressKey {
                    netns,
                    link: name,
                    ip,
                };
                if !ours(Key::Address(key)) {
                    return;
                }
                SOON_MS
            }
            Notice::NftChanged | Notice::ObjectChanged | Notice::Lost => SOON_MS,
            Notice::LinkGone(_) | Notice::LinkChanged(_) => return,
        };
        self.repair.soon(now_ms, delay);
    }

    /// The MTUs in bytes of the bridges that were there before us.
    fn device_mtus(&self, facts: &Facts) -> Vec<Option<u32>> {
        let existing = self.state.networks().filter(|network| network.existing);
        existing
            .map(|network| facts.links.get(&network.device).map(|link| link.mtu))
            .collect()
    }

    /// Takes new facts; networks that follow the uplink are planned anew.
    pub(super) fn set_facts(&mut self, now_ms: u64, mut facts: Facts, decision: &mut Decision) {
        if facts.settings_changed == self.settings_changed {
            facts.sysctls.extend(self.sysctls_before.clone());
        } else {
            facts.sysctls.clone_from(&self.facts.sysctls);
        }
        let follows = facts.uplink_mtu() != self.facts.uplink_mtu()
            || facts
                .uplinks
                .iter()
                .map(|u| &u.name)
                .ne(self.facts.uplinks.iter().map(|u| &u.name))
            || self.device_mtus(&facts) != self.device_mtus(&self.facts)
            || facts.forward_chains != self.facts.forward_chains
            || facts.other_bridges().ne(self.facts.other_bridges())
            || facts.input_filtered != self.facts.input_filtered
            || facts.bridge_nf != self.facts.bridge_nf
            || facts.relay_port != self.facts.relay_port;
        self.facts = facts;
        if follows {
            self.stale.extend(self.every_subject());
            self.refresh(decision);
            self.repair.soon(now_ms, SOON_MS);
        }
    }

    /// Plans stale subjects that nobody works on.
    fn refresh(&mut self, decision: &mut Decision) {
        let free: BTreeSet<Subject> = self
            .stale
            .iter()
            .filter(|s| !self.busy.contains_key(s))
            .copied()
            .collect();
        if free.is_empty() {
            return;
        }
        match self.refresh_together(free.clone(), decision) {
            Ok(()) => self.stale.retain(|subject| !free.contains(subject)),
            Err(Halt::Wait(_)) => {}
            // One of them cannot be planned now, and is planned with the next change that concerns it.
            Err(Halt::Reject(_)) => {
                for subject in free {
                    match self.refresh_together(BTreeSet::from([subject]), decision) {
                        Err(Halt::Wait(_)) => {}
                        Ok(()) | Err(Halt::Reject(_)) => drop(self.stale.remove(&subject)),
                    }
                }
            }
        }
    }

    fn refresh_together(
        &mut self,
        subjects: BTreeSet<Subject>,
        decision: &mut Decision,
    ) -> Result<(), Halt> {
        let mut change = Change::default();
        change.dirty = subjects;
        self.begin(
            None,
            Draft {
                change,
                done: Done::Refreshed,
            },
            decision,
        )
    }

    fn live_namespaces(&self) -> Vec<Netns> {
        let live = |state| matches!(state, SandboxState::Running | SandboxState::Creating);
        let sandboxes = self.state.sandboxes().filter(|s| live(s.state));
        sandboxes
            .filter(|s| s.spec.netns != SandboxNetns::Host && s.has_namespace())
            .map(driver::netns_of)
            .collect()
    }

    fn wanted_sysctls(&self) -> Vec<(SysctlKey, SysctlSpec)> {
        let wanted = |key: &Key| match (key, self.desired.get(key)) {
            (Key::Sysctl(key), Some(Spec::Sysctl(spec))) => Some((key.clone(), spec.clone())),
            _ => None,
        };
        let mut sysctls: BTreeMap<SysctlKey, SysctlSpec> =
            self.desired.keys().filter_map(wanted).collect();
        // Those that were ours and are no longer wanted are still to be put back.
        for (path, before) in &self.sysctls_before {
            let key = SysctlKey {
                path: path.as_str().into(),
            };
            let (value, restore) = (before.as_str().into(), before.as_str().into());
            sysctls.entry(key).or_insert(SysctlSpec { value, restore });
        }
        sysctls.into_iter().collect()
    }

    fn idle_leaves(&self) -> Vec<Subject> {
        let used = |id, leaf| self.state.leaves(id).any(|(other, _)| other == leaf);
        let idle = self
            .live_leaves
            .iter()
            .filter(|(id, leaf)| !used(*id, *leaf));
        idle.map(|(id, leaf)| Subject::Leaf(*id, *leaf))
            .filter(|subject| !self.desired.keys_of(&subject.owner()).is_empty())
            .collect()
    }
}
