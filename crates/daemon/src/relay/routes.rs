//! What is published where, for what the relay carries.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

/// Where a client comes in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entrance {
    /// Ports of the host at one address or several.
    Ports {
        /// Where.
        address: HostAddress,
        /// Which.
        ports: PortRange,
    },
    /// A Unix socket of the host, by its absolute path.
    Unix(PathBuf),
}

/// The way from an entrance to ports of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// The protocol; always TCP behind a Unix socket.
    pub(crate) protocol: Protocol,
    /// Where clients come in.
    pub(crate) entrance: Entrance,
    /// Who may; anybody if empty. Says nothing about a Unix socket, which has permissions of its own.
    pub(crate) from: Vec<IpNet>,
    /// The sandbox's IPv4 address.
    pub(crate) target_v4: Option<Ipv4Addr>,
    /// The sandbox's IPv6 address.
    pub(crate) target_v6: Option<Ipv6Addr>,
    /// The sandbox's port that belongs to the first port of the entrance.
    pub(crate) first: u16,
}

/// What was found for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Whose it is.
    pub(crate) owner: Arc<str>,
    /// Where it leads.
    pub(crate) target: SocketAddr,
}

/// Routes by entrance. Ports that are held at one address for one protocol never overlap, so that the range
/// which begins last before a port is the only one that can hold it.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    ports: BTreeMap<PortPlace, Vec<(Arc<str>, Route)>>,
    sockets: BTreeMap<PathBuf, Vec<(Arc<str>, Route)>>,
    owners: BTreeMap<Arc<str>, Vec<Place>>,
    /// Whose endpoints have no way to other networks.
    internal: Vec<IpNet>,
}

type PortPlace = (Protocol, HostAddress, u16);

#[derive(Debug)]
enum Place {
    Ports(PortPlace),
    Unix(PathBuf),
}

impl Route {
    fn admits(&self, client: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|net| net.contains(&client))
    }

    /// The address of the family that was asked for, else the other one.
    fn target(&self, ipv6: bool, port: u16) -> Option<SocketAddr> {
        let v4 = self.target_v4.map(IpAddr::V4);
        let v6 = self.target_v6.map(IpAddr::V6);
        let ip = if ipv6 { v6.or(v4) } else { v4.or(v6) };
        ip.map(|ip| SocketAddr::new(ip, port))
    }
}

impl Routes {
    /// Replaces the routes of an owner; none is the end of it.
    pub(crate) fn set(&mut self, owner: &Arc<str>, routes: Vec<Route>) {
        for place in self.owners.remove(owner).unwrap_or_default() {
            match place {
                Place::Ports(key) => forget(&mut self.ports, &key, owner),
                Place::Unix(path) => forget(&mut self.sockets, &path, owner),
            }
        }
        let mut places = Vec::with_capacity(routes.len());
        for route in routes {
            let entry = match &route.entrance {
                Entrance::Ports { address, ports } => {
                    let key = (route.protocol, *address, ports.first());
                    places.push(Place::Ports(key));
                    self.ports.entry(key).or_default()
                }
                Entrance::Unix(path) => {
                    places.push(Place::Unix(path.clone()));
                    self.sockets.entry(path.clone()).or_default()
                }
            };
            entry.push((Arc::clone(owner), route));
        }
        if !places.is_empty() {
            self.owners.insert(Arc::clone(owner), places);
        }
    }

    /// Where what `client` sent to `destination` goes. A route at that very address decides alone; those at
    /// every address of the family, and of both, come after it.
    pub(crate) fn find(
        &self,
        protocol: Protocol,
        destination: SocketAddr,
        client: IpAddr,
    ) -> Option<Found> {
        let (ip, client) = (destination.ip().to_canonical(), client.to_canonical());
        let every = if ip.is_ipv6() {
            HostAddress::AnyV6
        } else {
            HostAddress::AnyV4
        };
        if self.internal.iter().any(|net| net.contains(&client)) {
            return None;
        }
        let port = destination.port();
        let routes = [HostAddress::One(ip), every, HostAddress::Any]
            .into_iter()
            .find_map(|address| self.at(protocol, address, port))?;
        routes.iter().find_map(|(owner, route)| {
            let Entrance::Ports { ports, .. } = &route.entrance else {
                return None;
            };
            if !ports.contains(port) || !route.admits(client) {
                return None;
            }
            let inside = route.first.checked_add(port - ports.first())?;
            let target = route.target(ip.is_ipv6(), inside)?;
            let owner = Arc::clone(owner);
            Some(Found { owner, target })
        })
    }

    /// See [`super::Relay::keep_in`].
    pub(super) fn keep_in(&mut self, internal: Vec<IpNet>) {
        self.internal = internal;
    }

    /// Where what comes to a Unix socket goes.
    pub(crate) fn find_unix(&self, path: &Path) -> Option<Found> {
        let (owner, route) = self.sockets.get(path)?.first()?;
        let target = route.target(false, route.first)?;
        let owner = Arc::clone(owner);
        Some(Found { owner, target })
    }

    fn at(
        &self,
        protocol: Protocol,
        address: HostAddress,
        port: u16,
    ) -> Option<&[(Arc<str>, Route)]> {
        let lowest = (protocol, address, 0);
        let (_, routes) = self
            .ports
            .range(lowest..=(protocol, address, port))
            .next_back()?;
        let holds = |route: &Route| match &route.entrance {
            Entrance::Ports { ports, .. } => ports.contains(port),
            Entrance::Unix(_) => false,
        };
        routes
            .iter()
            .any(|(_, route)| holds(route))
            .then_some(routes)
    }
}

fn forget<K: Ord>(map: &mut BTreeMap<K, Vec<(Arc<str>, Route)>>, key: &K, owner: &Arc<str>) {
    if let Some(routes) = map.get_mut(key) {
        routes.retain(|(other, _)| other != owner);
        if routes.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(address: HostAddress, first: u16, last: u16, inside: u16) -> Route {
        let ports = PortRange::new(first, last).unwrap();
        Route {
            protocol: Protocol::Tcp,
            entrance: Entrance::Ports { address, ports },
            from: vec![],
            target_v4: Some(Ipv4Addr::new(10, 0, 0, 2)),
            target_v6: None,
            first: inside,
        }
    }

    fn find(routes: &Routes, destination: &str, client: &str) -> Option<String> {
        let (destination, client) = (destination.parse().unwrap(), client.parse().unwrap());
        let found = routes.find(Protocol::Tcp, destination, client)?;
        Some(format!("{} {}", found.owner, found.target))
    }

    #[test]
    fn endpoints_of_internal_networks_are_kept_in() {
        let mut routes = Routes::default();
        let route = Route {
            protocol: Protocol::Tcp,
            entrance: Entrance::Ports {
                address: HostAddress::Any,
                ports: PortRange::one(80).unwrap(),
            },
            from: vec![],
            target_v4: Some(Ipv4Addr::new(10, 0, 0, 2)),
            target_v6: None,
            first: 8080,
        };
        routes.set(&Arc::from("web"), vec![route]);
        assert!(find(&routes, "192.0.2.1:80", "10.7.0.2").is_some());
        routes.keep_in(vec!["10.7.0.0/16".parse().unwrap()]);
        assert_eq!(find(&routes, "192.0.2.1:80", "10.7.0.2"), None);
        assert!(find(&routes, "192.0.2.1:80", "10.8.0.2").is_some());
    }

    #[test]
    fn a_specific_address_comes_before_any_and_ranges_keep_their_offset() {
        let mut routes = Routes::default();
        let one = HostAddress::One("2001:db8::1".parse().unwrap());
        routes.set(&"a".into(), vec![route(HostAddress::Any, 8000, 8010, 80)]);
        routes.set(&"b".into(), vec![route(one, 8005, 8005, 1)]);
        let at = |destination: &str| find(&routes, destination, "2001:db8::2");
        assert_eq!(at("[2001:db8::1]:8005").unwrap(), "b 10.0.0.2:1");
        assert_eq!(at("[2001:db8::9]:8005").unwrap(), "a 10.0.0.2:85");
        assert_eq!(at("[2001:db8::1]:8010").unwrap(), "a 10.0.0.2:90");
        assert_eq!(at("192.0.2.1:8000").unwrap(), "a 10.0.0.2:80");
        assert_eq!(at("192.0.2.1:7999"), None);
        assert_eq!(at("192.0.2.1:8011"), None);
        let destination = "192.0.2.1:8000".parse().unwrap();
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(routes.find(Protocol::Udp, destination, client), None);
    }

    #[test]
    fn families_are_kept_apart_and_the_targets_own_is_preferred() {
        let mut routes = Routes::default();
        let mut both = route(HostAddress::AnyV6, 80, 80, 80);
        both.target_v6 = Some("fd00::2".parse().unwrap());
        routes.set(&"six".into(), vec![both]);
        routes.set(&"four".into(), vec![route(HostAddress::AnyV4, 80, 80, 81)]);
        let client = "::1";
        assert_eq!(
            find(&routes, "[::1]:80", client).unwrap(),
            "six [fd00::2]:80"
        );
        assert_eq!(
            find(&routes, "127.0.0.1:80", client).unwrap(),
            "four 10.0.0.2:81"
        );
        let mapped = find(&routes, "[::ffff:127.0.0.1]:80", client);
        assert_eq!(mapped.unwrap(), "four 10.0.0.2:81");
    }

    #[test]
    fn a_filter_admits_its_sources_alone_and_has_the_last_word_at_its_address() {
        let mut routes = Routes::default();
        let mut filtered = route(HostAddress::AnyV6, 80, 80, 80);
        filtered.from = vec!["2001:db8::/64".parse().unwrap()];
        routes.set(&"a".into(), vec![filtered.clone()]);
        routes.set(&"b".into(), vec![route(HostAddress::Any, 80, 80, 80)]);
        assert!(find(&routes, "[::1]:80", "2001:db8::7").is_some());
        assert_eq!(find(&routes, "[::1]:80", "2001:db8:1::7"), None);
        filtered.from = vec!["10.0.0.0/8".parse().unwrap()];
        filtered.entrance = Entrance::Ports {
            address: HostAddress::AnyV4,
            ports: PortRange::one(81).unwrap(),
        };
        routes.set(&"a".into(), vec![filtered]);
        assert!(find(&routes, "192.0.2.1:81", "::ffff:10.1.1.1").is_some());
        assert_eq!(find(&routes, "192.0.2.1:81", "2001:db8::7"), None);
    }

    #[test]
    fn replacing_an_owners_routes_leaves_the_others_and_no_rest() {
        let mut routes = Routes::default();
        for n in 0..10_000_u16 {
            let port = 10_000 + n;
            routes.set(
                &format!("s{n}").into(),
                vec![route(HostAddress::Any, port, port, 80)],
            );
        }
        routes.set(
            &"s7".into(),
            vec![route(HostAddress::Any, 30_000, 30_000, 80)],
        );
        assert_eq!(find(&routes, "[::1]:10007", "::1"), None);
        assert_eq!(
            find(&routes, "[::1]:30000", "::1").unwrap(),
            "s7 10.0.0.2:80"
        );
        assert_eq!(
            find(&routes, "[::1]:10008", "::1").unwrap(),
            "s8 10.0.0.2:80"
        );
        for n in 0..10_000_u16 {
            routes.set(&format!("s{n}").into(), vec![]);
        }
        assert!(routes.ports.is_empty() && routes.owners.is_empty());
    }

    #[test]
    fn a_port_beyond_the_last_is_no_target_and_no_target_is_no_route() {
        let mut routes = Routes::default();
        let mut lost = route(HostAddress::Any, 90, 90, 80);
        lost.target_v4 = None;
        routes.set(
            &"a".into(),
            vec![route(HostAddress::Any, 80, 81, 65_535), lost],
        );
        assert!(find(&routes, "[::1]:80", "::1").is_some());
        assert_eq!(find(&routes, "[::1]:81", "::1"), None);
        assert_eq!(find(&routes, "[::1]:90", "::1"), None);
    }

    #[test]
    fn a_unix_socket_leads_to_its_owner_until_it_goes() {
        let mut routes = Routes::default();
        let mut web = route(HostAddress::Any, 80, 80, 8080);
        web.entrance = Entrance::Unix("/run/web.sock".into());
        routes.set(&"a".into(), vec![web]);
        let found = routes.find_unix(Path::new("/run/web.sock")).unwrap();
        assert_eq!(found.target, "10.0.0.2:8080".parse().unwrap());
        assert_eq!(routes.find_unix(Path::new("/run/other.sock")), None);
        routes.set(&"a".into(), vec![]);
        assert_eq!(routes.find_unix(Path::new("/run/web.sock")), None);
        assert!(routes.sockets.is_empty());
    }
}
