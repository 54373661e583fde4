//! Requests, checked for form; the controller checks them against what exists.

use std::path::PathBuf;

use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

use crate::model::{EndpointSpec, NetworkSpec, Publication, SandboxSpec};

pub use engine::{Described, EngineCommand};
pub use plugin::PluginCommand;

mod engine;
mod plugin;

/// How people point at an object: its name, its id, or the beginning of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(pub String);

/// Which publications are meant: those that fit all that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationMatch {
    /// The words that were used.
    pub text: String,
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// At this address of the host.
    pub address: Option<HostAddress>,
    /// At these ports of the host.
    pub ports: Option<PortRange>,
    /// Of these ports of the sandbox.
    pub container: Option<PortRange>,
    /// At this Unix socket.
    pub socket: Option<PathBuf>,
}

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
    StartSandbox {
        /// The sandbox.
        sandbox: Reference,
        /// Ports of the host for its automatic publications, by their place in the list; what is not named
        /// keeps its ports.
        picked: Vec<(usize, PortRange)>,
    },
    /// Publish ports of a sandbox, or change who may use published ones.
    Publish {
        /// The sandbox.
        sandbox: Reference,
        /// What is published.
        publications: Vec<Publication>,
    },
    /// Take publications of a sandbox back.
    Unpublish {
        /// The sandbox.
        sandbox: Reference,
        /// Each fits at least one.
        publications: Vec<PublicationMatch>,
    },
    /// What another engine asks, whose containers are on our networks.
    Engine(EngineCommand),
    /// A part of a request about networks of plugins.
    Plugin(PluginCommand),
    /// Compare everything with the kernel and only say what differs.
    Drift,
    /// Compare everything with the kernel and mend what differs.
    Repair,
}
