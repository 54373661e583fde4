//! What another engine asks of us, as far as it has no words of its own in our model.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::Reference;
use crate::id::{EndpointId, Name, NetworkId, SandboxId};
use crate::model::{EndpointSpec, Exposed, Link, Publication, SubnetPick};

/// What is known of a sandbox from the engine that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Its name; a number is added where another sandbox has it.
    pub name: Option<Name>,
    /// The name by which processes in it know their machine.
    pub hostname: Option<String>,
    /// Further names of its endpoints.
    pub aliases: Vec<(EndpointId, Vec<String>)>,
    /// Ports that it says it serves.
    pub exposed: Vec<Exposed>,
    /// Sandboxes that it is linked to; those that do not exist are left out.
    pub links: Vec<Link>,
    /// The engine's own id of it, and what it is.
    pub labels: Vec<(String, String)>,
}

/// What an engine can ask. Everything may be asked twice: an engine that lost the answer asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineCommand {
    /// Lend a pool.
    RequestPool {
        /// A network of ours whose pool it is.
        network: Option<Reference>,
        /// Which subnet.
        subnet: Option<IpNet>,
        /// What is taken from the default pools otherwise.
        pick: SubnetPick,
        /// Automatic choice is limited to it.
        range: Option<IpNet>,
    },
    /// Take a pool back, with all addresses of it.
    ReleasePool(IpNet),
    /// Lend an address.
    RequestAddress {
        /// Of this pool.
        subnet: IpNet,
        /// Which.
        address: Option<IpAddr>,
        /// For a router.
        gateway: bool,
    },
    /// Take an address back.
    ReleaseAddress(IpAddr),
    /// Let a network of ours stand for one of the engine.
    BindNetwork {
        /// Its id in the engine, the first half of it.
        id: NetworkId,
        /// The whole of it.
        engine_id: String,
        /// Which.
        network: Reference,
        /// The pools that the engine has for it.
        pools: Vec<IpNet>,
    },
    /// Let it stand for that no more.
    UnbindNetwork(NetworkId),
    /// Remove a network that was made for an engine. While it has endpoints, or stands for another network of an engine's, it
    /// stays, which the answer says by naming it.
    DeleteNetwork(NetworkId),
    /// Give a network the name that it has in the engine, if nobody else has it.
    NameNetwork(NetworkId, Name),
    /// Make an endpoint of a network.
    CreateEndpoint {
        /// The network's id in the engine, the first half of it.
        network: NetworkId,
        /// What it should be.
        spec: Box<EndpointSpec>,
    },
    /// Lend an endpoint's interface to the sandbox that is, or will be, at a path.
    Join {
        /// The endpoint.
        endpoint: EndpointId,
        /// Where the sandbox's namespace will be.
        path: PathBuf,
        /// Its inode, if it is there.
        inode: Option<u64>,
        /// Ports that its programs say they serve.
        exposed: Vec<Exposed>,
    },
    /// The namespace of a sandbox is there.
    Adopt {
        /// The sandbox.
        sandbox: SandboxId,
        /// Its inode.
        inode: u64,
    },
    /// Nothing is to lead through an endpoint any more; the engine takes its interface out.
    Leave(EndpointId),
    /// Remove an endpoint, and its sandbox with the last one.
    DeleteEndpoint(EndpointId),
    /// An endpoint is the way out of its sandbox, and these ports of it are published.
    Publish {
        /// The endpoint.
        endpoint: EndpointId,
        /// Instead of those published before.
        publications: Vec<Publication>,
    },
    /// An endpoint is not the way out any more.
    Unpublish(EndpointId),
    /// Take in what the engine says of a sandbox.
    Describe {
        /// The sandbox.
        sandbox: SandboxId,
        /// What it says.
        described: Box<Described>,
    },
}
