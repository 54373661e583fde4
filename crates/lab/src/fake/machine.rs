//! The state of a fake kernel, built the way the kernel builds it: devices hold their addresses and
//! neighbours, namespaces hold devices and routes, bridges hold ports. What goes with what follows from the
//! structure, and is measured on Linux 6.18 where it surprises.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::detour::DetourKey;
use tombolo_netstate::object::fdb::{FdbKey, FdbSpec};
use tombolo_netstate::object::foreign::{AcceptKey, AcceptSpec};
use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::object::listener::{ListenerKey, ListenerSpec};
use tombolo_netstate::object::neighbour::{NeighbourKey, NeighbourSpec};
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::nft::{BaseSpec, ElementKey, ElementSpec, Field};
use tombolo_netstate::object::port::{PortKey, PortSpec};
use tombolo_netstate::object::route::{RouteKey, RouteSpec};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{IfName, Key, Netns, Objects, Spec};

mod sockets;

/// Why the kernel refuses an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `EEXIST`.
    #[error("{0} exists")]
    Exists(Box<Key>),
    /// `ENOENT` or `ESRCH`: the object of an update.
    #[error("{0} does not exist")]
    Missing(Box<Key>),
    /// `ENODEV`.
    #[error("no link {0}")]
    NoLink(Box<LinkKey>),
    /// The namespace's file cannot be opened.
    #[error("no namespace {0}")]
    NoNetns(Netns),
    /// The named master is no bridge.
    #[error("{0} is no bridge")]
    NoBridge(IfName),
    /// The entry's port belongs to no or another bridge.
    #[error("{port} is no port of {bridge}")]
    NotPort {
        /// The port named by the entry.
        port: IfName,
        /// The bridge that should have it.
        bridge: IfName,
    },
    /// The other end of a veth exists only once its pair was made.
    #[error("{0} has no other end {1}")]
    NoPair(Box<LinkKey>, Box<LinkKey>),
    /// `EINVAL`, "Invalid prefsrc address".
    #[error("{0} is no address of {1}")]
    NotLocal(IpAddr, Netns),
    /// `EACCES`, "IPv6 is disabled on this device".
    #[error("IPv6 is disabled on {0}")]
    NoIpv6(Box<LinkKey>),
    /// The set's table does not exist.
    #[error("no table")]
    NoTable,
    /// `EEXIST` of an interval set: the new interval overlaps one that is there.
    #[error("{0} overlaps {1}")]
    Overlap(Box<Key>, Box<Key>),
    /// Key and spec are of different kinds.
    #[error("{0} was given the spec of another kind")]
    Kind(Box<Key>),
    /// A program of the host holds one of the ports.
    #[error("{0} is taken by another program")]
    Taken(PortKey),
}

/// A network device.
#[derive(Debug, Clone, Default)]
pub(super) struct Device {
    /// `None` for the other end of a veth that nobody has configured yet.
    pub(super) spec: Option<LinkSpec>,
    /// The other end of a veth.
    pub(super) other: Option<LinkKey>,
    /// In the order in which they were added, on which primary and secondary depend.
    addresses: Vec<(IpAddr, AddressSpec)>,
    neighbours: BTreeMap<IpAddr, NeighbourSpec>,
}

impl Device {
    fn bridge(&self) -> Option<IfName> {
        let port = self.spec.as_ref()?.port.as_ref()?;
        Some(port.bridge)
    }

    fn is_bridge(&self) -> bool {
        let kind = self.spec.as_ref().map(|spec| &spec.kind);
        matches!(kind, Some(LinkKind::Bridge { .. }))
    }

    fn takes(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() || self.spec.as_ref().is_none_or(|spec| spec.ipv6)
    }
}

/// Everything a kernel holds.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) namespaces: BTreeSet<Netns>,
    pub(super) devices: BTreeMap<LinkKey, Device>,
    routes: BTreeMap<RouteKey, RouteSpec>,
    fdb: BTreeMap<FdbKey, FdbSpec>,
    base: Option<BaseSpec>,
    elements: BTreeMap<ElementKey, ElementSpec>,
    sysctls: BTreeMap<SysctlKey, SysctlSpec>,
    ports: BTreeMap<PortKey, PortSpec>,
    listeners: BTreeSet<ListenerKey>,
    detours: BTreeMap<DetourKey, BaseSpec>,
    /// Ports that programs of the host hold.
    pub(super) foreign_ports: Vec<PortKey>,
    accepts: BTreeMap<AcceptKey, AcceptSpec>,
    /// `net.ipv4.conf.*.promote_secondaries`: without it the secondary addresses of a subnet go with its
    /// primary one.
    pub(super) promote_secondaries: bool,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            namespaces: BTreeSet::from([Netns::Host]),
            devices: BTreeMap::new(),
            routes: BTreeMap::new(),
            fdb: BTreeMap::new(),
            base: None,
            elements: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            ports: BTreeMap::new(),
            listeners: BTreeSet::new(),
            detours: BTreeMap::new(),
            foreign_ports: Vec::new(),
            accepts: BTreeMap::new(),
            promote_secondaries: true,
        }
    }

    /// All objects, as specs.
    pub(super) fn objects(&self) -> Objects {
        let mut all = Objects::new();
        for netns in &self.namespaces {
            if let Netns::Owned(name) = netns {
                let name = name.clone();
                all.insert(Key::Netns(NetnsKey { name }), Spec::Netns(NetnsSpec));
            }
        }
        for (at, device) in &self.devices {
            let Some(spec) = &device.spec else { continue };
            all.insert(Key::Link(at.clone()), Spec::Link(Box::new(spec.clone())));
            for (ip, spec) in &device.addresses {
                all.insert(address_key(at, *ip), Spec::Address(*spec));
            }
            for (ip, spec) in &device.neighbours {
                all.insert(neighbour_key(at, *ip), Spec::Neighbour(*spec));
            }
        }
        if let Some(base) = &self.base {
            all.insert(Key::NftBase, Spec::NftBase(base.clone()));
        }
        let routes = self.routes.iter();
        all.extend(routes.map(|(key, spec)| (Key::Route(key.clone()), Spec::Route(*spec))));
        let fdb = self.fdb.iter();
        all.extend(fdb.map(|(key, spec)| (Key::Fdb(key.clone()), Spec::Fdb(*spec))));
        let elements = self.elements.iter();
        all.extend(
            elements.map(|(k, spec)| (Key::Element(k.clone()), Spec::Element(spec.clone()))),
        );
        let listeners = self.listeners.iter();
        all.extend(listeners.map(|at| (Key::Listener(at.clone()), Spec::Listener(ListenerSpec))));
        let ports = self.ports.iter();
        all.extend(ports.map(|(key, spec)| (Key::Port(key.clone()), Spec::Port(*spec))));
        let accepts = self.accepts.iter();
        all.extend(accepts.map(|(key, spec)| (Key::Accept(key.clone()), Spec::Accept(*spec))));
        let detours = self.detours.iter();
        all.extend(detours.map(|(k, spec)| (Key::Detour(k.clone()), Spec::Detour(spec.clone()))));
        let sysctls = self.sysctls.iter();
        all.extend(sysctls.map(|(k, spec)| (Key::Sysctl(k.clone()), Spec::Sysctl(spec.clone()))));
        all
    }

    /// Whether something has that identity, marked as ours or not.
    pub(super) fn has(&self, key: &Key) -> bool {
        match key {
            Key::Netns(at) => self.namespaces.contains(&Netns::Owned(at.name.clone())),
            Key::Sysctl(at) => self.sysctls.contains_key(at),
            Key::NftBase => self.base.is_some(),
            Key::Link(at) => self.devices.contains_key(at),
            Key::Address(at) => self.on(&at.netns, at.link).is_some_and(|device| {
                let mut ips = device.addresses.iter().map(|(ip, _)| *ip);
                ips.any(|ip| ip == at.ip)
            }),
            Key::Neighbour(at) => self
                .on(&at.netns, at.link)
                .is_some_and(|device| device.neighbours.contains_key(&at.ip)),
            Key::Fdb(at) => self.fdb.contains_key(at),
            Key::Route(at) => self.routes.contains_key(at),
            Key::Listener(at) => self.listeners.contains(at),
            Key::Detour(at) => self.detours.contains_key(at),
            Key::Port(at) => self.ports.contains_key(at),
            Key::Accept(at) => self.accepts.contains_key(at),
            Key::Element(at) => self.elements.contains_key(at),
        }
    }

    /// Makes an object that must not exist.
    pub(super) fn create(&mut self, key: &Key, spec: &Spec) -> Result<(), Refusal> {
        let awaited = matches!(key, Key::Link(at) if self.devices.get(at).is_some_and(|d| d.spec.is_none()))
            && matches!(spec, Spec::Link(link) if matches!(link.kind, LinkKind::Peer { .. }));
        if self.has(key) && !awaited {
            return Err(Refusal::Exists(Box::new(key.clone())));
        }
        self.write(key, spec)
    }

    /// Changes an object in place.
    pub(super) fn update(&mut self, key: &Key, spec: &Spec) -> Result<(), Refusal> {
        if !self.has(key) {
            return Err(Refusal::Missing(Box::new(key.clone())));
        }
        match (key, spec) {
            (Key::Link(at), Spec::Link(to)) => self.change_link(at, to),
            (Key::NftBase, _) => {
                self.elements.clear();
                self.write(key, spec)
            }
            (Key::Element(_), _) => Err(Refusal::Exists(Box::new(key.clone()))),
            _ => self.write(key, spec),
        }
    }

    /// Removes an object and what lives by it; one that is gone already is passed over.
    pub(super) fn delete(&mut self, key: &Key) {
        match key {
            Key::Netns(at) => self.remove_netns(&Netns::Owned(at.name.clone())),
            Key::Sysctl(at) => drop(self.sysctls.remove(at)),
            Key::NftBase => {
                self.base = None;
                self.elements.clear();
            }
            Key::Link(at) => self.remove_link(at),
            Key::Address(at) => self.remove_address(at),
            Key::Neighbour(at) => {
                if let Some(device) = self.devices.get_mut(&link_key(&at.netns, at.link)) {
                    device.neighbours.remove(&at.ip);
                }
            }
            Key::Fdb(at) => drop(self.fdb.remove(at)),
            Key::Route(at) => drop(self.routes.remove(at)),
            Key::Listener(at) => drop(self.listeners.take(at)),
            Key::Detour(at) => drop(self.detours.remove(at)),
            Key::Port(at) => drop(self.ports.remove(at)),
            Key::Accept(at) => drop(self.accepts.remove(at)),
            Key::Element(at) => drop(self.elements.remove(at)),
        }
    }

    fn write(&mut self, key: &Key, spec: &Spec) -> Result<(), Refusal> {
        match (key, spec) {
            (Key::Netns(at), Spec::Netns(_)) => {
                self.namespaces.insert(Netns::Owned(at.name.clone()));
            }
            (Key::Sysctl(at), Spec::Sysctl(spec)) => {
                self.sysctls.insert(at.clone(), spec.clone());
            }
            (Key::NftBase, Spec::NftBase(spec)) => self.base = Some(spec.clone()),
            (Key::Link(at), Spec::Link(spec)) => self.make_link(at, spec)?,
            (Key::Address(at), Spec::Address(spec)) => {
                let device = self.device_for(&at.netns, at.link, at.ip)?;
                match device.addresses.iter_mut().find(|(ip, _)| *ip == at.ip) {
                    Some((_, have)) => *have = *spec,
                    None => device.addresses.push((at.ip, *spec)),
                }
            }
            (Key::Neighbour(at), Spec::Neighbour(spec)) => {
                let device = self.device_for(&at.netns, at.link, at.ip)?;
                device.neighbours.insert(at.ip, *spec);
            }
            (Key::Fdb(at), Spec::Fdb(spec)) => self.write_fdb(at, *spec)?,
            (Key::Route(at), Spec::Route(spec)) => self.write_route(at, *spec)?,
            (Key::Listener(at), Spec::Listener(_)) => self.write_listener(at)?,
            (Key::Detour(at), Spec::Detour(spec)) => {
                if !self.namespaces.contains(&at.netns) {
                    return Err(Refusal::NoNetns(at.netns.clone()));
                }
                self.detours.insert(at.clone(), spec.clone());
            }
            (Key::Port(at), Spec::Port(spec)) => self.write_port(at, *spec)?,
            (Key::Accept(at), Spec::Accept(spec)) => {
                self.accepts.insert(at.clone(), *spec);
            }
            (Key::Element(at), Spec::Element(spec)) => self.write_element(at, spec)?,
            _ => return Err(Refusal::Kind(Box::new(key.clone()))),
        }
        Ok(())
    }

    fn on(&self, netns: &Netns, link: IfName) -> Option<&Device> {
        self.devices.get(&link_key(netns, link))
    }

    fn device_for(
        &mut self,
        netns: &Netns,
        link: IfName,
        ip: IpAddr,
    ) -> Result<&mut Device, Refusal> {
        let at = link_key(netns, link);
        match self.devices.get_mut(&at) {
            None => Err(Refusal::NoLink(Box::new(at))),
            Some(device) if !device.takes(ip) => Err(Refusal::NoIpv6(Box::new(at))),
            Some(device) => Ok(device),
        }
    }

    fn check_port(&self, at: &LinkKey, spec: &LinkSpec) -> Result<(), Refusal> {
        let Some(port) = &spec.port else {
            return Ok(());
        };
        match self.on(&at.netns, port.bridge) {
            None => Err(Refusal::NoLink(Box::new(link_key(&at.netns, port.bridge)))),
            Some(master) if !master.is_bridge() => Err(Refusal::NoBridge(port.bridge)),
            Some(_) => Ok(()),
        }
    }

    fn make_link(&mut self, at: &LinkKey, spec: &LinkSpec) -> Result<(), Refusal> {
        if !self.namespaces.contains(&at.netns) {
            return Err(Refusal::NoNetns(at.netns.clone()));
        }
        self.check_port(at, spec)?;
        match &spec.kind {
            // The other end of a lent veth is nobody's object, nor is a taken link while it is its maker's.
            LinkKind::Bridge { .. } | LinkKind::Lent { .. } | LinkKind::Taken { .. } => {
                let device = Device {
                    spec: Some(spec.clone()),
                    ..Device::default()
                };
                self.devices.insert(at.clone(), device);
            }
            LinkKind::Veth { peer, .. } => {
                if !self.namespaces.contains(&peer.netns) {
                    return Err(Refusal::NoNetns(peer.netns.clone()));
                }
                if self.devices.contains_key(peer) {
                    return Err(Refusal::Exists(Box::new(Key::Link(peer.clone()))));
                }
                let other = Device {
                    other: Some(at.clone()),
                    ..Device::default()
                };
                self.devices.insert(peer.clone(), other);
                let device = Device {
                    spec: Some(spec.clone()),
                    other: Some(peer.clone()),
                    ..Device::default()
                };
                self.devices.insert(at.clone(), device);
            }
            LinkKind::Peer { pair } => match self.devices.get_mut(at) {
                Some(device) if device.other.as_ref() == Some(pair) => {
                    device.spec = Some(spec.clone());
                }
                _ => {
                    return Err(Refusal::NoPair(
                        Box::new(pair.clone()),
                        Box::new(at.clone()),
                    ));
                }
            },
        }
        Ok(())
    }

    /// A new hardware address flushes the neighbours, a new master the forwarding entries, and IPv6 going
    /// off takes all of IPv6 along.
    fn change_link(&mut self, at: &LinkKey, to: &LinkSpec) -> Result<(), Refusal> {
        self.check_port(at, to)?;
        let Some(device) = self.devices.get_mut(at) else {
            return Err(Refusal::NoLink(Box::new(at.clone())));
        };
        let from = device.spec.replace(to.clone());
        let Some(from) = from else {
            return Err(Refusal::Missing(Box::new(Key::Link(at.clone()))));
        };
        if from.mac != to.mac {
            device.neighbours.clear();
        }
        if from.ipv6 && !to.ipv6 {
            device.addresses.retain(|(ip, _)| ip.is_ipv4());
            device.neighbours.retain(|ip, _| ip.is_ipv4());
            self.drop_routes(at, |key| key.destination.addr().is_ipv6());
        }
        let before = from.port.map(|port| port.bridge);
        if before != to.port.as_ref().map(|port| port.bridge) {
            self.fdb
                .retain(|key, entry| Some(key.bridge) != before || entry.port != at.name);
        }
        Ok(())
    }

    fn write_fdb(&mut self, at: &FdbKey, spec: FdbSpec) -> Result<(), Refusal> {
        let Some(port) = self.on(&Netns::Host, spec.port) else {
            return Err(Refusal::NoLink(Box::new(link_key(&Netns::Host, spec.port))));
        };
        if port.bridge() != Some(at.bridge) {
            return Err(Refusal::NotPort {
                port: spec.port,
                bridge: at.bridge,
            });
        }
        self.fdb.insert(at.clone(), spec);
        Ok(())
    }

    fn write_route(&mut self, at: &RouteKey, spec: RouteSpec) -> Result<(), Refusal> {
        if let Some(source) = spec.source {
            let mut devices = self.devices.iter().filter(|(key, _)| key.netns == at.netns);
            if !devices.any(|(_, device)| device.addresses.iter().any(|(ip, _)| *ip == source)) {
                return Err(Refusal::NotLocal(source, at.netns.clone()));
            }
        }
        self.device_for(&at.netns, spec.link, at.destination.addr())?;
        self.routes.insert(at.clone(), spec);
        Ok(())
    }

    fn write_element(&mut self, at: &ElementKey, spec: &ElementSpec) -> Result<(), Refusal> {
        if self.base.is_none() {
            return Err(Refusal::NoTable);
        }
        if let [Field::Net(net)] = at.fields.as_ref() {
            let overlaps = |key: &&ElementKey| {
                let [Field::Net(other)] = key.fields.as_ref() else {
                    return false;
                };
                key.set == at.set && *key != at && (other.contains(net) || net.contains(other))
            };
            if let Some(other) = self.elements.keys().find(overlaps) {
                return Err(Refusal::Overlap(
                    Box::new(Key::Element(at.clone())),
                    Box::new(Key::Element(other.clone())),
                ));
            }
        }
        self.elements.insert(at.clone(), spec.clone());
        Ok(())
    }

    fn remove_netns(&mut self, netns: &Netns) {
        let inside: Vec<LinkKey> = self
            .devices
            .keys()
            .filter(|at| at.netns == *netns)
            .cloned()
            .collect();
        for at in inside {
            self.remove_link(&at);
        }
        self.routes.retain(|key, _| key.netns != *netns);
        self.listeners.retain(|at| at.netns != *netns);
        self.detours.retain(|at, _| at.netns != *netns);
        self.namespaces.remove(netns);
    }

    pub(super) fn remove_link(&mut self, at: &LinkKey) {
        let Some(device) = self.devices.remove(at) else {
            return;
        };
        self.drop_routes(at, |_| true);
        if at.netns == Netns::Host {
            self.fdb
                .retain(|key, entry| key.bridge != at.name && entry.port != at.name);
        }
        if device.is_bridge() {
            let here = |(key, _): &(&LinkKey, &mut Device)| key.netns == at.netns;
            let here = self.devices.iter_mut().filter(here);
            for spec in here.filter_map(|(_, device)| device.spec.as_mut()) {
                spec.port.take_if(|port| port.bridge == at.name);
                if let Some(port) = &mut spec.port {
                    port.direct.take_if(|direct| *direct == at.name);
                }
            }
        }
        if let Some(other) = device.other {
            self.remove_link(&other);
        }
    }

    /// IPv4: routes with this source go, with the last address all routes and neighbours of the link do.
    /// IPv6: routes only lose the source.
    fn remove_address(&mut self, at: &AddressKey) {
        let link = link_key(&at.netns, at.link);
        let Some(device) = self.devices.get_mut(&link) else {
            return;
        };
        let Some(n) = device.addresses.iter().position(|(ip, _)| *ip == at.ip) else {
            return;
        };
        let mut gone = vec![device.addresses.remove(n)];
        if !self.promote_secondaries {
            let (ip, spec) = gone[0];
            let subnet = |ip, spec: &AddressSpec| ipnet::IpNet::new(ip, spec.prefix_len).ok();
            let primary = subnet(ip, &spec).map(|net| net.trunc());
            let first = device.addresses[..n].iter();
            let is_first = !first
                .clone()
                .any(|(a, s)| subnet(*a, s).map(|n| n.trunc()) == primary);
            if ip.is_ipv4() && is_first {
                let same =
                    |a: &(IpAddr, AddressSpec)| subnet(a.0, &a.1).map(|n| n.trunc()) == primary;
                gone.extend(device.addresses.extract_if(.., |a| same(a)));
            }
        }
        let last = at.ip.is_ipv4() && !device.addresses.iter().any(|(ip, _)| ip.is_ipv4());
        if last {
            device.neighbours.retain(|ip, _| ip.is_ipv6());
            self.drop_routes(&link, |key| key.destination.addr().is_ipv4());
        }
        for (ip, _) in gone {
            let here = |key: &RouteKey| key.netns == at.netns;
            self.routes
                .retain(|key, route| ip.is_ipv6() || !here(key) || route.source != Some(ip));
            for (_, route) in self.routes.iter_mut().filter(|(key, _)| here(key)) {
                route.source = route.source.filter(|source| *source != ip);
            }
        }
    }

    fn drop_routes(&mut self, at: &LinkKey, which: impl Fn(&RouteKey) -> bool) {
        self.routes
            .retain(|key, route| key.netns != at.netns || route.link != at.name || !which(key));
    }
}

pub(super) fn link_key(netns: &Netns, name: IfName) -> LinkKey {
    LinkKey {
        netns: netns.clone(),
        name,
    }
}

fn address_key(at: &LinkKey, ip: IpAddr) -> Key {
    Key::Address(AddressKey {
        netns: at.netns.clone(),
        link: at.name,
        ip,
    })
}

fn neighbour_key(at: &LinkKey, ip: IpAddr) -> Key {
    Key::Neighbour(NeighbourKey {
        netns: at.netns.clone(),
        link: at.name,
        ip,
    })
}
