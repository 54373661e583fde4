//! Services as a query for an SRV record names them (RFC 2782).

use crate::names::Transport;

/// Names of common services and their ports, as assigned by IANA.
const SERVICES: &[(&str, u16)] = &[
    ("amqp", 5672),
    ("amqps", 5671),
    ("coap", 5683),
    ("domain", 53),
    ("ftp", 21),
    ("git", 9418),
    ("http", 80),
    ("https", 443),
    ("imap", 143),
    ("imaps", 993),
    ("ipp", 631),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("memcache", 11211),
    ("mqtt", 1883),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nfs", 2049),
    ("ntp", 123),
    ("pop3", 110),
    ("postgresql", 5432),
    ("redis", 6379),
    ("rtsp", 554),
    ("secure-mqtt", 8883),
    ("sip", 5060),
    ("sips", 5061),
    ("smtp", 25),
    ("snmp", 161),
    ("ssh", 22),
    ("submission", 587),
    ("syslog", 514),
    ("telnet", 23),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
];

/// The port that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) protocol: Transport,
    pub(super) port: u16,
}

impl Wanted {
    /// Reads `_SERVICE` or `_PORT`, and `_PROTOCOL`, both in lower case.
    pub(super) fn parse(service: &str, protocol: &str) -> Option<Self> {
        let service = service.strip_prefix('_')?;
        let port = if service.starts_with(|c: char| c.is_ascii_digit() && c != '0') {
            service.parse().ok()?
        } else {
            let at = SERVICES.binary_search_by_key(&service, |&(name, _)| name);
            SERVICES.get(at.ok()?)?.1
        };
        let protocol = transport(protocol)?;
        Some(Self { protocol, port })
    }
}

/// Reads `_tcp`, `_udp` or `_sctp`.
pub(super) fn transport(label: &str) -> Option<Transport> {
    match label {
        "_tcp" => Some(Transport::Tcp),
        "_udp" => Some(Transport::Udp),
        "_sctp" => Some(Transport::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_by_name_and_by_port() {
        let port = |service| Wanted::parse(service, "_tcp").map(|wanted| wanted.port);
        for (service, expected) in [
            ("_http", Some(80)),
            ("_postgresql", Some(5432)),
            ("_8080", Some(8080)),
            ("_65535", Some(65_535)),
            ("_65536", None),
            ("_080", None),
            ("_0", None),
            ("_+80", None),
            ("_80x", None),
            ("_", None),
            ("http", None),
            ("_unheard-of", None),
        ] {
            assert_eq!(port(service), expected, "{service}");
        }
        for (label, expected) in [
            ("_tcp", Some(Transport::Tcp)),
            ("_udp", Some(Transport::Udp)),
            ("_sctp", Some(Transport::Sctp)),
            ("tcp", None),
            ("_tls", None),
        ] {
            assert_eq!(transport(label), expected);
            assert_eq!(Wanted::parse("_1", label).map(|w| w.protocol), expected);
        }
        assert!(SERVICES.is_sorted());
    }
}
