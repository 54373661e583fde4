//! Published ports and links, as the API shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tombolo_api::types::{self, Named};
use tombolo_core::Controller;
use tombolo_core::controller::{Linked, Published};
use tombolo_core::driver::links::exposed;
use tombolo_core::driver::publish::Path;
use tombolo_core::model::{Exposed, Sandbox};
use tombolo_netstate::object::port::{PortRange, Protocol};

/// The publications of a sandbox.
pub(crate) fn publications(controller: &Controller, sandbox: &Sandbox) -> Vec<types::Publication> {
    let published = controller.published(sandbox.id).into_iter();
    published.map(|one| publication(sandbox, &one)).collect()
}

fn publication(sandbox: &Sandbox, published: &Published) -> types::Publication {
    let Published {
        publication,
        address,
        paths,
        targets,
        network,
    } = published;
    let socket = publication.socket.as_ref();
    let open = paths
        .iter()
        .any(|path| !matches!(path, Path::Closed | Path::Barred));
    let leads = targets.iter().any(Option::is_some);
    let on_host = paths
        .iter()
        .any(|p| matches!(p, Path::Kernel | Path::Redirect | Path::Listen));
    let routed_only = open && !on_host;
    let host = publication
        .ports
        .filter(|_| socket.is_none() && !routed_only);
    let text = |ip: &IpAddr| target(*ip, publication.container);
    types::Publication {
        sandbox: Named {
            id: sandbox.id.to_string(),
            name: sandbox.name.to_string(),
        },
        container: publication.container.to_string(),
        protocol: protocol(publication.protocol),
        host: host.map(|ports| ports.to_string()),
        address: match host {
            Some(_) => address.to_string(),
            None => String::new(),
        },
        from: publication.from.iter().map(ToString::to_string).collect(),
        socket: socket.map(|path| path.display().to_string()),
        obey_host_firewall: paths.contains(&Path::Listen),
        automatic: publication.automatic,
        active: sandbox.is_live() && (open || socket.is_some() && leads),
        ipv4: way(paths[0]),
        ipv6: way(paths[1]),
        targets: distinct(targets).iter().map(text).collect(),
        network: network.as_ref().map(ToString::to_string),
    }
}

fn distinct(targets: &[Option<IpAddr>; 2]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = targets.iter().flatten().copied().collect();
    all.dedup();
    all
}

fn way(path: Path) -> Option<types::Path> {
    match path {
        Path::Closed | Path::Barred => None,
        Path::Kernel => Some(types::Path::Kernel),
        Path::Redirect | Path::Listen => Some(types::Path::Relay),
        Path::Routed => Some(types::Path::Routed),
    }
}

fn target(ip: IpAddr, ports: PortRange) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{ports}"),
        IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
    }
}

fn protocol(protocol: Protocol) -> types::Protocol {
    match protocol {
        Protocol::Tcp => types::Protocol::Tcp,
        Protocol::Udp => types::Protocol::Udp,
        Protocol::Sctp => types::Protocol::Sctp,
    }
}

/// The ports that a sandbox serves.
pub(crate) fn exposed_ports(sandbox: &Sandbox) -> Vec<String> {
    exposed(sandbox).iter().map(words).collect()
}

fn words(exposed: &Exposed) -> String {
    format!("{}/{}", exposed.ports, exposed.protocol)
}

/// The links of a sandbox.
pub(crate) fn links(controller: &Controller, sandbox: &Sandbox) -> Vec<types::Link> {
    let linked = controller.linked(sandbox.id).into_iter();
    linked.map(|one| link(sandbox, &one)).collect()
}

fn link(sandbox: &Sandbox, linked: &Linked<'_>) -> types::Link {
    let ports = linked.sandbox.map(exposed).unwrap_or_default();
    let alias = &linked.link.alias;
    let environment = match linked.addresses.first() {
        Some(ip) => environment(sandbox.name.as_str(), alias, *ip, &ports),
        None => BTreeMap::new(),
    };
    types::Link {
        sandbox: Named {
            id: linked
                .sandbox
                .map(|other| other.id.to_string())
                .unwrap_or_default(),
            name: linked.link.sandbox.to_string(),
        },
        alias: alias.clone(),
        addresses: linked.addresses.iter().map(ToString::to_string).collect(),
        ports: ports.iter().map(words).collect(),
        active: sandbox.is_live() && !linked.addresses.is_empty(),
        environment,
    }
}

/// The variables by which programs of Docker's first years find what they are linked to.
fn environment(own: &str, alias: &str, ip: IpAddr, ports: &[Exposed]) -> BTreeMap<String, String> {
    let prefix: String = alias
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => c.to_ascii_uppercase(),
            _ => '_',
        })
        .collect();
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let url = |protocol: Protocol, port: u16| format!("{protocol}://{host}:{port}");
    let mut all = BTreeMap::from([(format!("{prefix}_NAME"), format!("/{own}/{alias}"))]);
    let lowest = ports.iter().min_by_key(|e| (e.protocol, e.ports));
    all.extend(lowest.map(|e| {
        let url = url(e.protocol, e.ports.first());
        (format!("{prefix}_PORT"), url)
    }));
    for Exposed { protocol, ports } in ports {
        let word = protocol.as_str().to_ascii_uppercase();
        for port in ports.first()..=ports.last() {
            // A thousand variables help nobody; the range itself is told below.
            if ports.count() > VARIABLES_PER_RANGE_MAX || all.len() > VARIABLES_MAX {
                break;
            }
            let name = format!("{prefix}_PORT_{port}_{word}");
            all.insert(name.clone(), url(*protocol, port));
            all.insert(format!("{name}_ADDR"), ip.to_string());
            all.insert(format!("{name}_PORT"), port.to_string());
            all.insert(format!("{name}_PROTO"), protocol.to_string());
        }
        if !ports.is_one() && all.len() <= VARIABLES_MAX {
            let name = format!("{prefix}_PORT_{}_{word}", ports.first());
            all.insert(format!("{name}_START"), url(*protocol, ports.first()));
            all.insert(format!("{name}_PORT_START"), ports.first().to_string());
            all.insert(format!("{name}_END"), url(*protocol, ports.last()));
            all.insert(format!("{name}_PORT_END"), ports.last().to_string());
        }
    }
    all
}

/// Ports of a range that get variables of their own.
const VARIABLES_PER_RANGE_MAX: u32 = 32;

/// Variables of one link, more or less: a program's environment is bounded.
const VARIABLES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_variables_are_made() {
        let port = |protocol, first, last| Exposed {
            protocol,
            ports: PortRange::new(first, last).unwrap(),
        };
        let ports = [
            port(Protocol::Tcp, 5432, 5432),
            port(Protocol::Udp, 100, 101),
        ];
        let ip = "172.18.0.2".parse().unwrap();
        let all = environment("app", "my-db", ip, &ports);
        let get = |name: &str| all[name].as_str();
        assert_eq!(get("MY_DB_NAME"), "/app/my-db");
        assert_eq!(get("MY_DB_PORT"), "tcp://172.18.0.2:5432");
        assert_eq!(get("MY_DB_PORT_5432_TCP"), "tcp://172.18.0.2:5432");
        assert_eq!(get("MY_DB_PORT_5432_TCP_ADDR"), "172.18.0.2");
        assert_eq!(get("MY_DB_PORT_5432_TCP_PORT"), "5432");
        assert_eq!(get("MY_DB_PORT_5432_TCP_PROTO"), "tcp");
        assert_eq!(get("MY_DB_PORT_100_UDP_PORT_END"), "101");
        assert_eq!(get("MY_DB_PORT_101_UDP"), "udp://172.18.0.2:101");
        let six = environment("app", "db", "fd00::2".parse().unwrap(), &ports);
        assert_eq!(six["DB_PORT_5432_TCP"], "tcp://[fd00::2]:5432");
    }
}
