//! From the words of an engine's API to ours: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bollard::models::{ContainerInspectResponse, ContainerSummary, EndpointSettings, Network};
use ipnet::IpNet;
use tombolo_core::id::{EndpointId, Name, NetworkId, SandboxId};
use tombolo_core::model::Link;
use tombolo_core::{Controller, Described};
use tombolo_dns::name::HostName;
use tombolo_netstate::object::port::Protocol;

use super::translate;
use crate::limits::ALIASES_MAX;

/// The label of a sandbox that its engine has described.
pub(super) const CONTAINER_ID: &str = "com.docker.container.id";

/// What an engine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Containers, running or not, by their ids, with the endpoints of those that run.
    pub(super) containers: Vec<(String, Vec<EndpointId>)>,
    pub(super) networks: BTreeSet<NetworkId>,
    pub(super) network_names: BTreeMap<NetworkId, Name>,
    pub(super) endpoints: BTreeSet<EndpointId>,
    /// Subnets of networks.
    pub(super) pools: BTreeSet<IpNet>,
    /// Of routers, of what is kept out, and of endpoints.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Known {
    pub(super) fn of(containers: &[ContainerSummary], networks: &[Network]) -> Self {
        let mut known = Self::default();
        for container in containers {
            let mut own = Vec::new();
            let settings = container.network_settings.as_ref();
            let settings = settings.and_then(|settings| settings.networks.as_ref());
            for endpoint in settings.into_iter().flat_map(|networks| networks.values()) {
                own.extend(endpoint_id(endpoint));
                let texts = [&endpoint.ip_address, &endpoint.global_ipv6_address];
                known.addresses.extend(texts.into_iter().filter_map(ip));
            }
            known.endpoints.extend(&own);
            known
                .containers
                .extend(container.id.clone().map(|id| (id, own)));
        }
        for network in networks {
            known.add_network(network);
        }
        known
    }

    fn add_network(&mut self, network: &Network) {
        let Some(id) = network.id.as_deref().and_then(network_id) else {
            return;
        };
        self.networks.insert(id);
        let named = network_name(network.id.as_deref(), network.name.as_deref());
        self.network_names.extend(named);
        let ipam = network.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
        for config in ipam.into_iter().flatten() {
            let subnet: Option<IpNet> = config.subnet.as_ref().and_then(|text| text.parse().ok());
            self.pools.extend(subnet);
            self.addresses.extend(ip(&config.gateway));
            let aux = config.auxiliary_addresses.iter().flatten();
            self.addresses
                .extend(aux.filter_map(|(_, text)| translate::host_of(text, "").ok()));
        }
    }

    /// Takes in what another engine has.
    pub(super) fn add(&mut self, other: &Self) {
        self.containers.extend(other.containers.iter().cloned());
        self.networks.extend(&other.networks);
        let names = other.network_names.iter();
        self.network_names
            .extend(names.map(|(id, name)| (*id, name.clone())));
        self.endpoints.extend(&other.endpoints);
        self.pools.extend(&other.pools);
        self.addresses.extend(&other.addresses);
    }
}

/// What a container is to the sandbox that its endpoints are in; none if it has no endpoint of ours.
pub(super) fn described(
    controller: &Controller,
    answer: &ContainerInspectResponse,
) -> Option<(SandboxId, Described)> {
    let settings = answer.network_settings.as_ref()?.networks.as_ref()?;
    let mut described = Described::default();
    let mut sandbox = None;
    for endpoint in settings.values() {
        let Some(id) = endpoint_id(endpoint) else {
            continue;
        };
        let Some(found) = controller.endpoint(id).and_then(|e| e.sandbox) else {
            continue;
        };
        sandbox = Some(found);
        described.aliases.push((id, aliases(endpoint)));
        described.links.extend(links(endpoint));
    }
    let id = answer.id.clone().unwrap_or_default();
    let name = answer
        .name
        .as_deref()
        .map(|name| name.trim_start_matches('/'));
    described.name = name.and_then(|name| name.parse().ok());
    let config = answer.config.as_ref();
    described.hostname = config
        .and_then(|config| config.hostname.clone())
        .filter(|name| !name.is_empty() && name.parse::<HostName>().is_ok());
    let exposed = config.and_then(|config| config.exposed_ports.as_ref());
    let exposed = exposed.into_iter().flatten().filter_map(|p| port(p));
    described.exposed = translate::exposed_ranges(exposed.collect());
    described.labels = vec![
        (CONTAINER_ID.to_owned(), id),
        ("tombolo.engine".to_owned(), "docker".to_owned()),
    ];
    Some((sandbox?, described))
}

/// Other names: what cannot be a host name cannot be asked for.
fn aliases(endpoint: &EndpointSettings) -> Vec<String> {
    let all = endpoint.aliases.iter().flatten();
    let fine = all.filter(|alias| alias.parse::<HostName>().is_ok());
    fine.take(ALIASES_MAX).cloned().collect()
}

/// Links are written `CONTAINER:ALIAS`.
fn links(endpoint: &EndpointSettings) -> Vec<Link> {
    let all = endpoint.links.iter().flatten();
    let links = all.filter_map(|text| {
        let (other, alias) = text.split_once(':').unwrap_or((text, text));
        let alias: HostName = alias.parse().ok()?;
        Some(Link {
            sandbox: other.parse().ok()?,
            alias: alias.as_str().to_owned(),
        })
    });
    links.collect()
}

fn port(text: &str) -> Option<(Protocol, u16)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((protocol.parse().ok()?, port.parse().ok()?))
}

fn endpoint_id(endpoint: &EndpointSettings) -> Option<EndpointId> {
    let text = endpoint.endpoint_id.as_deref()?;
    translate::id(text).ok().map(EndpointId)
}

/// What a network is called; none if that cannot be a name here.
pub(super) fn network_name(id: Option<&str>, name: Option<&str>) -> Option<(NetworkId, Name)> {
    Some((network_id(id?)?, name?.parse().ok()?))
}

fn network_id(text: &str) -> Option<NetworkId> {
    translate::id(text).ok().map(NetworkId)
}

fn ip(text: &Option<String>) -> Option<IpAddr> {
    translate::host_of(text.as_deref()?, "").ok()
}
