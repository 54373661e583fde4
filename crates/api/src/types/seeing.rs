//! Seeing before, while and after: plans, explanations, drift, repair and the doctor.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::EndpointCreate;
use super::network::{NetworkConnect, NetworkCreate, NetworkDisconnect};
use super::publication::{PublicationsAdd, PublicationsRemove};
use super::sandbox::SandboxCreate;

/// Asks what a command would do, without doing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The command.
    pub command: Command,
}

/// A command that can be planned: the name of the call, and what the call would be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "kind",
    content = "request",
    rename_all = "snake_case",
    deny_unknown_fields
)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each call, and it is not kept"
)]
pub enum Command {
    /// Make a network.
    NetworkCreate(NetworkCreate),
    /// Remove a network.
    NetworkDelete {
        /// Which one.
        reference: String,
    },
    /// Tie a sandbox to a network.
    NetworkConnect {
        /// Which network.
        reference: String,
        /// Which sandbox, and how.
        connect: NetworkConnect,
    },
    /// Untie a sandbox from a network.
    NetworkDisconnect {
        /// Which network.
        reference: String,
        /// Which sandbox.
        disconnect: NetworkDisconnect,
    },
    /// Make an endpoint.
    EndpointCreate(EndpointCreate),
    /// Remove an endpoint.
    EndpointDelete {
        /// Which one.
        reference: String,
    },
    /// Join an endpoint to a sandbox.
    EndpointJoin {
        /// Which endpoint.
        reference: String,
        /// Which sandbox.
        sandbox: String,
    },
    /// Take an endpoint out of its sandbox.
    EndpointLeave {
        /// Which one.
        reference: String,
    },
    /// Make a sandbox.
    SandboxCreate(SandboxCreate),
    /// Remove a sandbox.
    SandboxDelete {
        /// Which one.
        reference: String,
        /// Whether its endpoints stay, joined to nothing.
        #[serde(default, skip_serializing_if = "super::is_false")]
        keep_endpoints: bool,
    },
    /// Stop a sandbox.
    SandboxStop {
        /// Which one.
        reference: String,
    },
    /// Start a sandbox.
    SandboxStart {
        /// Which one.
        reference: String,
    },
    /// Publish ports of a sandbox, or change who may use them.
    PublicationsAdd {
        /// Which sandbox.
        reference: String,
        /// What to publish.
        add: PublicationsAdd,
    },
    /// Withdraw published ports of a sandbox.
    PublicationsRemove {
        /// Which sandbox.
        reference: String,
        /// Which ports.
        remove: PublicationsRemove,
    },
}

/// Operations in the order in which they are or would be carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operations {
    /// The operations; empty when everything is as it should be.
    pub operations: Vec<OperationView>,
}

/// One operation on one kernel object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// What is done.
    pub action: Action,
    /// Identity of the object, in words.
    pub object: String,
    /// Kind of the object: `link`, `address`, `route` and so on.
    pub kind: String,
    /// The operation in words.
    pub text: String,
    /// What the object is for: networks, endpoints and sandboxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
}

/// What is done to a kernel object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is removed.
    Delete,
    /// All traffic through it is stopped, ahead of its removal.
    Isolate,
    /// Its neighbours are told of it; nothing lasting is changed.
    Announce,
    /// Connections that lead elsewhere than they should are forgotten; nothing lasting is changed.
    Forget,
}

/// Why an endpoint is as it is: every kernel object behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Id of the endpoint.
    pub endpoint: String,
    /// The objects, in the order in which they are made.
    pub objects: Vec<ObjectView>,
}

/// One kernel object and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectView {
    /// Identity of the object, in words.
    pub object: String,
    /// Kind of the object: `link`, `address`, `route` and so on.
    pub kind: String,
    /// What is set on it, in words.
    pub spec: String,
    /// What it is for: networks, endpoints and sandboxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// How it stands in the kernel.
    pub state: ObjectState,
    /// What became of the last operation on it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// How an object stands in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub enum ObjectState {
    /// As it should be.
    #[serde(rename = "in place")]
    InPlace,
    /// Not there.
    #[serde(rename = "missing")]
    Missing,
    /// There, but not as it should be.
    #[serde(rename = "different")]
    Different,
    /// Being removed by the kernel in its own time.
    #[serde(rename = "leaving")]
    Leaving,
}

impl ObjectState {
    /// The word on the wire, which is also the word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::Missing => "missing",
            Self::Different => "different",
            Self::Leaving => "leaving",
        }
    }
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepairReport {
    /// The operations that were tried.
    pub operations: Vec<OperationView>,
    /// Those that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<OperationFailure>,
}

/// An operation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationFailure {
    /// The operation.
    pub operation: OperationView,
    /// Why it failed.
    pub message: String,
}

/// What the doctor found on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingReport {
    /// The findings, by topic.
    pub findings: Vec<Finding>,
}

/// One thing that the doctor looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// How bad it is.
    pub level: FindingLevel,
    /// What it is about, in one or two words.
    pub topic: String,
    /// What was found.
    pub text: String,
    /// What to do about it, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    /// As it should be.
    Ok,
    /// Something may not work, or not well.
    Warning,
    /// Something does not work.
    Error,
}
