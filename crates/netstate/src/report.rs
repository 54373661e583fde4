//! What became of a plan: an outcome for each operation, and what that means for our record of the kernel.

use crate::diff::vanishing;
use crate::object::{Key, Objects};
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
        for (op, outcome) in plan.ops.iter().zip(&self.outcomes) {
            match (&op.action, outcome) {
                (
                    Action::Create(spec) | Action::Update { to: spec, .. },
                    Outcome::Done | Outcome::Deferred,
                )
                | (Action::Create(spec), Outcome::Failed { exists: true, .. }) => {
                    believed.insert(op.key.clone(), spec.clone());
                }
                (Action::Delete(_), Outcome::Done | Outcome::Deferred) => {
                    for key in vanishing(believed, &op.key) {
                        believed.remove(&key);
                    }
                    believed.remove(&op.key);
                    if *outcome == Outcome::Deferred {
                        leaving.push(op.key.clone());
                    }
                }
                (Action::Delete(_), Outcome::Failed { exists: false, .. }) => {
                    believed.remove(&op.key);
                }
                (Action::Close(_), _)
                | (_, Outcome::Skipped { .. })
                | (Action::Create(_), Outcome::Failed { .. })
                | (Action::Update { .. } | Action::Delete(_), Outcome::Failed { .. }) => {}
            }
        }
        leaving
    }
}
