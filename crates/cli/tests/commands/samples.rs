//! Objects for the daemon to answer with.

use std::collections::BTreeMap;

use tombolo_api::{
    Endpoint, EndpointState, EndpointSummary, Link, Named, Network, NetworkDns, NetworkState, Path,
    Protocol, Publication, Sandbox, SandboxState, Subnet,
};

/// A bridge network with one subnet.
pub(crate) fn network(name: &str) -> Network {
    Network {
        id: format!(
            "{:0>32}",
            format!("{name}0").bytes().map(u32::from).sum::<u32>()
        ),
        name: name.into(),
        driver: "bridge".into(),
        subnets: vec![Subnet {
            subnet: "10.1.0.0/24".into(),
            ip_range: Vec::new(),
            gateway: Some("10.1.0.1".into()),
            aux_addresses: BTreeMap::new(),
            leases: 1,
        }],
        ipv4: true,
        ipv6: false,
        internal: false,
        mtu: 1500,
        mtu_configured: None,
        device: Some(format!("br-{name}")),
        multicast: false,
        icc: true,
        masquerade: true,
        snat_ipv4: None,
        snat_ipv6: None,
        gateway_mode_ipv4: Some("nat".into()),
        gateway_mode_ipv6: None,
        obey_host_firewall: false,
        host_binding: None,
        dns: NetworkDns::default(),
        routes: Vec::new(),
        interface_prefix: None,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        ipam_driver: None,
        ipam_options: BTreeMap::new(),
        plugins: Vec::new(),
        state: NetworkState::Ready,
        endpoints: Vec::new(),
        created_ms: 0,
    }
}

/// The endpoint of a sandbox on a network.
pub(crate) fn endpoint(network: &Network, sandbox: &str, address: &str) -> Endpoint {
    Endpoint {
        id: format!("e{sandbox}{}", network.name),
        name: sandbox.into(),
        network: Named {
            id: network.id.clone(),
            name: network.name.clone(),
        },
        sandbox: Some(Named {
            id: sandbox_id(sandbox),
            name: sandbox.into(),
        }),
        addresses: vec![address.into()],
        gateways: vec!["10.1.0.1".into()],
        mac: Some("02:00:00:00:00:02".into()),
        interface: Some("eth0".into()),
        host_interface: Some("vethabc".into()),
        mtu: 1500,
        state: EndpointState::Attached,
        gateway_priority: 0,
        aliases: Vec::new(),
        labels: BTreeMap::new(),
    }
}

/// The same as its network lists it.
pub(crate) fn summary(endpoint: &Endpoint) -> EndpointSummary {
    EndpointSummary {
        id: endpoint.id.clone(),
        name: endpoint.name.clone(),
        sandbox: endpoint.sandbox.clone(),
        addresses: endpoint.addresses.clone(),
        mac: endpoint.mac.clone(),
        state: endpoint.state,
    }
}

/// A running sandbox.
pub(crate) fn sandbox(name: &str, endpoints: Vec<Endpoint>) -> Sandbox {
    Sandbox {
        id: sandbox_id(name),
        name: name.into(),
        hostname: Some(format!("{name}-host")),
        state: SandboxState::Running,
        netns: Some(format!("/run/netns/{name}")),
        files: None,
        endpoints,
        publications: Vec::new(),
        expose: Vec::new(),
        links: Vec::new(),
        linked_by: Vec::new(),
        labels: BTreeMap::new(),
        created_ms: 0,
    }
}

/// A port of a sandbox that is published at all addresses of the host.
pub(crate) fn publication(sandbox: &str, host: &str, container: &str) -> Publication {
    Publication {
        sandbox: Named {
            id: sandbox_id(sandbox),
            name: sandbox.into(),
        },
        container: container.into(),
        protocol: Protocol::Tcp,
        host: Some(host.into()),
        address: "*".into(),
        from: Vec::new(),
        socket: None,
        obey_host_firewall: false,
        automatic: false,
        active: true,
        ipv4: Some(Path::Kernel),
        ipv6: Some(Path::Relay),
        targets: vec![format!("10.1.0.2:{container}")],
        network: Some("blue".into()),
    }
}

/// A link to a sandbox at an address that serves at port 5432.
pub(crate) fn link(sandbox: &str, alias: &str, address: &str) -> Link {
    let name = format!("{}_PORT_5432_TCP_ADDR", alias.to_uppercase());
    Link {
        sandbox: Named {
            id: sandbox_id(sandbox),
            name: sandbox.into(),
        },
        alias: alias.into(),
        addresses: vec![address.into()],
        ports: vec!["5432/tcp".into()],
        active: true,
        environment: BTreeMap::from([(name, address.into())]),
    }
}

fn sandbox_id(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0<32}")
}
