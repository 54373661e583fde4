//! The methods about endpoints and the sandboxes that they are lent to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tombolo_core::driver::{bridge, names};
use tombolo_core::id::{EndpointId, NetworkId};
use tombolo_core::model::{Endpoint, Network, SandboxNetns};
use tombolo_core::{Code, Command, Controller, EngineCommand, Reject};
use tombolo_netstate::Mac;

use super::Calls;
use super::server::CallError;
use super::translate;
use crate::plugin::wire;
use crate::plugin::wire::network::{
    CreateEndpointRequest, CreateEndpointResponse, EndpointInterface, EndpointOperInfoResponse,
    EndpointRequest, InterfaceName, JoinRequest, JoinResponse, ProgramExternalConnectivityRequest,
    RouteType, StaticRoute,
};
use crate::plugin::wire::options::{EndpointOptions, MAC_ADDRESS};

#[cfg(test)]
mod tests;

type Options = serde_json::Map<String, serde_json::Value>;

impl Calls {
    pub(super) async fn create_endpoint(
        &self,
        request: CreateEndpointRequest,
    ) -> Result<CreateEndpointResponse, CallError> {
        let network = NetworkId(translate::id(&request.network_id)?);
        let id = EndpointId(translate::id(&request.endpoint_id)?);
        translate::refuse_options(EndpointOptions::driver_options(&request.options))?;
        read_options(request.options)?;
        let asked = request.interface.unwrap_or_default();
        let spec = Box::new(translate::endpoint(&asked)?);
        let command = EngineCommand::CreateEndpoint { network, spec };
        match self.order(command.clone(), Some(id.0)).await {
            Err(refused) if refused.code == Code::AddressInUse => {
                self.make_way(network, &asked, refused).await?;
                // The kernel may still be removing what had it.
                let command = Command::Engine(command);
                self.0.order_when_free(command, Some(id.0)).await?;
            }
            outcome => drop(outcome?),
        }
        let made = self.0.look(|controller| {
            let (network, endpoint) = endpoint(controller, id)?;
            Ok::<_, Reject>(added(&asked, network, endpoint))
        })?;
        Ok(CreateEndpointResponse { interface: made })
    }

    /// An engine that allocates addresses itself gives none out twice: an endpoint of it that has one of these was
    /// forgotten, by an engine that was killed.
    async fn make_way(
        &self,
        network: NetworkId,
        asked: &EndpointInterface,
        refused: Reject,
    ) -> Result<(), Reject> {
        let texts = [&asked.address, &asked.address_ipv6].into_iter();
        let wanted: Vec<IpAddr> = texts
            .filter_map(|text| translate::host_of(text, "").ok())
            .collect();
        let forgotten = self.0.look(|controller| {
            let is_there = |path: &Path, inode| namespace_at(path) == Some(inode);
            forgotten_at(controller, network, &wanted, is_there)
        });
        if forgotten.is_empty() {
            return Err(refused);
        }
        for endpoint in forgotten {
            tracing::info!(%endpoint, "an endpoint that its engine forgot gives its address up");
            self.order(EngineCommand::DeleteEndpoint(endpoint), None)
                .await?;
        }
        Ok(())
    }

    pub(super) fn endpoint_info(
        &self,
        request: &EndpointRequest,
    ) -> Result<EndpointOperInfoResponse, CallError> {
        let id = EndpointId(translate::id(&request.endpoint_id)?);
        let mac = self.0.look(|controller| {
            let (_, endpoint) = endpoint(controller, id)?;
            Ok::<_, Reject>(Mac(endpoint.mac).to_string())
        })?;
        let value = [(MAC_ADDRESS.to_owned(), mac.into())];
        Ok(EndpointOperInfoResponse {
            value: value.into_iter().collect(),
        })
    }

    pub(super) async fn delete_endpoint(&self, request: &EndpointRequest) -> Result<(), CallError> {
        let id = EndpointId(translate::id(&request.endpoint_id)?);
        self.order(EngineCommand::DeleteEndpoint(id), None).await?;
        Ok(())
    }

    pub(super) async fn join(&self, request: JoinRequest) -> Result<JoinResponse, CallError> {
        let id = EndpointId(translate::id(&request.endpoint_id)?);
        let path = sandbox_path(&request.sandbox_key)?;
        let options = read_options(request.options)?;
        let exposed = translate::exposed(&options.exposed_ports.unwrap_or_default())?;
        let inode = namespace_at(&path);
        let command = EngineCommand::Join {
            endpoint: id,
            path,
            inode,
            exposed,
        };
        self.order(command, None).await?;
        let joined = self.0.look(|controller| {
            let (network, endpoint) = endpoint(controller, id)?;
            join_response(network, endpoint)
        });
        Ok(joined?)
    }

    pub(super) async fn leave(&self, request: &EndpointRequest) -> Result<(), CallError> {
        let id = EndpointId(translate::id(&request.endpoint_id)?);
        match self.order(EngineCommand::Leave(id), None).await {
            // It was taken away already, with its sandbox.
            Err(reject) if reject.code == Code::UnknownEndpoint => Ok(()),
            outcome => outcome.map(drop).map_err(CallError::from),
        }
    }

    pub(super) async fn publish(
        &self,
        request: ProgramExternalConnectivityRequest,
    ) -> Result<(), CallError> {
        let endpoint = EndpointId(translate::id(&request.endpoint_id)?);
        let options = read_options(request.options)?;
        let publications = translate::publications(&options.port_map.unwrap_or_default())?;
        let command = EngineCommand::Publish {
            endpoint,
            publications,
        };
        self.order(command, None).await?;
        Ok(())
    }

    pub(super) async fn unpublish(&self, request: &EndpointRequest) -> Result<(), CallError> {
        let id = EndpointId(translate::id(&request.endpoint_id)?);
        self.order(EngineCommand::Unpublish(id), None).await?;
        Ok(())
    }
}

fn read_options(options: Options) -> Result<EndpointOptions, CallError> {
    wire::read_object(options)
        .map_err(|error| CallError::Malformed(format!("the options are malformed: {error}")))
}

fn endpoint(controller: &Controller, id: EndpointId) -> Result<(&Network, &Endpoint), Reject> {
    let found = controller.endpoint(id).and_then(|endpoint| {
        let network = controller.network(endpoint.network)?;
        Some((network, endpoint))
    });
    found.ok_or_else(|| {
        Reject::new(Code::UnknownEndpoint, id, "no endpoint has this id").hint("create it first")
    })
}

/// Endpoints of a network whose engine gives out addresses itself that have one of these. A container that runs, in a
/// namespace that `is_there`, keeps its own, and so does whoever was lent one.
fn forgotten_at(
    controller: &Controller,
    network: NetworkId,
    wanted: &[IpAddr],
    is_there: impl Fn(&Path, u64) -> bool,
) -> Vec<EndpointId> {
    let Some(own) = controller.network(network) else {
        return Vec::new();
    };
    let mut pools = own.pools.iter();
    if own.spec.engine.is_none() || pools.any(|pool| controller.lends_pool(pool.subnet)) {
        return Vec::new();
    }
    let runs = |endpoint: &Endpoint| {
        let left = endpoint.attachment.as_ref().is_none_or(|a| a.left);
        let sandbox = endpoint.sandbox.and_then(|id| controller.sandbox(id));
        let netns = sandbox.map(|sandbox| &sandbox.spec.netns);
        !left
            && matches!(netns, Some(SandboxNetns::Engine { path, inode: Some(inode) }) if is_there(path, *inode))
    };
    let free = wanted.iter().filter(|ip| !controller.lends_address(**ip));
    let holders = free.filter_map(|ip| controller.endpoint(controller.lent_endpoint_at(*ip)?));
    let forgotten = holders.filter(|endpoint| endpoint.network == network && !runs(endpoint));
    forgotten.map(|endpoint| endpoint.id).collect()
}

/// A path at which the engine will have a namespace: it is not opened, since nothing may be there yet.
fn sandbox_path(key: &str) -> Result<PathBuf, Reject> {
    let path = PathBuf::from(key);
    let plain = path.is_absolute() && !key.contains('\0') && path.file_name().is_some();
    match plain {
        true => Ok(path),
        false => {
            let shown: String = key.chars().take(64).collect();
            let message = "the key of a sandbox is an absolute path";
            Err(Reject::new(Code::MissingNamespace, shown, message))
        }
    }
}

/// The namespace at a path, if the engine has made it before it joins (Docker 28 and later).
fn namespace_at(path: &Path) -> Option<u64> {
    let host = tombolo_kernel::netns_inode(Path::new("/proc/self/ns/net")).ok();
    let inode = tombolo_kernel::netns_inode(path).ok()?;
    (Some(inode) != host).then_some(inode)
}

/// What the engine did not say itself: only that may be answered.
fn added(
    asked: &EndpointInterface,
    network: &Network,
    endpoint: &Endpoint,
) -> Option<EndpointInterface> {
    let mut added = EndpointInterface::default();
    if asked.mac_address.is_empty() {
        added.mac_address = Mac(endpoint.mac).to_string();
    }
    if asked.address.is_empty() && asked.address_ipv6.is_empty() {
        for net in &endpoint.addresses {
            let length = match network.spec.multicast {
                true => net.prefix_len(),
                false => net.max_prefix_len(),
            };
            let text = format!("{}/{length}", net.addr());
            match net.addr() {
                IpAddr::V4(_) => added.address = text,
                IpAddr::V6(_) => added.address_ipv6 = text,
            }
        }
    }
    (added != EndpointInterface::default()).then_some(added)
}

/// What the engine is to do in the sandbox.
fn join_response(network: &Network, endpoint: &Endpoint) -> Result<JoinResponse, Reject> {
    let Some(attachment) = &endpoint.attachment else {
        let message = "the endpoint has no interface";
        return Err(Reject::new(Code::NotJoined, &endpoint.name, message).hint("join it again"));
    };
    let has = |ipv6| {
        endpoint
            .addresses
            .iter()
            .any(|net| net.addr().is_ipv6() == ipv6)
    };
    let gateway = |ipv6: bool| {
        let wanted = has(ipv6) && !network.spec.internal;
        let found = bridge::default_gateway(network, ipv6).filter(|_| wanted);
        found.map_or_else(String::new, |ip| ip.to_string())
    };
    let (gateway, gateway_ipv6) = (gateway(false), gateway(true));
    Ok(JoinResponse {
        interface_name: Some(InterfaceName {
            src_name: names::lent_end(endpoint.id, attachment.epoch)?.to_string(),
            dst_prefix: network.spec.interface_prefix.clone(),
        }),
        // Docker's own way out is for containers that have none: an internal network is to have none.
        disable_gateway_service: gateway.is_empty(),
        gateway,
        gateway_ipv6,
        static_routes: [false, true]
            .into_iter()
            .filter(|ipv6| has(*ipv6))
            .flat_map(|ipv6| routes(network, endpoint, ipv6))
            .collect(),
    })
}

/// The routes of a family. On a hub everything goes through the host, the network's own subnets, too.
fn routes(network: &Network, endpoint: &Endpoint, ipv6: bool) -> Vec<StaticRoute> {
    let hub = !network.spec.multicast;
    let gateway = network.gateway(ipv6);
    let mut routes = Vec::new();
    if let Some(gateway) = gateway.filter(|_| hub) {
        routes.push(StaticRoute {
            destination: ipnet::IpNet::from(gateway).to_string(),
            route_type: RouteType::Connected,
            next_hop: String::new(),
        });
        let own = network.pools.iter().map(|pool| pool.subnet);
        let own = own.filter(|net| net.addr().is_ipv6() == ipv6);
        routes.extend(own.map(|net| via(net, gateway)));
    }
    for wanted in &network.spec.routes {
        let own = endpoint
            .addresses
            .iter()
            .any(|net| Some(net.addr()) == wanted.via);
        if wanted.destination.addr().is_ipv6() != ipv6 || own {
            continue;
        }
        let hop = if hub { gateway } else { wanted.via };
        routes.push(match hop {
            Some(hop) => via(wanted.destination, hop),
            None => StaticRoute {
                destination: wanted.destination.to_string(),
                route_type: RouteType::Connected,
                next_hop: String::new(),
            },
        });
    }
    routes
}

fn via(destination: ipnet::IpNet, hop: IpAddr) -> StaticRoute {
    StaticRoute {
        destination: destination.to_string(),
        route_type: RouteType::NextHop,
        next_hop: hop.to_string(),
    }
}
