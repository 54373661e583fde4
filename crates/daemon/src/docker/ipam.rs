//! The methods about pools and addresses.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tombolo_core::ipam::{Family, SubnetWish};
use tombolo_core::model::SubnetPick;
use tombolo_core::{Code, EngineCommand, Reference, Reject, Reply};

use super::Calls;
use super::server::CallError;
use super::translate::{self, NETWORK, parsed};
use crate::plugin::wire::ipam::{
    ADDRESS_TYPE_GATEWAY, AddressSpaces, DATA_GATEWAY, REQUEST_ADDRESS_TYPE, ReleaseAddressRequest,
    ReleasePoolRequest, RequestAddressRequest, RequestAddressResponse, RequestPoolRequest,
    RequestPoolResponse,
};

/// How often an engine may ask for the pools of one network within [`ROUND_TIME`].
const ROUNDS_MAX: u32 = 16;
const ROUND_TIME: Duration = Duration::from_secs(10);

/// All our addresses are in one space; engines want two names.
pub(super) fn spaces() -> AddressSpaces {
    AddressSpaces {
        local: "tombolo-local".to_owned(),
        global: "tombolo-global".to_owned(),
    }
}

/// Whether addresses of a space are ours: the engine's own allocator has others.
pub(super) fn is_our_space(name: &str) -> bool {
    let AddressSpaces { local, global } = spaces();
    name == local || name == global
}

impl Calls {
    pub(super) async fn request_pool(
        &self,
        request: RequestPoolRequest,
    ) -> Result<RequestPoolResponse, CallError> {
        // Any pool, which is what nothing means, is never asked for without saying where.
        if !is_our_space(&request.address_space) {
            let space: String = request.address_space.chars().take(64).collect();
            let message =
                format!("the pool is asked for in an address space that is not ours: {space:?}");
            return Err(CallError::Malformed(message));
        }
        let mut options = request.options;
        let network = options.remove(NETWORK).map(Reference);
        if let Some(strange) = options.keys().next() {
            let message = "our addresses have no such option";
            return Err(Reject::new(Code::UnknownOption, strange, message)
                .hint("`--ipam-opt network=NAME` is the only one")
                .into());
        }
        let (subnet, pick) = wish(&request.pool, request.v6)?;
        let is_ours = network.is_some();
        if let (Some(network), None) = (&network, subnet) {
            self.must_not_go_round(network)?;
        }
        let range = match request.sub_pool.as_str() {
            "" => None,
            text => Some(parsed::<IpNet>(text, "the range")?),
        };
        let command = EngineCommand::RequestPool {
            network,
            subnet,
            pick,
            range,
        };
        let Reply::Pool(subnet, gateway) = self.order(command, None).await? else {
            return Err(unexpected().into());
        };
        let gateway = gateway.map(|ip| {
            let text = format!("{ip}/{}", subnet.prefix_len());
            (DATA_GATEWAY.to_owned(), text)
        });
        // An engine asks for another pool for as long as the one it gets overlaps a route of the host, and that of a
        // network that exists does. Of what is everywhere it does not ask that.
        let hides = is_ours && request.pool.is_empty() && subnet.addr().is_ipv4();
        Ok(RequestPoolResponse {
            pool_id: subnet.to_string(),
            pool: match hides {
                true => EVERYWHERE.to_owned(),
                false => subnet.to_string(),
            },
            data: gateway.into_iter().collect(),
        })
    }

    pub(super) async fn release_pool(&self, request: &ReleasePoolRequest) -> Result<(), CallError> {
        let subnet = parsed(&request.pool_id, "the pool")?;
        self.order(EngineCommand::ReleasePool(subnet), None).await?;
        Ok(())
    }

    pub(super) async fn request_address(
        &self,
        request: RequestAddressRequest,
    ) -> Result<RequestAddressResponse, CallError> {
        let subnet: IpNet = parsed(&request.pool_id, "the pool")?;
        let address = match request.address.as_str() {
            "" => None,
            text => Some(translate::host_of(text, "the address")?),
        };
        if let Some(ip) = address.filter(|ip| !subnet.contains(ip)) {
            let message = format!("the address is not in the pool {subnet}");
            return Err(Reject::new(Code::InvalidAddress, ip, message).into());
        }
        let kind = request.options.get(REQUEST_ADDRESS_TYPE);
        let command = EngineCommand::RequestAddress {
            subnet,
            address,
            gateway: kind.is_some_and(|kind| kind == ADDRESS_TYPE_GATEWAY),
        };
        let Reply::Address(net) = self.order(command, None).await? else {
            return Err(unexpected().into());
        };
        Ok(RequestAddressResponse {
            address: net.to_string(),
            data: BTreeMap::new(),
        })
    }

    pub(super) async fn release_address(
        &self,
        request: &ReleaseAddressRequest,
    ) -> Result<(), CallError> {
        let subnet: IpNet = parsed(&request.pool_id, "the pool")?;
        let address = translate::host_of(&request.address, "the address")?;
        // An engine that was killed knows only the addresses of its endpoints, and gives back just these.
        let endpoint = self.0.look(|controller| {
            let network = controller.network_of_pool(subnet)?.id;
            let id = controller.lent_endpoint_at(address)?;
            let is_there = controller.endpoint(id)?.network == network;
            is_there.then_some(id)
        });
        if let Some(endpoint) = endpoint {
            self.order(EngineCommand::DeleteEndpoint(endpoint), None)
                .await?;
        }
        self.order(EngineCommand::ReleaseAddress(address), None)
            .await?;
        Ok(())
    }
}

/// The pool of an allocator that has none.
pub(super) const EVERYWHERE: &str = "0.0.0.0/0";

/// How often engines asked for the pools of a network that is there, and when first.
#[derive(Debug, Default)]
pub(super) struct Rounds(HashMap<String, (u32, Instant)>);

impl Calls {
    /// Ends an engine's search for a pool that overlaps nothing, which would have no end.
    fn must_not_go_round(&self, network: &Reference) -> Result<(), Reject> {
        let mut rounds = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        rounds
            .0
            .retain(|_, (_, since)| now.duration_since(*since) < ROUND_TIME);
        let (count, _) = rounds.0.entry(network.0.clone()).or_insert((0, now));
        *count += 1;
        if *count <= ROUNDS_MAX {
            return Ok(());
        }
        let message =
            "the engine goes on asking for another subnet, since the host has a route to this one";
        Err(Reject::new(Code::OverlappingSubnet, &network.0, message)
            .hint("name the network's subnets with `--subnet` as well"))
    }
}

/// What is asked for by the text of a pool: a subnet, or one of some size.
fn wish(pool: &str, v6: bool) -> Result<(Option<IpNet>, SubnetPick), Reject> {
    let any = SubnetPick {
        ipv6: v6,
        size: None,
    };
    if pool.is_empty() {
        return Ok((None, any));
    }
    let wrong_family = || {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let message = format!("an {family} pool is asked for, and this is none");
        Err(Reject::new(Code::InvalidAddress, pool, message))
    };
    match parsed::<SubnetWish>(pool, "the pool")? {
        SubnetWish::Exact(net) if net.addr().is_ipv6() != v6 => wrong_family(),
        SubnetWish::Exact(net) => Ok((Some(net), any)),
        SubnetWish::Any { family, .. } if (family == Family::V6) != v6 => wrong_family(),
        SubnetWish::Any { size, .. } => Ok((None, SubnetPick { ipv6: v6, size })),
    }
}

fn unexpected() -> Reject {
    Reject::new(
        Code::Kernel,
        "plugin",
        "the request has another answer than expected",
    )
}
