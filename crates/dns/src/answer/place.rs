//! Where the name of a query belongs.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::reverse::{self, Reverse};
use super::service::{self, Wanted};
use crate::limits;
use crate::names::{Held, Names, Table, ZoneId};
use crate::view::{Settings, View};

/// What `localhost` stands for (RFC 6761, section 6.3).
const LOCALHOST: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
/// The name of the host below our domain.
const HOST: &str = "host";

/// Top-level domains of the world that are likely as names of networks too.
///
/// Such a network does not hide the domain: `go.dev` is found on a network called `dev`. Names of
/// two letters are all kept for countries, so they need no list.
const PUBLIC: &[&str] = &[
    "app",
    "arpa",
    "blog",
    "build",
    "cloud",
    "codes",
    "com",
    "company",
    "dev",
    "digital",
    "edu",
    "email",
    "games",
    "gov",
    "group",
    "host",
    "info",
    "int",
    "link",
    "live",
    "local",
    "media",
    "mil",
    "net",
    "network",
    "online",
    "org",
    "page",
    "prod",
    "services",
    "shop",
    "site",
    "software",
    "solutions",
    "space",
    "store",
    "studio",
    "systems",
    "team",
    "tech",
    "tools",
    "video",
    "world",
    "xyz",
    "zone",
];

/// Who has a name.
pub(super) type Holders<'a> = Cow<'a, [Arc<Held>]>;

/// Where a name of ours belongs.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) what: What<'a>,
    /// Where in the name's text the part begins that we speak for.
    pub(super) apex: usize,
}

/// What a name of ours stands for.
#[derive(Debug)]
pub(super) enum What<'a> {
    /// Sandboxes have the name.
    Holders(Holders<'a>),
    /// A service of sandboxes; `None` if no port is known for it.
    Service(Option<Wanted>, Holders<'a>),
    /// Addresses that are no sandbox's.
    Fixed(Cow<'a, [IpAddr]>),
    /// An address that sandboxes have.
    Address(&'a [Arc<Held>]),
    /// A loopback address.
    Loopback,
    /// Nothing, but other names end in it.
    Empty,
    /// There is no such name.
    Missing,
}

/// Whose names are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) names: &'a Names,
    pub(super) view: &'a View,
    pub(super) settings: &'a Settings,
}

impl<'a> What<'a> {
    pub(super) const fn at(self, apex: usize) -> Place<'a> {
        Place { what: self, apex }
    }
}

impl<'a> Lookup<'a> {
    /// Where a name in lower case belongs; `None` if the world outside knows.
    pub(super) fn place(self, name: &str) -> Option<Place<'a>> {
        self.special(name)
            .or_else(|| {
                let (holders, apex) = self.holders(name)?;
                Some(What::Holders(holders).at(apex))
            })
            .or_else(|| self.service(name))
            .or_else(|| self.reverse(name))
            .or_else(|| self.nobody(name))
    }

    /// Names that are the same on every network.
    fn special(self, name: &str) -> Option<Place<'a>> {
        let within = |top: &str| name == top || before(name, top).is_some();
        if within("localhost") {
            let apex = name.len() - "localhost".len();
            Some(What::Fixed(LOCALHOST.into()).at(apex))
        } else if within("invalid") {
            Some(What::Missing.at(name.len() - "invalid".len()))
        } else if self.bare(name) == Some(HOST) {
            let usable = |a: &&IpAddr| self.view.ipv6 || a.is_ipv4();
            let addresses = self.view.host.iter().filter(usable).copied().collect();
            Some(What::Fixed(addresses).at(HOST.len() + 1))
        } else {
            None
        }
    }

    /// Who has a name: those linked to under it, else those on the first network that knows it.
    fn holders(self, name: &str) -> Option<(Holders<'a>, usize)> {
        let bare = self.bare(name);
        // What we speak for is our domain, the network's name, or without both the name itself.
        let domain = bare.map(|bare| bare.len() + 1);
        let forms = [(Some(name), 0), (bare, domain.unwrap_or(0))];
        let forms = || forms.iter().filter_map(|&(form, apex)| Some((form?, apex)));
        for (form, apex) in forms() {
            if let Some(holders) = self.linked(form) {
                return Some((holders, apex));
            }
        }
        for table in self.tables() {
            for (form, apex) in forms() {
                let holders = table.named(form);
                if !holders.is_empty() {
                    return Some((holders.into(), apex));
                }
                let short = before(form, table.name()).unwrap_or_default();
                let holders = table.named(short);
                if !holders.is_empty() {
                    return Some((holders.into(), domain.unwrap_or(short.len() + 1)));
                }
            }
        }
        None
    }

    /// Who is linked to under a name. An alias is known even while the other is not there.
    fn linked(self, alias: &str) -> Option<Holders<'a>> {
        let links = self.view.links.iter().take(limits::VIEW_LINKS_MAX);
        let mut owners = links
            .filter(|(name, _)| name.as_str().eq_ignore_ascii_case(alias))
            .peekable();
        owners.peek()?;
        let shared = |held: &&Arc<Held>| self.zones().any(|zone| zone == held.zone);
        Some(
            owners
                .flat_map(|&(_, owner)| self.names.held_by(owner).iter().filter(shared).cloned())
                .collect(),
        )
    }

    /// `_SERVICE._PROTOCOL.NAME` and `_PROTOCOL.NAME` for a known name.
    ///
    /// They exist even if nothing is served under them: a name that does not exist says the same of
    /// all names that end in it (RFC 8020), and the other services do exist.
    fn service(self, name: &str) -> Option<Place<'a>> {
        if !name.starts_with('_') {
            return None;
        }
        let (first, rest) = name.split_once('.')?;
        let (inner, known) = if service::transport(first).is_some() && !rest.starts_with('_') {
            (0, rest)
        } else {
            let (protocol, known) = rest.split_once('.')?;
            service::transport(protocol)?;
            (protocol.len() + 1, known)
        };
        let (holders, apex) = self.holders(known)?;
        let apex = apex + first.len() + 1 + inner;
        if inner == 0 {
            return Some(What::Empty.at(apex));
        }
        let wanted = Wanted::parse(first, rest.get(..inner - 1)?);
        Some(What::Service(wanted, holders).at(apex))
    }

    /// The names of addresses.
    fn reverse(self, name: &str) -> Option<Place<'a>> {
        let Reverse { address, apex } = reverse::parse(name)?;
        let registered = self.tables().map(|table| table.at(address));
        if let Some(holders) = registered.into_iter().find(|h| !h.is_empty()) {
            return Some(What::Address(holders).at(apex));
        }
        if address.is_loopback() {
            Some(What::Loopback.at(apex))
        } else if reverse::is_nameless(address) || self.tables().any(|t| t.covers(address)) {
            Some(What::Missing.at(apex))
        } else {
            None
        }
    }

    /// Names that nobody has, but that are not the world's either.
    ///
    /// A network speaks for `X.NETWORK` as long as `X` and its own name are single labels and it is
    /// not called like a domain of the world: whoever calls a network `example.com` or `dev` still
    /// wants the rest of those domains, and names that leave the host are the lesser evil.
    fn nobody(self, name: &str) -> Option<Place<'a>> {
        let domain = self.settings.domain.as_str();
        if name.eq_ignore_ascii_case(domain) {
            return Some(What::Empty.at(0));
        }
        if let Some(bare) = self.bare(name) {
            let apex = bare.len() + 1;
            let network = self.tables().any(|table| table.name() == bare);
            let what = if network { What::Empty } else { What::Missing };
            return Some(what.at(apex));
        }
        for table in self.tables().filter(|table| is_private(table.name())) {
            if table.name() == name {
                return Some(What::Empty.at(0));
            }
            if let Some(short) = before(name, table.name()).filter(|short| !short.contains('.')) {
                let apex = short.len() + 1;
                return Some(What::Missing.at(apex));
            }
        }
        None
    }

    /// What stands before our domain.
    fn bare(self, name: &str) -> Option<&str> {
        before(name, self.settings.domain.as_str())
    }

    fn zones(self) -> impl Iterator<Item = ZoneId> + 'a {
        let zones = self.view.zones.iter();
        zones.take(limits::VIEW_ZONES_MAX).copied()
    }

    fn tables(self) -> impl Iterator<Item = &'a Table> {
        self.zones().filter_map(|zone| self.names.table(zone))
    }
}

/// What stands before a domain and its dot.
fn before<'n>(name: &'n str, domain: &str) -> Option<&'n str> {
    let at = name.len().checked_sub(domain.len() + 1)?;
    let (short, rest) = name.split_at_checked(at)?;
    let rest = rest.strip_prefix('.')?;
    (rest.eq_ignore_ascii_case(domain) && !short.is_empty()).then_some(short)
}

/// Whether the name of a network is surely none of the world's.
fn is_private(network: &str) -> bool {
    network.len() != 2 && !network.contains('.') && PUBLIC.binary_search(&network).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_domains_can_be_searched() {
        assert!(PUBLIC.is_sorted());
    }
}
