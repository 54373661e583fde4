//! Addresses that plugins hand out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_core::driver::names;
use tombolo_core::id::{EndpointId, NetworkId};
use tombolo_core::model::{
    Endpoint, EndpointSpec, GatewayMode, IpamSpec, Network, PluginPool, Pool, SubnetPick,
    SubnetSpec,
};
use tombolo_core::{Code, PluginCommand, Reject};
use tombolo_netstate::Mac;

use super::plugins::Plugin;
use super::{Remote, note, translate};
use crate::limits::PLUGIN_POOLS_TRIED;
use crate::plugin::wire::Done;
use crate::plugin::wire::ipam::{
    ADDRESS_TYPE_GATEWAY, AddressSpaces, DATA_GATEWAY, ENDPOINT_NAME, IpamCapabilities,
    REQUEST_ADDRESS_TYPE, ReleaseAddressRequest, ReleasePoolRequest, RequestAddressRequest,
    RequestAddressResponse, RequestPoolRequest, RequestPoolResponse,
};
use crate::plugin::wire::method::{Method, Subsystem};
use crate::plugin::wire::options::MAC_ADDRESS;

/// What is said of a pool or an address.
type Options = BTreeMap<String, String>;

impl Remote {
    /// Asks the plugin of a network, if it has one for addresses, for a pool of each family.
    pub(super) async fn request_pools(&self, id: NetworkId) -> Result<(), Reject> {
        let network = self.network(id)?;
        let Some(ipam) = network.spec.allocator() else {
            return Ok(());
        };
        let plugin = self
            .plugins
            .open(&ipam.plugin, Subsystem::IpamDriver)
            .await?;
        for wanted in wanted_pools(&network) {
            if wanted.ranges.len() > 1 {
                let message = "a plugin takes one range of addresses for each subnet";
                return Err(
                    Reject::new(Code::InvalidCombination, &network.spec.name, message)
                        .hint("name one range"),
                );
            }
            self.request_pool(&network, (&plugin, ipam), &wanted)
                .await?;
        }
        Ok(())
    }

    async fn request_pool(
        &self,
        network: &Network,
        (plugin, ipam): (&Plugin, &IpamSpec),
        wanted: &SubnetSpec,
    ) -> Result<(), Reject> {
        let capabilities = plugin.ipam_capabilities().await?;
        let spaces = plugin.call_if_there(Method::GetDefaultAddressSpaces, None::<&Done>);
        let spaces: AddressSpaces = spaces.await?.unwrap_or_default();
        let mut request = pool_request((&spaces.local, ipam), (wanted.subnet, &wanted.ranges));
        request.v6 = wanted.is_ipv6();
        let (answer, subnet) = self.free_pool(plugin, &request).await?;
        let mut pool = Pool {
            subnet,
            ranges: wanted.ranges.clone(),
            gateway: None,
            reserved: Default::default(),
            plugin: Some(PluginPool {
                id: answer.pool_id.clone(),
                space: request.address_space.clone(),
                requested: Vec::new(),
                replay: capabilities.requires_request_replay,
            }),
        };
        if let Err(reject) = self.note_pool(network.id, &pool).await {
            note(
                "releasing a pool",
                release_pool(plugin, &answer.pool_id).await,
            );
            return Err(reject);
        }
        let offered = answer.data.get(DATA_GATEWAY);
        let mode = network.spec.gateway_mode(wanted.is_ipv6());
        let needs_one = offered.is_none() && mode != GatewayMode::Isolated;
        if let Some(text) = offered {
            let ip = translate::host_of(text).map_err(|text| plugin.senseless(text))?;
            if !subnet.contains(&ip) {
                return Err(plugin.senseless(format!("the gateway {ip} is not of {subnet}")));
            }
            pool.gateway = Some(ip);
        }
        if wanted.gateway.is_some() || needs_one {
            let wish = (wanted.gateway, gateway_options());
            let ip = self
                .request_for(network.id, plugin, &mut pool, wish)
                .await?;
            pool.gateway = Some(ip);
        }
        self.note_pool(network.id, &pool).await?;
        for (name, ip) in &wanted.reserved {
            let wish = (Some(*ip), BTreeMap::new());
            let ip = self
                .request_for(network.id, plugin, &mut pool, wish)
                .await?;
            pool.reserved.insert(name.clone(), ip);
            self.note_pool(network.id, &pool).await?;
        }
        Ok(())
    }

    /// Asks for an address of the network itself, and notes that before it is judged.
    async fn request_for(
        &self,
        network: NetworkId,
        plugin: &Plugin,
        pool: &mut Pool,
        wish: (Option<IpAddr>, Options),
    ) -> Result<IpAddr, Reject> {
        let Some(id) = pool.plugin.as_ref().map(|of| of.id.clone()) else {
            return Err(plugin.senseless("the pool is not the plugin's"));
        };
        let ip = request_address(plugin, &id, pool, wish).await?.addr();
        if let Some(of) = &mut pool.plugin {
            of.requested.push(ip);
        }
        if let Err(reject) = self.note_pool(network, pool).await {
            let released = release_address(plugin, &id, ip).await;
            note("releasing an address", released);
            return Err(reject);
        }
        Ok(ip)
    }

    pub(super) async fn note_pool(&self, network: NetworkId, pool: &Pool) -> Result<(), Reject> {
        let command = PluginCommand::NotePool(network, Box::new(pool.clone()));
        self.order(command).await.map(drop)
    }

    /// A pool that overlaps nothing. One that was not asked for by its subnet and does is held until another was found,
    /// as the plugin would offer it again; it is not asked for ever.
    async fn free_pool(
        &self,
        plugin: &Plugin,
        request: &RequestPoolRequest,
    ) -> Result<(RequestPoolResponse, IpNet), Reject> {
        let mut held = Vec::new();
        let mut found = None;
        for _ in 0..PLUGIN_POOLS_TRIED {
            match self.try_pool(plugin, request).await {
                Ok((answer, _, false)) => held.push(answer.pool_id),
                Ok((answer, subnet, true)) => {
                    found = Some(Ok((answer, subnet)));
                    break;
                }
                Err(reject) => {
                    found = Some(Err(reject));
                    break;
                }
            }
        }
        for pool_id in held {
            note("releasing a pool", release_pool(plugin, &pool_id).await);
        }
        found.unwrap_or_else(|| {
            let message = format!(
                "each of {PLUGIN_POOLS_TRIED} pools that the plugin offered overlaps another network or a route of the host"
            );
            Err(plugin.senseless(message))
        })
    }

    /// One pool, and whether it can be used.
    async fn try_pool(
        &self,
        plugin: &Plugin,
        request: &RequestPoolRequest,
    ) -> Result<(RequestPoolResponse, IpNet, bool), Reject> {
        let answer: RequestPoolResponse = plugin.call(Method::RequestPool, request).await?;
        let subnet: Option<IpNet> = answer.pool.parse().ok();
        let subnet = subnet.filter(|net| net.addr().is_ipv6() == request.v6);
        let Some(subnet) = subnet.filter(|_| !answer.pool_id.is_empty()) else {
            let (id, pool) = (&answer.pool_id, &answer.pool);
            let reject = plugin.senseless(format!("{pool:?} with the id {id:?} is no such pool"));
            if !id.is_empty() {
                note("releasing a pool", release_pool(plugin, id).await);
            }
            return Err(reject);
        };
        let subnet = subnet.trunc();
        let asked = !request.pool.is_empty();
        let free = asked || self.shared.look(|records| records.is_free_subnet(subnet));
        Ok((answer, subnet, free))
    }

    /// The plugin that hands out the addresses of a network, and the network with its pools as the plugin calls them by
    /// now; none where we do.
    async fn addresses_of(&self, network: &Network) -> Result<Option<(Plugin, Network)>, Reject> {
        let Some(ipam) = network.spec.allocator() else {
            return Ok(None);
        };
        self.replay(network.id).await?;
        let plugin = self.plugins.open(&ipam.plugin, Subsystem::IpamDriver);
        Ok(Some((plugin.await?, self.network(network.id)?)))
    }

    /// Gives pools and the network's own addresses back; the first failure is told.
    pub(super) async fn release_pools(&self, id: NetworkId) -> Result<(), Reject> {
        let network = self.network(id)?;
        if network.pools.is_empty() {
            return Ok(());
        }
        let Some((plugin, network)) = self.addresses_of(&network).await? else {
            return Ok(());
        };
        let mut outcome = Ok(());
        let plugin = plugin.hurried();
        for pool in network.pools.iter().rev() {
            let Some(of) = &pool.plugin else { continue };
            for address in &of.requested {
                let released = release_address(&plugin, &of.id, *address).await;
                outcome = outcome.and(released);
            }
            outcome = outcome.and(release_pool(&plugin, &of.id).await);
        }
        outcome
    }

    /// What must be decided of an endpoint before its addresses are asked for.
    pub(super) async fn prepare_spec(
        &self,
        network: &Network,
        (id, spec): (EndpointId, &mut EndpointSpec),
    ) -> Result<(), Reject> {
        if network.spec.ipam.as_ref().is_some_and(IpamSpec::is_null) && !spec.addresses.is_empty() {
            let message = "the network has no addresses that could be asked for";
            return Err(
                Reject::new(Code::InvalidCombination, &network.spec.name, message).hint(
                    "leave the address out, or make the network without `--ipam-driver null`",
                ),
            );
        }
        let Some((plugin, _)) = self.addresses_of(network).await? else {
            return Ok(());
        };
        if plugin.ipam_capabilities().await?.requires_mac_address && spec.mac.is_none() {
            spec.mac = Some(names::mac(&[b"asked", &id.0.to_be_bytes()]).0);
        }
        Ok(())
    }

    /// Asks for the addresses of an endpoint, one of each family that its network has.
    pub(super) async fn request_addresses(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let Some((plugin, network)) = self.addresses_of(&network).await? else {
            return Ok(());
        };
        for ipv6 in [false, true] {
            let of_family = |pool: &&Pool| pool.subnet.addr().is_ipv6() == ipv6;
            let mut asked = endpoint.spec.addresses.iter();
            let asked = asked.find(|ip| ip.is_ipv6() == ipv6).copied();
            let holds = |pool: &&Pool| asked.is_none_or(|ip| pool.subnet.contains(&ip));
            let pools = network.pools.iter().filter(of_family);
            let Some(pool) = pools.clone().find(holds).or_else(|| pools.clone().next()) else {
                continue;
            };
            let Some(of) = &pool.plugin else { continue };
            let options = endpoint_options(&endpoint, &plugin.ipam_capabilities().await?);
            let address = request_address(&plugin, &of.id, pool, (asked, options)).await?;
            let noted = PluginCommand::NoteAddress(id, address);
            let noted = self.order_when_free(noted).await;
            if let Err(reject) = noted {
                let released = release_address(&plugin, &of.id, address.addr()).await;
                note("releasing an address", released);
                return Err(reject);
            }
        }
        Ok(())
    }

    /// Gives the addresses of an endpoint back; the first failure is told.
    pub(super) async fn release_addresses(&self, id: EndpointId) -> Result<(), Reject> {
        let (network, endpoint) = self.endpoint(id)?;
        let kept = |ip: &IpAddr| !endpoint.given_back.contains(ip);
        let addresses = endpoint.addresses.iter().map(IpNet::addr);
        let addresses: Vec<IpAddr> = addresses.filter(kept).collect();
        if addresses.is_empty() {
            return Ok(());
        }
        let Some((plugin, network)) = self.addresses_of(&network).await? else {
            return Ok(());
        };
        let mut outcome = Ok(());
        for address in addresses {
            let pool = network.pool_of(address);
            let Some(of) = pool.and_then(|pool| pool.plugin.as_ref()) else {
                continue;
            };
            let plugin = plugin.clone().hurried();
            let released = release_address(&plugin, &of.id, address).await;
            if released.is_ok() {
                // Not twice: somebody else may have it by then.
                let given = PluginCommand::NoteGivenBack(id, address);
                note("noting an address", self.order(given).await);
            }
            outcome = outcome.and(released);
        }
        outcome
    }
}

/// The pools that a network is to have: what the user said, and one of each other family that is on.
fn wanted_pools(network: &Network) -> Vec<SubnetSpec> {
    let mut wanted = Vec::new();
    for (on, ipv6) in [(network.spec.ipv4, false), (network.spec.ipv6, true)] {
        let subnets = network.spec.subnets.iter();
        let named: Vec<_> = subnets.filter(|s| s.is_ipv6() == ipv6).cloned().collect();
        if named.is_empty() && on {
            let pick = SubnetPick { ipv6, size: None };
            wanted.push(SubnetSpec {
                pick,
                ..SubnetSpec::default()
            });
        }
        wanted.extend(named);
    }
    wanted
}

/// A request for a pool: for that of a subnet, or for any.
pub(super) fn pool_request(
    (space, ipam): (&str, &IpamSpec),
    (subnet, ranges): (Option<IpNet>, &[IpNet]),
) -> RequestPoolRequest {
    RequestPoolRequest {
        address_space: space.to_owned(),
        pool: subnet.map_or_else(String::new, |net| net.to_string()),
        sub_pool: ranges.first().map_or_else(String::new, ToString::to_string),
        options: ipam.options.clone(),
        v6: subnet.is_some_and(|net| net.addr().is_ipv6()),
    }
}

/// What a request for the address of a gateway says.
pub(super) fn gateway_options() -> Options {
    let kind = (
        REQUEST_ADDRESS_TYPE.to_owned(),
        ADDRESS_TYPE_GATEWAY.to_owned(),
    );
    [kind].into()
}

/// What a request for the address of an endpoint says.
pub(super) fn endpoint_options(endpoint: &Endpoint, capabilities: &IpamCapabilities) -> Options {
    let mut options = Options::new();
    options.insert(ENDPOINT_NAME.to_owned(), endpoint.name.to_string());
    if capabilities.requires_mac_address {
        let mac = Mac(endpoint.spec.mac.unwrap_or(endpoint.mac)).to_string();
        options.insert(MAC_ADDRESS.to_owned(), mac);
    }
    options
}

/// Asks for an address of a pool, or for a certain one. What is not of the pool goes back.
pub(super) async fn request_address(
    plugin: &Plugin,
    pool_id: &str,
    pool: &Pool,
    (address, options): (Option<IpAddr>, Options),
) -> Result<IpNet, Reject> {
    let request = RequestAddressRequest {
        pool_id: pool_id.to_owned(),
        address: address.map_or_else(String::new, |ip| ip.to_string()),
        options,
    };
    let answer: RequestAddressResponse = plugin.call(Method::RequestAddress, &request).await?;
    let said: Result<IpNet, _> = answer.address.parse();
    let said = said.map_err(|_| {
        let text = &answer.address;
        plugin.senseless(format!("{text:?} is no address with its prefix length"))
    })?;
    let wrong = match address {
        Some(asked) if asked != said.addr() => format!("{asked} was asked for"),
        _ if !pool.subnet.contains(&said.addr()) => {
            format!("an address of {} was asked for", pool.subnet)
        }
        _ if said.prefix_len() < pool.subnet.prefix_len() => {
            format!("its network is larger than {}", pool.subnet)
        }
        _ => return Ok(said),
    };
    note(
        "releasing an address",
        release_address(plugin, pool_id, said.addr()).await,
    );
    Err(plugin.senseless(format!("{said} was answered, but {wrong}")))
}

async fn release_address(plugin: &Plugin, pool_id: &str, address: IpAddr) -> Result<(), Reject> {
    let request = ReleaseAddressRequest {
        pool_id: pool_id.to_owned(),
        address: address.to_string(),
    };
    let answer = plugin.call(Method::ReleaseAddress, &request).await;
    answer.map(|Done {}| ())
}

async fn release_pool(plugin: &Plugin, pool_id: &str) -> Result<(), Reject> {
    let request = ReleasePoolRequest {
        pool_id: pool_id.to_owned(),
    };
    let answer = plugin.call(Method::ReleasePool, &request).await;
    answer.map(|Done {}| ())
}
