//! What travels over the wire, in the words of the field.
//!
//! Requests refuse fields they do not know, so that a misspelt option is never silently ignored.
//! Views accept them, so that an older client reads a newer daemon. Addresses travel as text and are
//! parsed once, by the daemon.

mod endpoint;
mod names;
mod network;
mod publication;
mod query;
mod sandbox;
mod seeing;
mod system;

pub use endpoint::{
    Endpoint, EndpointCreate, EndpointJoin, EndpointSettings, EndpointState, Named,
    NetworkAttachment,
};
pub use names::{DnsAnswer, DnsName, DnsRecord, DnsSource, NetworkDns, NetworkDnsConfig};
pub use network::{
    EndpointSummary, Network, NetworkConnect, NetworkCreate, NetworkDisconnect, NetworkState,
    PluginStatus, RouteConfig, Subnet, SubnetConfig,
};
pub use publication::{
    Link, LinkSpec, Path, Protocol, Publication, PublicationSpec, PublicationsAdd,
    PublicationsRemove,
};
pub use query::{DnsNameFilter, DnsQuestion, EndpointFilter, NetworkFilter, SandboxFilter};
pub use sandbox::{DnsConfig, NetnsChoice, Sandbox, SandboxCreate, SandboxFiles, SandboxState};
pub use seeing::{
    Action, Command, Explanation, Finding, FindingLevel, FindingReport, ObjectState, ObjectView,
    OperationFailure, OperationView, Operations, PlanRequest, RepairReport,
};
pub use system::{Counts, Info, Pruned, Version};

/// Whether a flag is off, and may be left out on the wire.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}
