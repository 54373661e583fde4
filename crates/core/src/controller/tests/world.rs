//! A controller with a kernel in memory, a store in memory and a clock that stands still: performs decisions
//! as the daemon does, in the order in which they come or in any other.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tombolo_lab::{FakeKernel, Fault};
use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::{IfName, Key, Mac, Netns, Objects, Plan, Spec};

use crate::command::Command;
use crate::controller::{Controller, driver};
use crate::event::{Decision, Effect, Event, JobId, Reply, RequestId};
use crate::facts::{Facts, LinkFact, Settings, Uplink};
use crate::id::SandboxId;
use crate::ipam::DefaultPools;
use crate::reject::Reject;

/// The answer to a request.
pub(super) type Answer = Result<Reply, Reject>;

/// What is seen of a world from outside, in its order.
#[derive(Debug, Clone)]
pub(super) enum Sight {
    Plan(Plan),
    Answer(Box<Answer>),
    Files(SandboxId, bool),
    Died,
    Restored(Vec<String>),
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) controller: Controller,
    pub(super) kernel: FakeKernel,
    pub(super) store: BTreeMap<String, Vec<u8>>,
    pub(super) facts: Facts,
    pub(super) settings: Settings,
    pub(super) now_ms: u64,
    /// The next decisions that have something to store find the store full.
    pub(super) store_full: bool,
    /// Effects are not performed.
    pub(super) held: bool,
    pub(super) sights: Vec<Sight>,
    /// Namespaces of others that are gone.
    pub(super) missing: BTreeSet<Netns>,
    /// Requests that have no answer yet, and how to send them again.
    pub(super) open: BTreeMap<RequestId, Command>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    /// What goes wrong in the first plans after the next starts.
    pub(super) after_restart: Vec<Fault>,
    foreign: Vec<(Key, Spec)>,
    effects: Vec<Effect>,
    reports: Vec<Event>,
    /// Outcomes that the store did not take yet.
    owed: BTreeMap<String, Option<Vec<u8>>>,
    wake_at: Option<u64>,
    requests: u64,
    random: u64,
}

impl World {
    /// A host with one uplink, on which the daemon has just started.
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let facts = facts();
        let pools = DefaultPools::default().with_ula(&[7; 8]).unwrap();
        let mut world = Self {
            controller: Controller::new(settings.clone(), pools, facts.clone()),
            kernel: FakeKernel::new(),
            store: BTreeMap::new(),
            facts,
            settings,
            now_ms: 1_000_000,
            store_full: false,
            held: false,
            sights: vec![],
            missing: BTreeSet::new(),
            open: BTreeMap::new(),
            answers: BTreeMap::new(),
            after_restart: vec![],
            foreign: vec![],
            effects: vec![],
            reports: vec![],
            owed: BTreeMap::new(),
            wake_at: None,
            requests: 0,
            random: 0,
        };
        world.restart(false);
        world
    }

    /// Lets effects and reports come in an order drawn from `seed`; 0 is the order in which they arise.
    pub(super) fn shuffle(&mut self, seed: u64) {
        self.random = seed;
    }

    /// Sends a request without waiting for anything.
    pub(super) fn send(&mut self, command: Command) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.open.insert(request, command.clone());
        // Digits that differ early, so that short ids do.
        let seed = u128::from(crate::id::stable_hash(&[&self.requests.to_be_bytes()])) << 64;
        self.handle(Event::Command {
            request,
            command,
            seed,
        });
        request
    }

    /// Sends a request and lets everything come to rest.
    pub(super) fn ask(&mut self, command: Command) -> Option<Answer> {
        let request = self.send(command);
        self.rest();
        self.answers.get(&request).cloned()
    }

    /// Performs what is under way until nothing is.
    pub(super) fn rest(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Performs one thing that is under way; `false` if there is none.
    pub(super) fn step(&mut self) -> bool {
        let effects = if self.held { 0 } else { self.effects.len() };
        let total = effects + self.reports.len();
        if total == 0 {
            return false;
        }
        // In the order in which they arise, reports come before further effects.
        let n = match self.random {
            0 => (effects) % total,
            _ => self.draw() as usize % total,
        };
        if n < effects {
            let effect = self.effects.remove(n);
            self.perform(effect);
        } else {
            let report = self.reports.remove(n - effects);
            self.handle(report);
        }
        true
    }

    /// Performs the first effect that waits, and delivers nothing.
    pub(super) fn perform_first(&mut self) {
        let effect = self.effects.remove(0);
        self.perform(effect);
    }

    /// Lets time pass, with the ticks that were asked for.
    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        for _ in 0..10_000 {
            self.rest();
            match self.wake_at.filter(|at| *at <= until) {
                Some(at) => self.now_ms = self.now_ms.max(at),
                None => break,
            }
            self.handle(Event::Tick);
        }
        self.now_ms = until;
        self.handle(Event::Tick);
        self.rest();
    }

    /// The kernel finishes its removals and says so.
    pub(super) fn settle(&mut self) {
        // The report of a plan comes before the news that its removals are over.
        while let Some(report) = (!self.reports.is_empty()).then(|| self.reports.remove(0)) {
            self.handle(report);
        }
        let gone = self.kernel.settle();
        self.handle(Event::Gone(gone));
    }

    /// New facts are seen.
    pub(super) fn tell_facts(&mut self) {
        self.facts.settings_changed = self.controller.settings_changed();
        self.handle(Event::Facts(Box::new(self.facts.clone())));
    }

    /// Somebody else changes the kernel.
    pub(super) fn meddle(&mut self, mut kernel: FakeKernel) {
        std::mem::swap(&mut self.kernel, &mut kernel);
    }

    /// What is wrong goes wrong in the next plan.
    pub(super) fn inject(&mut self, fault: Fault) {
        self.kernel.inject(fault);
    }

    /// Puts in an interface of somebody else.
    pub(super) fn put_foreign_bridge(&mut self, name: &str, address: IpNet) {
        let at = LinkKey {
            netns: Netns::Host,
            name: IfName::new(name).unwrap(),
        };
        let link = LinkSpec {
            kind: LinkKind::Bridge {
                snooping: true,
                localnet: false,
            },
            mac: Mac([2, 0, 0, 0, 0, 9]),
            mtu: 1_500,
            port: None,
            ipv6: true,
            link_local: true,
            alias: "".into(),
        };
        let ip = AddressKey {
            netns: Netns::Host,
            link: at.name,
            ip: address.addr(),
        };
        let prefix_len = address.prefix_len();
        let spec = AddressSpec {
            prefix_len,
            prefix_route: true,
            announce: None,
        };
        self.foreign
            .push((Key::Link(at), Spec::Link(Box::new(link))));
        self.foreign.push((Key::Address(ip), Spec::Address(spec)));
        for (key, spec) in &self.foreign[self.foreign.len() - 2..] {
            self.kernel.put_foreign(key.clone(), spec).unwrap();
        }
        let addresses = vec![address];
        let fact = LinkFact {
            bridge: true,
            mtu: 1_500,
            addresses,
            ours: false,
            outward: false,
        };
        self.facts.links.insert(name.to_owned(), fact);
        self.tell_facts();
    }

    /// Ends the program and starts it again; `rebooted` takes the kernel's state along.
    pub(super) fn restart(&mut self, rebooted: bool) {
        self.effects.clear();
        self.reports.clear();
        self.owed.clear();
        self.held = false;
        self.open.clear();
        let _ = self.kernel.settle();
        if rebooted {
            self.kernel = FakeKernel::new();
            for (key, spec) in &self.foreign {
                self.kernel.put_foreign(key.clone(), spec).unwrap();
            }
        }
        let pools = DefaultPools::default().with_ula(&[7; 8]).unwrap();
        self.controller = Controller::new(self.settings.clone(), pools, self.real_facts());
        let records = self
            .store
            .iter()
            .map(|(key, bytes)| (key.as_str(), bytes.as_slice()));
        let restored = self.controller.restore(records, rebooted).unwrap();
        for write in restored.writes {
            self.write(write.key, write.value);
        }
        self.sights.push(Sight::Restored(restored.notes));
        self.kernel
            .inject(self.after_restart.pop().unwrap_or_default());
        self.ask(Command::Repair);
    }

    /// Objects of ours that the kernel holds.
    pub(super) fn held_objects(&self) -> Objects {
        self.kernel.objects()
    }

    /// The facts as a daemon finds them when it starts: settings that are ours have our values by now.
    fn real_facts(&self) -> Facts {
        let mut facts = self.facts.clone();
        for (key, spec) in self.kernel.objects() {
            if let (Key::Sysctl(key), Spec::Sysctl(spec)) = (key, spec) {
                facts
                    .sysctls
                    .insert(key.path.to_string(), spec.value.to_string());
            }
        }
        facts
    }

    pub(super) fn handle(&mut self, event: Event) {
        let decision = self.controller.handle(self.now_ms, event);
        self.wake_at = decision.wake_at;
        self.decide(decision);
    }

    fn decide(&mut self, decision: Decision) {
        let Decision {
            writes,
            effects,
            replies,
            ..
        } = decision;
        let mut refused = vec![];
        if self.store_full && !writes.is_empty() {
            // Outcomes are stored later.
            let outcomes = writes.into_iter().filter(|write| write.intent_of.is_none());
            self.owed
                .extend(outcomes.map(|write| (write.key, write.value)));
            refused = effects.iter().filter_map(job_of).collect();
        } else {
            if !self.store_full {
                for (key, value) in std::mem::take(&mut self.owed) {
                    self.write(key, value);
                }
            }
            for write in writes {
                self.write(write.key, write.value);
            }
        }
        let performed = |effect: &Effect| job_of(effect).is_none_or(|job| !refused.contains(&job));
        for effect in effects.into_iter().filter(performed) {
            match effect {
                // Files are there before the answer.
                Effect::WriteFiles(_) | Effect::RemoveFiles(_) => self.perform(effect),
                Effect::Apply { .. } | Effect::Observe { .. } => self.effects.push(effect),
            }
        }
        for (request, answer) in replies {
            self.answer(request, answer);
        }
        if !refused.is_empty() {
            self.handle(Event::NotStored {
                jobs: refused,
                reason: "no space".into(),
            });
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        let before = self.answers.insert(request, answer.clone());
        assert!(before.is_none(), "request {} was answered twice", request.0);
        self.open.remove(&request);
        self.sights.push(Sight::Answer(Box::new(answer)));
    }

    fn write(&mut self, key: String, value: Option<Vec<u8>>) {
        match value {
            Some(value) => drop(self.store.insert(key, value)),
            None => drop(self.store.remove(&key)),
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Apply { job, plan } => {
                self.sights.push(Sight::Plan(plan.clone()));
                match self.kernel.apply(&plan) {
                    Ok(report) => self.reports.push(Event::Applied { job, report }),
                    Err(_) => {
                        self.sights.push(Sight::Died);
                        self.restart(false);
                    }
                }
            }
            Effect::Observe {
                job,
                sandboxes,
                sysctls,
            } => {
                let mut found = self.kernel.objects();
                found.retain(|key, _| match key {
                    Key::Netns(_) | Key::Listener(_) => true,
                    Key::Sysctl(at) => sysctls.iter().any(|(asked, _)| asked == at),
                    _ => key.netns() == Netns::Host || sandboxes.contains(&key.netns()),
                });
                let gone = |netns: &Netns| self.missing.contains(netns);
                let missing = sandboxes.into_iter().filter(gone).collect();
                self.reports.push(Event::Observed {
                    job,
                    found: Ok(Box::new(found)),
                    missing,
                });
            }
            Effect::WriteFiles(id) => self.sights.push(Sight::Files(id, true)),
            Effect::RemoveFiles(id) => self.sights.push(Sight::Files(id, false)),
        }
    }

    /// A number of the world's own sequence (SplitMix64).
    pub(super) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What must hold whenever nothing is under way and the kernel was compared: the kernel holds what it
    /// should and nothing else, no address is leaked or shared, nothing waits, a restart would read the same.
    pub(super) fn check(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// What does not hold.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = vec![];
        let control = &self.controller;
        let (desired, held) = (control.desired.objects(), self.held_objects());
        for key in desired
            .keys()
            .chain(held.keys())
            .chain(control.believed.keys())
        {
            let (want, have, think) = (desired.get(key), held.get(key), control.believed.get(key));
            if want != have || want != think {
                let text = |spec: Option<&Spec>| spec.map_or("-".to_owned(), Spec::to_string);
                let (want, have, think) = (text(want), text(have), text(think));
                faults.push(format!(
                    "{key}: desired {want}; in the kernel {have}; believed {think}"
                ));
            }
        }
        faults.dedup();
        faults.extend(
            self.kernel
                .trespasses()
                .iter()
                .map(|key| format!("touched {key}")),
        );
        self.check_addresses(&mut faults);
        self.check_rest(&mut faults);
        self.check_records(&mut faults);
        faults
    }

    fn check_addresses(&self, faults: &mut Vec<String>) {
        let control = &self.controller;
        let mut addresses = BTreeMap::new();
        for endpoint in control.endpoints() {
            let network = control.network(endpoint.network);
            let chosen = endpoint.plugin.as_ref().map(|plugin| &plugin.addresses);
            for address in &endpoint.addresses {
                let is_leased = network.is_some_and(|n| n.pool_of(address.addr()).is_some());
                if !is_leased && chosen.is_some_and(|chosen| chosen.contains(address)) {
                    continue;
                }
                if addresses
                    .insert(address.addr(), endpoint.id.to_string())
                    .is_some()
                {
                    faults.push(format!("two endpoints have {address}"));
                }
            }
        }
        let pools = || control.state.space.pools();
        let leases = pools()
            .flat_map(|pool| pool.leases())
            .map(|(ip, lease)| (ip, lease.owner.clone()));
        same(faults, "leases", &leases.collect(), &addresses);
        let subnets: BTreeSet<IpNet> = pools().map(crate::ipam::Pool::subnet).collect();
        let wanted = control
            .networks()
            .flat_map(|n| n.pools.iter().map(|pool| pool.subnet))
            .collect();
        same(faults, "pools", &subnets, &wanted);
    }

    fn check_rest(&self, faults: &mut Vec<String>) {
        let control = &self.controller;
        same(
            faults,
            "requests without an answer",
            &self.open,
            &BTreeMap::new(),
        );
        let counts = [
            ("jobs", control.jobs.len()),
            ("busy", control.busy.len()),
            ("in flight", control.in_flight.len()),
            ("waiting", control.waiting.len() + control.waiting_count),
            ("leaving", control.leaving.len()),
            ("departing", control.departing.len()),
            ("stale", control.stale.len()),
            ("failures", control.failures.len()),
        ];
        for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            faults.push(format!("at rest there are {count} {what}"));
        }
        let path = |key: &Key| match key {
            Key::Sysctl(key) => Some(key.path.to_string()),
            _ => None,
        };
        let sysctls: BTreeSet<String> = self.held_objects().keys().filter_map(path).collect();
        let before: BTreeSet<String> = control.sysctls_before.keys().cloned().collect();
        same(faults, "sysctls remembered and set", &before, &sysctls);
    }

    /// What a restart reads is what is in memory.
    fn check_records(&self, faults: &mut Vec<String>) {
        let control = &self.controller;
        if self.store_full || !self.owed.is_empty() {
            return;
        }
        let pools = DefaultPools::default().with_ula(&[7; 8]).unwrap();
        let mut copy = Controller::new(self.settings.clone(), pools, control.facts.clone());
        let records = self
            .store
            .iter()
            .map(|(key, bytes)| (key.as_str(), bytes.as_slice()));
        let restored = copy.restore(records, false).unwrap();
        faults.extend(
            restored
                .notes
                .iter()
                .map(|note| format!("a restart would say: {note}")),
        );
        if !control.networks().eq(copy.networks()) {
            faults.push("networks differ from their records".to_owned());
        }
        if !control.sandboxes().eq(copy.sandboxes()) {
            faults.push("sandboxes differ from their records".to_owned());
        }
        if !control.endpoints().eq(copy.endpoints()) {
            faults.push("endpoints differ from their records".to_owned());
        }
        same(
            faults,
            "stored sysctls",
            &copy.sysctls_before,
            &control.sysctls_before,
        );
    }

    /// The namespace of the sandbox of that name.
    pub(super) fn netns(&self, name: &str) -> Option<Netns> {
        let found = self
            .controller
            .sandboxes()
            .find(|s| s.name.as_str() == name)?;
        Some(driver::netns_of(found))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(faults: &mut Vec<String>, what: &str, have: &T, want: &T) {
    if have != want {
        faults.push(format!("{what}: {have:?}, not {want:?}"));
    }
}

fn job_of(effect: &Effect) -> Option<JobId> {
    match effect {
        Effect::Apply { job, .. } | Effect::Observe { job, .. } => Some(*job),
        Effect::WriteFiles(_) | Effect::RemoveFiles(_) => None,
    }
}

fn facts() -> Facts {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let eth0 = LinkFact {
        mtu: 1_500,
        addresses: vec![net("10.0.2.15/24")],
        ..LinkFact::default()
    };
    let sysctl = |path: &str, value: &str| (path.to_owned(), value.to_owned());
    Facts {
        uplinks: vec![Uplink {
            name: "eth0".to_owned(),
            mtu: 1_500,
        }],
        routes: vec![net("10.0.2.0/24")],
        resolvers: vec!["10.0.2.3".parse().unwrap()],
        links: BTreeMap::from([("eth0".to_owned(), eth0)]),
        ipv6: true,
        sysctls: BTreeMap::from([
            sysctl("net/ipv4/ip_forward", "0"),
            sysctl("net/ipv6/conf/all/forwarding", "0"),
            sysctl("net/ipv6/conf/eth0/accept_ra", "1"),
        ]),
        node: [1; 16],
        ..Facts::default()
    }
}
