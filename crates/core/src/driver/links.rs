//! Links: which ports of one sandbox another may reach where their network does not let endpoints speak.

use ipnet::IpNet;
use tombolo_netstate::Objects;
use tombolo_netstate::object::nft::{Field, SetName};
use tombolo_netstate::object::port::{PortRange, Protocol};

use super::add_element;
use crate::model::{Endpoint, Exposed, Network, Sandbox};

/// The ports that a sandbox serves: what it says, and what it publishes. No range overlaps another.
pub fn exposed(sandbox: &Sandbox) -> Vec<Exposed> {
    let published = sandbox.spec.publications.iter().map(|publication| Exposed {
        protocol: publication.protocol,
        ports: publication.container,
    });
    let mut all: Vec<Exposed> = sandbox.spec.exposed.clone();
    all.extend(published);
    all.sort();
    let mut merged: Vec<Exposed> = Vec::with_capacity(all.len());
    for next in all {
        match merged.last_mut() {
            Some(last) if last.protocol == next.protocol && touches(last.ports, next.ports) => {
                let until = last.ports.last().max(next.ports.last());
                if let Ok(ports) = PortRange::new(last.ports.first(), until) {
                    last.ports = ports;
                }
            }
            _ => merged.push(next),
        }
    }
    merged
}

fn touches(a: PortRange, b: PortRange) -> bool {
    u32::from(b.first()) <= u32::from(a.last()) + 1
}

/// The elements that let `from` reach what `to` exposes, on the networks that both are in.
pub fn objects(
    from: &[(&Network, &Endpoint)],
    to: &[(&Network, &Endpoint)],
    exposed: &[Exposed],
) -> Objects {
    let mut objects = Objects::new();
    for (network, own) in from.iter().filter(|(network, _)| !network.spec.icc) {
        let same = |(other, endpoint): &&(&Network, &Endpoint)| {
            other.id == network.id && endpoint.attachment.is_some()
        };
        let Some((_, other)) = to.iter().find(same) else {
            continue;
        };
        if own.attachment.is_none() {
            continue;
        }
        for (source, destination) in pairs(own, other) {
            for ports in exposed {
                add(&mut objects, source, destination, *ports);
            }
        }
    }
    objects
}

/// Addresses of both, family by family.
fn pairs<'a>(a: &'a Endpoint, b: &'a Endpoint) -> impl Iterator<Item = (IpNet, IpNet)> + 'a {
    let single = |net: &IpNet| IpNet::from(net.addr());
    a.addresses.iter().flat_map(move |source| {
        let same = |net: &&IpNet| net.addr().is_ipv6() == source.addr().is_ipv6();
        let others = b.addresses.iter().filter(same);
        others.map(move |destination| (single(source), single(destination)))
    })
}

fn add(objects: &mut Objects, source: IpNet, destination: IpNet, exposed: Exposed) {
    let set = if source.addr().is_ipv6() {
        SetName::Links6
    } else {
        SetName::Links4
    };
    let protocol: Protocol = exposed.protocol;
    let fields = vec![
        Field::Net(source),
        Field::Net(destination),
        Field::Protocol(protocol),
        Field::Ports(exposed.ports),
    ];
    add_element(objects, set, fields, Vec::new());
}
