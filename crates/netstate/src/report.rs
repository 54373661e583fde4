//! What became of a plan: an outcome for each operation, and what that means for our record of the kernel.

use std::collections::BTreeSet;

use crate::diff::{leaning, shaken, vanishing};
use crate::object::{Key, Objects, Phase, Spec};
use crate::plan::{Action, Plan};

/// The outcomes of a plan's operations, in the plan's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// One for each operation.
    pub outcomes: Vec<Outcome>,
}

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out.
    Done,
    /// A removal that the kernel carries out in its own time; until then the key cannot be used again.
    Deferred,
    /// Not carried out.
    Failed {
        /// What the kernel said, and on what.
        error: String,
        /// Whether the object is there, or partly there, all the same and must be removed.
        exists: bool,
    },
    /// Not tried, because an operation that it builds on had failed.
    Skipped {
        /// The object that is missing.
        because: Box<Key>,
    },
}

impl Outcome {
    /// Whether the operation did what it was to do.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done | Self::Deferred)
    }
}

impl Report {
    /// A report that says that all of `plan` was carried out.
    pub fn done(plan: &Plan) -> Self {
        Self {
            outcomes: vec![Outcome::Done; plan.ops.len()],
        }
    }

    /// Whether every operation was carried out.
    pub fn is_done(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_done)
    }

    /// The first failure, with its object.
    pub fn failure<'a>(&'a self, plan: &'a Plan) -> Option<(&'a Key, &'a str)> {
        plan.ops
            .iter()
            .zip(&self.outcomes)
            .find_map(|(op, outcome)| match outcome {
                Outcome::Failed { error, .. } => Some((&op.key, error.as_str())),
                Outcome::Done | Outcome::Deferred | Outcome::Skipped { .. } => None,
            })
    }

    /// Writes into `believed` what the kernel now holds after `plan`, and returns the keys that are being
    /// removed in the kernel's own time.
    pub fn record(&self, plan: &Plan, believed: &mut Objects) -> Vec<Key> {
        let mut leaving = Vec::new();
        let mut closed = BTreeSet::new();
        for (op, outcome) in plan.ops.iter().zip(&self.outcomes) {
            match (&op.action, outcome) {
                (
                    Action::Create(spec) | Action::Update { to: spec, .. },
                    Outcome::Done | Outcome::Deferred,
                )
                | (Action::Create(spec), Outcome::Failed { exists: true, .. }) => {
                    for key in shaken(believed, &op.key, spec) {
                        believed.remove(&key);
                    }
                    believed.insert(op.key.clone(), spec.clone());
                }
                (Action::Close(_), Outcome::Done | Outcome::Deferred) => {
                    closed.insert(&op.key);
                    forget(believed, &op.key);
                }
                (Action::Delete(_), Outcome::Done | Outcome::Failed { exists: false, .. }) => {
                    forget(believed, &op.key);
                }
                (Action::Delete(_), Outcome::Deferred) => {
                    forget(believed, &op.key);
                    leaving.push(op.key.clone());
                }
                // It was closed before: out of sight, and still to go.
                (Action::Delete(_), Outcome::Failed { exists: true, .. })
                    if closed.contains(&op.key) =>
                {
                    leaving.push(op.key.clone());
                }
                (_, Outcome::Skipped { .. } | Outcome::Failed { .. }) => {}
            }
        }
        leaving
    }
}

/// Removes `key` and all that the kernel removes with it, and changes what the kernel changes: ports lose
/// their bridge and the one that they lead to, IPv6 routes their source.
fn forget(believed: &mut Objects, key: &Key) {
    for lost in vanishing(believed, key) {
        believed.remove(&lost);
    }
    for leaning in leaning(believed, &BTreeSet::from([key.clone()])) {
        match believed.get_mut(&leaning) {
            Some(Spec::Route(route)) if route.source.is_some_and(|ip| ip.is_ipv6()) => {
                route.source = None;
            }
            _ => drop(believed.remove(&leaning)),
        }
    }
    let bridge = match (key, believed.remove(key)) {
        (Key::Link(at), Some(Spec::Link(link))) if link.phase() == Phase::Master => at,
        _ => return,
    };
    for (other, spec) in believed.iter_mut() {
        if let (Key::Link(at), Spec::Link(link)) = (other, spec)
            && at.netns == bridge.netns
        {
            link.port.take_if(|port| port.bridge == bridge.name);
            if let Some(port) = &mut link.port {
                port.direct.take_if(|direct| *direct == bridge.name);
            }
        }
    }
}
