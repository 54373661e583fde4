//! A kernel in memory that refuses what a kernel refuses, loses what a kernel loses, and fails on request.

use std::collections::BTreeSet;

use tombolo_netstate::object::address::AddressKey;
use tombolo_netstate::object::link::{LinkKey, LinkKind};
use tombolo_netstate::object::netns::NetnsKey;
use tombolo_netstate::object::port::PortKey;
use tombolo_netstate::plan::Op;
use tombolo_netstate::{Action, Edge, Key, Netns, Objects, Outcome, Plan, Report, Spec};

mod machine;
#[cfg(test)]
mod tests;

pub use machine::Refusal;
use machine::{Machine, link_key};

/// The program ended before the plan did; nobody has a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the program died before the plan was carried out")]
pub struct Died;

/// What goes wrong in the next plan; counted in operations from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// This operation fails and leaves things as they were.
    Fail(usize),
    /// This operation fails half-way: a new link exists, without its attachment and with another MTU.
    Half(usize),
    /// The program dies after so many operations.
    CrashAfter(usize),
}

/// A kernel in memory. Objects put in as foreign are never ours: an operation on one fails and is kept as a
/// trespass.
#[derive(Debug, Clone)]
pub struct FakeKernel {
    machine: Machine,
    foreign: BTreeSet<Key>,
    /// Ports that were closed and not removed: out of sight, their names taken.
    closed: BTreeSet<LinkKey>,
    /// Links that the kernel is still removing.
    leaving: BTreeSet<LinkKey>,
    /// Those of them that went with something else.
    gone: Vec<Key>,
    deferred: bool,
    fault: Fault,
    refusals: Vec<String>,
    trespasses: Vec<Key>,
    announced: Vec<Edge>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeKernel {
    /// A host with nothing of ours.
    pub fn new() -> Self {
        Self {
            machine: Machine::new(),
            foreign: BTreeSet::new(),
            closed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            gone: vec![],
            deferred: false,
            fault: Fault::None,
            refusals: vec![],
            trespasses: vec![],
            announced: vec![],
        }
    }

    /// Makes somebody else's namespace known, so that links can be put into it.
    pub fn adopt(&mut self, netns: Netns) {
        self.machine.namespaces.insert(netns);
    }

    /// Puts in an object of somebody else.
    pub fn put_foreign(&mut self, key: Key, spec: &Spec) -> Result<(), Refusal> {
        self.machine.create(&key, spec)?;
        self.foreign.insert(key);
        Ok(())
    }

    /// Somebody else removes an object, with all that lives by it.
    pub fn vanish(&mut self, key: &Key) {
        self.machine.delete(key);
        let devices = &self.machine.devices;
        self.closed.retain(|at| devices.contains_key(at));
        let gone = self.leaving.extract_if(.., |at| !devices.contains_key(at));
        self.gone.extend(gone.map(Key::Link));
    }

    /// Lets operation `n` (from 0) of the next plan fail, leaving things as they were.
    pub fn fail_at(&mut self, n: usize) {
        self.fault = Fault::Fail(n);
    }

    /// Lets the program die after the first `n` operations of the next plan.
    pub fn crash_after(&mut self, n: usize) {
        self.fault = Fault::CrashAfter(n);
    }

    /// Sets what goes wrong in the next plan.
    pub fn inject(&mut self, fault: Fault) {
        self.fault = fault;
    }

    /// Whether attached links of the host are removed in the kernel's own time, until [`Self::settle`].
    pub fn defer_removals(&mut self, deferred: bool) {
        self.deferred = deferred;
    }

    /// Sets `promote_secondaries` (on unless said otherwise): whether the later addresses of a subnet
    /// outlive its first one.
    pub fn promote_secondaries(&mut self, promote: bool) {
        self.machine.promote_secondaries = promote;
    }

    /// Carries out `plan` in its order.
    pub fn apply(&mut self, plan: &Plan) -> Result<Report, Died> {
        let fault = std::mem::take(&mut self.fault);
        let mut broken = BTreeSet::new();
        let mut report = Report::default();
        for (n, op) in plan.ops.iter().enumerate() {
            if fault == Fault::CrashAfter(n) {
                return Err(Died);
            }
            let reused = self.deferred && reuses(&plan.ops[n + 1..], &self.ends(&op.key));
            let outcome = self.step(op, &broken, fault_at(fault, n), reused);
            if !outcome.is_done() {
                broken.insert(op.key.clone());
            }
            report.outcomes.push(outcome);
        }
        if matches!(fault, Fault::CrashAfter(_)) {
            return Err(Died);
        }
        let fine = |edge: &&Edge| announced_key(edge).is_none_or(|key| !broken.contains(&key));
        self.announced
            .extend(plan.edges.iter().filter(fine).cloned());
        Ok(report)
    }

    /// What a look at the kernel shows of our objects: not what is on its way out.
    pub fn objects(&self) -> Objects {
        let mut seen = self.machine.clone();
        for at in self.closed.iter().chain(&self.leaving) {
            seen.remove_link(at);
        }
        let mut objects = seen.objects();
        objects.retain(|key, _| !self.foreign.contains(key));
        objects
    }

    /// What is there of the foreign objects.
    pub fn foreign(&self) -> Objects {
        let mut objects = self.machine.objects();
        objects.retain(|key, _| self.foreign.contains(key));
        objects
    }

    /// Lets the kernel finish its removals; returns every link that was being removed
    /// since the last time.
    pub fn settle(&mut self) -> Vec<Key> {
        let mut gone = std::mem::take(&mut self.gone);
        let waiting = std::mem::take(&mut self.leaving).into_iter();
        for at in waiting.chain(std::mem::take(&mut self.closed)) {
            // One removal may take another that waits.
            self.machine.remove_link(&at);
            gone.push(Key::Link(at));
        }
        gone
    }

    /// Operations that were refused for a reason of the kernel rather than an injected one, as text.
    pub fn refusals(&self) -> &[String] {
        &self.refusals
    }

    /// Foreign objects that a plan named.
    pub fn trespasses(&self) -> &[Key] {
        &self.trespasses
    }

    /// Lets a program of the host hold ports, as if it had been there first.
    pub fn take_ports(&mut self, ports: PortKey) {
        self.machine.foreign_ports.push(ports);
    }

    /// The messages sent so far.
    pub fn announced(&self) -> &[Edge] {
        &self.announced
    }

    fn step(&mut self, op: &Op, broken: &BTreeSet<Key>, fault: Fault, reused: bool) -> Outcome {
        if let Action::Create(spec) | Action::Update { to: spec, .. } = &op.action {
            let mut needs = needs(&op.key, spec);
            needs.push(op.key.clone());
            if let Some(because) = needs.into_iter().find(|key| broken.contains(key)) {
                return Outcome::Skipped {
                    because: Box::new(because),
                };
            }
        }
        if self.foreign.contains(&op.key) {
            self.trespasses.push(op.key.clone());
            let error = format!("{} is not ours", op.key);
            return Outcome::Failed {
                error,
                exists: false,
            };
        }
        match fault {
            Fault::Fail(_) => return self.injected(op, false),
            Fault::Half(_) => return self.injected(op, true),
            Fault::None | Fault::CrashAfter(_) => {}
        }
        match self.perform(op, reused) {
            Ok(outcome) => outcome,
            Err(refusal) => {
                self.refusals.push(format!("{op}: {refusal}"));
                let exists = self.machine.has(&op.key);
                Outcome::Failed {
                    error: refusal.to_string(),
                    exists,
                }
            }
        }
    }

    fn injected(&mut self, op: &Op, half: bool) -> Outcome {
        if let (true, Action::Create(Spec::Link(spec))) = (half, &op.action) {
            let mut spec = spec.clone();
            spec.port = None;
            spec.mtu += 1;
            if let Err(refusal) = self.machine.create(&op.key, &Spec::Link(spec)) {
                self.refusals.push(format!("{op}: {refusal}"));
            }
        }
        if let (Action::Delete(_), Key::Link(at)) = (&op.action, &op.key) {
            // Closed before, and not heard of again until it is gone.
            self.leaving.extend(self.closed.take(at));
        }
        let exists = match op.action {
            Action::Delete(_) => self.machine.has(&op.key),
            _ => self.objects().contains_key(&op.key),
        };
        Outcome::Failed {
            error: "injected".into(),
            exists,
        }
    }

    fn perform(&mut self, op: &Op, reused: bool) -> Result<Outcome, Refusal> {
        match (&op.action, &op.key) {
            (Action::Close(_), Key::Link(at)) => {
                if self.machine.devices.contains_key(at) {
                    self.closed.insert(at.clone());
                }
            }
            (Action::Close(_), _) => return Err(Refusal::Kind(Box::new(op.key.clone()))),
            (Action::Create(spec), key) => self.machine.create(key, spec)?,
            (Action::Update { to, .. }, key) => self.machine.update(key, to)?,
            (Action::Delete(Spec::Link(spec)), Key::Link(at))
                if self.deferred
                    && !reused
                    && at.netns == Netns::Host
                    && spec.port.is_some()
                    && self.machine.devices.contains_key(at) =>
            {
                self.closed.remove(at);
                self.leaving.insert(at.clone());
                return Ok(Outcome::Deferred);
            }
            (Action::Delete(_), key) => self.vanish(key),
        }
        Ok(Outcome::Done)
    }

    /// The link at `key` and the other end of its veth.
    fn ends(&self, key: &Key) -> Vec<Key> {
        let Key::Link(at) = key else { return vec![] };
        let other = self
            .machine
            .devices
            .get(at)
            .and_then(|device| device.other.clone());
        other
            .into_iter()
            .chain([at.clone()])
            .map(Key::Link)
            .collect()
    }
}

fn fault_at(fault: Fault, at: usize) -> Fault {
    match fault {
        Fault::Fail(n) | Fault::Half(n) if n == at => fault,
        _ => Fault::None,
    }
}

fn announced_key(edge: &Edge) -> Option<Key> {
    let Edge::Announce {
        netns, link, ip, ..
    } = edge
    else {
        return None;
    };
    Some(Key::Address(AddressKey {
        netns: netns.clone(),
        link: *link,
        ip: *ip,
    }))
}

/// A name that the same plan needs again cannot be left to the kernel's own time.
fn reuses(rest: &[Op], ends: &[Key]) -> bool {
    let made = |op: &&Op| matches!(op.action, Action::Create(_));
    rest.iter().filter(made).any(|op| ends.contains(&op.key))
}

/// The objects on which an object with this spec builds.
fn needs(key: &Key, spec: &Spec) -> Vec<Key> {
    let mut needs = vec![];
    let place = |netns: &Netns| match netns {
        Netns::Owned(name) => Some(Key::Netns(NetnsKey { name: name.clone() })),
        Netns::Host | Netns::Adopted { .. } => None,
    };
    let link = |netns: &Netns, name| Key::Link(link_key(netns, name));
    match (key, spec) {
        (Key::Link(at), Spec::Link(spec)) => {
            needs.extend(place(&at.netns));
            needs.extend(spec.port.as_ref().map(|port| link(&at.netns, port.bridge)));
            match &spec.kind {
                LinkKind::Bridge { .. } | LinkKind::Lent { .. } | LinkKind::Taken { .. } => {}
                LinkKind::Veth { peer, .. } => {
                    needs.extend(place(&peer.netns));
                    needs.push(Key::Link(peer.clone()));
                }
                LinkKind::Peer { pair } => needs.push(Key::Link(pair.clone())),
            }
        }
        (Key::Address(at), _) => needs.push(link(&at.netns, at.link)),
        (Key::Neighbour(at), _) => needs.push(link(&at.netns, at.link)),
        (Key::Fdb(at), Spec::Fdb(spec)) => {
            needs.push(link(&Netns::Host, at.bridge));
            needs.push(link(&Netns::Host, spec.port));
        }
        (Key::Route(at), Spec::Route(spec)) => {
            needs.push(link(&at.netns, spec.link));
            needs.extend(spec.source.map(|ip| {
                let netns = at.netns.clone();
                Key::Address(AddressKey {
                    netns,
                    link: spec.link,
                    ip,
                })
            }));
        }
        (Key::Listener(at), _) => needs.extend(place(&at.netns)),
        (Key::Element(_), _) => needs.push(Key::NftBase),
        _ => {}
    }
    needs
}
