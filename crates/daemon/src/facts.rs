//! From what the kernel crate tells of the host to what the core asks for.

use std::collections::BTreeMap;

use tombolo_core::driver::gateway::localnet_path;
use tombolo_core::driver::reserved;
use tombolo_core::{Facts, ForwardChain, LinkFact, Notice, Uplink};
use tombolo_kernel::{Change, Kernel};

use crate::engine::with_sources;
use crate::resolution::host_servers;

/// What is known of the node without looking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Its identity.
    pub(crate) node: [u8; 16],
    /// Where its relay takes what the kernel cannot translate.
    pub(crate) relay_port: Option<u16>,
    /// How many settings of the kernel the controller has changed.
    pub(crate) settings_changed: u64,
}

/// Looks at the host.
pub(crate) fn read(kernel: &Kernel, known: Known) -> Result<Facts, String> {
    let host = kernel.host_facts().map_err(|error| with_sources(&error))?;
    let mut sysctls = BTreeMap::new();
    let ra = host
        .uplinks
        .iter()
        .map(|uplink| format!("net/ipv6/conf/{}/accept_ra", uplink.name));
    let foreign_bridges = host.links.iter().filter(|link| link.bridge && !link.ours);
    let loopback = foreign_bridges.map(|link| localnet_path(link.name.as_str()));
    let paths = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        reserved::SYSCTL,
        reserved::LOCAL,
    ];
    for path in paths
        .map(str::to_owned)
        .into_iter()
        .chain(ra)
        .chain(loopback)
    {
        // A setting that cannot be read is not there, and is then not wanted either.
        if let Ok(value) = kernel.read_sysctl(&path) {
            sysctls.insert(path, value);
        }
    }
    let uplinks = host.uplinks.iter().map(|u| Uplink {
        name: u.name.to_string(),
        mtu: u.mtu,
    });
    let links = host.links.iter().map(|link| {
        let own = host
            .addresses
            .iter()
            .filter(|address| address.link == link.name);
        let addresses = own.map(|address| address.net).collect();
        let fact = LinkFact {
            bridge: link.bridge,
            mtu: link.mtu,
            addresses,
            ours: link.ours,
            outward: link.outward,
        };
        (link.name.to_string(), fact)
    });
    let ours = |name| host.links.iter().any(|link| link.name == name && link.ours);
    // The kernel's own routes to our bridges' subnets are no one else's.
    let foreign = host
        .routes
        .iter()
        .filter(|route| !route.link.is_some_and(ours));
    Ok(Facts {
        uplinks: uplinks.collect(),
        routes: foreign
            .map(|r| r.destination)
            .filter(|net| net.prefix_len() > 0)
            .collect(),
        resolvers: host_servers(),
        links: links.collect(),
        ipv6: host.ipv6,
        sysctls,
        node: known.node,
        relay_port: known.relay_port,
        settings_changed: known.settings_changed,
        forward_chains: host.forward_chains.into_iter().map(forward_chain).collect(),
        input_filtered: host.input_filtered,
        bridge_nf: host.bridge_nf,
    })
}

fn forward_chain(chain: tombolo_kernel::ForeignChain) -> ForwardChain {
    ForwardChain {
        family: chain.family,
        table: chain.table,
        chain: chain.chain,
    }
}

/// What a change means to the controller, and whether the facts are to be read again.
pub(crate) fn notice(change: &Change) -> (Option<Notice>, bool) {
    match change {
        Change::LinkGone(name) => (Some(Notice::LinkGone(*name)), true),
        Change::LinkChanged(name) => (Some(Notice::LinkChanged(*name)), true),
        Change::AddressGone(name, ip) => (Some(Notice::AddressGone(*name, *ip)), true),
        Change::RouteGone(_) | Change::NetnsGone(_) => (Some(Notice::ObjectChanged), false),
        Change::RoutesChanged => (None, true),
        Change::NftChanged { by_us: false } => (Some(Notice::NftChanged), true),
        Change::NftChanged { by_us: true } => (None, false),
        Change::NeighbourGone(..) | Change::FdbGone(..) | Change::ForwardingChanged => {
            (Some(Notice::ObjectChanged), false)
        }
        Change::Lost => (Some(Notice::Lost), true),
    }
}
