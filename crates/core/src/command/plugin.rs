//! The parts of requests about networks of plugins, between which the plugins are asked.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Reference;
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::model::{EndpointPlugin, EndpointSpec, NetworkSpec, Pool, SandboxSpec};

/// A part of a request about networks of plugins. What a part stores is an intent until the last part is done: a restart
/// takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginCommand {
    /// Keep a place for a network, with its pools unless a plugin hands them out.
    ReserveNetwork(Box<NetworkSpec>),
    /// A plugin has handed out a pool for a network, or more addresses of it.
    NotePool(NetworkId, Box<Pool>),
    /// The plugin of a network is about to be told of it.
    TellNetwork(NetworkId),
    /// Everything is asked for: the network is to be made.
    FinishNetwork(NetworkId),
    /// Take a network away that has no endpoints, up to its record.
    RetireNetwork(Reference),
    /// Erase a network of which no plugin knows any more.
    DropNetwork(NetworkId),
    /// Keep a place for an endpoint, and join it to a sandbox if one is named. It is attached at once unless a plugin
    /// must be asked first.
    ReserveEndpoint {
        /// Its network.
        network: Reference,
        /// The sandbox that it joins.
        sandbox: Option<Reference>,
        /// What it should be.
        spec: Box<EndpointSpec>,
    },
    /// Note which sandbox an endpoint is to join.
    ReserveJoin {
        /// The endpoint.
        endpoint: Reference,
        /// The sandbox.
        sandbox: Reference,
    },
    /// A plugin has handed out an address for an endpoint.
    NoteAddress(EndpointId, IpNet),
    /// An address of an endpoint that goes was given back to the plugin.
    NoteGivenBack(EndpointId, IpAddr),
    /// What the plugin of an endpoint knows or said. Addresses that it gave are the endpoint's until it says otherwise.
    NotePlugin(EndpointId, Option<Box<EndpointPlugin>>),
    /// Attach an endpoint as its plugin said.
    Attach(EndpointId),
    /// Take an endpoint's interface away; it stays in its sandbox.
    Detach(EndpointId),
    /// Everything is asked for: the endpoint is there.
    FinishEndpoint(EndpointId),
    /// Take an endpoint away up to its record, attached or not: from now on plugins may have forgotten it.
    RetireEndpoint(EndpointId),
    /// Erase an endpoint of which no plugin knows any more, attached or not.
    DropEndpoint(EndpointId),
    /// Make a sandbox with endpoints in networks of ours, to which others will come.
    HoldSandbox {
        /// What it should be.
        spec: Box<SandboxSpec>,
        /// Its networks and what each endpoint should be.
        networks: Vec<(Reference, EndpointSpec)>,
    },
    /// All endpoints of a sandbox are attached.
    FinishSandbox(SandboxId),
}
