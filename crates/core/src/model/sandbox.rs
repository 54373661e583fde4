//! Sandboxes: a network namespace with everything in it that is ours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::publication::{Exposed, Link, Publication};
use crate::id::{Name, SandboxId};

/// Which namespace a sandbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxNetns {
    /// One that we make.
    New,
    /// The host's.
    Host,
    /// One that was there.
    Adopted {
        /// A path that leads to it.
        path: PathBuf,
        /// Its inode, by which it is known again.
        inode: u64,
    },
    /// One that another engine makes, perhaps only after it was told of us: interfaces are lent to it.
    Engine {
        /// Where the engine says that it will be.
        path: PathBuf,
        /// Its inode, once it was seen there.
        inode: Option<u64>,
    },
}

/// What was asked of a sandbox, checked for form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Unique on the node; default: made from the id.
    pub name: Option<Name>,
    /// Default: the first twelve digits of the id.
    pub hostname: Option<String>,
    /// Which namespace.
    pub netns: SandboxNetns,
    /// How names are resolved in it.
    pub dns: DnsSettings,
    /// Lines for its hosts file: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Ports reached through the host.
    #[serde(default)]
    pub publications: Vec<Publication>,
    /// Ports that it serves besides.
    #[serde(default)]
    pub exposed: Vec<Exposed>,
    /// Sandboxes that it may reach and knows by a name.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Of the user.
    pub labels: BTreeMap<String, String>,
}

/// How names are resolved in a sandbox; empty means as on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    /// Addresses of resolvers.
    pub servers: Vec<std::net::IpAddr>,
    /// Search list; a single `.` means none.
    pub searches: Vec<String>,
    /// Options as in resolv.conf(5).
    pub options: Vec<String>,
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// Stored, not yet acknowledged; withdrawn by a restart.
    Creating,
    /// Its namespace exists and its endpoints are attached.
    Running,
    /// It has no namespace; its endpoints keep their addresses.
    Stopped,
    /// Being removed; a restart goes on with it.
    Deleting,
}

/// A sandbox of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its identity.
    pub id: SandboxId,
    /// What was asked.
    pub spec: SandboxSpec,
    /// Its name.
    pub name: Name,
    /// Where it is in its life.
    pub state: SandboxState,
    /// Counts its namespaces, so that a new one never has the name of one that is going.
    pub epoch: u32,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

impl Sandbox {
    /// Whether it has, or is about to have, its namespace.
    pub fn is_live(&self) -> bool {
        matches!(self.state, SandboxState::Creating | SandboxState::Running)
    }

    /// Whether its namespace is there, as far as that is known.
    pub fn has_namespace(&self) -> bool {
        !matches!(self.spec.netns, SandboxNetns::Engine { inode: None, .. })
    }

    /// Whether another engine has made it and decides about it.
    pub fn is_engines(&self) -> bool {
        matches!(self.spec.netns, SandboxNetns::Engine { .. })
    }

    /// The name by which processes in it know their machine.
    pub fn hostname(&self) -> String {
        match &self.spec.hostname {
            Some(hostname) => hostname.clone(),
            None => self.short_id(),
        }
    }

    /// The first twelve digits of the id.
    pub fn short_id(&self) -> String {
        self.id.to_string()[..12].to_owned()
    }

    /// The file name of a namespace that we make for it.
    pub fn netns_name(&self) -> String {
        format!("{}-{}", &self.id.to_string()[..16], self.epoch)
    }
}
