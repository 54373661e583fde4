//! A plan: the ordered operations that turn what is there into what should be.

use std::fmt;
use std::net::IpAddr;

use crate::name::{IfName, Mac, Netns};
use crate::object::{Key, Phase, Spec};

/// Ordered operations, and the one-shot messages that follow them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    /// To be carried out in this order.
    pub ops: Vec<Op>,
    /// Sent once the operations are done.
    pub edges: Vec<Edge>,
}

/// One operation on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The object.
    pub key: Key,
    /// What is done to it.
    pub action: Action,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Stop all traffic through a bridge port that is about to be removed. Quick, where removing is slow.
    Close(Spec),
    /// Make the object, which must not exist.
    Create(Spec),
    /// Change the object in place.
    Update {
        /// What is there.
        from: Spec,
        /// What should be.
        to: Spec,
    },
    /// Remove the object; one that is gone already counts as removed.
    Delete(Spec),
}

/// A message without lasting state, emitted because an object came into being.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edge {
    /// Tell the link's neighbours where an address is: gratuitous ARP or unsolicited neighbour advertisement.
    Announce {
        /// The namespace that holds the link.
        netns: Netns,
        /// The link.
        link: IfName,
        /// The address.
        ip: IpAddr,
        /// Where it is.
        mac: Mac,
    },
}

/// The stages of a mixed plan, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Doors are shut.
    Close,
    /// Keys that something new needs are freed.
    Free,
    /// Creations and updates, by ascending phase.
    Make,
    /// The remaining removals, by descending phase.
    Remove,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.edges.is_empty()
    }

    /// Brings the operations into the order of the design's rule 4. `replaced` names the keys whose removal
    /// frees them for a creation in the same plan.
    pub(crate) fn sort(&mut self, replaced: &dyn Fn(&Key) -> bool) {
        self.ops.sort_by_cached_key(|op| {
            let (stage, phase) = match &op.action {
                Action::Close(_) => (Stage::Close, Phase::Netns),
                Action::Delete(spec) if replaced(&op.key) => (Stage::Free, spec.phase()),
                Action::Delete(spec) if spec.phase() == Phase::Element => {
                    (Stage::Close, Phase::Element)
                }
                Action::Delete(spec) => (Stage::Remove, spec.phase()),
                Action::Create(spec) | Action::Update { to: spec, .. } => {
                    (Stage::Make, spec.phase())
                }
            };
            let rank = phase as i32;
            (
                stage,
                if stage == Stage::Make { rank } else { -rank },
                op.key.clone(),
            )
        });
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Close(_) => write!(f, "! close {}", self.key),
            Action::Create(spec) => write!(f, "+ {} {spec}", self.key),
            Action::Update { from, to } => write!(f, "~ {} {to} (was {from})", self.key),
            Action::Delete(_) => write!(f, "- {}", self.key),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announce {
                netns,
                link,
                ip,
                mac,
            } => {
                write!(f, "> announce {ip} at {mac} on {netns}:{link}")
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        for edge in &self.edges {
            writeln!(f, "{edge}")?;
        }
        Ok(())
    }
}
