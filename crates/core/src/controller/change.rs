//! A change of records under way: what to store, whose objects to plan anew, and how to take it back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::state::publishes_large_range;
use crate::event::{JobId, Write};
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::model::{Endpoint, Loan, LoanKey, Network, Sandbox};
use crate::subject::Subject;

/// One step back.
#[derive(Debug, Clone)]
pub(crate) enum Undo {
    /// The network was this before.
    Network(NetworkId, Option<Box<Network>>),
    /// The endpoint was this before.
    Endpoint(EndpointId, Option<Box<Endpoint>>),
    /// The sandbox was this before.
    Sandbox(SandboxId, Option<Box<Sandbox>>),
    /// The address was free before.
    Lease(IpAddr, String),
    /// The pool did not exist before.
    Pool(IpNet),
    /// The loan was this before.
    Loan(LoanKey, Option<Loan>),
}

/// A change of records under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) undo: Vec<Undo>,
    writes: BTreeMap<String, Option<Vec<u8>>>,
    pub(crate) dirty: BTreeSet<Subject>,
}

impl Change {
    pub(crate) fn note(&mut self, undo: Undo, write: Write, subject: Subject) {
        self.undo.push(undo);
        self.writes.insert(write.key, write.value);
        self.dirty.insert(subject);
    }

    /// Also plans `subject` anew.
    pub(crate) fn touch(&mut self, subject: Subject) {
        self.dirty.insert(subject);
    }

    /// Whether a sandbox published large ranges before.
    pub(crate) fn had_large_ranges(&self, sandbox: SandboxId) -> bool {
        self.undo.iter().any(|step| match step {
            Undo::Sandbox(id, Some(before)) => *id == sandbox && publishes_large_range(before),
            _ => false,
        })
    }

    /// Adds a write that has no record behind it.
    pub(crate) fn write(&mut self, write: Write) {
        self.writes.insert(write.key, write.value);
    }

    /// What to store; several changes of one record became one write. `job` is the one that must wait for it.
    pub(crate) fn take_writes(&mut self, job: Option<JobId>) -> Vec<Write> {
        std::mem::take(&mut self.writes)
            .into_iter()
            .map(|(key, value)| Write {
                key,
                value,
                intent_of: job,
            })
            .collect()
    }
}
