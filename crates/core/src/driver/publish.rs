//! Published ports: from publications to reservations and elements of the constant maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use tombolo_netstate::object::nft::{Field, SetName};
use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec, Protocol};
use tombolo_netstate::{Key, Objects, Spec};

use super::{Context, add_element, gateway_endpoint};
use crate::facts::Obedience;
use crate::limits::RANGE_SOCKETS_MAX;
use crate::model::{Driver, Endpoint, GatewayMode, Network, Publication, Sandbox};

/// Both families, IPv6 last.
pub const FAMILIES: [bool; 2] = [false, true];

/// Where publications of a sandbox lead in a family.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The network of the endpoint that gives the sandbox its default route.
    pub network: &'a Network,
    /// The endpoint's address.
    pub ip: IpAddr,
}

impl Target<'_> {
    fn mode(&self) -> GatewayMode {
        self.network.spec.gateway_mode(self.ip.is_ipv6())
    }
}

/// Where the publications of a sandbox lead, for IPv4 and for IPv6.
#[derive(Debug, Clone, Copy, Default)]
pub struct Targets<'a>(pub [Option<Target<'a>>; 2]);

/// The way that a publication takes in a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// None: nobody reaches it.
    Closed,
    /// None, although its ports are held: the host's firewall is to decide, and the relay that would ask it cannot
    /// carry this.
    Barred,
    /// The kernel translates.
    Kernel,
    /// The kernel hands connections to the relay, which opens others to the sandbox.
    Redirect,
    /// The relay listens at the published port itself.
    Listen,
    /// Nothing is translated: the sandbox's own address is reached.
    Routed,
}

impl<'a> Targets<'a> {
    /// The targets of a sandbox with these endpoints. There are none where a plugin's network is the way out: it
    /// publishes ports itself.
    pub fn of(endpoints: &[(&'a Network, &'a Endpoint)]) -> Self {
        if is_plugins(endpoints) {
            return Self::default();
        }
        Self(FAMILIES.map(|ipv6| {
            let (network, endpoint, _) = gateway_endpoint(endpoints, ipv6)?;
            let mut addresses = endpoint.addresses.iter().map(IpNet::addr);
            let ip = addresses.find(|ip| ip.is_ipv6() == ipv6)?;
            Some(Target { network, ip })
        }))
    }

    /// The target in a family.
    pub fn get(&self, ipv6: bool) -> Option<&Target<'a>> {
        self.0[usize::from(ipv6)].as_ref()
    }

    /// Where in its own family, or else in the other, a connection of a family is relayed to.
    pub fn relayed(&self, ipv6: bool) -> Option<IpAddr> {
        let translated = |target: &&Target<'_>| target.mode() != GatewayMode::Routed;
        let own = self.get(ipv6).filter(translated);
        let ip = own.or_else(|| self.get(!ipv6).filter(translated))?.ip;
        Some(ip)
    }

    fn networks(&self) -> impl Iterator<Item = &'a Network> {
        self.0.iter().flatten().map(|target| target.network)
    }
}

/// Whether a plugin publishes the ports of a sandbox with these endpoints.
pub fn is_plugins(endpoints: &[(&Network, &Endpoint)]) -> bool {
    let mut ways_out = FAMILIES
        .into_iter()
        .filter_map(|ipv6| gateway_endpoint(endpoints, ipv6));
    ways_out.any(|(network, ..)| network.spec.driver == Driver::Remote)
}

/// The addresses of the host at which a publication is to be found.
pub fn address(publication: &Publication, targets: &Targets<'_>) -> HostAddress {
    let bound = || targets.networks().find_map(|n| n.spec.host_binding);
    publication
        .address
        .or_else(bound)
        .unwrap_or(HostAddress::Any)
}

/// Whether the host's own firewall decides where neither a publication nor its network says.
pub fn obeys_by_default(context: Context<'_>) -> bool {
    match context.settings.obey_host_firewall {
        Obedience::Auto => context.facts.input_filtered,
        Obedience::Always => true,
        Obedience::Never => false,
    }
}

/// Whether the host's own firewall decides about a publication.
pub fn obeys(publication: &Publication, targets: &Targets<'_>, context: Context<'_>) -> bool {
    let network = || targets.networks().find_map(|n| n.spec.obey_host_firewall);
    publication
        .obey_host_firewall
        .or_else(network)
        .unwrap_or_else(|| obeys_by_default(context))
}

/// Whether the relay can carry a publication.
pub fn can_be_relayed(publication: &Publication) -> bool {
    publication.count() <= RANGE_SOCKETS_MAX && publication.protocol != Protocol::Sctp
}

/// The way of a publication in a family.
pub fn path(
    publication: &Publication,
    targets: &Targets<'_>,
    ipv6: bool,
    context: Context<'_>,
) -> Path {
    if publication.socket.is_some() || publication.ports.is_none() {
        return Path::Closed;
    }
    let routed = |target: &Target<'_>| target.mode() == GatewayMode::Routed;
    let target = targets.get(ipv6);
    if target.is_some_and(routed) {
        return Path::Routed;
    }
    if !address(publication, targets).has(ipv6) || targets.relayed(ipv6).is_none() {
        return Path::Closed;
    }
    if obeys(publication, targets, context) {
        return match can_be_relayed(publication) {
            true => Path::Listen,
            false => Path::Barred,
        };
    }
    match (target, ipv6) {
        (Some(_), _) => Path::Kernel,
        (None, true)
            if publication.protocol != Protocol::Sctp && context.facts.relay_port.is_some() =>
        {
            Path::Redirect
        }
        // No IPv4 client is redirected: the sandbox would have to be without IPv4.
        (None, _) => Path::Closed,
    }
}

/// The part of the host's addresses at which ports have to be held.
pub fn held_at(
    publication: &Publication,
    targets: &Targets<'_>,
    context: Context<'_>,
) -> Option<HostAddress> {
    let on_host = |ipv6| {
        matches!(
            path(publication, targets, ipv6, context),
            Path::Kernel | Path::Redirect | Path::Listen | Path::Barred
        )
    };
    let wanted = address(publication, targets);
    // Where the sandbox has one family only, the port is held in both: nobody else may answer half of those who
    // ask for it.
    let routed = |ipv6| path(publication, targets, ipv6, context) == Path::Routed;
    match (wanted, FAMILIES.map(on_host), FAMILIES.map(routed)) {
        (_, [false, false], _) => None,
        (HostAddress::Any, _, [true, _]) => Some(HostAddress::AnyV6),
        (HostAddress::Any, _, [_, true]) => Some(HostAddress::AnyV4),
        (address, ..) => Some(address),
    }
}

/// The reservation of a publication, if it takes ports of the host.
pub fn reservation(
    publication: &Publication,
    targets: &Targets<'_>,
    context: Context<'_>,
) -> Option<(PortKey, PortSpec)> {
    let key = PortKey {
        protocol: publication.protocol,
        address: held_at(publication, targets, context)?,
        ports: publication.ports?,
    };
    let listens = FAMILIES
        .iter()
        .any(|ipv6| path(publication, targets, *ipv6, context) == Path::Listen);
    let spec = match listens {
        true => PortSpec::Relayed,
        false if key.ports.count() > RANGE_SOCKETS_MAX => PortSpec::Checked,
        false => PortSpec::Held,
    };
    Some((key, spec))
}

/// All objects of a sandbox's publications.
pub fn objects(
    sandbox: &Sandbox,
    endpoints: &[(&Network, &Endpoint)],
    context: Context<'_>,
) -> Objects {
    let mut objects = Objects::new();
    if sandbox.spec.publications.is_empty() {
        return objects;
    }
    let targets = Targets::of(endpoints);
    for publication in &sandbox.spec.publications {
        if let Some((key, spec)) = reservation(publication, &targets, context) {
            objects.insert(Key::Port(key), Spec::Port(spec));
        }
        for ipv6 in FAMILIES {
            add_path(&mut objects, publication, &targets, ipv6, context);
        }
    }
    for target in targets.0.iter().flatten() {
        let ipv6 = target.ip.is_ipv6();
        let is_routed = |p: &&Publication| path(p, &targets, ipv6, context) == Path::Routed;
        let routed: Vec<&Publication> =
            sandbox.spec.publications.iter().filter(is_routed).collect();
        add_routed(&mut objects, &routed, target.ip);
    }
    objects
}

fn add_path(
    objects: &mut Objects,
    publication: &Publication,
    targets: &Targets<'_>,
    ipv6: bool,
    context: Context<'_>,
) {
    let path = path(publication, targets, ipv6, context);
    let (Some(ports), Some(relayed)) = (publication.ports, targets.relayed(ipv6)) else {
        return;
    };
    let place = Place {
        publication,
        address: address(publication, targets),
        ports,
        ipv6,
    };
    match path {
        Path::Closed | Path::Barred | Path::Listen | Path::Routed => {}
        Path::Kernel => {
            place.add_translation(objects, relayed);
            let pair = vec![Field::Address(relayed), Field::Address(relayed)];
            let hairpin = if ipv6 {
                SetName::Hairpin6
            } else {
                SetName::Hairpin4
            };
            add_element(objects, hairpin, pair, vec![]);
        }
        Path::Redirect => place.add_relay(objects),
    }
}

/// What a publication takes of the host in a family.
struct Place<'a> {
    publication: &'a Publication,
    address: HostAddress,
    ports: PortRange,
    ipv6: bool,
}

impl Place<'_> {
    /// Whether an exact element stands for it: a single port that everybody may use.
    fn is_exact(&self) -> bool {
        self.ports.is_one() && self.publication.from.is_empty()
    }

    fn add_translation(&self, objects: &mut Objects, to: IpAddr) {
        let protocol = Field::Protocol(self.publication.protocol);
        let container = self.publication.container.first();
        let (any, at, range) = if self.ipv6 {
            (
                SetName::PublishAny6,
                SetName::PublishAt6,
                SetName::PublishRange6,
            )
        } else {
            (
                SetName::PublishAny4,
                SetName::PublishAt4,
                SetName::PublishRange4,
            )
        };
        if self.is_exact() {
            let data = vec![Field::Address(to), Field::Port(container)];
            let port = Field::Port(self.ports.first());
            match self.address {
                HostAddress::One(ip) => {
                    add_element(objects, at, vec![protocol, Field::Address(ip), port], data);
                }
                _ => add_element(objects, any, vec![protocol, port], data),
            }
            return;
        }
        for piece in shift(self.ports, container) {
            let data = vec![
                Field::Address(to),
                Field::Port(piece.least),
                Field::Port(piece.greatest),
            ];
            self.add_ranges(objects, range, piece.ports, &data);
        }
    }

    /// Hands to the relay what is not translated.
    fn add_relay(&self, objects: &mut Objects) {
        match self.address {
            HostAddress::Any | HostAddress::AnyV6 if self.is_exact() => {
                let protocol = Field::Protocol(self.publication.protocol);
                let fields = vec![protocol, Field::Port(self.ports.first())];
                add_element(objects, SetName::RelayAny6, fields, vec![]);
            }
            _ => self.add_ranges(objects, SetName::RelayRange6, self.ports, &[]),
        }
    }

    /// Adds an element for each source that may use the ports.
    fn add_ranges(&self, objects: &mut Objects, set: SetName, ports: PortRange, data: &[Field]) {
        let to = match self.address {
            HostAddress::One(ip) => IpNet::from(ip),
            _ => everything(self.ipv6),
        };
        for source in sources(&self.publication.from, self.ipv6) {
            let fields = vec![
                Field::Net(source),
                Field::Protocol(self.publication.protocol),
                Field::Net(to),
                Field::Ports(ports),
            ];
            add_element(objects, set, fields, data.to_vec());
        }
    }
}

/// Opens the ports of a sandbox at its own address. Publications may overlap here: nobody else has these ports.
fn add_routed(objects: &mut Objects, publications: &[&Publication], ip: IpAddr) {
    let (exact, range) = if ip.is_ipv6() {
        (SetName::Routed6, SetName::RoutedRange6)
    } else {
        (SetName::Routed4, SetName::RoutedRange4)
    };
    for (protocol, ports, sources) in open_parts(publications, ip.is_ipv6()) {
        let protocol = Field::Protocol(protocol);
        if ports.is_one() && sources == [everything(ip.is_ipv6())] {
            let fields = vec![Field::Address(ip), protocol, Field::Port(ports.first())];
            add_element(objects, exact, fields, vec![]);
            continue;
        }
        for source in sources {
            let fields = vec![
                Field::Net(source),
                Field::Net(IpNet::from(ip)),
                protocol,
                Field::Ports(ports),
            ];
            add_element(objects, range, fields, vec![]);
        }
    }
}

/// The sandbox's published ports in parts that do not overlap, each with all who may use it.
fn open_parts(publications: &[&Publication], ipv6: bool) -> Vec<(Protocol, PortRange, Vec<IpNet>)> {
    let mut parts: Vec<(Protocol, PortRange, Vec<IpNet>)> = Vec::new();
    for protocol in Protocol::ALL {
        let own: Vec<&&Publication> = publications
            .iter()
            .filter(|p| p.protocol == protocol)
            .collect();
        let mut edges: Vec<u32> = own
            .iter()
            .flat_map(|p| {
                [
                    p.container.first().into(),
                    u32::from(p.container.last()) + 1,
                ]
            })
            .collect();
        edges.sort_unstable();
        edges.dedup();
        for pair in edges.windows(2) {
            let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            let (first, last) = (port(pair[0]), port(pair[1] - 1));
            let here = own.iter().filter(|p| p.container.contains(first));
            let nets: Vec<IpNet> = here.flat_map(|p| sources(&p.from, ipv6)).collect();
            if let (Ok(ports), false) = (PortRange::new(first, last), nets.is_empty()) {
                parts.push((protocol, ports, IpNet::aggregate(&nets)));
            }
        }
    }
    parts
}

/// All addresses of a family.
pub fn everything(ipv6: bool) -> IpNet {
    let any = if ipv6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    IpNet::new_assert(any, 0)
}

/// The sources of a family that a filter lets in, none within another; all where there is no filter.
pub fn sources(from: &[IpNet], ipv6: bool) -> Vec<IpNet> {
    if from.is_empty() {
        return vec![everything(ipv6)];
    }
    let own: Vec<IpNet> = from
        .iter()
        .filter(|net| net.addr().is_ipv6() == ipv6)
        .map(IpNet::trunc)
        .collect();
    IpNet::aggregate(&own)
}

/// A part of a range with the numbers from which the kernel computes the new port: `least + port % count`,
/// where count is that of the ports from `least` to `greatest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    ports: PortRange,
    least: u16,
    greatest: u16,
}

/// How `ports` of the host become ports from `container` on. One piece, except where the range is longer than
/// its first port is high and moves down.
fn shift(ports: PortRange, container: u16) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut first, last) = (u32::from(ports.first()), u32::from(ports.last()));
    let mut to = u32::from(container);
    while first <= last {
        let (until, least, greatest) = if ports.is_one() {
            (last, to, to)
        } else if to >= first {
            (last, to - first, u32::from(u16::MAX))
        } else {
            // Every port of the piece must be at least once and less than twice the count.
            let until = last.min(2 * first - 1);
            let count = (first - to).max((until + 2) / 2);
            let least = to + count - first;
            (until, least, least + count - 1)
        };
        let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        if let Ok(ports) = PortRange::new(port(first), port(until)) {
            pieces.push(Piece {
                ports,
                least: port(least),
                greatest: port(greatest),
            });
        }
        to += until + 1 - first;
        first = until + 1;
    }
    pieces
}

#[cfg(test)]
mod tests;
