//! From records to what the API shows.

pub(crate) mod publication;

use std::path::Path;

use tombolo_api::types::{
    self, Action, EndpointState, EndpointSummary, Named, ObjectView, OperationView, RouteConfig,
    SandboxFiles,
};
use tombolo_core::Controller;
use tombolo_core::controller::{ExplainedObject, ObjectState};
use tombolo_core::driver::remote;
use tombolo_core::model::{
    Driver, Endpoint, Network, NetworkSpec, NetworkState, Pool, Sandbox, SandboxNetns, SandboxState,
};
use tombolo_netstate::{Edge, Key, Mac, Op};

use super::{mode_word, names};

/// Directories that views name files in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Where namespaces are.
    pub(crate) netns: &'a Path,
    /// Where the files of sandboxes are.
    pub(crate) files: &'a Path,
}

pub(crate) fn network(controller: &Controller, network: &Network) -> types::Network {
    let spec = &network.spec;
    let snat = |ipv6: bool| {
        spec.snat
            .iter()
            .find(|ip| ip.is_ipv6() == ipv6)
            .map(ToString::to_string)
    };
    let bridge = spec.driver == Driver::Bridge;
    types::Network {
        id: network.id.to_string(),
        name: spec.name.to_string(),
        driver: driver_name(spec).to_owned(),
        subnets: network
            .pools
            .iter()
            .map(|pool| subnet(controller, pool))
            .collect(),
        ipv4: spec.ipv4,
        ipv6: spec.ipv6,
        internal: spec.internal,
        mtu: controller.mtu(network),
        mtu_configured: spec.mtu,
        device: bridge.then(|| network.device.clone()),
        multicast: spec.multicast,
        icc: spec.icc,
        masquerade: spec.masquerade,
        snat_ipv4: snat(false),
        snat_ipv6: snat(true),
        gateway_mode_ipv4: bridge.then(|| mode_word(spec.gateway_mode4).to_owned()),
        gateway_mode_ipv6: bridge.then(|| mode_word(spec.gateway_mode6).to_owned()),
        obey_host_firewall: controller.obeys_host_firewall(network),
        host_binding: spec.host_binding.map(|address| address.to_string()),
        dns: names::network_view(spec),
        routes: spec.routes.iter().map(route).collect(),
        interface_prefix: bridge.then(|| spec.interface_prefix.clone()),
        labels: spec.labels.clone(),
        options: spec.options.clone(),
        ipam_driver: spec.ipam.as_ref().map(|ipam| ipam.plugin.clone()),
        ipam_options: spec
            .ipam
            .as_ref()
            .map_or_else(Default::default, |ipam| ipam.options.clone()),
        plugins: Vec::new(),
        state: network_state(controller, network),
        endpoints: controller
            .endpoints_of_network(network.id)
            .map(|e| summary(controller, e))
            .collect(),
        created_ms: network.created_ms,
    }
}

pub(crate) fn endpoint(controller: &Controller, endpoint: &Endpoint) -> types::Endpoint {
    let network = controller.network(endpoint.network);
    let has = |ipv6: bool| {
        endpoint
            .addresses
            .iter()
            .any(|a| a.addr().is_ipv6() == ipv6)
    };
    let gateways = [false, true].into_iter().filter(|ipv6| has(*ipv6));
    let gateways = gateways
        .filter_map(|ipv6| match network?.spec.driver {
            Driver::Remote => remote::default_gateway(endpoint, ipv6),
            _ => network?.gateway(ipv6),
        })
        .map(|ip| ip.to_string());
    types::Endpoint {
        id: endpoint.id.to_string(),
        name: endpoint.name.to_string(),
        network: Named {
            id: endpoint.network.to_string(),
            name: network.map(|n| n.spec.name.to_string()).unwrap_or_default(),
        },
        sandbox: named_sandbox(controller, endpoint),
        addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
        gateways: gateways.collect(),
        mac: known_mac(network, endpoint),
        interface: endpoint.attachment.as_ref().map(|a| a.interface.clone()),
        host_interface: controller
            .host_interface(endpoint)
            .map(|name| name.to_string()),
        mtu: network.map_or(0, |network| controller.mtu(network)),
        state: endpoint_state(endpoint),
        gateway_priority: endpoint.spec.gateway_priority,
        aliases: endpoint.spec.aliases.clone(),
        labels: endpoint.spec.labels.clone(),
    }
}

pub(crate) fn sandbox(
    controller: &Controller,
    sandbox: &Sandbox,
    places: Places<'_>,
) -> types::Sandbox {
    let running = sandbox.state == SandboxState::Running;
    let path = |path: &Path| path.display().to_string();
    let netns = match &sandbox.spec.netns {
        SandboxNetns::New => Some(path(&places.netns.join(sandbox.netns_name()))),
        SandboxNetns::Host => None,
        SandboxNetns::Adopted { path: theirs, .. } | SandboxNetns::Engine { path: theirs, .. } => {
            Some(path(theirs))
        }
    };
    let files = places.files.join(sandbox.id.to_string());
    let file = |name: &str| path(&files.join(name));
    types::Sandbox {
        id: sandbox.id.to_string(),
        name: sandbox.name.to_string(),
        hostname: Some(sandbox.hostname()),
        state: if running {
            types::SandboxState::Running
        } else {
            types::SandboxState::Stopped
        },
        netns: netns.filter(|_| running),
        files: Some(SandboxFiles {
            directory: path(&files),
            hosts: file("hosts"),
            hostname: file("hostname"),
            resolv_conf: file("resolv.conf"),
        }),
        endpoints: controller
            .endpoints_of_sandbox(sandbox.id)
            .into_iter()
            .map(|(_, e)| endpoint(controller, e))
            .collect(),
        publications: publication::publications(controller, sandbox),
        expose: publication::exposed_ports(sandbox),
        links: publication::links(controller, sandbox),
        linked_by: controller
            .linked_by(sandbox.id)
            .iter()
            .map(ToString::to_string)
            .collect(),
        labels: sandbox.spec.labels.clone(),
        created_ms: sandbox.created_ms,
    }
}

pub(crate) fn operation(op: &Op, owners: Vec<String>) -> OperationView {
    let action = match op.action {
        tombolo_netstate::Action::Close(_) => Action::Isolate,
        tombolo_netstate::Action::Create(_) => Action::Create,
        tombolo_netstate::Action::Update { .. } => Action::Update,
        tombolo_netstate::Action::Delete(_) => Action::Delete,
    };
    OperationView {
        action,
        object: op.key.to_string(),
        kind: op.key.kind().to_owned(),
        text: op.to_string(),
        owners,
    }
}

/// A message that follows the operations.
pub(crate) fn message(edge: &Edge) -> OperationView {
    let (action, object, kind) = match edge {
        Edge::Announce {
            netns, link, ip, ..
        } => (
            Action::Announce,
            format!("{netns}:{link} {ip}"),
            "announcement",
        ),
        Edge::Forget(flows) => (Action::Forget, flows.to_string(), "connections"),
    };
    OperationView {
        action,
        object,
        kind: kind.to_owned(),
        text: edge.to_string(),
        owners: vec![],
    }
}

pub(crate) fn failed(key: &Key, message: &str) -> types::OperationFailure {
    let operation = OperationView {
        action: Action::Update,
        object: key.to_string(),
        kind: key.kind().to_owned(),
        text: key.to_string(),
        owners: vec![],
    };
    types::OperationFailure {
        operation,
        message: message.to_owned(),
    }
}

pub(crate) fn object(object: ExplainedObject) -> ObjectView {
    let state = match object.state {
        ObjectState::InPlace => types::ObjectState::InPlace,
        ObjectState::Missing => types::ObjectState::Missing,
        ObjectState::Different => types::ObjectState::Different,
        ObjectState::Changing => types::ObjectState::Leaving,
    };
    let done = object.state == ObjectState::InPlace;
    ObjectView {
        object: object.key.to_string(),
        kind: object.key.kind().to_owned(),
        spec: object.spec.to_string(),
        owners: object.owners,
        state,
        last: object.failure.or_else(|| done.then(|| "done".to_owned())),
    }
}

/// What people call the driver of a network: a plugin by its name.
pub(crate) fn driver_name(spec: &NetworkSpec) -> &str {
    match &spec.plugin {
        Some(plugin) => plugin,
        None => driver_word(spec.driver),
    }
}

fn driver_word(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Null => "null",
        Driver::Host => "host",
        Driver::Remote => "remote",
    }
}

/// The hardware address of an endpoint, where it is known.
fn known_mac(network: Option<&Network>, endpoint: &Endpoint) -> Option<String> {
    let mac = match network?.spec.driver {
        Driver::Bridge => Some(endpoint.mac),
        Driver::Remote => endpoint.chosen_mac(),
        Driver::Null | Driver::Host => None,
    };
    mac.map(|mac| Mac(mac).to_string())
}

fn summary(controller: &Controller, endpoint: &Endpoint) -> EndpointSummary {
    EndpointSummary {
        id: endpoint.id.to_string(),
        name: endpoint.name.to_string(),
        sandbox: named_sandbox(controller, endpoint),
        addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
        mac: match controller.network(endpoint.network) {
            Some(network) if network.spec.driver == Driver::Remote => {
                known_mac(Some(network), endpoint)
            }
            _ => Some(Mac(endpoint.mac).to_string()),
        },
        state: endpoint_state(endpoint),
    }
}

fn named_sandbox(controller: &Controller, endpoint: &Endpoint) -> Option<Named> {
    let sandbox = controller.sandbox(endpoint.sandbox?)?;
    Some(Named {
        id: sandbox.id.to_string(),
        name: sandbox.name.to_string(),
    })
}

fn endpoint_state(endpoint: &Endpoint) -> EndpointState {
    match &endpoint.attachment {
        _ if endpoint.deleting => EndpointState::Leaving,
        Some(_) => EndpointState::Attached,
        None => EndpointState::Allocated,
    }
}

fn network_state(controller: &Controller, network: &Network) -> types::NetworkState {
    match network.state {
        NetworkState::Deleting => types::NetworkState::Leaving,
        NetworkState::Ready if controller.is_intact(network.id) => types::NetworkState::Ready,
        NetworkState::Ready | NetworkState::Creating | NetworkState::Reserved => {
            types::NetworkState::Degraded
        }
    }
}

fn subnet(controller: &Controller, pool: &Pool) -> types::Subnet {
    let usage = controller.usage(pool);
    types::Subnet {
        subnet: pool.subnet.to_string(),
        ip_range: pool.ranges.iter().map(ToString::to_string).collect(),
        gateway: pool.gateway.map(|ip| ip.to_string()),
        aux_addresses: pool
            .reserved
            .iter()
            .map(|(name, ip)| (name.clone(), ip.to_string()))
            .collect(),
        leases: usage.map_or(0, |usage| u64::try_from(usage.held).unwrap_or(u64::MAX)),
    }
}

fn route(route: &tombolo_core::model::StaticRoute) -> RouteConfig {
    RouteConfig {
        destination: route.destination.to_string(),
        via: route.via.map(|ip| ip.to_string()),
    }
}
