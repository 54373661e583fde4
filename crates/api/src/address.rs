//! Where the daemon is found.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::tls::TlsFiles;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tombolo/tombolo.sock";

/// Where the daemon is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Host name or IP address, the latter without brackets.
        host: String,
        /// Port number.
        port: u16,
        /// Files for mutual TLS; only a loopback address does without.
        tls: Option<TlsFiles>,
    },
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address: write unix:///path, tcp://host:port or an absolute path")]
pub struct AddressError {
    /// The text.
    pub text: String,
}

impl Address {
    /// The same address with mutual TLS. A Unix socket stays as it is.
    #[must_use]
    pub fn with_tls(self, files: TlsFiles) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(path),
            Self::Tcp { host, port, .. } => Self::Tcp {
                host,
                port,
                tls: Some(files),
            },
        }
    }

    /// Whether it would carry calls in the clear over a network.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Tcp { tls: Some(_), .. } => false,
            Self::Tcp {
                host, tls: None, ..
            } => !host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback()),
        }
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::Unix(PathBuf::from(DEFAULT_SOCKET))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || AddressError {
            text: text.to_owned(),
        };
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (host, port) = text
            .strip_prefix("tcp://")
            .and_then(|rest| rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':'))
            .ok_or_else(error)?;
        let port = port.parse().map_err(|_| error())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let usable = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '/', '@', '[', ']', '?', '#']),
        };
        if !usable {
            return Err(error());
        }
        Ok(Self::Tcp {
            host: bracketed.unwrap_or(host).to_owned(),
            port,
            tls: None,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
            tls: None,
        }
    }

    #[test]
    fn reads_and_writes_addresses() {
        for (text, address, written) in [
            (
                "/run/a.sock",
                Address::Unix("/run/a.sock".into()),
                "unix:///run/a.sock",
            ),
            (
                "unix:///run/a.sock",
                Address::Unix("/run/a.sock".into()),
                "unix:///run/a.sock",
            ),
            (
                "tcp://127.0.0.1:80",
                tcp("127.0.0.1", 80),
                "tcp://127.0.0.1:80",
            ),
            ("tcp://[::1]:80/", tcp("::1", 80), "tcp://[::1]:80"),
            (
                "tcp://host.example:65535",
                tcp("host.example", 65535),
                "tcp://host.example:65535",
            ),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), written);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            "run/a.sock",
            "unix://a.sock",
            "tcp://",
            "tcp://host",
            "tcp://:80",
            "tcp://host:65536",
            "tcp://::1:80",
            "tcp://[host]:80",
            "tcp://user@host:80",
            "http://host:80",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_loopback_does_without_tls() {
        let files = TlsFiles {
            authority: "ca.pem".into(),
            certificate: "cert.pem".into(),
            key: "key.pem".into(),
        };
        assert!(tcp("192.0.2.1", 80).is_exposed());
        assert!(tcp("localhost.example", 80).is_exposed());
        assert!(!tcp("127.0.0.1", 80).is_exposed());
        assert!(!tcp("::1", 80).is_exposed());
        assert!(!tcp("192.0.2.1", 80).with_tls(files).is_exposed());
        assert!(!Address::default().is_exposed());
    }
}
