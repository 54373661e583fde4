//! `hosts` and `hostname`: the names that need no resolver.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::limits;
use crate::name::{HostName, NameReject, shown};
use crate::resolv_conf::{lines, push_new};

/// Where lines of a hosts file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Loopback,
    Own,
    Extra,
    Link,
}

/// One line of a hosts file: an address and at least one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsEntry {
    address: IpAddr,
    names: Vec<HostName>,
}

/// A hosts file; the first line with a name wins in most resolvers, so the order counts.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    entries: Vec<HostsEntry>,
    /// At which entries lines of another source begin, in order.
    begins: Vec<(usize, Source)>,
}

/// What the hosts file of a sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsSpec<'a> {
    /// Whether the sandbox has IPv6; without, its IPv6 addresses are left out.
    pub ipv6: bool,
    /// The sandbox's own addresses.
    pub addresses: &'a [IpAddr],
    /// The sandbox's own names, the full one first: see [`own_names`].
    pub names: &'a [HostName],
    /// Names a user asked for.
    pub extra: &'a [ExtraHost],
    /// What `host-gateway` stands for.
    pub gateways: &'a [IpAddr],
    /// Other sandboxes that it is linked to: their addresses, and names with the alias first.
    pub links: &'a [(Vec<IpAddr>, Vec<HostName>)],
}

/// A name that a user asked for, written `name:address`, `name=address` or `name:host-gateway`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: HostName,
    /// What it stands for.
    pub target: Target,
}

/// What an extra name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This address.
    Address(IpAddr),
    /// Wherever the sandbox reaches its host.
    HostGateway,
}

/// Why an extra name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtraHostReject {
    /// There is no separator.
    #[error("extra host {text:?} is not understood: write name:address or name:host-gateway")]
    Syntax {
        /// As written, cut to 64 characters.
        text: String,
    },
    /// The name is malformed.
    #[error("extra host {text:?} has an unusable name")]
    Name {
        /// As written, cut to 64 characters.
        text: String,
        /// What is wrong with it.
        #[source]
        source: NameReject,
    },
    /// The target is neither an address nor `host-gateway`.
    #[error("extra host {text:?} has no address: write name:address or name:host-gateway")]
    Target {
        /// As written, cut to 64 characters.
        text: String,
    },
}

/// Why no hosts file can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostsReject {
    /// `host-gateway` is used where the host cannot be reached.
    #[error(
        "extra host {name} stands for the host's gateway, but this sandbox has none: give an address"
    )]
    NoGateway {
        /// The name asked for.
        name: HostName,
    },
    /// There would be more lines than the limit.
    #[error(
        "{count} lines in the hosts file are more than the limit of {}: use fewer extra hosts",
        limits::HOSTS_ENTRIES_MAX
    )]
    TooMany {
        /// How many lines there would be.
        count: usize,
    },
}

/// The name is longer than a host name may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host name {name} is longer than {} characters: choose a shorter one",
    limits::HOSTNAME_BYTES_MAX
)]
pub struct HostnameReject {
    /// The name asked for.
    pub name: HostName,
}

impl HostsEntry {
    /// The line for `address` with these names, each once; `None` without a name.
    #[must_use]
    pub fn new(address: IpAddr, names: impl IntoIterator<Item = HostName>) -> Option<Self> {
        let mut kept = Vec::new();
        for name in names {
            push_new(&mut kept, name, limits::HOSTS_NAMES_MAX);
        }
        (!kept.is_empty()).then_some(Self {
            address,
            names: kept,
        })
    }

    /// The address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The names, at least one.
    #[must_use]
    pub fn names(&self) -> &[HostName] {
        &self.names
    }
}

impl FromStr for ExtraHost {
    type Err = ExtraHostReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split = text.split_once(['=', ':']);
        let (name, target) = split.ok_or_else(|| ExtraHostReject::Syntax { text: shown(text) })?;
        let name = name.parse().map_err(|source| ExtraHostReject::Name {
            text: shown(text),
            source,
        })?;
        let bare = target.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let target = match (target, bare) {
            ("host-gateway", _) => Some(Target::HostGateway),
            (_, Some(v6)) => v6.parse().ok().map(|v6| Target::Address(IpAddr::V6(v6))),
            (plain, None) => plain.parse().ok().map(Target::Address),
        };
        let target = target.ok_or_else(|| ExtraHostReject::Target { text: shown(text) })?;
        Ok(Self { name, target })
    }
}

/// A sandbox's own names in the order of its hosts line: full name, host name, container name.
///
/// A host name with dots is the full name already, and its first label the host name. A domain
/// that makes the name too long is left out.
#[must_use]
pub fn own_names(
    host: &HostName,
    domain: Option<&HostName>,
    container: Option<&HostName>,
) -> Vec<HostName> {
    let mut names = Vec::new();
    let full = domain.and_then(|domain| host.within(domain).ok());
    let short = (domain.is_none() && host.is_qualified()).then(|| host.short());
    let candidates = [full.as_ref(), Some(host), short.as_ref(), container];
    for name in candidates.into_iter().flatten() {
        push_new(&mut names, name.clone(), limits::HOSTS_NAMES_MAX);
    }
    names
}

impl Hosts {
    /// The hosts file of a sandbox: loopback, its own addresses, extra names as given, then those
    /// of the sandboxes it is linked to.
    ///
    /// # Errors
    /// If `host-gateway` stands for nothing or there are too many lines.
    pub fn for_sandbox(spec: &HostsSpec<'_>) -> Result<Self, HostsReject> {
        let mut entries = localhost_entries(spec.ipv6);
        let mut begins = vec![(0, Source::Loopback), (entries.len(), Source::Own)];
        for &address in spec.addresses.iter().filter(|a| spec.ipv6 || a.is_ipv4()) {
            entries.extend(HostsEntry::new(address, spec.names.iter().cloned()));
        }
        begins.push((entries.len(), Source::Extra));
        for ExtraHost { name, target } in spec.extra {
            let addresses = match target {
                Target::Address(address) => std::slice::from_ref(address),
                Target::HostGateway => spec.gateways,
            };
            if addresses.is_empty() {
                return Err(HostsReject::NoGateway { name: name.clone() });
            }
            entries.extend(
                addresses
                    .iter()
                    .filter_map(|a| HostsEntry::new(*a, [name.clone()])),
            );
        }
        begins.push((entries.len(), Source::Link));
        for (addresses, names) in spec.links {
            let usable = addresses.iter().filter(|a| spec.ipv6 || a.is_ipv4());
            entries.extend(usable.filter_map(|a| HostsEntry::new(*a, names.iter().cloned())));
        }
        if entries.len() > limits::HOSTS_ENTRIES_MAX {
            return Err(HostsReject::TooMany {
                count: entries.len(),
            });
        }
        Ok(Self { entries, begins })
    }

    /// What a file means; what is not understood, or beyond the limits, is ignored.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let entry = |line: &str| {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            HostsEntry::new(address, words.filter_map(|word| word.parse().ok()))
        };
        let entries = lines(content)
            .filter_map(entry)
            .take(limits::HOSTS_ENTRIES_MAX);
        Self {
            entries: entries.collect(),
            begins: Vec::new(),
        }
    }

    /// The lines in their order.
    #[must_use]
    pub fn entries(&self) -> &[HostsEntry] {
        &self.entries
    }

    /// The file, with a comment where lines come from another source. Parsing it gives the same entries again.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = "# Made by tombolo. Once edited, this file is left alone.\n".to_owned();
        for (at, HostsEntry { address, names }) in self.entries.iter().enumerate() {
            // Writing to a string cannot fail. Sources without entries begin at the same one as the next.
            if let Some((_, source)) = self.begins.iter().rfind(|(begin, _)| *begin == at) {
                let _ = write!(text, "\n# {source}\n");
            }
            let _ = write!(text, "{address}\t");
            let names: Vec<_> = names.iter().map(HostName::as_str).collect();
            text += &names.join(" ");
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "Loopback.",
            Self::Own => "This sandbox.",
            Self::Extra => "Asked for this sandbox.",
            Self::Link => "Linked sandboxes.",
        })
    }
}

/// The hostname file of a sandbox.
///
/// # Errors
/// If the kernel would not take the name.
pub fn hostname_file(name: &HostName) -> Result<String, HostnameReject> {
    if name.as_str().len() > limits::HOSTNAME_BYTES_MAX {
        return Err(HostnameReject { name: name.clone() });
    }
    Ok(format!("{name}\n"))
}

fn localhost_entries(ipv6: bool) -> Vec<HostsEntry> {
    let v4 = (IpAddr::V4(Ipv4Addr::LOCALHOST), "localhost");
    let v6 = |a, z, names| (IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, z)), names);
    let lines = [
        v4,
        v6(0, 1, "localhost ip6-localhost ip6-loopback"),
        v6(0xfe00, 0, "ip6-localnet"),
        v6(0xff00, 0, "ip6-mcastprefix"),
        v6(0xff02, 1, "ip6-allnodes"),
        v6(0xff02, 2, "ip6-allrouters"),
    ];
    let wanted = lines
        .into_iter()
        .filter(|(address, _)| ipv6 || address.is_ipv4());
    let entry = |(address, names): (IpAddr, &str)| {
        HostsEntry::new(
            address,
            names.split(' ').filter_map(|name| name.parse().ok()),
        )
    };
    wanted.filter_map(entry).collect()
}

#[cfg(test)]
mod tests;
