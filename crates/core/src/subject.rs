//! Owners of kernel objects, in the words of the model.

use std::fmt;

use tombolo_netstate::Owner;

use crate::id::{EndpointId, NetworkId, SandboxId};

/// Something whose objects are planned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// What every node has.
    Host,
    /// A network without its endpoints.
    Network(NetworkId),
    /// A leaf bridge of a network.
    Leaf(NetworkId, u16),
    /// A sandbox without its endpoints.
    Sandbox(SandboxId),
    /// An endpoint.
    Endpoint(EndpointId),
}

impl Subject {
    /// The owner's name on its objects.
    pub fn owner(self) -> Owner {
        Owner(self.to_string().into())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Network(id) => write!(f, "network/{id}"),
            Self::Leaf(id, leaf) => write!(f, "network/{id}/leaf/{leaf}"),
            Self::Sandbox(id) => write!(f, "sandbox/{id}"),
            Self::Endpoint(id) => write!(f, "endpoint/{id}"),
        }
    }
}
