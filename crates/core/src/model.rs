//! The container network model: networks, endpoints, sandboxes, as they are stored.

pub mod dns;
pub mod endpoint;
pub mod loan;
pub mod network;
pub mod plugin;
pub mod publication;
pub mod sandbox;

pub use dns::{Forward, NetworkDns, ResolverAt};
pub use endpoint::{Attachment, Endpoint, EndpointSpec};
pub use loan::{Loan, LoanKey};
pub use network::{
    Driver, GatewayMode, Network, NetworkSpec, NetworkState, Pool, StaticRoute, SubnetPick,
    SubnetSpec,
};
pub use plugin::{EndpointPlugin, IpamSpec, Joined, PluginPool};
pub use publication::{Exposed, Link, Publication};
pub use sandbox::{DnsSettings, Sandbox, SandboxNetns, SandboxSpec, SandboxState};
