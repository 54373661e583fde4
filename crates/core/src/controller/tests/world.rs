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
use crate::reject::{Code, Reject};

/// The answer to a request.
pub(super) type Answer = Result<Reply, Reject>;

/// What is seen of a world from outside, in its order.
#[derive(Debug, Clone)]
pub(super) enum Sight {
    Plan(Plan),
    Answer(RequestId, Box<Answer>),
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
    foreign: Vec<(Key, Spec)>,
    effects: Vec<Effect>,
    reports: Vec<Event>,
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
            foreign: vec![],
            effects: vec![],
            reports: vec![],
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
        self.handle(Event::Command { request, command, seed });
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
        let gone = self.kernel.settle();
        self.handle(Event::Gone(gone));
    }

    /// New facts are seen.
    pub(super) fn tell_facts(&mut self) {
        self.handle(Event::Facts(Box::new(self.facts.clone())));
    }

    /// What is wrong goes wrong in the next plan.
    pub(super) fn inject(&mut self, fault: Fault) {
        self.kernel.inject(fault);
    }

    /// Puts in an interface of somebody else.
    pub(super) fn put_foreign_bridge(&mut self, name: &str, address: IpNet) {
        let at = LinkKey { netns: Netns::Host, name: IfName::new(name).unwrap() };
        let link = LinkSpec {
            kind: LinkKind::Bridge { snooping: true },
            mac: Mac([2, 0, 0, 0, 0, 9]),
            mtu: 1_500,
            port: None,
            ipv6: true,
            link_local: true,
            alias: "".into(),
        };
        let ip = AddressKey { netns: Netns::Host, link: at.name, ip: address.addr() };
        let prefix_len = address.prefix_len();
        let spec = AddressSpec { prefix_len, prefix_route: true, announce: None };
        self.foreign.push((Key::Link(at), Spec::Link(Box::new(link))));
        self.foreign.push((Key::Address(ip), Spec::Address(spec)));
        for (key, spec) in &self.foreign[self.foreign.len() - 2..] {
            self.kernel.put_foreign(key.clone(), spec).unwrap();
        }
        let addresses = vec![address];
        let fact = LinkFact { bridge: true, mtu: 1_500, addresses, ours: false };
        self.facts.links.insert(name.to_owned(), fact);
        self.tell_facts();
    }

    /// Ends the program and starts it again; `rebooted` takes the kernel's state along.
    pub(super) fn restart(&mut self, rebooted: bool) {
        self.effects.clear();
        self.reports.clear();
        self.held = false;
        self.open.clear();
        self.kernel.inject(Fault::None);
        let _ = self.kernel.settle();
        if rebooted {
            self.kernel = FakeKernel::new();
            for (key, spec) in &self.foreign {
                self.kernel.put_foreign(key.clone(), spec).unwrap();
            }
        }
        let pools = DefaultPools::default().with_ula(&[7; 8]).unwrap();
        self.controller = Controller::new(self.settings.clone(), pools, self.real_facts());
        let records = self.store.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()));
        let restored = self.controller.restore(records, rebooted).unwrap();
        for write in restored.writes {
            self.write(write.key, write.value);
        }
        self.sights.push(Sight::Restored(restored.notes));
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
                facts.sysctls.insert(key.path.to_string(), spec.value.to_string());
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
        let Decision { writes, effects, replies, .. } = decision;
        if self.store_full && !writes.is_empty() {
            for (request, answer) in replies {
                let full = || Reject::new(Code::Store, "store", "no space").hint("free space");
                self.answer(request, answer.and_then(|_| Err(full())));
            }
            let jobs: Vec<JobId> = effects.iter().filter_map(job_of).collect();
            self.handle(Event::NotStored { jobs, reason: "no space".into() });
            return;
        }
        for write in writes {
            self.write(write.key, write.value);
        }
        self.effects.extend(effects);
        for (request, answer) in replies {
            self.answer(request, answer);
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        let before = self.answers.insert(request, answer.clone());
        assert!(before.is_none(), "request {} was answered twice", request.0);
        self.open.remove(&request);
        self.sights.push(Sight::Answer(request, Box::new(answer)));
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
            Effect::Observe { job, sandboxes, sysctls } => {
                let mut found = self.kernel.objects();
                found.retain(|key, _| match key {
                    Key::Netns(_) => true,
                    Key::Sysctl(at) => sysctls.iter().any(|(asked, _)| asked == at),
                    _ => key.netns() == Netns::Host || sandboxes.contains(&key.netns()),
                });
                let gone = |netns: &Netns| self.missing.contains(netns);
                let missing = sandboxes.into_iter().filter(gone).collect();
                self.reports.push(Event::Observed { job, found: Ok(Box::new(found)), missing });
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

    /// Checks what must hold whenever nothing is under way and the kernel was compared: the kernel holds
    /// what it should and nothing else, no address is leaked or shared, nothing waits.
    pub(super) fn check(&self) {
        let control = &self.controller;
        let desired = control.desired.objects();
        for (key, spec) in &desired {
            assert_eq!(self.held_objects().get(key), Some(spec), "in the kernel: {key}");
        }
        let extra: Vec<String> =
            self.held_objects().keys().filter(|k| !desired.contains_key(k)).map(Key::to_string).collect();
        assert!(extra.is_empty(), "left behind in the kernel: {extra:#?}");
        assert_eq!(control.believed, desired, "believed");
        assert!(self.kernel.trespasses().is_empty(), "touched: {:?}", self.kernel.trespasses());
        let mut leases = BTreeMap::new();
        for pool in control.state.space.pools() {
            leases.extend(pool.leases().map(|(ip, lease)| (ip, lease.owner.clone())));
        }
        let mut addresses = BTreeMap::new();
        for endpoint in control.endpoints() {
            for address in &endpoint.addresses {
                let before = addresses.insert(address.addr(), endpoint.id.to_string());
                assert_eq!(before, None, "two endpoints have {address}");
            }
        }
        assert_eq!(leases, addresses, "leases and the endpoints' addresses");
        self.check_rest();
        self.check_records();
    }

    fn check_rest(&self) {
        let control = &self.controller;
        assert!(self.open.is_empty(), "no answer to {:?}", self.open);
        assert!(control.jobs.is_empty(), "jobs: {:?}", control.jobs);
        assert!(control.busy.is_empty(), "busy: {:?}", control.busy);
        assert!(control.in_flight.is_empty(), "in flight: {:?}", control.in_flight);
        assert!(control.waiting.is_empty(), "waiting: {:?}", control.waiting);
        assert_eq!(control.waiting_count, 0, "waiting");
        assert!(control.leaving.is_empty(), "leaving: {:?}", control.leaving);
        assert!(control.departing.is_empty(), "departing: {:?}", control.departing);
        assert!(control.stale.is_empty(), "stale: {:?}", control.stale);
        assert!(control.failures.is_empty(), "failures: {:?}", control.failures);
        let pools: BTreeSet<IpNet> = control.state.space.pools().map(crate::ipam::Pool::subnet).collect();
        let wanted = control.networks().flat_map(|n| n.pools.iter().map(|pool| pool.subnet)).collect();
        assert_eq!(pools, wanted, "pools and the networks' subnets");
        let set = |key: &Key| match key {
            Key::Sysctl(key) => Some(key.path.to_string()),
            _ => None,
        };
        let sysctls: BTreeSet<String> = self.held_objects().keys().filter_map(set).collect();
        let before: BTreeSet<String> = control.sysctls_before.keys().cloned().collect();
        assert_eq!(before, sysctls, "sysctls remembered and set");
    }

    /// What a restart reads is what is in memory.
    fn check_records(&self) {
        let control = &self.controller;
        let pools = DefaultPools::default().with_ula(&[7; 8]).unwrap();
        let mut copy = Controller::new(self.settings.clone(), pools, control.facts.clone());
        let records = self.store.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()));
        let restored = copy.restore(records, false).unwrap();
        assert!(restored.notes.is_empty(), "a restart would say {:?}", restored.notes);
        assert!(control.networks().eq(copy.networks()), "stored networks");
        assert!(control.sandboxes().eq(copy.sandboxes()), "stored sandboxes");
        assert!(control.endpoints().eq(copy.endpoints()), "stored endpoints");
        assert_eq!(control.sysctls_before, copy.sysctls_before, "stored sysctls");
    }

    /// The namespace of the sandbox of that name.
    pub(super) fn netns(&self, name: &str) -> Option<Netns> {
        let found = self.controller.sandboxes().find(|s| s.name.as_str() == name)?;
        Some(driver::netns_of(found))
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
    let eth0 = LinkFact { mtu: 1_500, addresses: vec![net("10.0.2.15/24")], ..LinkFact::default() };
    let sysctl = |path: &str, value: &str| (path.to_owned(), value.to_owned());
    Facts {
        uplinks: vec![Uplink { name: "eth0".to_owned(), mtu: 1_500 }],
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
    }
}
