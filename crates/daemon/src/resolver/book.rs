//! Who may ask and what names there are: written by the engine, read by the resolver's thread for each batch of
//! queries.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tombolo_core::id::SandboxId;
use tombolo_dns::answer::{Carrier, Decision, decide};
use tombolo_dns::names::{Names, OwnerId, Registration, Zone, ZoneId};
use tombolo_dns::view::{Settings, View};
use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;

use super::mdns::Post;

/// A server for names that are not ours, and the network namespace from which it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Server {
    /// Its address and port.
    pub(crate) address: SocketAddr,
    /// From where.
    pub(crate) via: Netns,
}

/// Servers that answer for each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Upstreams {
    /// In the order of preference.
    pub(crate) servers: Vec<Server>,
    /// The same for equal servers: what they said is shared by all who ask them.
    pub(crate) scope: u64,
}

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Tells one from another where shares are counted.
    pub(crate) id: u64,
    /// What names mean to it.
    pub(crate) view: View,
    /// Servers of its own; `None` asks the host's.
    pub(crate) upstreams: Option<Arc<Upstreams>>,
}

/// What a sandbox is to the resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is called.
    pub(crate) registrations: Vec<Registration>,
    /// Its namespace and how it asks; `None` for one that only has names.
    pub(crate) asker: Option<(Netns, Asker)>,
    /// Its addresses, by which it is known at a gateway.
    pub(crate) sources: Vec<IpAddr>,
    /// Where it wants multicast responders.
    pub(crate) posts: Vec<Post>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) names: Names,
    pub(super) settings: Settings,
    /// Servers of those who have none of their own.
    pub(super) upstreams: Arc<Upstreams>,
    host: Arc<Asker>,
    askers: HashMap<Netns, Arc<Asker>>,
    sources: HashMap<IpAddr, Arc<Asker>>,
    known: BTreeMap<SandboxId, (Option<Netns>, Vec<IpAddr>)>,
}

impl Upstreams {
    /// The servers in their order, each once.
    pub(crate) fn new(servers: impl IntoIterator<Item = Server>) -> Self {
        use std::hash::{Hash, Hasher};
        let mut unique: Vec<Server> = Vec::new();
        for server in servers {
            if !unique.contains(&server) {
                unique.push(server);
            }
        }
        let mut hasher = std::hash::DefaultHasher::new();
        unique.hash(&mut hasher);
        Self {
            servers: unique,
            scope: hasher.finish(),
        }
    }
}

impl Book {
    pub(super) fn new(settings: Settings, upstreams: Upstreams) -> Self {
        let host = Asker {
            id: 0,
            view: View::default(),
            upstreams: None,
        };
        Self {
            names: Names::default(),
            settings,
            upstreams: Arc::new(upstreams),
            host: Arc::new(host),
            askers: HashMap::new(),
            sources: HashMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Replaces what is known of a sandbox; the namespace in which it asked before, if it did.
    pub(super) fn set(&mut self, id: SandboxId, entry: Entry) -> Option<Netns> {
        let before = self.forget(id);
        self.names.set(OwnerId(id.0), entry.registrations);
        let netns = entry.asker.map(|(netns, asker)| {
            let asker = Arc::new(asker);
            for source in &entry.sources {
                self.sources.insert(*source, Arc::clone(&asker));
            }
            self.askers.insert(netns.clone(), asker);
            netns
        });
        self.known.insert(id, (netns, entry.sources));
        before
    }

    /// Forgets a sandbox; the namespace in which it asked, if it did.
    pub(super) fn remove(&mut self, id: SandboxId) -> Option<Netns> {
        self.names.remove(OwnerId(id.0));
        self.forget(id)
    }

    fn forget(&mut self, id: SandboxId) -> Option<Netns> {
        let (netns, sources) = self.known.remove(&id)?;
        let asker = netns.as_ref().and_then(|netns| self.askers.remove(netns));
        for source in sources {
            // Another sandbox may have the address by now.
            let own = |known: &Arc<Asker>| asker.as_ref().is_some_and(|a| Arc::ptr_eq(a, known));
            if self.sources.get(&source).is_some_and(own) {
                self.sources.remove(&source);
            }
        }
        netns
    }

    /// Replaces all networks; the host sees the names of all of them, in this order.
    pub(super) fn set_zones(&mut self, zones: Vec<(ZoneId, Zone)>) {
        let kept: BTreeSet<ZoneId> = zones.iter().map(|(id, _)| *id).collect();
        for id in &self.host.view.zones {
            if !kept.contains(id) {
                self.names.remove_zone(*id);
            }
        }
        let mut view = self.host.view.clone();
        view.zones = zones.iter().map(|(id, _)| *id).collect();
        for (id, zone) in zones {
            self.names.set_zone(id, zone);
        }
        self.host = Arc::new(Asker {
            view,
            ..(*self.host).clone()
        });
    }

    /// Who asks at a listener: the sandbox that it is in, or, in the host's namespace, the one that the question
    /// comes from.
    pub(super) fn asker(&self, listener: &Place, from: IpAddr) -> Option<&Arc<Asker>> {
        match listener {
            Place::Host => Some(&self.host),
            Place::Listener(key) if key.netns == Netns::Host => {
                self.sources.get(&from.to_canonical())
            }
            Place::Listener(key) => self.askers.get(&key.netns),
        }
    }

    /// What becomes of the bytes of a query.
    pub(super) fn decide(
        &self,
        asker: &Asker,
        query: &[u8],
        carrier: Carrier,
        turn: u32,
    ) -> Decision {
        let (names, settings) = (&self.names, &self.settings);
        decide(names, &asker.view, settings, query, carrier, turn)
    }

    /// Who a sandbox is when it asks; the host for none.
    pub(super) fn asker_of(&self, id: Option<SandboxId>) -> Option<&Arc<Asker>> {
        let Some(id) = id else {
            return Some(&self.host);
        };
        let (netns, _) = self.known.get(&id)?;
        self.askers.get(netns.as_ref()?)
    }

    /// Whether somebody in that namespace may ask.
    pub(super) fn has(&self, netns: &Netns) -> bool {
        self.askers.contains_key(netns)
    }

    /// The servers of somebody who asks.
    pub(super) fn upstreams_of(&self, asker: &Asker) -> Arc<Upstreams> {
        Arc::clone(asker.upstreams.as_ref().unwrap_or(&self.upstreams))
    }
}

/// Where a question came in.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// At a listener of sandboxes.
    Listener(ListenerKey),
    /// At one for the host itself.
    Host,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn netns(name: &str) -> Netns {
        Netns::Owned(name.into())
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn entry(id: u64, place: Option<&str>, sources: &[IpAddr]) -> Entry {
        let asker = Asker {
            id,
            view: View::default(),
            upstreams: None,
        };
        Entry {
            registrations: vec![],
            asker: place.map(|place| (netns(place), asker)),
            sources: sources.to_vec(),
            posts: vec![],
        }
    }

    fn listener(netns: Netns) -> Place {
        Place::Listener(ListenerKey {
            netns,
            address: ip(1),
            port: 53,
        })
    }

    fn book() -> Book {
        Book::new(Settings::default(), Upstreams::default())
    }

    #[test]
    fn who_asks_is_known_by_the_place_or_by_the_address() {
        let mut book = book();
        book.set(SandboxId(1), entry(11, Some("one"), &[ip(2)]));
        book.set(SandboxId(2), entry(22, Some("two"), &[ip(3)]));
        let who = |book: &Book, place: &Place, from| book.asker(place, from).map(|a| a.id);
        let inside = listener(netns("one"));
        // Inside a sandbox the address says nothing: it is a loopback one.
        assert_eq!(who(&book, &inside, ip(99)), Some(11));
        let gateway = listener(Netns::Host);
        assert_eq!(who(&book, &gateway, ip(3)), Some(22));
        assert_eq!(who(&book, &gateway, ip(99)), None);
        assert_eq!(who(&book, &Place::Host, ip(3)), Some(0));
        assert_eq!(who(&book, &listener(netns("three")), ip(2)), None);
        let mapped = "::ffff:10.0.0.3".parse().unwrap();
        assert_eq!(who(&book, &gateway, mapped), Some(22));
    }

    #[test]
    fn who_left_is_nobody_and_its_address_the_next_ones() {
        let mut book = book();
        book.set(SandboxId(1), entry(11, Some("one"), &[ip(2)]));
        // The next one has the address before the first is forgotten.
        book.set(SandboxId(2), entry(22, Some("two"), &[ip(2)]));
        assert_eq!(book.remove(SandboxId(1)), Some(netns("one")));
        assert!(!book.has(&netns("one")));
        let gateway = listener(Netns::Host);
        assert_eq!(book.asker(&gateway, ip(2)).map(|a| a.id), Some(22));
        // It stops, and starts in another namespace.
        assert_eq!(
            book.set(SandboxId(2), entry(22, None, &[])),
            Some(netns("two"))
        );
        assert!(book.asker(&gateway, ip(2)).is_none());
        assert_eq!(
            book.set(SandboxId(2), entry(22, Some("three"), &[ip(2)])),
            None
        );
        assert!(book.has(&netns("three")) && !book.has(&netns("two")));
        assert_eq!(book.asker_of(Some(SandboxId(2))).map(|a| a.id), Some(22));
        assert!(book.asker_of(Some(SandboxId(1))).is_none());
    }

    #[test]
    fn the_host_sees_all_networks_and_those_alone() {
        let mut book = book();
        let zone = |name: &str| Zone {
            name: name.parse().unwrap(),
            subnets: vec![],
        };
        book.set_zones(vec![(ZoneId(1), zone("a")), (ZoneId(2), zone("b"))]);
        book.set_zones(vec![(ZoneId(2), zone("b"))]);
        let host = book.asker_of(None).unwrap();
        assert_eq!(host.view.zones, [ZoneId(2)]);
        assert!(!host.view.forwards, "the host is not served by us");
    }

    #[test]
    fn equal_servers_share_what_they_said() {
        let server = |last| Server {
            address: SocketAddr::new(ip(last), 53),
            via: Netns::Host,
        };
        let upstreams = Upstreams::new([server(1), server(2), server(1)]);
        assert_eq!(upstreams.servers, [server(1), server(2)]);
        assert_eq!(upstreams, Upstreams::new([server(1), server(2)]));
        assert_ne!(
            upstreams.scope,
            Upstreams::new([server(2), server(1)]).scope
        );
        let inside = Server {
            via: netns("one"),
            ..server(1)
        };
        assert_ne!(
            Upstreams::new([inside]).scope,
            Upstreams::new([server(1)]).scope
        );
    }
}
