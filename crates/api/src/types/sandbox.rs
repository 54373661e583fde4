//! Sandboxes: the network namespaces that endpoints join, and the files that go with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{Endpoint, NetworkAttachment};
use super::is_false;
use super::publication::{Link, LinkSpec, Publication, PublicationSpec};

/// A sandbox to make. It is made with all its networks or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxCreate {
    /// Its name, unique on this host; chosen when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its host name; its name or the start of its id when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Which network namespace it has; a new one unless said otherwise.
    #[serde(default, skip_serializing_if = "NetnsChoice::is_new")]
    pub netns: NetnsChoice,
    /// The networks that it is tied to, in the order of its interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachment>,
    /// How it resolves names.
    #[serde(default, skip_serializing_if = "DnsConfig::is_empty")]
    pub dns: DnsConfig,
    /// Further lines of its hosts file, each `name:ip`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// Its ports to publish on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublicationSpec>,
    /// Whether to publish each exposed port at a free port of the host.
    #[serde(default, skip_serializing_if = "is_false")]
    pub publish_all: bool,
    /// Ports at which its programs serve, such as `80/tcp` and `8000-8010/udp`, for links and `publish_all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Sandboxes whose exposed ports it is to reach, whatever their network says of reaching each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkSpec>,
    /// Free words of the caller, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Which network namespace a sandbox has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", from = "NetnsWire")]
pub enum NetnsChoice {
    /// A new one, which the daemon owns.
    #[default]
    New,
    /// The host's own.
    Host,
    /// The one that is mounted at a path, which somebody else owns.
    Path {
        /// Absolute path of the namespace file.
        path: String,
    },
    /// The one of a process, which somebody else owns.
    Pid {
        /// Id of the process, as the daemon sees it.
        pid: u32,
    },
}

/// What is read as a [`NetnsChoice`]. Serde lets fields beside the tag pass when a variant is a bare
/// word, but not when it has braces.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum NetnsWire {
    New {},
    Host {},
    Path { path: String },
    Pid { pid: u32 },
}

impl From<NetnsWire> for NetnsChoice {
    fn from(wire: NetnsWire) -> Self {
        match wire {
            NetnsWire::New {} => Self::New,
            NetnsWire::Host {} => Self::Host,
            NetnsWire::Path { path } => Self::Path { path },
            NetnsWire::Pid { pid } => Self::Pid { pid },
        }
    }
}

impl NetnsChoice {
    /// Whether it is a new namespace.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self == Self::New
    }
}

/// How a sandbox resolves names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsConfig {
    /// Addresses of the servers asked for foreign names; the host's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Domains tried after a short name; the host's when empty, none when it is `.` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// Options of resolv.conf(5), such as `ndots:1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl DnsConfig {
    /// Whether every choice is left open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A sandbox as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sandbox {
    /// Its id, which never changes and is never used again.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Where it stands in its life.
    pub state: SandboxState,
    /// Path of its network namespace; absent while it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// The files that its processes should see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<SandboxFiles>,
    /// Its endpoints, in the order of its interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Its ports that are published on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication>,
    /// Ports at which its programs serve, such as `80/tcp` and `8000-8010/udp`; published ones are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// The sandboxes whose exposed ports it reaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Names of the sandboxes that have a link to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub linked_by: Vec<String>,
    /// Free words of the caller, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
}

/// Where a sandbox stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SandboxState {
    /// It has a network namespace and its endpoints are joined.
    Running,
    /// It has no network namespace; its endpoints keep their addresses.
    Stopped,
}

/// The files of a sandbox, for mounting over those of the same names in `/etc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxFiles {
    /// The directory that holds them.
    pub directory: String,
    /// Path of hosts(5).
    pub hosts: String,
    /// Path of hostname(5).
    pub hostname: String,
    /// Path of resolv.conf(5).
    pub resolv_conf: String,
}
