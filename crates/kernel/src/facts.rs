//! What the drivers and a person must know of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use ipnet::IpNet;
use tombolo_netstate::IfName;
use tombolo_netstate::object::foreign::AcceptKey;

use crate::kernel::{Kernel, lock};
use crate::limits::{FILTER_MEMORY, SYSCTL_BYTES};
use crate::netlink::link::{Kind, LinkRecord};
use crate::netlink::route::{RouteRecord, Whose};
use crate::netlink::{address, link, route};
use crate::nft;
use crate::nft::foreign::{self, Foreign};
use crate::nft::user::{self, UserRules};

pub use crate::nft::foreign::ForeignChain;

/// Why the host cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// No socket, or no answer about links.
    #[error("cannot read the host's links")]
    Links(#[source] io::Error),
    /// No answer about addresses.
    #[error("cannot read the host's addresses")]
    Addresses(#[source] io::Error),
    /// No answer about routes.
    #[error("cannot read the host's routes")]
    Routes(#[source] io::Error),
    /// No answer about firewall rules.
    #[error("cannot read the host's nftables chains")]
    Chains(#[source] io::Error),
}

/// What the drivers are told of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Links with a default route, the preferred one first.
    pub uplinks: Vec<Uplink>,
    /// All unicast destinations of the main table except ours.
    pub routes: Vec<HostRoute>,
    /// All addresses.
    pub addresses: Vec<HostAddress>,
    /// All links.
    pub links: Vec<HostLink>,
    /// Whether the kernel has IPv6 and new links may use it.
    pub ipv6: bool,
    /// Changes with every start of the kernel (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// What the kernel can do.
    pub features: Features,
    /// Chains of others in which our bridges need a permission.
    pub forward_chains: Vec<ForeignChain>,
    /// Whether somebody else's rules drop or refuse some packets for the host itself, or did a moment ago.
    pub input_filtered: bool,
    /// Whether packets that merely cross a bridge pass the rules of IPv4 or IPv6.
    pub bridge_nf: bool,
}

/// A link that leads to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: IfName,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether IPv4's default route leaves by it.
    pub v4: bool,
    /// Whether IPv6's default route leaves by it.
    pub v6: bool,
    /// `accept_ra`: with 1, the kernel drops a learnt default route once it forwards (ip-sysctl.rst).
    pub accept_ra: Option<u8>,
}

/// A destination that somebody else has a route to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRoute {
    /// The destination.
    pub destination: IpNet,
    /// The link that packets leave by, the first of several.
    pub link: Option<IfName>,
}

/// An address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAddress {
    /// The link that has it.
    pub link: IfName,
    /// The address with the length of its subnet's prefix.
    pub net: IpNet,
}

/// A link of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: IfName,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Whether it bears our mark.
    pub ours: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is a bridge that joins links which are neither veths nor taps: machines may be behind it.
    pub outward: bool,
}

/// What the kernel can do, as far as it shows without trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Virtual Ethernet pairs.
    pub veth: bool,
    /// Bridges.
    pub bridge: bool,
    /// nf_tables with tables of the inet family.
    pub nft_inet: bool,
    /// nf_tables with address translation in the inet family (Linux 5.2).
    pub nft_nat: bool,
    /// Addresses with a protocol number (Linux 5.18).
    pub address_protocol: bool,
}

/// What may stand in the way of our networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Base chains of other tables; one that drops on forward or input may drop what we accept.
    pub base_chains: Vec<BaseChain>,
    /// Tables of the older iptables that are loaded (`/proc/net/ip_tables_names` and `ip6_tables_names`).
    pub legacy_iptables: Vec<String>,
    /// Whether bridged packets pass the rules of IPv4 or IPv6; none when the module is not loaded.
    pub bridge_netfilter: Option<bool>,
    /// Permissions of ours that stand in chains of others.
    pub accepted: Vec<AcceptKey>,
    /// The rules in the chain that is the user's, none while it is not there; or why they cannot be kept.
    pub user_rules: Result<Option<UserRules>, String>,
    /// Limits of the neighbour tables of the host, by the path of the setting below `/proc/sys`.
    pub neighbour_limits: Vec<(String, u32)>,
}

/// A base chain of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// `ip`, `ip6`, `inet`, `arp` or `bridge`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Where packets enter it, as in nft(8).
    pub hook: &'static str,
    /// Lower comes first.
    pub priority: i32,
    /// Whether its policy is to drop.
    pub drops: bool,
}

/// See [`Kernel::host_facts`].
pub(crate) fn host_facts(kernel: &Kernel) -> Result<HostFacts, FactsError> {
    let (links, addresses, routes) = kernel
        .with_host(|socket, buffer| {
            let links = link::dump(socket, buffer).map_err(FactsError::Links)?;
            let addresses = address::dump(socket, buffer).map_err(FactsError::Addresses)?;
            let routes = route::dump(socket, Whose::All, buffer).map_err(FactsError::Routes)?;
            Ok((links, addresses, routes))
        })
        .map_err(FactsError::Links)??;
    let by_index: BTreeMap<u32, &LinkRecord> =
        links.iter().map(|link| (link.index, link)).collect();
    let ports = links
        .iter()
        .filter(|link| !matches!(link.kind, Kind::Veth | Kind::Tun));
    let outward: BTreeSet<u32> = ports.filter_map(|link| link.master).collect();
    let foreign_rules = foreign_rules(kernel);
    let foreign: Vec<RouteRecord> = routes.into_iter().filter(|route| !route.ours).collect();
    Ok(HostFacts {
        uplinks: uplinks(&foreign, &by_index),
        routes: foreign
            .iter()
            .map(|route| host_route(route, &by_index))
            .collect(),
        addresses: addresses
            .iter()
            .filter_map(|address| {
                let link = by_index.get(&address.index)?.name;
                Some(HostAddress {
                    link,
                    net: IpNet::new(address.ip, address.prefix_len).ok()?,
                })
            })
            .collect(),
        links: links
            .iter()
            .map(|link| host_link(kernel, link, outward.contains(&link.index)))
            .collect(),
        ipv6: kernel.ipv6 && is_ipv6_on(),
        boot_id: read_sysctl("kernel/random/boot_id").unwrap_or_default(),
        features: *kernel.features.get_or_init(|| features(kernel)),
        forward_chains: foreign_rules.forward_chains,
        input_filtered: foreign_rules.input_filtered,
        bridge_nf: is_bridge_netfilter_on() == Some(true),
    })
}

/// What was found of the rules of others.
#[derive(Debug, Default)]
pub(crate) struct ForeignMemory {
    /// At the last look that succeeded.
    last: Foreign,
    /// When a filter for the host's own packets was first missed.
    pub(crate) vanished: Option<Instant>,
}

/// What the rules of others do; nothing on a kernel without nf_tables. A filter that has just vanished still
/// counts: firewalls are restarted and reloaded, and nothing may be opened for the moment between. Nor may
/// anything be because a look failed.
fn foreign_rules(kernel: &Kernel) -> Foreign {
    let mut memory = lock(&kernel.foreign_memory);
    let mut found = match foreign::look(&kernel.nft) {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "the rules of others cannot be read");
            return memory.last.clone();
        }
    };
    if found.input_filtered || !memory.last.input_filtered {
        memory.vanished = None;
    } else {
        let since = *memory.vanished.get_or_insert_with(Instant::now);
        found.input_filtered = since.elapsed() < FILTER_MEMORY;
    }
    memory.last = found.clone();
    found
}

/// Whether bridged packets pass the rules of IPv4 or IPv6; none when the module is not loaded.
fn is_bridge_netfilter_on() -> Option<bool> {
    let values = [
        "net/bridge/bridge-nf-call-iptables",
        "net/bridge/bridge-nf-call-ip6tables",
    ]
    .map(|path| read_sysctl(path).ok());
    let known: Vec<&String> = values.iter().flatten().collect();
    (!known.is_empty()).then(|| known.iter().any(|value| *value != "0"))
}

fn is_ipv6_on() -> bool {
    let off = |which| {
        read_sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6")).is_ok_and(|value| value == "1")
    };
    !off("all") && !off("default")
}

fn host_route(route: &RouteRecord, links: &BTreeMap<u32, &LinkRecord>) -> HostRoute {
    let link = route
        .link
        .and_then(|index| links.get(&index))
        .map(|link| link.name);
    HostRoute {
        destination: route.destination,
        link,
    }
}

fn host_link(kernel: &Kernel, link: &LinkRecord, outward: bool) -> HostLink {
    HostLink {
        name: link.name,
        mtu: link.mtu,
        bridge: matches!(link.kind, Kind::Bridge { .. }),
        ours: kernel.owns(link),
        up: link.up,
        outward,
    }
}

/// The links of default routes, by the lowest metric of either family.
fn uplinks(routes: &[RouteRecord], links: &BTreeMap<u32, &LinkRecord>) -> Vec<Uplink> {
    let mut defaults: Vec<(&RouteRecord, &LinkRecord)> = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .filter_map(|route| Some((route, *links.get(&route.link?)?)))
        .filter(|(_, link)| !link.loopback)
        .collect();
    defaults.sort_by_key(|(route, _)| (route.destination.addr().is_ipv6(), route.metric));
    let mut uplinks: Vec<Uplink> = Vec::new();
    for (route, link) in defaults {
        let v4 = route.destination.addr().is_ipv4();
        match uplinks.iter_mut().find(|uplink| uplink.name == link.name) {
            Some(uplink) => {
                uplink.v4 |= v4;
                uplink.v6 |= !v4;
            }
            None => uplinks.push(Uplink {
                name: link.name,
                mtu: link.mtu,
                v4,
                v6: !v4,
                accept_ra: read_sysctl(&format!("net/ipv6/conf/{}/accept_ra", link.name))
                    .ok()
                    .and_then(|value| value.parse().ok()),
            }),
        }
    }
    uplinks
}

/// Where modules can be loaded, links of any kind are taken for granted: what is not loaded yet is loaded on
/// demand.
fn features(kernel: &Kernel) -> Features {
    let loadable = Path::new("/proc/modules").exists();
    let symbols = if loadable {
        None
    } else {
        fs::read_to_string("/proc/kallsyms").ok()
    };
    let has = |symbol: &str| {
        symbols
            .as_ref()
            .is_none_or(|text| text.lines().any(|line| line.ends_with(symbol)))
    };
    let nft_inet = nft::is_there(&kernel.nft) || nft::dump_base_chains(&kernel.nft).is_ok();
    Features {
        veth: has(" veth_newlink"),
        bridge: has(" br_add_if"),
        nft_inet,
        nft_nat: nft_inet && kernel_release().is_none_or(|release| release >= (5, 2)),
        address_protocol: kernel.address_protocol,
    }
}

/// Major and minor version of the running kernel.
pub(crate) fn kernel_release() -> Option<(u32, u32)> {
    parse_release(&read_sysctl("kernel/osrelease").ok()?)
}

fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Reads a kernel setting of the calling thread's namespace.
pub(crate) fn read_sysctl(path: &str) -> io::Result<String> {
    let path = Path::new("/proc/sys").join(path);
    let mut bytes = Vec::new();
    for size in SYSCTL_BYTES {
        // One read must get everything: a list is not gone on with where a read before has ended.
        bytes.resize(size, 0);
        let length = fs::File::open(&path)?.read(&mut bytes)?;
        if length < size {
            bytes.truncate(length);
            break;
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// See [`Kernel::diagnose`].
pub(crate) fn diagnose(kernel: &Kernel) -> Result<Diagnosis, FactsError> {
    let mut legacy_iptables = Vec::new();
    for (file, program) in [
        ("ip_tables_names", "iptables"),
        ("ip6_tables_names", "ip6tables"),
    ] {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        legacy_iptables.extend(names.lines().map(|table| format!("{program} {table}")));
    }
    let limits = ["ipv4", "ipv6"].into_iter().flat_map(|family| {
        (1..=3).map(move |n| format!("net/{family}/neigh/default/gc_thresh{n}"))
    });
    Ok(Diagnosis {
        base_chains: nft::dump_base_chains(&kernel.nft).map_err(FactsError::Chains)?,
        legacy_iptables,
        bridge_netfilter: is_bridge_netfilter_on(),
        accepted: foreign::observe(&kernel.nft).map_err(FactsError::Chains)?,
        user_rules: user::save(&kernel.nft).map_err(|error| error.to_string()),
        neighbour_limits: limits
            .filter_map(|path| {
                let value = read_sysctl(&path).ok()?.parse().ok()?;
                Some((path, value))
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("5.10.0-23-amd64"), Some((5, 10)));
        assert_eq!(parse_release("nonsense"), None);
    }
}
