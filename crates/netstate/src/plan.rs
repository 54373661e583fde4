//! A plan: the ordered operations that turn what is there into what should be.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::{IfName, Mac, Netns};
use crate::object::port::{HostAddress, PortRange, Protocol};
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

/// What follows once from a change of objects and has no lasting state of its own.
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
    /// Forget connections through ports of the host that lead elsewhere than they should
    /// (`IPCTNL_MSG_CT_DELETE`).
    Forget(Flows),
}

/// Tracked connections to ports of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address, as the first packet named it; none is every one of the family.
    pub to: Option<IpAddr>,
    /// Of IPv6, else of IPv4.
    pub ipv6: bool,
    /// The host's ports.
    pub ports: PortRange,
    /// Where they come from; none is anywhere.
    pub from: Option<IpNet>,
    /// Which of them are forgotten.
    pub stale: Stale,
}

/// Which connections lead elsewhere than they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Those that are translated to this address: it is not the port's owner any more.
    Towards(IpAddr),
    /// Those that are not translated at all: the port had no owner when they began.
    Untranslated,
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
            Self::Forget(flows) => write!(f, "> forget {flows}"),
        }
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match (self.to, self.ipv6) {
            (Some(ip), _) => HostAddress::One(ip),
            (None, false) => HostAddress::AnyV4,
            (None, true) => HostAddress::AnyV6,
        };
        write!(f, "{} to {to}:{}", self.protocol, self.ports)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        match self.stale {
            Stale::Towards(ip) => write!(f, " towards {ip}"),
            Stale::Untranslated => f.write_str(" untranslated"),
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
