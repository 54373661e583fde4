//! The daemon itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which program answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Version of the program.
    pub version: String,
    /// Version of the API, the first part of every path.
    pub api_version: String,
    /// Commit that it was built from, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Operating system that it was built for.
    pub os: String,
    /// Processor architecture that it was built for.
    pub arch: String,
}

/// How the daemon is set up and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// Version of the program.
    pub version: String,
    /// Id of this node.
    pub node: String,
    /// Host name.
    pub hostname: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Which store holds the intent: `embedded` and so on.
    pub store: String,
    /// Directory of what lasts.
    pub state_dir: String,
    /// Directory of what lasts until the next boot.
    pub run_dir: String,
    /// Drivers that networks can have.
    pub drivers: Vec<String>,
    /// How much there is of everything.
    pub counts: Counts,
    /// When the daemon started, in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Networks.
    pub networks: u64,
    /// Endpoints.
    pub endpoints: u64,
    /// Sandboxes.
    pub sandboxes: u64,
    /// Kernel objects that the daemon owns.
    pub objects: u64,
}

/// What was removed because nothing used it, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pruned {
    /// Networks without endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Endpoints joined to nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Sandboxes that are stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sandboxes: Vec<String>,
}
