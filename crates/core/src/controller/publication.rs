//! Published ports and links of sandboxes: checks, changes, and what others are told of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec};
use tombolo_netstate::{Key, Objects};

use super::change::Change;
use super::job::Done;
use super::{Controller, Draft, Halt};
use crate::command::{PublicationMatch, Reference};
use crate::driver::links;
use crate::driver::publish::{self, Path, Targets};
use crate::id::{Name, SandboxId};
use crate::limits::{
    EXPOSED_PER_SANDBOX_MAX, LINKS_PER_SANDBOX_MAX, PUBLICATIONS_PER_SANDBOX_MAX,
    RANGE_SOCKETS_MAX, SOURCES_PER_PUBLICATION_MAX,
};
use crate::model::{Driver, Link, Network, Publication, Sandbox, SandboxNetns, SandboxSpec};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

impl Controller {
    pub(super) fn publish(
        &mut self,
        reference: &Reference,
        publications: Vec<Publication>,
    ) -> Result<Draft, Halt> {
        let id = self.usable_sandbox(reference)?;
        let mut sandbox = self.state.find_sandbox(reference)?.clone();
        for new in publications {
            let mut all = sandbox.spec.publications.iter_mut();
            match all.find(|old| old.is_same_place(&new)) {
                Some(old) => {
                    self.must_not_be_published_by_engines(&sandbox.name, old)?;
                    old.from = new.from;
                    old.obey_host_firewall = new.obey_host_firewall;
                }
                None => sandbox.spec.publications.push(new),
            }
        }
        self.change_sandbox(sandbox, Done::Published(id))
    }

    pub(super) fn unpublish(
        &mut self,
        reference: &Reference,
        wanted: &[PublicationMatch],
    ) -> Result<Draft, Halt> {
        let id = self.usable_sandbox(reference)?;
        let mut sandbox = self.state.find_sandbox(reference)?.clone();
        for one in wanted {
            for engines in sandbox.spec.publications.iter().filter(|p| one.fits(p)) {
                self.must_not_be_published_by_engines(&sandbox.name, engines)?;
            }
            let before = sandbox.spec.publications.len();
            sandbox.spec.publications.retain(|p| !one.fits(p));
            if sandbox.spec.publications.len() == before {
                let message = format!("no publication of {} fits", sandbox.name);
                return Err(Reject::new(Code::UnknownPublication, &one.text, message)
                    .hint("`tombolo port` shows its publications")
                    .into());
            }
        }
        self.change_sandbox(sandbox, Done::Unpublished(id))
    }

    fn change_sandbox(&mut self, sandbox: Sandbox, done: Done) -> Result<Draft, Halt> {
        let id = sandbox.id;
        check_spec(&sandbox.name, &sandbox.spec)?;
        if sandbox.is_live() && publish::is_plugins(&self.joined(id)) {
            let message =
                "a plugin publishes its ports, and is told of them when the sandbox starts";
            return Err(
                Reject::new(Code::InvalidCombination, &sandbox.name, message)
                    .hint("stop the sandbox first, and start it thereafter")
                    .into(),
            );
        }
        let mut change = Change::default();
        self.state.set_sandbox(id, Some(sandbox), &mut change);
        match self.check_publications(id) {
            Ok(()) => Ok(Draft { change, done }),
            Err(reject) => {
                self.forget(change);
                Err(reject.into())
            }
        }
    }

    /// Gives automatic publications of a stopped sandbox the ports that were picked for its start.
    pub(super) fn take_ports(sandbox: &mut Sandbox, picked: &[(usize, PortRange)]) {
        for (place, ports) in picked {
            if let Some(publication) = sandbox.spec.publications.get_mut(*place)
                && publication.automatic
            {
                publication.ports = Some(*ports);
            }
        }
    }

    /// Refuses publications that lead nowhere, as the records stand.
    pub(super) fn check_publications(&self, id: SandboxId) -> Result<(), Reject> {
        let Some(sandbox) = self.state.sandbox(id) else {
            return Ok(());
        };
        if sandbox.spec.publications.is_empty() || !sandbox.is_live() {
            return Ok(());
        }
        let endpoints = self.joined(id);
        let targets = Targets::of(&endpoints);
        let nowhere = targets.get(false).is_none() && targets.get(true).is_none();
        let host = sandbox.spec.netns == SandboxNetns::Host;
        let unknown = endpoints.iter().any(|(network, endpoint)| {
            network.spec.driver == Driver::Remote && endpoint.attachment.is_none()
        });
        let elsewhere = unknown || publish::is_plugins(&endpoints);
        if host || nowhere && !endpoints.is_empty() && !elsewhere {
            let message = "it is in no network that the outside could reach it through";
            return Err(Reject::new(Code::NotPublishable, &sandbox.name, message)
                .hint("ports are published on bridge networks that are not internal: connect it to one"));
        }
        for publication in &sandbox.spec.publications {
            self.check_path(sandbox, publication, &targets)?;
        }
        Ok(())
    }

    fn check_path(
        &self,
        sandbox: &Sandbox,
        publication: &Publication,
        targets: &Targets<'_>,
    ) -> Result<(), Reject> {
        let context = self.context();
        if !publish::can_be_relayed(publication)
            && publish::obeys(publication, targets, context)
            && publish::FAMILIES
                .iter()
                .any(|ipv6| targets.relayed(*ipv6).is_some())
        {
            let (code, message) = if publication.count() > RANGE_SOCKETS_MAX {
                let count = publication.count();
                let message = format!(
                    "{count} ports are to obey the host's firewall; at most {RANGE_SOCKETS_MAX} of one range can"
                );
                (Code::LimitReached, message)
            } else {
                let message = "no SCTP port can obey the host's firewall".to_owned();
                (Code::InvalidCombination, message)
            };
            return Err(Reject::new(code, &sandbox.name, message).hint(
                "publish fewer, or say obey-host-firewall=false and name who may use them with from=",
            ));
        }
        let checked = publish::reservation(publication, targets, context)
            .filter(|(_, spec)| *spec == PortSpec::Checked);
        if let Some((key, _)) = checked
            && let HostAddress::One(ip) = key.address
            && !self.is_here(ip)
        {
            return Err(not_here(&key, ip));
        }
        Ok(())
    }

    fn is_here(&self, ip: IpAddr) -> bool {
        let links = self.facts.links.values();
        ip.is_loopback() || links.flat_map(|l| &l.addresses).any(|net| net.addr() == ip)
    }

    /// Refuses objects that hold ports which another subject holds.
    pub(super) fn ports_are_free(&self, subject: Subject, objects: &Objects) -> Result<(), Reject> {
        let owner = subject.owner();
        for key in objects.keys() {
            let Key::Port(wanted) = key else { continue };
            let Some((held, by)) = self.desired.port_holder(wanted, Some(&owner)) else {
                continue;
            };
            let holder = match by.0.strip_prefix("sandbox/") {
                Some(id) => self.sandbox_called(id),
                None => by.to_string(),
            };
            let message = format!("{held} is already published for {holder}");
            return Err(Reject::new(Code::PortTaken, wanted, message).hint(
                "choose another port or address of the host, or take that publication back",
            ));
        }
        Ok(())
    }

    fn sandbox_called(&self, id: &str) -> String {
        let found = SandboxId::try_from(id.to_owned()).ok();
        let sandbox = found.and_then(|id| self.state.sandbox(id));
        sandbox.map_or_else(|| id.to_owned(), |sandbox| sandbox.name.to_string())
    }

    /// Ranges that are too large to be held by sockets.
    pub(super) fn large_ranges(&self) -> Vec<PortRange> {
        let mut ranges = Vec::new();
        for sandbox in self.state.with_large_ranges() {
            let endpoints = self.joined(sandbox.id);
            let targets = Targets::of(&endpoints);
            let held = sandbox.spec.publications.iter();
            let held = held.filter_map(|p| publish::reservation(p, &targets, self.context()));
            let checked = held.filter(|(_, spec)| *spec == PortSpec::Checked);
            ranges.extend(checked.map(|(key, _)| key.ports));
        }
        ranges
    }

    /// Turns links' words into names, and refuses those that lead nowhere or back.
    pub(super) fn resolve_links(&self, spec: &mut SandboxSpec) -> Result<(), Reject> {
        for link in &mut spec.links {
            let reference = Reference(link.sandbox.to_string());
            if spec.name.as_ref() == Some(&link.sandbox) {
                return Err(link_loop(link, "a sandbox cannot be linked to itself"));
            }
            let other = self.state.find_sandbox(&reference)?;
            if !other.is_live() {
                return Err(Reject::new(
                    Code::NotRunning,
                    &other.name,
                    "it is to be linked and is not running",
                )
                .hint("start it first"));
            }
            if link.alias == link.sandbox.as_str() {
                link.alias = other.name.to_string();
            }
            link.sandbox = other.name.clone();
        }
        Ok(())
    }

    /// Refuses links of a sandbox that make a ring, or for which no network is shared.
    pub(super) fn check_links(&self, id: SandboxId) -> Result<(), Reject> {
        let Some(sandbox) = self.state.sandbox(id) else {
            return Ok(());
        };
        let own = self.joined(id);
        for link in &sandbox.spec.links {
            if self.leads_to(&link.sandbox, &sandbox.name) {
                let message = "its links lead back to the sandbox that is to be linked to it";
                return Err(link_loop(link, message));
            }
            let Some(other) = self.state.sandbox_named(&link.sandbox) else {
                continue;
            };
            let theirs = self.joined(other.id);
            let shared = own
                .iter()
                .find(|(network, _)| theirs.iter().any(|(other, _)| other.id == network.id));
            let Some((network, _)) = shared else {
                let message = format!("{} and {} share no network", sandbox.name, other.name);
                return Err(Reject::new(Code::UnknownLink, &other.name, message)
                    .hint("connect both to one network first"));
            };
            if network.spec.multicast && !network.spec.icc {
                let message = format!(
                    "network {} is a plain link layer without traffic between endpoints, which no link can open",
                    network.spec.name
                );
                return Err(
                    Reject::new(Code::InvalidCombination, &other.name, message).hint(
                        "use a network without multicast, or allow traffic between its endpoints",
                    ),
                );
            }
        }
        Ok(())
    }

    fn leads_to(&self, from: &Name, to: &Name) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![from.clone()];
        while let Some(name) = next.pop() {
            if name == *to {
                return true;
            }
            if seen.insert(name.clone())
                && let Some(sandbox) = self.state.sandbox_named(&name)
            {
                next.extend(sandbox.spec.links.iter().map(|link| link.sandbox.clone()));
            }
        }
        false
    }

    /// The elements of a sandbox's links.
    pub(super) fn link_objects(&self, sandbox: &Sandbox) -> Objects {
        let mut objects = Objects::new();
        let own = self.joined(sandbox.id);
        for link in &sandbox.spec.links {
            if let Some(other) = self.state.sandbox_named(&link.sandbox)
                && other.is_live()
            {
                let theirs = self.joined(other.id);
                objects.extend(links::objects(&own, &theirs, &links::exposed(other)));
            }
        }
        objects
    }

    /// Adds to a change what depends on the sandboxes that it concerns: those linked to them, and the list of
    /// ports that the kernel gives to nobody.
    pub(super) fn spread(&self, change: &mut Change) {
        let sandboxes: Vec<SandboxId> = change
            .dirty
            .iter()
            .filter_map(|subject| match subject {
                Subject::Sandbox(id) => Some(*id),
                _ => None,
            })
            .collect();
        for id in sandboxes {
            if self.state.has_large_ranges(id) || change.had_large_ranges(id) {
                change.touch(Subject::Host);
            }
            for linked in self.state.linked_to(id) {
                change.touch(Subject::Sandbox(linked));
            }
        }
    }
}

impl PublicationMatch {
    fn fits(&self, p: &Publication) -> bool {
        fn same<T: PartialEq>(wanted: &Option<T>, found: Option<&T>) -> bool {
            wanted.as_ref().is_none_or(|wanted| found == Some(wanted))
        }
        same(&self.protocol, Some(&p.protocol))
            && same(&self.address, p.address.as_ref())
            && same(&self.ports, p.ports.as_ref())
            && same(&self.container, Some(&p.container))
            && same(&self.socket, p.socket.as_ref())
    }
}

/// Refuses publications, exposed ports and links that can never be, whatever else exists.
pub(super) fn check_spec(
    object: &impl std::fmt::Display,
    spec: &SandboxSpec,
) -> Result<(), Reject> {
    let counts = [
        (
            "publications",
            spec.publications.len(),
            PUBLICATIONS_PER_SANDBOX_MAX,
        ),
        (
            "exposed ranges",
            spec.exposed.len(),
            EXPOSED_PER_SANDBOX_MAX,
        ),
        ("links", spec.links.len(), LINKS_PER_SANDBOX_MAX),
    ];
    for (what, found, most) in counts {
        if found > most {
            let message = format!("{found} {what} are given; a sandbox takes {most}");
            return Err(Reject::new(Code::LimitReached, object, message)
                .hint("use ranges, or several sandboxes"));
        }
    }
    for publication in &spec.publications {
        check_publication(object, publication)?;
    }
    let mut sorted: Vec<&Publication> = spec.publications.iter().collect();
    sorted.sort_by_key(|p| (p.protocol, p.ports));
    for (place, one) in sorted.iter().enumerate() {
        let (Some(ports), None) = (one.ports, &one.socket) else {
            continue;
        };
        let rest = sorted.get(place + 1..).unwrap_or_default().iter();
        let near = rest.take_while(|next| {
            next.protocol == one.protocol && next.ports.is_some_and(|p| p.first() <= ports.last())
        });
        for next in near {
            let at = |p: &Publication| p.address.unwrap_or(HostAddress::Any);
            if next.socket.is_none() && at(one).overlaps(at(next)) {
                let message = format!(
                    "port {} of the host is published twice in one request or sandbox",
                    next.ports.map_or_else(String::new, |p| p.to_string())
                );
                return Err(Reject::new(Code::PortTaken, object, message)
                    .hint("name each port of the host once"));
            }
        }
    }
    Ok(())
}

fn check_publication(object: &impl std::fmt::Display, p: &Publication) -> Result<(), Reject> {
    if p.from.len() > SOURCES_PER_PUBLICATION_MAX {
        let message = format!(
            "{} sources are given; a publication takes {SOURCES_PER_PUBLICATION_MAX}",
            p.from.len()
        );
        return Err(Reject::new(Code::LimitReached, object, message).hint("use larger subnets"));
    }
    if p.socket.is_some() {
        return Ok(());
    }
    let Some(ports) = p.ports else {
        return Err(Reject::new(
            Code::InvalidPort,
            object,
            format!(
                "no port of the host was chosen for {}/{}",
                p.container, p.protocol
            ),
        )
        .hint("name one"));
    };
    if ports.count() != p.container.count() {
        let message = format!(
            "{} ports of the host ({ports}) cannot stand for {} ports of the sandbox ({})",
            ports.count(),
            p.container.count(),
            p.container
        );
        return Err(
            Reject::new(Code::InvalidPort, object, message).hint("give ranges of the same length")
        );
    }
    let address = p.address.unwrap_or(HostAddress::Any);
    if let Some(wrong) = p.from.iter().find(|net| !address.has(net.addr().is_ipv6())) {
        let message = format!("nobody from {wrong} can reach {address}: it is of the other family");
        return Err(Reject::new(Code::InvalidAddress, object, message)
            .hint("name sources of the address's own family"));
    }
    Ok(())
}

/// The refusal of an address that the host does not have.
pub(super) fn not_here(key: &PortKey, ip: IpAddr) -> Reject {
    Reject::new(
        Code::AddressNotHere,
        key,
        format!("{ip} is not an address of this host"),
    )
    .hint("`ip address` shows its addresses; leave the address out to publish at all of them")
}

fn link_loop(link: &Link, message: &str) -> Reject {
    Reject::new(Code::LinkLoop, &link.sandbox, message).hint("leave one of the links out")
}

/// How a publication stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What was asked, with the ports that were chosen.
    pub publication: Publication,
    /// Where on the host.
    pub address: HostAddress,
    /// The ways it takes over IPv4 and IPv6.
    pub paths: [Path; 2],
    /// Where it leads over IPv4 and IPv6.
    pub targets: [Option<IpAddr>; 2],
    /// The network through which it leads.
    pub network: Option<Name>,
}

/// Something that the relay does for a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayTask {
    /// What was asked.
    pub publication: Publication,
    /// Where on the host.
    pub address: HostAddress,
    /// The host's ports; those of the sandbox for a Unix socket.
    pub ports: PortRange,
    /// Where IPv4 and IPv6 clients are led.
    pub targets: [Option<IpAddr>; 2],
    /// The reservation whose sockets it listens at, if it does.
    pub listen: Option<PortKey>,
}

/// A link as it stands.
#[derive(Debug, Clone)]
pub struct Linked<'a> {
    /// What was asked.
    pub link: &'a Link,
    /// The other sandbox, while it runs.
    pub sandbox: Option<&'a Sandbox>,
    /// Its addresses on networks that both are in.
    pub addresses: Vec<IpAddr>,
}

impl Controller {
    /// The publications of a sandbox, as they stand.
    pub fn published(&self, id: SandboxId) -> Vec<Published> {
        let Some(sandbox) = self.state.sandbox(id) else {
            return Vec::new();
        };
        let endpoints = self.joined(id);
        let targets = Targets::of(&endpoints);
        let publications = sandbox.spec.publications.iter();
        let view = publications.map(|publication| Published {
            publication: publication.clone(),
            address: publish::address(publication, &targets),
            paths: publish::FAMILIES.map(|ipv6| match sandbox.is_live() {
                true => publish::path(publication, &targets, ipv6, self.context()),
                false => Path::Closed,
            }),
            targets: publish::FAMILIES.map(|ipv6| match targets.get(ipv6) {
                Some(target) => Some(target.ip),
                None => targets.relayed(ipv6),
            }),
            network: targets
                .0
                .iter()
                .flatten()
                .next()
                .map(|target| target.network.spec.name.clone()),
        });
        view.collect()
    }

    /// Whether the host's own firewall decides about ports published through a network, where they do not say.
    pub fn obeys_host_firewall(&self, network: &Network) -> bool {
        let daemon = || publish::obeys_by_default(self.context());
        network.spec.obey_host_firewall.unwrap_or_else(daemon)
    }

    /// What the relay has to do for a sandbox.
    pub fn relay_tasks(&self, id: SandboxId) -> Vec<RelayTask> {
        let Some(sandbox) = self.state.sandbox(id).filter(|s| s.is_live()) else {
            return Vec::new();
        };
        let endpoints = self.joined(id);
        let targets = Targets::of(&endpoints);
        let context = self.context();
        let publications = sandbox.spec.publications.iter();
        let tasks = publications.filter_map(|publication| {
            let leads = publish::FAMILIES.map(|ipv6| targets.relayed(ipv6));
            let ports = match &publication.socket {
                Some(_) => publication.container,
                None => publication.ports?,
            };
            let reservation = publish::reservation(publication, &targets, context);
            let listen = reservation.filter(|(_, spec)| *spec == PortSpec::Relayed);
            let by_kernel = publish::path(publication, &targets, true, context);
            let needed = publication.socket.is_some()
                || listen.is_some()
                || matches!(by_kernel, Path::Kernel | Path::Redirect);
            needed.then(|| RelayTask {
                publication: publication.clone(),
                address: publish::address(publication, &targets),
                ports,
                targets: leads,
                listen: listen.map(|(key, _)| key),
            })
        });
        tasks.collect()
    }

    /// The links of a sandbox, as they stand.
    pub fn linked(&self, id: SandboxId) -> Vec<Linked<'_>> {
        let Some(sandbox) = self.state.sandbox(id) else {
            return Vec::new();
        };
        let own = self.joined(id);
        let view = sandbox.spec.links.iter().map(|link| {
            let other = self.state.sandbox_named(&link.sandbox);
            let other = other.filter(|other| other.is_live());
            let theirs = other.map_or_else(Vec::new, |other| self.joined(other.id));
            let shared = theirs
                .iter()
                .filter(|(network, _)| own.iter().any(|(o, _)| o.id == network.id));
            let addresses = shared.flat_map(|(_, e)| e.addresses.iter().map(|net| net.addr()));
            Linked {
                link,
                sandbox: other,
                addresses: addresses.collect(),
            }
        });
        view.collect()
    }

    /// The names of the sandboxes that are linked to a sandbox.
    pub fn linked_by(&self, id: SandboxId) -> Vec<Name> {
        let linkers = self.state.linked_to(id).into_iter();
        linkers
            .filter_map(|id| Some(self.state.sandbox(id)?.name.clone()))
            .collect()
    }
}
