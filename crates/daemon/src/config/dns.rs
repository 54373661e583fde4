//! The settings for names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};
use tombolo_dns::name::HostName;
use tombolo_dns::resolv_conf::Overrides;

use super::ConfigError;
use crate::engine::with_sources;
use crate::limits::{DNS_CACHE_BYTES_MAX, DNS_LISTEN_MAX, DNS_TTL_SECONDS_MAX};

/// The port of resolvers (RFC 1035, section 4.2).
const PORT: u16 = 53;

/// Flags for names.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DnsFlags {
    /// Resolver of sandboxes and networks that do not say (repeatable).
    #[arg(long = "dns", value_name = "ADDRESS")]
    pub servers: Vec<IpAddr>,
    /// Domain that they try after a short name; `.` for none (repeatable).
    #[arg(long = "dns-search", value_name = "DOMAIN")]
    pub searches: Vec<String>,
    /// Option of resolv.conf(5) that they get (repeatable).
    #[arg(long = "dns-option", alias = "dns-opt", value_name = "OPTION")]
    pub options: Vec<String>,
    /// Domain of the sandboxes' full names.
    #[arg(long = "dns-domain", value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Seconds for which answers about sandboxes may be kept.
    #[arg(long = "dns-ttl-seconds", alias = "dns-ttl", value_name = "SECONDS")]
    pub ttl_seconds: Option<u32>,
    /// Ask other resolvers for names of one label, too.
    #[arg(long = "dns-forward-single-labels", value_name = "BOOL")]
    pub forward_single_labels: Option<bool>,
    /// Memory for the answers of other resolvers, in bytes; 0 keeps none.
    #[arg(long = "dns-cache-bytes", value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// Address at which this host, too, may ask for the names of sandboxes (repeatable).
    #[arg(long = "dns-listen", value_name = "ADDRESS[:PORT]")]
    pub listen: Vec<ListenAddress>,
}

/// How names are resolved in sandboxes that do not say, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Dns {
    /// Addresses of resolvers.
    pub servers: Vec<IpAddr>,
    /// Search list.
    pub searches: Vec<String>,
    /// Options as in resolv.conf(5).
    pub options: Vec<String>,
    /// Domain of the sandboxes' full names.
    pub domain: Option<String>,
    /// Seconds for which answers about sandboxes may be kept.
    pub ttl_seconds: u32,
    /// Whether other resolvers are asked for names of one label, too.
    pub forward_single_labels: bool,
    /// Memory for the answers of other resolvers, in bytes.
    pub cache_bytes: u64,
    /// Where this host, too, may ask for the names of sandboxes.
    pub listen: Vec<ListenAddress>,
}

/// An address of this host with a port, 53 unless another is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let address = bare.unwrap_or(text).parse::<IpAddr>();
        let socket = address.map(|ip| SocketAddr::new(ip, PORT));
        let socket: SocketAddr = socket.or_else(|_| text.parse()).map_err(|_| {
            format!("{text:?} is no address: write it as 127.0.0.1, 127.0.0.1:5353 or [::1]:5353")
        })?;
        if socket.ip().is_unspecified() || socket.ip().is_multicast() {
            return Err(format!(
                "{text} is no single address: name one of this host"
            ));
        }
        if socket.port() == 0 {
            return Err(format!("{text} has no port: write one, or leave it out"));
        }
        Ok(Self(socket))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            searches: Vec::new(),
            options: Vec::new(),
            domain: None,
            ttl_seconds: 5,
            forward_single_labels: false,
            cache_bytes: 4 << 20,
            listen: Vec::new(),
        }
    }
}

impl Dns {
    pub(super) fn override_with(&mut self, flags: &DnsFlags) {
        fn list<T: Clone>(setting: &mut Vec<T>, flag: &[T]) {
            if !flag.is_empty() {
                *setting = flag.to_vec();
            }
        }
        list(&mut self.servers, &flags.servers);
        list(&mut self.searches, &flags.searches);
        list(&mut self.options, &flags.options);
        list(&mut self.listen, &flags.listen);
        if flags.domain.is_some() {
            self.domain.clone_from(&flags.domain);
        }
        self.ttl_seconds = flags.ttl_seconds.unwrap_or(self.ttl_seconds);
        let single = flags.forward_single_labels;
        self.forward_single_labels = single.unwrap_or(self.forward_single_labels);
        self.cache_bytes = flags.cache_bytes.unwrap_or(self.cache_bytes);
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let value = |setting, reason: String| Err(ConfigError::Value { setting, reason });
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        let lists: [(_, [&[String]; 3]); 3] = [
            ("dns.servers", [&servers, &[], &[]]),
            ("dns.searches", [&[], &self.searches, &[]]),
            ("dns.options", [&[], &[], &self.options]),
        ];
        for (setting, [servers, searches, options]) in lists {
            if let Err(reject) = Overrides::parse(servers, searches, options) {
                return value(setting, with_sources(&reject));
            }
        }
        let domain = self
            .domain
            .as_ref()
            .map(|domain| domain.parse::<HostName>());
        if let Some(Err(reject)) = domain {
            return value("dns.domain", reject.to_string());
        }
        if self.ttl_seconds > DNS_TTL_SECONDS_MAX {
            return value("dns.ttl-seconds", format!("at most {DNS_TTL_SECONDS_MAX}"));
        }
        if self.cache_bytes > DNS_CACHE_BYTES_MAX {
            return value("dns.cache-bytes", format!("at most {DNS_CACHE_BYTES_MAX}"));
        }
        if self.listen.len() > DNS_LISTEN_MAX {
            return value("dns.listen", format!("at most {DNS_LISTEN_MAX} addresses"));
        }
        let mut sorted = self.listen.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return value("dns.listen", format!("{} is given twice", twice[0]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Dns)) -> Result<(), String> {
        let mut dns = Dns::default();
        change(&mut dns);
        dns.check().map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_to_listen_at_has_the_port_of_resolvers_unless_it_says() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("127.0.0.2:5353", "127.0.0.2:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), expected);
            assert_eq!(expected.parse(), Ok(address));
        }
        for text in [
            "",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:0",
            "0.0.0.0",
            "[::]:53",
            "[127.0.0.1",
            "224.0.0.1",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn values_have_limits() {
        let address = |n: usize| format!("127.0.1.{n}").parse().unwrap();
        check(|dns| dns.ttl_seconds = DNS_TTL_SECONDS_MAX).unwrap();
        check(|dns| dns.cache_bytes = DNS_CACHE_BYTES_MAX).unwrap();
        check(|dns| dns.listen = (0..DNS_LISTEN_MAX).map(address).collect()).unwrap();
        check(|dns| (dns.ttl_seconds, dns.cache_bytes) = (0, 0)).unwrap();
        for (refused, setting) in [
            (
                check(|dns| dns.ttl_seconds = DNS_TTL_SECONDS_MAX + 1),
                "dns.ttl-seconds",
            ),
            (
                check(|dns| dns.cache_bytes = DNS_CACHE_BYTES_MAX + 1),
                "dns.cache-bytes",
            ),
            (
                check(|dns| dns.listen = (0..=DNS_LISTEN_MAX).map(address).collect()),
                "dns.listen",
            ),
            (check(|dns| dns.listen = vec![address(1); 2]), "dns.listen"),
            (check(|dns| dns.domain = Some("a b".into())), "dns.domain"),
            (
                check(|dns| dns.searches = vec!["a b".into()]),
                "dns.searches",
            ),
            (check(|dns| dns.options = vec!["a b".into()]), "dns.options"),
        ] {
            let message = refused.unwrap_err();
            assert!(message.contains(setting), "{message}");
        }
    }
}
