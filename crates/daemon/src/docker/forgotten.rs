//! What engines have forgotten: an engine that is killed between our answer and its own note of it never asks for it
//! to be removed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tombolo_core::id::{EndpointId, NetworkId};
use tombolo_core::model::{Endpoint, Loan, Network};
use tombolo_core::{Controller, EngineCommand};

use super::described::Known;
use super::translate;
use crate::limits::{DOCKER_FORGOTTEN_AFTER, DOCKER_START_MAX};

#[cfg(test)]
mod tests;

/// Something of ours that is there for an engine, and that no engine has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Forgotten {
    Endpoint(EndpointId),
    /// An endpoint whose container has no namespace yet: engines before 28 list a container's endpoints only when it
    /// runs.
    Starting(EndpointId),
    Address(IpAddr),
    Network(NetworkId),
    Binding(NetworkId),
    Pool(IpNet),
}

impl Forgotten {
    /// What the engines do not have. A container that runs is not doubted, whatever its engine says.
    pub(super) fn among(controller: &Controller, known: &Known) -> BTreeSet<Self> {
        let mut found = BTreeSet::new();
        for endpoint in controller.endpoints().filter(|e| e.spec.engine) {
            if known.endpoints.contains(&endpoint.id) {
                continue;
            }
            match has_namespace(controller, endpoint) {
                Some(true) => {}
                Some(false) => drop(found.insert(Self::Starting(endpoint.id))),
                None => drop(found.insert(Self::Endpoint(endpoint.id))),
            }
        }
        for network in controller.networks() {
            let engines = network.spec.engine.as_deref();
            let id = engines.and_then(|id| translate::id(id).ok()).map(NetworkId);
            if id.is_some_and(|id| !known.networks.contains(&id)) && is_free(controller, network) {
                found.insert(Self::Network(network.id));
            }
        }
        for loan in controller.loans() {
            found.extend(match loan {
                Loan::Network { id, .. } if !known.networks.contains(id) => {
                    Some(Self::Binding(*id))
                }
                Loan::Pool { subnet, .. } if !known.pools.contains(subnet) => {
                    let network = controller.network_of_pool(*subnet);
                    network.is_none().then_some(Self::Pool(*subnet))
                }
                Loan::Address { address, .. } if !known.addresses.contains(address) => {
                    let used = controller.lent_endpoint_at(*address).is_some();
                    let doubtful = !used && !is_router(controller, known, loan);
                    doubtful.then_some(Self::Address(*address))
                }
                _ => None,
            });
        }
        found
    }

    /// How long no engine must have it until it is removed.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Starting(_) => DOCKER_START_MAX,
            _ => DOCKER_FORGOTTEN_AFTER,
        }
    }

    /// What removes it.
    pub(super) fn removal(&self) -> EngineCommand {
        match self {
            Self::Endpoint(id) | Self::Starting(id) => EngineCommand::DeleteEndpoint(*id),
            Self::Address(ip) => EngineCommand::ReleaseAddress(*ip),
            Self::Network(id) => EngineCommand::DeleteNetwork(*id),
            Self::Binding(id) => EngineCommand::UnbindNetwork(*id),
            Self::Pool(subnet) => EngineCommand::ReleasePool(*subnet),
        }
    }
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(id) | Self::Starting(id) => write!(f, "endpoint {id}"),
            Self::Address(ip) => write!(f, "address {ip}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Binding(id) => write!(f, "binding of {id}"),
            Self::Pool(subnet) => write!(f, "pool {subnet}"),
        }
    }
}

/// Whether the sandbox that an endpoint has joined has its namespace already; none if it has joined none.
fn has_namespace(controller: &Controller, endpoint: &Endpoint) -> Option<bool> {
    let sandbox = endpoint.sandbox.and_then(|id| controller.sandbox(id))?;
    let left = endpoint.attachment.as_ref().is_none_or(|a| a.left);
    (sandbox.is_live() && !left).then(|| sandbox.has_namespace())
}

/// Whether an address is the router's of a pool that is there. Engines before 28 do not list a router that nobody
/// named: it goes with its pool.
fn is_router(controller: &Controller, known: &Known, loan: &Loan) -> bool {
    let Loan::Address {
        subnet,
        gateway: true,
        ..
    } = loan
    else {
        return false;
    };
    controller.lends_pool(*subnet) || known.pools.contains(subnet)
}

/// Whether nobody uses a network: no endpoint, and no other network of an engine's for which it stands.
fn is_free(controller: &Controller, network: &Network) -> bool {
    controller.endpoints_of_network(network.id).next().is_none() && !controller.is_bound(network.id)
}
