//! From changed records to a plan.

use std::collections::BTreeSet;

use tombolo_netstate::{Key, Plan, diff};

use super::change::Change;
use super::{Controller, Halt};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

impl Controller {
    /// Plans the dirty subjects of `change` anew. On a refusal, or when another job works on one of the same
    /// objects, nothing has changed.
    pub(super) fn plan(&mut self, change: &Change) -> Result<Plan, Halt> {
        let mut objects = Vec::with_capacity(change.dirty.len());
        for subject in &change.dirty {
            let wanted = self.objects_of(*subject)?;
            self.ports_are_free(*subject, &wanted)?;
            objects.push((*subject, wanted));
        }
        let mut touched = BTreeSet::new();
        let mut set = Vec::new();
        for (subject, objects) in objects {
            match self.desired.set(&subject.owner(), objects) {
                Ok(keys) => {
                    touched.extend(keys);
                    set.push(subject);
                }
                Err(clash) => {
                    let message = format!("what it needs contradicts what exists: {clash}");
                    let object = self.name_of(subject);
                    return Err(Halt::Reject(
                        Reject::new(Code::InvalidCombination, object, message)
                            .hint("leave one of the two out, or change what it asks for"),
                    ));
                }
            }
        }
        if let Some(job) = touched.iter().find_map(|key| self.in_flight.get(key)) {
            return Err(Halt::Wait(*job));
        }
        Ok(diff(&touched, &self.desired, &self.believed))
    }

    /// What people call a subject.
    fn name_of(&self, subject: Subject) -> String {
        let network = |id| self.state.network(id).map(|n| n.spec.name.to_string());
        let name = match subject {
            Subject::Host => None,
            Subject::Network(id) | Subject::Leaf(id, _) => network(id),
            Subject::Sandbox(id) => self.state.sandbox(id).map(|s| s.name.to_string()),
            Subject::Endpoint(id) => self.state.endpoint(id).and_then(|endpoint| {
                Some(format!("{}/{}", network(endpoint.network)?, endpoint.name))
            }),
        };
        name.unwrap_or_else(|| subject.to_string())
    }

    /// Brings the desired objects of `subjects` back in line with their records, where these were refused
    /// before: it cannot fail for subjects that were planned before.
    pub(super) fn replan(&mut self, subjects: &BTreeSet<Subject>) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for subject in subjects {
            let objects = self.objects_of(*subject).unwrap_or_default();
            touched.extend(
                self.desired
                    .set(&subject.owner(), objects)
                    .unwrap_or_default(),
            );
        }
        touched
    }
}
