//! Everything that can happen to a controller, and everything it can decide.

use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{IfName, Key, Netns, Objects, Op, Plan, Report};

use crate::command::Command;
use crate::facts::Facts;
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::reject::Reject;

/// Names a request, so that its reply finds the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names a piece of work under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// What can happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody asks for something.
    Command {
        /// Who asks.
        request: RequestId,
        /// What.
        command: Command,
        /// A random number from which ids are drawn.
        seed: u128,
    },
    /// A plan was carried out, well or not.
    Applied {
        /// The job it belonged to.
        job: JobId,
        /// What became of each operation.
        report: Report,
    },
    /// The writes of a decision could not be stored; none of its effects was performed.
    NotStored {
        /// The jobs whose effects were held back.
        jobs: Vec<JobId>,
        /// Why.
        reason: String,
    },
    /// The kernel was read back.
    Observed {
        /// The job that asked for it.
        job: JobId,
        /// What is there of ours.
        found: Result<Box<Objects>, String>,
        /// Namespaces of others that are gone.
        missing: Vec<Netns>,
    },
    /// Removals that the kernel carried out in its own time are over.
    Gone(Vec<Key>),
    /// The kernel told of a change that somebody made.
    KernelChanged(Notice),
    /// The world around us, as it is now.
    Facts(Box<Facts>),
    /// Time has passed.
    Tick,
}

/// A change in the host's namespace, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A link is gone.
    LinkGone(IfName),
    /// A link is down or was renamed, detached or otherwise changed.
    LinkChanged(IfName),
    /// An address is gone.
    AddressGone(IfName, IpAddr),
    /// A route, neighbour, forwarding entry or setting of ours is gone or changed.
    ObjectChanged,
    /// Somebody else changed nftables.
    NftChanged,
    /// News was lost; anything may have changed.
    Lost,
}

/// What follows from an event.
#[derive(Debug, Default)]
#[must_use]
pub struct Decision {
    /// To be stored, all or none, before the effects are performed and the replies sent.
    pub writes: Vec<Write>,
    /// The writes must survive a power cut before the replies are sent.
    pub durable: bool,
    /// To be performed.
    pub effects: Vec<Effect>,
    /// To be sent.
    pub replies: Vec<(RequestId, Result<Reply, Reject>)>,
    /// Milliseconds since 1970 at which a [`Event::Tick`] is wanted.
    pub wake_at: Option<u64>,
}

/// A record to store or erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its key.
    pub key: String,
    /// Its bytes; `None` erases it.
    pub value: Option<Vec<u8>>,
    /// The job that may not start before this is stored; `None` for an outcome, which is stored later if it
    /// cannot be stored now.
    pub intent_of: Option<JobId>,
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Carry out a plan and answer with [`Event::Applied`].
    Apply {
        /// The job it belongs to.
        job: JobId,
        /// The plan.
        plan: Plan,
    },
    /// Read the kernel back and answer with [`Event::Observed`].
    Observe {
        /// The job it belongs to.
        job: JobId,
        /// Sandboxes to look into; the host's namespace is always looked at.
        sandboxes: Vec<Netns>,
        /// Sysctls to read.
        sysctls: Vec<(SysctlKey, SysctlSpec)>,
    },
    /// Write the files of a sandbox anew, and tell the relay what it has to do for it.
    WriteFiles(SandboxId),
    /// Remove the files of a sandbox, and what the relay does for it.
    RemoveFiles(SandboxId),
}

/// The good answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, and there is nothing to show.
    Done,
    /// The network that was made.
    Network(NetworkId),
    /// What was removed because nothing used it, by name.
    Pruned {
        /// Networks.
        networks: Vec<String>,
        /// Endpoints.
        endpoints: Vec<String>,
        /// Sandboxes.
        sandboxes: Vec<String>,
    },
    /// The endpoint that was made or changed.
    Endpoint(EndpointId),
    /// The sandbox that was made or changed.
    Sandbox(SandboxId),
    /// The pool that was lent, and its router where it has one.
    Pool(IpNet, Option<IpAddr>),
    /// The address that was lent, with the length that endpoints are to have.
    Address(IpNet),
    /// What differs, or what was mended, and what could not be.
    Operations {
        /// In the order of the plan.
        ops: Vec<Op>,
        /// What failed and why.
        failures: Vec<(Key, String)>,
    },
}
