//! The `resolv.conf` of a sandbox, and where each part of it came from.

use std::fmt;
use std::net::IpAddr;

use super::{Nameserver, NameserverReject, OptionReject, ResolvConf, ResolverOption, push_new};
use crate::limits;
use crate::name::{NameReject, SearchDomain};

/// What was asked for instead of the host's settings; each part replaces the host's part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    servers: Vec<Nameserver>,
    /// `None` leaves the host's domains; an empty list means none.
    searches: Option<Vec<SearchDomain>>,
    options: Vec<ResolverOption>,
}

/// Why overrides are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideReject {
    /// A name server is not an address.
    #[error("a name server asked for is not usable")]
    Server(#[source] NameserverReject),
    /// A search domain is malformed.
    #[error("a search domain asked for is not usable")]
    Search(#[source] NameReject),
    /// An option is malformed.
    #[error("a resolver option asked for is not usable")]
    Option(#[source] OptionReject),
    /// A list is longer than its limit.
    #[error("{count} {what} are more than the limit of {limit}: use fewer")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// What decides which of the host's servers a sandbox can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFacts {
    /// Whether the sandbox has IPv6.
    pub ipv6: bool,
    /// Whether it has a network of its own, so that the host's loopback is not there.
    pub own_netns: bool,
    /// Servers to use when the host has none that can be reached.
    pub fallback: Vec<IpAddr>,
}

/// Where a part of the file came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The host's file.
    Host,
    /// It was asked for this sandbox.
    Sandbox,
    /// It was asked for a network of this name.
    Network(String),
    /// The daemon's configuration.
    Daemon,
    /// The host has no server that the sandbox can reach.
    Fallback,
    /// The resolver for the names of its networks.
    Resolver,
}

/// What was asked for, by whom: the first who says something of a part decides about it.
pub type Layers<'a> = [(Origin, &'a Overrides)];

/// Why a server of the host is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It listens on the host's loopback.
    Loopback,
    /// It is reached through an interface that only the host has.
    LinkLocal,
    /// The sandbox has no IPv6.
    NoIpv6,
}

/// From which network a resolver reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// From the host's, as the host itself does.
    Host,
    /// From the sandbox's, as the user who named the server expects.
    Sandbox,
}

/// A server that the resolver forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The server.
    pub server: Nameserver,
    /// From which network it is reached.
    pub via: Via,
}

/// The `resolv.conf` of a sandbox with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxResolvConf {
    conf: ResolvConf,
    servers_from: Origin,
    searches_from: Origin,
    options_from: Origin,
    ndots_added: bool,
    dropped: Vec<(Nameserver, Dropped)>,
    upstreams: Vec<Upstream>,
}

impl Overrides {
    /// Overrides as a user writes them: an empty list leaves the host's part, and `.` among the
    /// search domains means none.
    ///
    /// # Errors
    /// The first word that is malformed, or a list that is too long.
    pub fn parse(
        servers: &[String],
        searches: &[String],
        options: &[String],
    ) -> Result<Self, OverrideReject> {
        within("name servers", servers.len(), limits::SERVERS_MAX)?;
        within("search domains", searches.len(), limits::SEARCH_MAX)?;
        within("resolver options", options.len(), limits::OPTIONS_MAX)?;
        let mut overrides = Self::default();
        for text in servers {
            let server = text.parse().map_err(OverrideReject::Server)?;
            push_new(&mut overrides.servers, server, limits::SERVERS_MAX);
        }
        for text in searches {
            let list = overrides.searches.get_or_insert_default();
            if text != "." {
                let domain = text.parse().map_err(OverrideReject::Search)?;
                push_new(list, domain, limits::SEARCH_MAX);
            }
        }
        for text in options {
            let option = text.parse().map_err(OverrideReject::Option)?;
            push_new(&mut overrides.options, option, limits::OPTIONS_MAX);
        }
        Ok(overrides)
    }
}

const fn within(what: &'static str, count: usize, limit: usize) -> Result<(), OverrideReject> {
    if count > limit {
        Err(OverrideReject::TooMany { what, count, limit })
    } else {
        Ok(())
    }
}

impl SandboxFacts {
    /// Why the sandbox cannot use a server of the host, if it cannot.
    fn obstacle(&self, server: &Nameserver) -> Option<Dropped> {
        let address = server.address();
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if self.own_netns && address.is_loopback() {
            Some(Dropped::Loopback)
        } else if self.own_netns && link_local {
            Some(Dropped::LinkLocal)
        } else if !self.ipv6 && address.is_ipv6() {
            Some(Dropped::NoIpv6)
        } else {
            None
        }
    }
}

impl ResolvConf {
    /// What a sandbox that asks the servers itself gets, this being the host's settings.
    ///
    /// Servers that a user asked for are never left out.
    #[must_use]
    pub fn for_sandbox(&self, layers: &Layers<'_>, facts: &SandboxFacts) -> SandboxResolvConf {
        let mut made = self.with_layers(layers);
        if made.servers_from != Origin::Host {
            return made;
        }
        let servers = std::mem::take(&mut made.conf.servers);
        for server in servers {
            match facts.obstacle(&server) {
                Some(why) => made.dropped.push((server, why)),
                None => made.conf.servers.push(server),
            }
        }
        if made.conf.servers.is_empty() {
            let usable = facts.fallback.iter().filter(|a| facts.ipv6 || a.is_ipv4());
            made.conf.servers = usable.copied().map(Nameserver::from).collect();
            made.servers_from = Origin::Fallback;
        }
        made
    }

    /// What a sandbox gets for which the resolver answers at `listen`; see [`SandboxResolvConf::upstreams`] for
    /// where that forwards to.
    ///
    /// Short names are names of its networks, so they are asked for as they are (`ndots:0`), not within the
    /// search domains first, unless the settings say otherwise.
    #[must_use]
    pub fn for_resolver(
        &self,
        layers: &Layers<'_>,
        listen: &[IpAddr],
        fallback: &[IpAddr],
    ) -> SandboxResolvConf {
        let mut made = self.with_layers(layers);
        let listen = listen.iter().copied().map(Nameserver::from).collect();
        let servers = std::mem::replace(&mut made.conf.servers, listen);
        let via = match made.servers_from {
            Origin::Sandbox | Origin::Network(_) => Via::Sandbox,
            _ => Via::Host,
        };
        made.servers_from = Origin::Resolver;
        made.upstreams = servers
            .into_iter()
            .map(|server| Upstream { server, via })
            .collect();
        if made.upstreams.is_empty() {
            let upstream = |address: &IpAddr| Upstream {
                server: (*address).into(),
                via: Via::Host,
            };
            made.upstreams = fallback.iter().map(upstream).collect();
        }
        let is_ndots = |option: &ResolverOption| option.name() == "ndots";
        if !made.conf.options.iter().any(is_ndots) {
            made.conf.options.push(ResolverOption("ndots:0".to_owned()));
            made.ndots_added = true;
        }
        made
    }

    fn with_layers(&self, layers: &Layers<'_>) -> SandboxResolvConf {
        let first = |says: fn(&Overrides) -> bool| {
            let mut saying = layers.iter().filter(|(_, asked)| says(asked));
            saying.next().map(|(from, asked)| (from.clone(), *asked))
        };
        let (servers_from, servers) = match first(|asked| !asked.servers.is_empty()) {
            Some((from, asked)) => (from, &asked.servers),
            None => (Origin::Host, &self.servers),
        };
        let searches = first(|asked| asked.searches.is_some());
        let (searches_from, searches) = match &searches {
            Some((from, asked)) => (from.clone(), asked.searches.clone().unwrap_or_default()),
            None => (Origin::Host, self.searches.clone()),
        };
        let (options_from, options) = match first(|asked| !asked.options.is_empty()) {
            Some((from, asked)) => (from, &asked.options),
            None => (Origin::Host, &self.options),
        };
        SandboxResolvConf {
            conf: Self {
                servers: servers.clone(),
                searches,
                options: options.clone(),
            },
            servers_from,
            searches_from,
            options_from,
            ndots_added: false,
            dropped: Vec::new(),
            upstreams: Vec::new(),
        }
    }
}

impl SandboxResolvConf {
    /// The settings themselves.
    #[must_use]
    pub const fn conf(&self) -> &ResolvConf {
        &self.conf
    }

    /// Where the servers came from.
    #[must_use]
    pub const fn servers_from(&self) -> &Origin {
        &self.servers_from
    }

    /// Servers of the host that the sandbox cannot use, and why.
    #[must_use]
    pub fn dropped(&self) -> &[(Nameserver, Dropped)] {
        &self.dropped
    }

    /// The servers that the resolver forwards to, in their order; none when the sandbox asks servers itself.
    #[must_use]
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// The file, with a comment for each part. Parsing it gives [`SandboxResolvConf::conf`].
    #[must_use]
    pub fn render(&self) -> String {
        let conf = &self.conf;
        let mut text = "# Made by tombolo. Once edited, this file is left alone.\n".to_owned();
        text += &format!("\n# Name servers: {}.\n", self.servers_from);
        for (server, why) in &self.dropped {
            text += &format!("# Left out: {server}, {why}.\n");
        }
        for Upstream { server, via } in &self.upstreams {
            text += &format!("# Forwards to: {server}, {via}.\n");
        }
        if conf.servers.is_empty() {
            text += "# There is none that this sandbox can reach.\n";
        }
        text += &conf.server_lines();
        text += &part("Search domains", &self.searches_from, &conf.search_line());
        text += &part("Options", &self.options_from, &conf.options_line());
        if self.ndots_added {
            text += "# ndots:0 is added: a name of one word is a name of these networks first.\n";
        }
        text
    }
}

/// A name without anything that could end a comment.
fn printable(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).collect()
}

fn part(what: &str, from: &Origin, line: &str) -> String {
    match (from, line) {
        (Origin::Host, "") => String::new(),
        (from, "") => format!("\n# {what}: none, {from}.\n"),
        _ => format!("\n# {what}: {from}.\n{line}"),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "from the host",
            Self::Sandbox => "asked for this sandbox",
            Self::Network(name) => return write!(f, "asked for network {}", printable(name)),
            Self::Daemon => "from the daemon's configuration",
            Self::Fallback => "fallback, as the host has none that can be reached from here",
            Self::Resolver => "the resolver for the names of its networks",
        })
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "on the host's loopback",
            Self::LinkLocal => "behind an interface of the host",
            Self::NoIpv6 => "there is no IPv6 here",
        })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "from the host's network",
            Self::Sandbox => "from this network",
        })
    }
}
