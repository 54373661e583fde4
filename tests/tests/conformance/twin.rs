//! A kernel and its model, given the same plans.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tombolo_kernel::{Kernel, KernelConfig, Scope};
use tombolo_lab::FakeKernel;
use tombolo_netstate::{Key, Netns, Objects, Outcome, Plan, Report, Spec};

/// Longest time that the kernel is given to finish removals.
const REMOVAL: Duration = Duration::from_secs(20);

/// How often the kernel is looked at until it has finished.
const POLL: Duration = Duration::from_millis(10);

/// The kernel of the thread's namespace, and the model of one.
pub(crate) struct Twin {
    pub(crate) real: Kernel,
    pub(crate) fake: FakeKernel,
    gone: Receiver<Vec<Key>>,
    leaving: BTreeSet<Key>,
    /// What was done last, for whoever has to find out why the two differ.
    last: String,
}

impl Twin {
    /// Both empty.
    pub(crate) fn new(directory: &Path) -> Self {
        let config = KernelConfig {
            run_dir: directory.join("run"),
            instance: "twin".to_owned(),
            pool: 0,
            ports: None,
        };
        let real = Kernel::open(config).unwrap();
        let gone = real.gone().unwrap();
        let promotes = ["all", "default"].into_iter().any(|which| {
            let setting = format!("net/ipv4/conf/{which}/promote_secondaries");
            real.read_sysctl(&setting).unwrap() == "1"
        });
        let mut fake = FakeKernel::new();
        fake.promote_secondaries(promotes);
        Self {
            real,
            fake,
            gone,
            leaving: BTreeSet::new(),
            last: String::new(),
        }
    }

    /// Carries out `plan` on both, which must report the same, and waits for what the kernel does in its own
    /// time. The report is the kernel's.
    pub(crate) fn apply(&mut self, plan: &Plan) -> Report {
        self.last = plan.to_string();
        let model = self.fake.apply(plan).unwrap();
        let report = self.real.apply(plan);
        for ((op, real), fake) in plan.ops.iter().zip(&report.outcomes).zip(&model.outcomes) {
            assert_eq!(
                real.is_done(),
                fake.is_done(),
                "{op}: the kernel says {real:?}, the model {fake:?}; the plan:\n{plan}"
            );
            if *real == Outcome::Deferred {
                self.leaving.insert(op.key.clone());
            }
        }
        report
    }

    /// Waits until the kernel has finished its removals; what it told.
    pub(crate) fn settle(&mut self) -> Vec<Key> {
        let end = Instant::now() + REMOVAL;
        let mut told = vec![];
        while !self.leaving.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(keys) = self.gone.recv_timeout(left) else {
                panic!("the kernel does not tell of the end of {:?}", self.leaving);
            };
            for key in keys {
                self.leaving.remove(&key);
                told.push(key);
            }
        }
        told
    }

    /// What both hold: asserts that it is the same, as far as `wanted` and what the model holds say where to
    /// look, once the kernel has finished what it does in its own time.
    pub(crate) fn observe(&self, wanted: &Objects, what: &str) -> Objects {
        let end = Instant::now() + REMOVAL;
        let held = self.fake.objects();
        loop {
            let seen = self.look(wanted, &held, what);
            let wrong = differences(&seen, &held);
            if wrong.is_empty() {
                return seen;
            }
            assert!(
                Instant::now() < end,
                "{what}:\n{}\nafter this plan:\n{}",
                wrong.join("\n"),
                self.last
            );
            std::thread::sleep(POLL);
        }
    }

    fn look(&self, wanted: &Objects, held: &Objects, what: &str) -> Objects {
        let scope = scope_of(wanted.iter().chain(held));
        let mut seen = self.real.observe(&scope).unwrap();
        assert_eq!(seen.notes, Vec::<String>::new(), "{what}");
        // A setting is always there; it is held once it differs from what it was.
        seen.objects.retain(|key, spec| match spec {
            Spec::Sysctl(spec) => spec.value != spec.restore || held.contains_key(key),
            _ => true,
        });
        seen.objects
    }
}

/// Where the two disagree.
fn differences(real: &Objects, fake: &Objects) -> Vec<String> {
    let keys: BTreeSet<&Key> = real.keys().chain(fake.keys()).collect();
    let text = |spec: Option<&Spec>| spec.map_or("nothing".into(), Spec::to_string);
    keys.into_iter()
        .map(|key| (key, real.get(key), fake.get(key)))
        .filter(|(_, real, fake)| real != fake)
        .map(|(key, real, fake)| {
            let (real, fake) = (text(real), text(fake));
            format!("{key}: the kernel has {real}, the model {fake}")
        })
        .collect()
}

/// Where to look to see all of these objects.
fn scope_of<'a>(objects: impl Iterator<Item = (&'a Key, &'a Spec)>) -> Scope {
    let mut scope = Scope {
        host: true,
        ..Scope::default()
    };
    let mut sandboxes = BTreeSet::new();
    for (key, spec) in objects {
        let netns = match key {
            Key::Netns(key) => Netns::Owned(key.name.clone()),
            key => key.netns(),
        };
        if netns != Netns::Host {
            sandboxes.insert(netns);
        }
        match (key, spec) {
            (Key::Sysctl(key), Spec::Sysctl(spec)) => {
                scope.sysctls.retain(|(known, _)| known != key);
                scope.sysctls.push((key.clone(), spec.clone()));
            }
            (Key::Address(key), Spec::Address(spec)) => {
                let mac = spec.announce;
                scope.announced.extend(mac.map(|mac| (key.clone(), mac)));
            }
            _ => {}
        }
    }
    scope.sandboxes = sandboxes.into_iter().collect();
    scope
}
