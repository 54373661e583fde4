//! `resolv.conf`: what the host's says, and what a sandbox's should say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::limits;
use crate::name::{SearchDomain, shown};

mod sandbox;

pub use sandbox::{
    Dropped, Layers, Origin, OverrideReject, Overrides, SandboxFacts, SandboxResolvConf, Upstream,
    Via,
};

/// The address of a name server; a link-local one names the interface it is reached through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nameserver {
    address: IpAddr,
    zone: Option<String>,
}

/// One word of an `options` line, as `ndots:0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolverOption(String);

/// The meaning of a `resolv.conf`: what resolv.conf(5) knows and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers in the order they are asked.
    pub servers: Vec<Nameserver>,
    /// Domains to complete short names with.
    pub searches: Vec<SearchDomain>,
    /// Options for the resolver.
    pub options: Vec<ResolverOption>,
}

/// A program of the host that answers on a loopback address and knows the real servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stub {
    /// The stub listener of systemd-resolved.
    SystemdResolved,
    /// Some other server of the host, such as dnsmasq.
    Local,
}

/// Why the text of a name server is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("name server {text:?} is not an address: write one as 192.0.2.53 or fe80::53%eth0")]
pub struct NameserverReject {
    /// As written, cut to 64 characters.
    pub text: String,
}

/// Why the text of a resolver option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "resolver option {text:?} is not one printable word of at most {} characters: write it as ndots:1",
    limits::OPTION_BYTES_MAX
)]
pub struct OptionReject {
    /// As written, cut to 64 characters.
    pub text: String,
}

impl Nameserver {
    /// The address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The interface that a link-local address is reached through, if one is named.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }
}

impl From<IpAddr> for Nameserver {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            zone: None,
        }
    }
}

impl FromStr for Nameserver {
    type Err = NameserverReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reject = || NameserverReject { text: shown(text) };
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| reject())?;
        let is_zone = |zone: &str| {
            !zone.is_empty()
                && zone.len() <= limits::ZONE_BYTES_MAX
                && zone.bytes().all(|b| b.is_ascii_graphic() && b != b'%')
        };
        match zone {
            Some(zone) if address.is_ipv4() || !is_zone(zone) => Err(reject()),
            _ => Ok(Self {
                address,
                zone: zone.map(str::to_owned),
            }),
        }
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl ResolverOption {
    /// The option as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The option without its value.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl FromStr for ResolverOption {
    type Err = OptionReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = !text.is_empty()
            && text.len() <= limits::OPTION_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic())
            && !text.starts_with(['#', ';']);
        if is_word {
            Ok(Self(text.to_owned()))
        } else {
            Err(OptionReject { text: shown(text) })
        }
    }
}

impl fmt::Display for ResolverOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Stub {
    /// Where the program usually leaves a file with the real servers.
    #[must_use]
    pub const fn real_file(self) -> &'static str {
        match self {
            Self::SystemdResolved => "/run/systemd/resolve/resolv.conf",
            Self::Local => "/run/NetworkManager/no-stub-resolv.conf",
        }
    }
}

impl ResolvConf {
    /// What a file means. What is not understood, or beyond the limits, is ignored, as resolvers
    /// do; the last `search` or `domain` line wins.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in lines(content) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.add_server(words.next()),
                Some("search") => conf.set_searches(words),
                Some("domain") => conf.set_searches(words.take(1)),
                Some("options") => conf.add_options(words),
                _ => {}
            }
        }
        conf
    }

    /// The file without comments. Parsing it gives this again.
    #[must_use]
    pub fn render(&self) -> String {
        [self.server_lines(), self.search_line(), self.options_line()].concat()
    }

    /// The program of the host behind the only servers there are, if they are all on loopback.
    ///
    /// A sandbox with its own network cannot reach it: read [`Stub::real_file`] instead.
    #[must_use]
    pub fn stub(&self) -> Option<Stub> {
        let on_loopback = |s: &Nameserver| s.address.is_loopback();
        if self.servers.is_empty() || !self.servers.iter().all(on_loopback) {
            return None;
        }
        let resolved = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];
        let is_resolved = |s: &Nameserver| resolved.iter().any(|r| s.address == IpAddr::V4(*r));
        let any_resolved = self.servers.iter().any(is_resolved);
        Some(if any_resolved {
            Stub::SystemdResolved
        } else {
            Stub::Local
        })
    }

    /// Whether every server is on loopback: see [`ResolvConf::stub`].
    #[must_use]
    pub fn is_stub(&self) -> bool {
        self.stub().is_some()
    }

    fn server_lines(&self) -> String {
        self.servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect()
    }

    /// No line at all for no domain: `search .` makes musl fail on every short name.
    fn search_line(&self) -> String {
        line_of("search", self.searches.iter().map(SearchDomain::as_str))
    }

    fn options_line(&self) -> String {
        line_of("options", self.options.iter().map(ResolverOption::as_str))
    }

    fn add_server(&mut self, word: Option<&str>) {
        if let Some(server) = word.and_then(|word| word.parse().ok()) {
            push_new(&mut self.servers, server, limits::SERVERS_MAX);
        }
    }

    fn set_searches<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mut words = words
            .take_while(|word| !word.starts_with(['#', ';']))
            .peekable();
        if words.peek().is_none() {
            return;
        }
        self.searches.clear();
        for domain in words.filter_map(|word| word.parse().ok()) {
            push_new(&mut self.searches, domain, limits::SEARCH_MAX);
        }
    }

    fn add_options<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let words = words.take_while(|word| !word.starts_with(['#', ';']));
        for option in words.filter_map(|word| word.parse().ok()) {
            push_new(&mut self.options, option, limits::OPTIONS_MAX);
        }
    }
}

/// The readable lines of a file within the limits.
pub(crate) fn lines(content: &[u8]) -> impl Iterator<Item = &str> {
    let content = &content[..content.len().min(limits::FILE_BYTES_MAX)];
    content
        .split(|&byte| byte == b'\n')
        .filter(|line| line.len() <= limits::LINE_BYTES_MAX)
        .filter_map(|line| str::from_utf8(line).ok())
}

fn line_of<'a>(keyword: &str, words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() {
        String::new()
    } else {
        format!("{keyword} {}\n", words.join(" "))
    }
}

pub(crate) fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T, limit: usize) {
    if list.len() < limit && !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests;
