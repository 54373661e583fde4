//! Requests, checked for form; the controller checks them against what exists.

use crate::model::{EndpointSpec, NetworkSpec, SandboxSpec};

/// How people point at an object: its name, its id, or the beginning of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(pub String);

/// What can be asked of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a network.
    CreateNetwork {
        /// What it should be.
        spec: Box<NetworkSpec>,
        /// The daemon's own, which nobody may remove.
        predefined: bool,
    },
    /// Remove a network that has no endpoints.
    DeleteNetwork(Reference),
    /// Remove all networks without endpoints, except the daemon's own.
    PruneNetworks,
    /// Remove stopped sandboxes, endpoints without a sandbox, and then all networks without endpoints.
    Prune,
    /// Make an endpoint, and join it to a sandbox if one is named.
    CreateEndpoint {
        /// Its network.
        network: Reference,
        /// The sandbox that it joins at once.
        sandbox: Option<Reference>,
        /// What it should be.
        spec: Box<EndpointSpec>,
    },
    /// Remove an endpoint; a joined one leaves first.
    DeleteEndpoint(Reference),
    /// Join an endpoint to a sandbox.
    Join {
        /// The endpoint.
        endpoint: Reference,
        /// The sandbox.
        sandbox: Reference,
    },
    /// Take an endpoint out of its sandbox; it keeps its addresses.
    Leave(Reference),
    /// Remove the endpoint that joins a sandbox to a network.
    Disconnect {
        /// The network.
        network: Reference,
        /// The sandbox.
        sandbox: Reference,
    },
    /// Make a sandbox with endpoints in the networks named, in that order.
    CreateSandbox {
        /// What it should be.
        spec: Box<SandboxSpec>,
        /// Its networks and what each endpoint should be.
        networks: Vec<(Reference, EndpointSpec)>,
    },
    /// Remove a sandbox with its endpoints.
    DeleteSandbox {
        /// The sandbox.
        sandbox: Reference,
        /// Its endpoints stay, with their addresses and without a sandbox.
        keep_endpoints: bool,
    },
    /// Take a sandbox's namespace away; its endpoints keep their addresses.
    StopSandbox(Reference),
    /// Give a stopped sandbox a namespace again and attach its endpoints.
    StartSandbox(Reference),
    /// Compare everything with the kernel and only say what differs.
    Drift,
    /// Compare everything with the kernel and mend what differs.
    Repair,
}
