//! Which containers an engine is yet to be asked about.

use std::collections::BTreeSet;

use tombolo_core::Controller;
use tombolo_core::id::EndpointId;

use super::described::{CONTAINER_ID, Known};
use crate::limits::DOCKER_INQUIRIES_MAX;

#[cfg(test)]
mod tests;

/// Containers of an engine that wait until it is asked about them, each of them once.
#[derive(Debug)]
pub(super) struct Inquiries {
    waiting: BTreeSet<String>,
    /// Those that the engine did not answer, for after the next look.
    unanswered: BTreeSet<String>,
    /// Something may have been missed.
    is_all_wanted: bool,
}

impl Default for Inquiries {
    /// Nothing is known of an engine that is followed from now on.
    fn default() -> Self {
        Self {
            waiting: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            is_all_wanted: true,
        }
    }
}

impl Inquiries {
    /// Lets a container wait. One too many is not forgotten: the next look adds all.
    pub(super) fn add(&mut self, container: String) {
        match self.waiting.len() < DOCKER_INQUIRIES_MAX {
            true => drop(self.waiting.insert(container)),
            false => self.is_all_wanted = true,
        }
    }

    /// The next container to ask about.
    pub(super) fn next(&mut self) -> Option<String> {
        self.waiting.pop_first()
    }

    /// Lets a container about which there was no answer wait for the next look.
    pub(super) fn note_silence(&mut self, container: String) {
        self.unanswered.insert(container);
    }

    /// Adds the containers whose sandboxes nobody has described, and all of them if something was missed.
    pub(super) fn look(&mut self, controller: &Controller, known: &Known) {
        let is_new = |endpoint: &EndpointId| is_undescribed(controller, *endpoint);
        let is_all_wanted = std::mem::take(&mut self.is_all_wanted);
        let (new, others): (Vec<_>, Vec<_>) = known
            .containers
            .iter()
            .partition(|(_, endpoints)| endpoints.iter().any(is_new));
        let others = others.into_iter().filter(|_| is_all_wanted);
        for (container, _) in new.into_iter().chain(others) {
            self.add(container.clone());
        }
        let is_there = |one: &String| known.containers.iter().any(|(id, _)| id == one);
        let unanswered = std::mem::take(&mut self.unanswered);
        for container in unanswered.into_iter().filter(is_there) {
            self.add(container);
        }
    }
}

fn is_undescribed(controller: &Controller, endpoint: EndpointId) -> bool {
    let endpoint = controller.endpoint(endpoint);
    let sandbox = endpoint.and_then(|endpoint| controller.sandbox(endpoint.sandbox?));
    sandbox.is_some_and(|sandbox| !sandbox.spec.labels.contains_key(CONTAINER_ID))
}
