//! The words of `--publish`, `--expose` and `--link`.
//!
//! A publication is written `[[ADDRESS:][HOST]:]PORT[/PROTOCOL]`, `unix:PATH:PORT` or, key by key,
//! `target=80,published=8080`; `,from=..` and `,obey-host-firewall=..` may follow each of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use tombolo_api::{LinkSpec, Protocol, PublicationSpec};

use crate::limits;

/// Why a port, or what is published of it, cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// There is more of it than anybody writes.
    #[error("it has {0} bytes; at most {max} are read", max = limits::PUBLICATION_BYTES)]
    TooLong(usize),
    /// The sandbox's side is missing.
    #[error("it names no port of the container; write PORT, HOST:PORT or ADDRESS:HOST:PORT")]
    NoPort,
    /// A port is no number.
    #[error("`{0}` is not a port; write a number from 1 to 65535, or a range such as 8000-8010")]
    NotPort(String),
    /// A port has more than 16 bits.
    #[error("port {0} is out of range; ports are numbers from 1 to 65535")]
    OutOfRange(String),
    /// Nothing listens at port 0.
    #[error("nothing can listen at port 0 of a container; name one from 1 to 65535")]
    Zero,
    /// Port 0 asks for a free port, which a range cannot hold.
    #[error("range {0} holds port 0; to have free ports chosen, leave the host's side out")]
    ZeroInRange(String),
    /// A range ends before it begins.
    #[error("range {first}-{last} runs backwards; write {last}-{first}")]
    Backwards {
        /// What is given as its first port.
        first: u16,
        /// What is given as its last port.
        last: u16,
    },
    /// A range goes on after the last port.
    #[error("range {0} crosses 65535, which is the last port")]
    Crossing(String),
    /// The two sides cannot be paired.
    #[error(
        "host side {host} has {} and container side {container} has {}; make them equally long, \
         or leave the host's side out to have free ports chosen",
        host.counted(),
        container.counted()
    )]
    Unequal {
        /// The host's side.
        host: Ports,
        /// The sandbox's side.
        container: Ports,
    },
    /// A protocol without ports, or none at all.
    #[error("unknown protocol `{0}`; known are tcp, udp and sctp")]
    Protocol(String),
    /// An address that is none.
    #[error(
        "`{0}` is not an IP address; write one of the host's, such as 192.0.2.1 or [2001:db8::1]"
    )]
    Address(String),
    /// An address of one link only.
    #[error(
        "`{0}` has a zone, which a published address cannot have; use one that is not link-local"
    )]
    Zone(String),
    /// There are more colons than parts.
    #[error(
        "`{0}` has too many parts; write an IPv6 address in brackets, as in [2001:db8::1]:8080:80"
    )]
    TooManyParts(String),
    /// A bracket that is not closed, or something between it and the next colon.
    #[error(
        "`{0}` does not go on with a port after the brackets; write it as [2001:db8::1]:8080:80"
    )]
    Brackets(String),
    /// A socket that is not written as one.
    #[error(
        "`{0}` is not a Unix socket; write unix:PATH:PORT with an absolute path of at most {max} bytes",
        max = limits::SOCKET_PATH_BYTES
    )]
    Socket(String),
    /// A socket is one stream.
    #[error("a Unix socket leads to a single TCP port, not to {ports}/{protocol}")]
    SocketTarget {
        /// The ports.
        ports: Ports,
        /// The protocol.
        protocol: Protocol,
    },
    /// A socket with something that only a port of the host has.
    #[error(
        "`{0}` cannot be combined with a Unix socket; the mode and owner of its directory protect it"
    )]
    SocketAnd(&'static str),
    /// A source that is neither an address nor a prefix.
    #[error("`{0}` is not a source; write an address or a prefix, such as 10.10.10.0/24")]
    Source(String),
    /// A truth value that is none.
    #[error("`{value}` is no value for {key}; write true or false")]
    Bool {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
    },
    /// A part is not `KEY=VALUE`.
    #[error("`{0}` is not KEY=VALUE")]
    NotPair(String),
    /// A key that does not exist here.
    #[error("unknown key `{key}`; known are {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Those that exist.
        known: &'static str,
    },
    /// A key that may be given once is given twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A link that is not `NAME` or `NAME:ALIAS`.
    #[error("`{0}` is not a link; write NAME or NAME:ALIAS")]
    Link(String),
}

/// A port or a range of them, within 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Reads a port or a range as the daemon writes it; nothing for anything else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        ports(text).ok().flatten()
    }

    /// How far after the first port of `whole` these begin, if it holds them all.
    pub(crate) fn offset_in(self, whole: Self) -> Option<u16> {
        let is_part = whole.first <= self.first && self.last <= whole.last;
        is_part.then(|| self.first - whole.first)
    }

    /// As many of these as `like` has, after leaving out the first `offset`; nothing where they do not reach.
    pub(crate) fn part(self, offset: u16, like: Self) -> Option<Self> {
        let first = self.first.checked_add(offset)?;
        let last = first.checked_add(like.last - like.first)?;
        (last <= self.last).then_some(Self { first, last })
    }

    fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    fn is_one(self) -> bool {
        self.first == self.last
    }

    fn counted(self) -> String {
        match self.count() {
            1 => "1 port".to_owned(),
            count => format!("{count} ports"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Keys that may follow the short form.
const SHORT_KEYS: &str = "from, obey-host-firewall";
/// Keys of the long form.
const LONG_KEYS: &str = "target, published, protocol, host_ip, socket, from, obey-host-firewall";

/// What is read so far of a publication.
#[derive(Debug, Default)]
struct Draft {
    container: Option<String>,
    protocol: Option<String>,
    host: Option<String>,
    address: Option<String>,
    socket: Option<String>,
    from: Vec<String>,
    obey: Option<bool>,
}

/// Reads what `--publish` is given.
///
/// # Errors
/// [`PublishError`] for anything but a publication.
pub(crate) fn publication(text: &str) -> Result<PublicationSpec, PublishError> {
    check_length(text)?;
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let mut draft = Draft::default();
    let is_socket = first.starts_with("unix:");
    let (is_long, rest) = if first.contains('=') && !is_socket {
        (true, text.split(','))
    } else {
        draft.read_short(first)?;
        (false, parts)
    };
    for part in rest {
        let pair = part.split_once('=');
        let Some((key, value)) = pair.filter(|(_, value)| !value.is_empty()) else {
            return Err(PublishError::NotPair(part.to_owned()));
        };
        draft.set(key, value, is_long)?;
    }
    draft.finish()
}

/// Reads what `--expose` is given, a port or range with or without its protocol, and writes it with it.
///
/// # Errors
/// [`PublishError`] for anything but that.
pub(crate) fn exposed(text: &str) -> Result<String, PublishError> {
    check_length(text)?;
    let (ports, protocol) = side(text)?;
    Ok(format!("{ports}/{protocol}"))
}

/// Reads what `--link` is given, `NAME` or `NAME:ALIAS`.
///
/// # Errors
/// [`PublishError`] for anything but that.
pub(crate) fn link(text: &str) -> Result<LinkSpec, PublishError> {
    check_length(text)?;
    let (name, alias) = match text.split_once(':') {
        Some((name, alias)) => (name, Some(alias)),
        None => (text, None),
    };
    let is_word = |word: &str| !word.is_empty() && !word.contains([':', '/']);
    // Docker writes names with a slash in some of its answers, and reads them back.
    let name = name.strip_prefix('/').unwrap_or(name);
    if !is_word(name) || !alias.is_none_or(is_word) {
        return Err(PublishError::Link(text.to_owned()));
    }
    Ok(LinkSpec {
        sandbox: name.to_owned(),
        alias: alias.map(ToOwned::to_owned),
    })
}

impl Draft {
    /// Reads everything before the first comma of the short form.
    fn read_short(&mut self, text: &str) -> Result<(), PublishError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, container) = rest
                .rsplit_once(':')
                .ok_or_else(|| PublishError::Socket(text.to_owned()))?;
            self.socket = Some(path.to_owned());
            self.container = Some(container.to_owned());
            return Ok(());
        }
        let Some(rest) = text.strip_prefix('[') else {
            return self.read_parts(text);
        };
        let wrong = || PublishError::Brackets(text.to_owned());
        let (address, ports) = rest.split_once("]:").ok_or_else(wrong)?;
        let (host, container) = ports.split_once(':').ok_or_else(wrong)?;
        // Only IPv6 is written in brackets.
        if address.parse::<Ipv4Addr>().is_ok() {
            return Err(wrong());
        }
        if container.contains(':') {
            return Err(PublishError::TooManyParts(text.to_owned()));
        }
        self.address = Some(address.to_owned());
        self.host = Some(host.to_owned());
        self.container = Some(container.to_owned());
        Ok(())
    }

    /// Reads `PORT`, `HOST:PORT` or `ADDRESS:HOST:PORT`.
    fn read_parts(&mut self, text: &str) -> Result<(), PublishError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (address, host, container) = match parts.as_slice() {
            [container] => (None, None, container),
            [host, container] => (None, Some(host), container),
            [address, host, container] => (Some(address), Some(host), container),
            _ => return Err(PublishError::TooManyParts(text.to_owned())),
        };
        self.address = address.map(|text| (*text).to_owned());
        self.host = host.map(|text| (*text).to_owned());
        self.container = Some((*container).to_owned());
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, is_long: bool) -> Result<(), PublishError> {
        let known = if is_long { LONG_KEYS } else { SHORT_KEYS };
        let plain = key.trim().to_lowercase().replace('-', "_");
        let slot = match plain.as_str() {
            "from" => {
                self.from.push(source(value)?);
                return Ok(());
            }
            "obey_host_firewall" => {
                let key = "obey-host-firewall";
                let value = value.parse().map_err(|_| PublishError::Bool {
                    key,
                    value: value.to_owned(),
                })?;
                return match self.obey.replace(value) {
                    None => Ok(()),
                    Some(_) => Err(PublishError::Twice(key.to_owned())),
                };
            }
            "target" if is_long => &mut self.container,
            "published" if is_long => &mut self.host,
            "protocol" if is_long => &mut self.protocol,
            "host_ip" if is_long => &mut self.address,
            "socket" if is_long => &mut self.socket,
            _ => {
                return Err(PublishError::UnknownKey {
                    key: key.to_owned(),
                    known,
                });
            }
        };
        match slot.replace(value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(PublishError::Twice(key.to_owned())),
        }
    }

    fn finish(self) -> Result<PublicationSpec, PublishError> {
        let container = self.container.filter(|text| !text.is_empty());
        let container = container.ok_or(PublishError::NoPort)?;
        let (container, protocol) = match self.protocol {
            Some(word) => (container_ports(&container)?, protocol(&word)?),
            None => side(&container)?,
        };
        let mut spec = PublicationSpec {
            protocol,
            from: self.from,
            obey_host_firewall: self.obey,
            ..PublicationSpec::new(container.to_string())
        };
        if let Some(path) = self.socket {
            let others = [
                ("published", self.host.is_some()),
                ("host_ip", self.address.is_some()),
                ("from", !spec.from.is_empty()),
                ("obey-host-firewall", spec.obey_host_firewall.is_some()),
            ];
            if let Some((key, _)) = others.into_iter().find(|(_, given)| *given) {
                return Err(PublishError::SocketAnd(key));
            }
            spec.socket = Some(socket(path, container, protocol)?);
            return Ok(spec);
        }
        spec.address = self.address.as_deref().map(address).transpose()?;
        spec.host = match self.host {
            Some(text) => host_ports(&text, container)?,
            None => None,
        };
        Ok(spec)
    }
}

fn check_length(text: &str) -> Result<(), PublishError> {
    if text.len() > limits::PUBLICATION_BYTES {
        return Err(PublishError::TooLong(text.len()));
    }
    Ok(())
}

/// The sandbox's side: ports, and the protocol after a slash.
fn side(text: &str) -> Result<(Ports, Protocol), PublishError> {
    match text.split_once('/') {
        Some((ports, word)) => Ok((container_ports(ports)?, protocol(word)?)),
        None => Ok((container_ports(text)?, Protocol::default())),
    }
}

fn container_ports(text: &str) -> Result<Ports, PublishError> {
    match text {
        "" => Err(PublishError::NoPort),
        _ => ports(text)?.ok_or(PublishError::Zero),
    }
}

/// The host's side as it travels; nothing where a free port is to be chosen.
fn host_ports(text: &str, container: Ports) -> Result<Option<String>, PublishError> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some(host) = ports(text)? else {
        return Ok(None);
    };
    // A longer range for one port of the container means one free port of that range.
    if host.count() != container.count() && !container.is_one() {
        return Err(PublishError::Unequal { host, container });
    }
    Ok(Some(host.to_string()))
}

/// A port or a range; nothing for port 0 alone.
fn ports(text: &str) -> Result<Option<Ports>, PublishError> {
    let not_port = || PublishError::NotPort(text.to_owned());
    let Some((first, last)) = text.split_once('-') else {
        let port = number(text).ok_or_else(not_port)?;
        let port = u16::try_from(port).map_err(|_| PublishError::OutOfRange(text.to_owned()))?;
        return Ok((port > 0).then_some(Ports {
            first: port,
            last: port,
        }));
    };
    let (start, end) = number(first).zip(number(last)).ok_or_else(not_port)?;
    let first = u16::try_from(start).map_err(|_| PublishError::OutOfRange(first.to_owned()))?;
    let last = u16::try_from(end).map_err(|_| PublishError::Crossing(text.to_owned()))?;
    if first > last {
        return Err(PublishError::Backwards { first, last });
    }
    if first == 0 {
        return Err(PublishError::ZeroInRange(text.to_owned()));
    }
    Ok(Some(Ports { first, last }))
}

/// A decimal number; the largest there is for what is larger still.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn protocol(word: &str) -> Result<Protocol, PublishError> {
    let lower = word.to_ascii_lowercase();
    let known = Protocol::ALL;
    known
        .into_iter()
        .find(|protocol| protocol.as_str() == lower)
        .ok_or_else(|| PublishError::Protocol(word.to_owned()))
}

fn address(text: &str) -> Result<String, PublishError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Some((ip, _)) = bare.split_once('%')
        && ip.parse::<Ipv6Addr>().is_ok()
    {
        return Err(PublishError::Zone(text.to_owned()));
    }
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => Err(PublishError::Address(text.to_owned())),
    }
}

fn socket(path: String, ports: Ports, protocol: Protocol) -> Result<String, PublishError> {
    if !ports.is_one() || protocol != Protocol::Tcp {
        return Err(PublishError::SocketTarget { ports, protocol });
    }
    let sound = path.starts_with('/')
        && !path.ends_with('/')
        && path.len() <= limits::SOCKET_PATH_BYTES
        && !path.contains(char::is_control);
    if sound {
        Ok(path)
    } else {
        Err(PublishError::Socket(path))
    }
}

fn source(text: &str) -> Result<String, PublishError> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    match text.parse::<IpNet>() {
        // Given on as it was written: the daemon explains host bits.
        Ok(net) => Ok(net.to_string()),
        Err(_) => Err(PublishError::Source(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
