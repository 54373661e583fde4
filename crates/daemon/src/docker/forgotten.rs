//! What engines have forgotten: an engine that is killed between our answer and its own note of it never asks for it
//! to be removed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_core::id::{EndpointId, NetworkId};
use tombolo_core::model::{Endpoint, Loan, Network};
use tombolo_core::{Command, Controller, EngineCommand, Reference};

use super::described::Known;
use super::translate;

/// Something of ours that is there for an engine, and that no engine has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Forgotten {
    Endpoint(EndpointId),
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
            if !known.endpoints.contains(&endpoint.id) && !runs(controller, endpoint) {
                found.insert(Self::Endpoint(endpoint.id));
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
                    (!used).then_some(Self::Address(*address))
                }
                _ => None,
            });
        }
        found
    }

    /// What removes it.
    pub(super) fn removal(&self) -> Vec<Command> {
        match self {
            Self::Endpoint(id) => vec![Command::Engine(EngineCommand::DeleteEndpoint(*id))],
            Self::Address(ip) => vec![Command::Engine(EngineCommand::ReleaseAddress(*ip))],
            Self::Network(id) => vec![Command::DeleteNetwork(Reference(id.to_string()))],
            Self::Binding(id) => vec![Command::Engine(EngineCommand::UnbindNetwork(*id))],
            Self::Pool(subnet) => vec![Command::Engine(EngineCommand::ReleasePool(*subnet))],
        }
    }
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(id) => write!(f, "endpoint {id}"),
            Self::Address(ip) => write!(f, "address {ip}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Binding(id) => write!(f, "binding of {id}"),
            Self::Pool(subnet) => write!(f, "pool {subnet}"),
        }
    }
}

/// Whether an endpoint's interface is in a namespace that is still there.
fn runs(controller: &Controller, endpoint: &Endpoint) -> bool {
    let sandbox = endpoint.sandbox.and_then(|id| controller.sandbox(id));
    let left = endpoint.attachment.as_ref().is_none_or(|a| a.left);
    sandbox.is_some_and(|s| s.is_live() && s.has_namespace()) && !left
}

fn is_free(controller: &Controller, network: &Network) -> bool {
    controller.endpoints_of_network(network.id).next().is_none()
}
