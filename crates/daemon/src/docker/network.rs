//! The methods about networks.

use ipnet::IpNet;
use tombolo_core::id::NetworkId;
use tombolo_core::model::{GatewayMode, Network, NetworkSpec};
use tombolo_core::{Code, Command, Controller, EngineCommand, Reference, Reject, Reply};

use super::Calls;
use super::ipam::{EVERYWHERE, is_our_space};
use super::server::CallError;
use super::translate::{self, Wanted};
use crate::plugin::wire;
use crate::plugin::wire::network::{
    AllocateNetworkRequest, AllocateNetworkResponse, CreateNetworkRequest, GwAllocCheckRequest,
    GwAllocCheckResponse, IpamData, NetworkRequest,
};
use crate::plugin::wire::options::NetworkOptions;
use crate::translate::network_spec;

#[cfg(test)]
mod tests;

impl Calls {
    /// Makes a network, or lets one of ours stand for it.
    pub(super) async fn create_network(
        &self,
        request: CreateNetworkRequest,
    ) -> Result<(), CallError> {
        let engine_id = request.network_id;
        let id = NetworkId(translate::id(&engine_id)?);
        if self
            .0
            .look(|controller| controller.engine_network(id).is_some())
        {
            return Ok(());
        }
        let options = options(request.options)?;
        let pools: Vec<IpamData> = request
            .ipv4_data
            .into_iter()
            .chain(request.ipv6_data)
            .collect();
        let wanted = self.0.look(|controller| {
            must_not_be_lent(controller, &pools)?;
            let is_ours = |data: &IpamData| is_our_space(&data.address_space);
            let wanted = translate::network(&engine_id, options, &pools, is_ours)?;
            existing(controller, wanted, &pools)
        })?;
        match wanted {
            Wanted::Existing { name, pools } => {
                let command = EngineCommand::BindNetwork {
                    id,
                    engine_id,
                    network: Reference(name),
                    pools,
                };
                self.order(command, None).await?;
            }
            Wanted::New(create) => {
                let mut spec = network_spec(*create)?;
                spec.engine = Some(engine_id);
                leave_routers_out(&mut spec);
                let command = Command::CreateNetwork {
                    spec: Box::new(spec),
                    predefined: false,
                };
                self.make_network(id, command).await?;
            }
        }
        Ok(())
    }

    /// A network of an engine that has no endpoints stands in the way only when the engine has forgotten it: it
    /// never lets two of its networks overlap. Of several engines each knows only of its own, and so it stays.
    async fn make_network(&self, id: NetworkId, command: Command) -> Result<(), Reject> {
        let Err(refused) = self.0.order(command.clone(), Some(id.0)).await else {
            return Ok(());
        };
        let forgotten = self
            .0
            .look(|controller| forgotten(controller, &command, &refused));
        if forgotten.is_empty() || self.has_several_engines() {
            return Err(refused);
        }
        for network in forgotten {
            tracing::info!(%network, "a network that its engine forgot makes room");
            self.order(EngineCommand::DeleteNetwork(network), None)
                .await?;
        }
        self.0.order(command, Some(id.0)).await.map(drop)
    }

    /// Removes a network; one that was ours before stays.
    pub(super) async fn delete_network(&self, request: &NetworkRequest) -> Result<(), CallError> {
        let id = NetworkId(translate::id(&request.network_id)?);
        self.order(EngineCommand::UnbindNetwork(id), None).await?;
        let deleted = self.order(EngineCommand::DeleteNetwork(id), None).await?;
        if let Reply::Network(id) = deleted {
            let message = "the network still has endpoints, and is removed when they are";
            return Err(Reject::new(Code::NetworkInUse, id, message).into());
        }
        Ok(())
    }
}

/// Whether a network to be made does without addresses of gateways.
pub(super) fn check_gateways(
    request: &GwAllocCheckRequest,
) -> Result<GwAllocCheckResponse, CallError> {
    let options = options(request.options.clone())?;
    let Wanted::New(create) = translate::network(&"0".repeat(64), options, &[], |_| true)? else {
        return Ok(GwAllocCheckResponse::default());
    };
    let spec = network_spec(*create)?;
    Ok(GwAllocCheckResponse {
        skip_ipv4: spec.gateway_mode4 == GatewayMode::Isolated,
        skip_ipv6: spec.gateway_mode6 == GatewayMode::Isolated,
    })
}

/// Only asked of drivers for clusters; what it would refuse is refused.
pub(super) fn allocate(
    request: &AllocateNetworkRequest,
) -> Result<AllocateNetworkResponse, CallError> {
    translate::id(&request.network_id)?;
    Ok(AllocateNetworkResponse::default())
}

fn options(
    options: serde_json::Map<String, serde_json::Value>,
) -> Result<NetworkOptions, CallError> {
    wire::read_object(options)
        .map_err(|error| CallError::Malformed(format!("the options are malformed: {error}")))
}

/// Refuses subnets of an engine's own allocator that we have lent: to another engine, or to a network of another driver.
fn must_not_be_lent(controller: &Controller, pools: &[IpamData]) -> Result<(), Reject> {
    let theirs = pools.iter().filter(|d| !is_our_space(&d.address_space));
    let mut nets = theirs.filter_map(|data| data.pool.parse().ok());
    match nets.find(|net| controller.lends_pool(*net)) {
        None => Ok(()),
        Some(net) => {
            let message = "the subnet is lent to an engine already";
            Err(Reject::new(Code::OverlappingSubnet, net, message)
                .hint("choose another subnet, or add `--ipam-driver tombolo`"))
        }
    }
}

/// The engine's router of a network where the host has no address: engines before 28 ask for one whatever we say.
fn leave_routers_out(spec: &mut NetworkSpec) {
    let modes = [spec.gateway_mode(false), spec.gateway_mode(true)];
    for subnet in &mut spec.subnets {
        let ipv6 = subnet.subnet.is_some_and(|net| net.addr().is_ipv6());
        if modes[usize::from(ipv6)] == GatewayMode::Isolated {
            subnet.gateway = None;
        }
    }
}

/// A network whose pool was lent as a network's own is that network.
fn existing(controller: &Controller, wanted: Wanted, pools: &[IpamData]) -> Result<Wanted, Reject> {
    let Wanted::New(create) = &wanted else {
        return Ok(wanted);
    };
    let of_ours = || pools.iter().filter(|d| is_our_space(&d.address_space));
    let nets: Vec<IpNet> = of_ours()
        .filter_map(|data| data.pool.parse().ok())
        .filter(|net: &IpNet| net.prefix_len() > 0)
        .collect();
    let own = nets.iter().filter(|net| !controller.lends_pool(**net));
    let by_pool = own
        .filter_map(|net| controller.network_of_pool(*net))
        .next();
    let hidden = || of_ours().filter(|data| data.pool == EVERYWHERE);
    let by_router = || {
        let mut routers = hidden().filter_map(|data| translate::host_of(&data.gateway, "").ok());
        routers.find_map(|ip| controller.networks().find(|n| n.gateway(false) == Some(ip)))
    };
    let lent_by = by_pool
        .or_else(by_router)
        .filter(|network| network.spec.engine.is_none());
    match lent_by {
        Some(network) if create.options.is_empty() => Ok(Wanted::Existing {
            name: network.id.to_string(),
            pools: nets,
        }),
        // Only pools of networks that are there are hidden so, and this one is not known by its router.
        _ if hidden().next().is_some() => {
            let message =
                "the addresses are those of a network that is there, and it is not clear of which";
            Err(Reject::new(Code::InvalidCombination, &create.name, message)
                .hint("add `--opt network=NAME`, and leave other options out"))
        }
        _ => Ok(wanted),
    }
}

/// Networks of engines, without endpoints, that overlap the one that was refused for that. Pools that we lend are
/// checked when they are lent: a network with one is never in the way of another.
fn forgotten(controller: &Controller, command: &Command, refused: &Reject) -> Vec<NetworkId> {
    let Command::CreateNetwork { spec, .. } = command else {
        return Vec::new();
    };
    if refused.code != Code::OverlappingSubnet {
        return Vec::new();
    }
    let overlaps = |network: &Network| {
        let mut wanted = spec.subnets.iter().filter_map(|subnet| subnet.subnet);
        let own = network.pools.iter().map(|pool| pool.subnet);
        !own.clone().any(|net| controller.lends_pool(net))
            && wanted.any(|net| own.clone().any(|own| overlap(&own, &net)))
    };
    let unused = |network: &&Network| {
        network.spec.engine.is_some()
            && controller.endpoints_of_network(network.id).next().is_none()
    };
    let found = controller.networks().filter(unused);
    found.filter(|n| overlaps(n)).map(|n| n.id).collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
