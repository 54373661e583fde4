//! What the resolver has to know of sandboxes and networks, from their records.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tombolo_core::Controller;
use tombolo_core::driver::resolver::has_names;
use tombolo_core::driver::{links, netns_of, resolver};
use tombolo_core::model::{Endpoint, Forward, Network, Sandbox};
use tombolo_dns::limits::REGISTRATION_NAMES_MAX;
use tombolo_dns::mdns::Responder;
use tombolo_dns::name::HostName;
use tombolo_dns::names::{OwnerId, Registration, Service, Transport, Zone, ZoneId};
use tombolo_dns::resolv_conf::{Nameserver, SandboxResolvConf, Upstream, Via};
use tombolo_dns::view::View;
use tombolo_netstate::Netns;
use tombolo_netstate::object::port::Protocol;

use super::book::{Asker, Entry, Server, Upstreams};
use super::mdns::Post;
use crate::limits::ALIASES_MAX;

/// Where servers are asked (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;
/// Whose a link's alias is while its sandbox is not there: ids are random, and nobody has this one.
const NOBODY: OwnerId = OwnerId(0);
/// Names that a sandbox has on a network without its aliases.
const USUAL_NAMES: usize = 4;
/// All aliases are found, however many there may be.
const _: () = assert!(ALIASES_MAX + USUAL_NAMES - 1 <= REGISTRATION_NAMES_MAX);

/// All networks whose names can be asked for, in the order of their names.
pub(crate) fn zones(controller: &Controller) -> Vec<(ZoneId, Zone)> {
    let networks = controller.networks();
    let zones = networks.filter(|network| has_names(network));
    let zones = zones.filter_map(|network| {
        let zone = Zone {
            name: network.spec.name.as_str().parse().ok()?,
            subnets: network.pools.iter().map(|pool| pool.subnet).collect(),
        };
        Some((ZoneId(network.id.0), zone))
    });
    let mut zones: Vec<_> = zones.collect();
    zones.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    zones
}

/// What a sandbox is to the resolver, with the settings in its `resolv.conf`. While it is not attached it has no
/// names.
pub(crate) fn entry(controller: &Controller, sandbox: &Sandbox, conf: &SandboxResolvConf) -> Entry {
    let joined = controller.endpoints_of_sandbox(sandbox.id);
    let attached: Vec<(&Network, &Endpoint)> = joined
        .into_iter()
        .filter(|(_, endpoint)| endpoint.attachment.is_some())
        .filter(|(network, _)| has_names(network))
        .collect();
    let services = services(sandbox);
    let registrations = attached
        .iter()
        .filter_map(|(network, endpoint)| registration(sandbox, network, endpoint, &services));
    let netns = netns_of(sandbox);
    let asker =
        (netns != Netns::Host && sandbox.has_namespace() && !attached.is_empty()).then(|| Asker {
            // Its lower half is as random as the whole.
            id: sandbox.id.0 as u64,
            view: view(controller, sandbox, &attached),
            upstreams: match sandbox.is_engines() {
                true => Some(Arc::new(engines_resolver(&netns))),
                false => own_upstreams(conf, &netns),
            },
        });
    Entry {
        registrations: registrations.collect(),
        asker: asker.map(|asker| (netns, asker)),
        sources: attached
            .iter()
            .flat_map(|(_, endpoint)| endpoint.addresses.iter().map(ipnet::IpNet::addr))
            .collect(),
        posts: attached
            .iter()
            // The engine alone knows what the interface is called.
            .filter(|_| !sandbox.is_engines())
            .filter(|(network, _)| network.spec.dns.mdns)
            .filter_map(|(network, endpoint)| post(sandbox, network, endpoint))
            .collect(),
    }
}

fn post(sandbox: &Sandbox, network: &Network, endpoint: &Endpoint) -> Option<Post> {
    let addresses = || endpoint.addresses.iter().map(ipnet::IpNet::addr);
    Some(Post {
        interface: endpoint.attachment.as_ref()?.interface.clone(),
        v4: addresses().find_map(|ip| match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }),
        v6: addresses().find_map(|ip| match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6),
        }),
        responder: Responder {
            zone: ZoneId(network.id.0),
            owner: OwnerId(sandbox.id.0),
        },
    })
}

/// The servers that were asked for in the daemon's configuration or are the host's.
pub(crate) fn shared_upstreams(conf: &SandboxResolvConf) -> Upstreams {
    let servers = conf.upstreams().iter();
    Upstreams::new(servers.filter_map(|upstream| server(&upstream.server, &Netns::Host)))
}

fn own_upstreams(conf: &SandboxResolvConf, netns: &Netns) -> Option<Arc<Upstreams>> {
    let own: Vec<&Upstream> = conf
        .upstreams()
        .iter()
        .filter(|upstream| upstream.via == Via::Sandbox)
        .collect();
    let servers = own.iter().filter_map(|one| server(&one.server, netns));
    (!own.is_empty()).then(|| Arc::new(Upstreams::new(servers)))
}

/// The resolver that an engine has in each of its sandboxes: it knows names that we do not, and asks as the engine
/// was told to.
fn engines_resolver(netns: &Netns) -> Upstreams {
    Upstreams::new([Server {
        address: SocketAddr::new(resolver::IN_SANDBOX, DNS_PORT),
        via: netns.clone(),
    }])
}

/// A server as a socket address; none where the interface of a link-local one does not exist.
fn server(server: &Nameserver, via: &Netns) -> Option<Server> {
    let mut address = SocketAddr::new(server.address(), DNS_PORT);
    if let (SocketAddr::V6(v6), Some(zone)) = (&mut address, server.zone()) {
        v6.set_scope_id(nix::net::if_::if_nametoindex(zone).ok()?);
    }
    Some(Server {
        address,
        via: via.clone(),
    })
}

fn registration(
    sandbox: &Sandbox,
    network: &Network,
    endpoint: &Endpoint,
    services: &[Service],
) -> Option<Registration> {
    let short_id = sandbox.short_id();
    let hostname = sandbox.hostname();
    let usual: [&str; USUAL_NAMES] = [
        sandbox.name.as_str(),
        endpoint.name.as_str(),
        hostname.as_str(),
        short_id.as_str(),
    ];
    let aliases = endpoint.spec.aliases.iter().map(String::as_str);
    // What cannot be a host name cannot be asked for.
    let mut names = usual
        .into_iter()
        .chain(aliases)
        .filter_map(|name| name.parse::<HostName>().ok());
    Some(Registration {
        zone: ZoneId(network.id.0),
        canonical: names.next()?,
        names: names.collect(),
        addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
        services: services.to_vec(),
    })
}

fn services(sandbox: &Sandbox) -> Vec<Service> {
    let exposed = links::exposed(sandbox).into_iter();
    let services = exposed.map(|exposed| Service {
        protocol: match exposed.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => Transport::Sctp,
        },
        first: exposed.ports.first(),
        last: exposed.ports.last(),
    });
    services.collect()
}

fn view(controller: &Controller, sandbox: &Sandbox, attached: &[(&Network, &Endpoint)]) -> View {
    let links = controller.linked(sandbox.id).into_iter();
    let links = links.filter_map(|linked| {
        let alias = linked.link.alias.parse().ok()?;
        // Known all the same, so that it does not become the name of somebody else.
        let owner = linked.sandbox.map_or(NOBODY, |other| OwnerId(other.id.0));
        Some((alias, owner))
    });
    let mut host: Vec<IpAddr> = Vec::new();
    for (network, _) in attached {
        host.extend(resolver::gateway_addresses(network));
    }
    View {
        zones: attached.iter().map(|(n, _)| ZoneId(n.id.0)).collect(),
        links: links.collect(),
        host,
        ipv6: attached.iter().any(|(network, _)| network.spec.ipv6),
        forwards: attached.iter().any(|(n, _)| n.spec.forwards_names())
            || sandbox.is_engines()
                && attached
                    .iter()
                    .any(|(n, _)| n.spec.dns.forward == Forward::Auto),
        single_labels: sandbox.is_engines(),
    }
}
