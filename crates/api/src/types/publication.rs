//! Publications: ports of the host that lead into sandboxes, and links between sandboxes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::Named;
use super::is_false;

/// A transport protocol that has ports.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The word on the wire, as in services(5).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Whether it is the one that is meant when none is named.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port or range of ports of a sandbox to publish on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicationSpec {
    /// The sandbox's side: a port such as `80`, or a range such as `80-90`, within 1 to 65535.
    pub container: String,
    /// The protocol; TCP unless said otherwise.
    #[serde(default, skip_serializing_if = "Protocol::is_default")]
    pub protocol: Protocol,
    /// The host's side: a port, a range of the same length, or, beside a single port of the sandbox, a
    /// range out of which one free port is chosen. A free one is chosen when left out, or when `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// An address of the host; all of both families when left out, those of one family when `0.0.0.0` or `::`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Addresses, or prefixes in CIDR form, that may use it; everybody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Absolute path of a Unix socket of the host that leads to the port, in place of `host` and `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Whether the host's own input policy decides who reaches it; as its network says when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obey_host_firewall: Option<bool>,
}

impl PublicationSpec {
    /// A publication of these ports of the sandbox by TCP with every choice left open.
    #[must_use]
    pub fn new(container: impl Into<String>) -> Self {
        Self {
            container: container.into(),
            ..Self::default()
        }
    }
}

/// Publishes ports of the sandbox of the path, all of them or none. The same host side and container side
/// again, with another `from`, changes who may use what is published already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicationsAdd {
    /// What to publish.
    pub publications: Vec<PublicationSpec>,
}

/// Withdraws publications of the sandbox of the path, all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicationsRemove {
    /// Which: every one of a container side such as `80/tcp`, or those of a host side too, such as
    /// `8080->80/tcp`, `8080:80/tcp`, `192.0.2.1:8080:80` or `unix:/run/web.sock:80`.
    pub publications: Vec<String>,
}

/// How packets get from the host to the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Path {
    /// The kernel translates the address; the sandbox sees the client's.
    Kernel,
    /// The daemon passes the data on; the sandbox sees an address of the host.
    Relay,
    /// Nothing is translated: clients use the sandbox's own address.
    Routed,
}

/// A publication as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Publication {
    /// The sandbox that it leads to.
    pub sandbox: Named,
    /// The sandbox's side, a port or a range.
    pub container: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The host's side as chosen, a port or a range; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Addresses of the host: `*` for all, `0.0.0.0` or `[::]` for those of one family, or one, with brackets
    /// around IPv6; empty for a Unix socket.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Prefixes that may use it; everybody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Path of the Unix socket that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Whether the host's own input policy decides who reaches it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub obey_host_firewall: bool,
    /// Whether it was made for an exposed port, by `publish_all`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub automatic: bool,
    /// Whether it leads anywhere now: not while the sandbox is stopped or on no network that takes it.
    pub active: bool,
    /// How IPv4 clients get there; absent when they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Path>,
    /// How IPv6 clients get there; absent when they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Path>,
    /// Where it leads now, each an address with a port or range, such as `172.18.0.2:80`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Name of the network by which it leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl Publication {
    /// Whether the words of a [`PublicationsRemove`] mean it: its side alone such as `80/udp`, TCP unless said
    /// otherwise, or with the host's side, as `8080:80`, `192.0.2.1:8080:80`, `[::1]::80`, `unix:/run/web.sock:80`
    /// or with `->` before its side. What follows a comma plays no part.
    #[must_use]
    pub fn is_meant_by(&self, words: &str) -> bool {
        let words = words.replace("->", ":");
        let words = match words.split_once(',') {
            Some((words, _)) if !words.starts_with("unix:") => words,
            _ => &words,
        };
        let (front, side) = words.rsplit_once(':').unwrap_or(("", words));
        let (ports, protocol) = side.split_once('/').unwrap_or((side, "tcp"));
        if ports != self.container || !protocol.eq_ignore_ascii_case(self.protocol.as_str()) {
            return false;
        }
        if let Some(path) = front.strip_prefix("unix:") {
            return self.socket.as_deref() == Some(path);
        }
        let (address, host) = match front.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, front),
        };
        let is_host = matches!(host, "" | "0") || self.host.as_deref() == Some(host);
        is_host && address.is_none_or(|address| self.is_at(address))
    }

    /// Whether an address, with or without brackets, is its own.
    fn is_at(&self, address: &str) -> bool {
        let parse = |text: &str| -> Option<IpAddr> {
            let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            bare.unwrap_or(text).parse().ok()
        };
        self.address == address || parse(address).is_some_and(|ip| parse(&self.address) == Some(ip))
    }
}

/// A sandbox whose exposed ports a new one is to reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Name, id or unambiguous start of an id of that sandbox.
    pub sandbox: String,
    /// What the new sandbox calls it; its name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// The sandbox that it leads to.
    pub sandbox: Named,
    /// What the sandbox that has the link calls it.
    pub alias: String,
    /// Addresses by which it is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Its exposed ports, such as `80/tcp` and `8000-8010/udp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Whether it leads anywhere now: not while either sandbox is stopped or they share no network.
    pub active: bool,
    /// The variables of Docker's links for a program that starts now, such as `DB_PORT_5432_TCP_ADDR`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_with_every_choice_left_open_is_its_port() {
        let spec = PublicationSpec::new("80");
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(json, r#"{"container":"80"}"#);
        assert_eq!(
            serde_json::from_str::<PublicationSpec>(&json).unwrap(),
            spec
        );
    }

    fn publication(address: &str, host: Option<&str>, container: &str) -> Publication {
        Publication {
            sandbox: Named {
                id: "1".to_owned(),
                name: "web".to_owned(),
            },
            container: container.to_owned(),
            protocol: Protocol::Tcp,
            host: host.map(ToOwned::to_owned),
            address: address.to_owned(),
            from: Vec::new(),
            socket: None,
            obey_host_firewall: false,
            automatic: false,
            active: true,
            ipv4: None,
            ipv6: None,
            targets: Vec::new(),
            network: None,
        }
    }

    #[test]
    fn a_publication_is_meant_by_either_of_its_sides() {
        let cases = [
            (
                publication("*", Some("8080"), "80"),
                &[
                    "80",
                    "80/tcp",
                    "80/TCP",
                    "8080:80",
                    "8080->80/tcp",
                    "*:8080->80/tcp",
                    ":80",
                    "0:80",
                    "8080:80,from=10.0.0.0/8",
                ][..],
                &[
                    "",
                    "81",
                    "80/udp",
                    "8081:80",
                    "8080",
                    "0.0.0.0:8080:80",
                    "unix:/a:80",
                ][..],
            ),
            (
                publication("[::1]", Some("8000-8001"), "80-81"),
                &[
                    "80-81",
                    "[::1]:8000-8001->80-81/tcp",
                    "[0:0::1]::80-81",
                    "8000-8001:80-81",
                ],
                &["80", "*:8000-8001:80-81", "[::2]::80-81", "8000:80-81"],
            ),
            (
                publication("192.0.2.1", Some("80"), "80"),
                &["192.0.2.1:80:80", "192.0.2.1::80"],
                &["192.0.2.2:80:80", "192.0.2.1:81:80"],
            ),
            (
                Publication {
                    socket: Some("/run/a,b.sock".to_owned()),
                    ..publication("", None, "80")
                },
                &["80", "unix:/run/a,b.sock:80", "unix:/run/a,b.sock->80/tcp"],
                &["8080:80", "unix:/run/a:80", "unix:/run/a,b.sock:81"],
            ),
        ];
        for (publication, meant, others) in cases {
            for words in meant {
                assert!(publication.is_meant_by(words), "{words}");
            }
            for words in others {
                assert!(!publication.is_meant_by(words), "{words}");
            }
        }
    }

    #[test]
    fn protocols_are_the_words_of_services() {
        for protocol in Protocol::ALL {
            let json = serde_json::to_string(&protocol).unwrap();
            assert_eq!(json, format!("\"{protocol}\""));
        }
        assert!(serde_json::from_str::<Protocol>("\"icmp\"").is_err());
    }
}
