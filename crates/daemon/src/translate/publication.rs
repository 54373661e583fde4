//! Published and exposed ports, and links: from the API's words to what sandboxes store.

use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_api::types::{LinkSpec, Protocol as WireProtocol, PublicationSpec, SandboxCreate};
use tombolo_core::model::{Exposed, Link, Publication};
use tombolo_core::{Code, Reject};
use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

use super::{name, shown};
use crate::limits::{SOCKET_PATH_BYTES_MAX, SPECS_MAX};

/// What a new sandbox publishes, its automatic publications without ports yet.
pub(super) fn publications(create: &SandboxCreate) -> Result<Vec<Publication>, Reject> {
    let mut all = publication_list(&create.publish)?;
    if create.publish_all {
        for exposed in exposed(&create.expose)? {
            let same = |p: &Publication| {
                p.protocol == exposed.protocol && p.container.overlaps(exposed.ports)
            };
            if !all.iter().any(same) {
                all.push(automatic(exposed));
            }
        }
    }
    Ok(all)
}

/// Publications as they were asked for.
pub(super) fn publication_list(specs: &[PublicationSpec]) -> Result<Vec<Publication>, Reject> {
    at_most("publications", specs.len())?;
    specs.iter().map(publication).collect()
}

fn at_most(what: &str, count: usize) -> Result<(), Reject> {
    if count <= SPECS_MAX {
        return Ok(());
    }
    let message = format!("{count} are given; a request takes {SPECS_MAX}");
    Err(Reject::new(Code::LimitReached, what, message).hint("use ranges"))
}

fn automatic(exposed: Exposed) -> Publication {
    Publication {
        protocol: exposed.protocol,
        address: None,
        ports: None,
        automatic: true,
        within: None,
        container: exposed.ports,
        from: Vec::new(),
        socket: None,
        obey_host_firewall: None,
        by_engine: false,
    }
}

fn publication(spec: &PublicationSpec) -> Result<Publication, Reject> {
    let container = range(&spec.container)?;
    let from = spec
        .from
        .iter()
        .map(|text| source(text))
        .collect::<Result<_, _>>()?;
    let mut publication = Publication {
        from,
        protocol: protocol(spec.protocol),
        obey_host_firewall: spec.obey_host_firewall,
        ..automatic(Exposed {
            protocol: protocol(spec.protocol),
            ports: container,
        })
    };
    if let Some(path) = &spec.socket {
        check_socket(path, spec, container)?;
        publication.socket = Some(path.into());
        publication.automatic = false;
        return Ok(publication);
    }
    publication.address = spec.address.as_deref().map(host_address).transpose()?;
    if let Some(text) = spec.host.as_deref().filter(|text| *text != "0") {
        let ports = range(text)?;
        if container.is_one() && !ports.is_one() {
            publication.within = Some(ports);
        } else {
            publication.ports = Some(ports);
            publication.automatic = false;
        }
    }
    Ok(publication)
}

fn check_socket(path: &str, spec: &PublicationSpec, container: PortRange) -> Result<(), Reject> {
    let refuse =
        |code, message: &str, hint: &str| Err(Reject::new(code, shown(path), message).hint(hint));
    if !path.starts_with('/') || path.len() > SOCKET_PATH_BYTES_MAX || path.contains('\0') {
        return refuse(
            Code::InvalidName,
            "this cannot be the path of a Unix socket",
            "give an absolute path of at most 107 bytes",
        );
    }
    if spec.protocol != WireProtocol::Tcp || !container.is_one() {
        return refuse(
            Code::InvalidCombination,
            "a Unix socket leads to a single TCP port",
            "name one port, without a protocol",
        );
    }
    if spec.host.is_some() || spec.address.is_some() || !spec.from.is_empty() {
        return refuse(
            Code::InvalidCombination,
            "a Unix socket has neither ports nor addresses, and no sources to let in",
            "leave them out; the permissions of its directory say who may use it",
        );
    }
    Ok(())
}

/// The ports that a sandbox says it serves.
pub(super) fn exposed(texts: &[String]) -> Result<Vec<Exposed>, Reject> {
    at_most("exposed ports", texts.len())?;
    let one = |text: &String| {
        let (ports, word) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = word.parse::<Protocol>().map_err(|_| {
            Reject::new(Code::InvalidPort, shown(text), "no protocol has this name")
                .hint("the protocols are tcp, udp and sctp")
        })?;
        let ports = range(ports)?;
        Ok(Exposed { protocol, ports })
    };
    texts.iter().map(one).collect()
}

/// The sandboxes that a new one is to reach.
pub(super) fn links(specs: &[LinkSpec]) -> Result<Vec<Link>, Reject> {
    at_most("links", specs.len())?;
    let one = |spec: &LinkSpec| {
        let sandbox = name(&spec.sandbox)?;
        let alias = match &spec.alias {
            Some(alias) => name(alias)?.to_string(),
            None => sandbox.to_string(),
        };
        Ok(Link { sandbox, alias })
    };
    specs.iter().map(one).collect()
}

/// A port or a range of ports.
fn range(text: &str) -> Result<PortRange, Reject> {
    let refuse = |message: String| {
        Reject::new(Code::InvalidPort, shown(text), message)
            .hint("write a port from 1 to 65535, or a range such as 8000-8010")
    };
    let port = |text: &str| match text.parse::<u64>() {
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => u16::try_from(number)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| refuse(format!("port {number} is not within 1 to 65535"))),
        _ => Err(refuse("this is not a port".to_owned())),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    PortRange::new(first, last).map_err(|error| refuse(error.to_string()))
}

fn host_address(text: &str) -> Result<HostAddress, Reject> {
    let refuse = |message: &str| {
        Reject::new(Code::InvalidAddress, shown(text), message)
            .hint("name an address of this host, or leave it out for all of them")
    };
    let address: HostAddress = text
        .parse()
        .map_err(|_| refuse("this is not an IP address"))?;
    match address {
        HostAddress::One(ip) if ip.is_multicast() => {
            Err(refuse("nobody listens at a group address"))
        }
        HostAddress::One(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
            Err(refuse("a link-local address is not unique on this host"))
        }
        address => Ok(address),
    }
}

/// The address of the host at which a network's ports are published.
pub(super) fn host_binding(text: &str) -> Result<HostAddress, Reject> {
    host_address(text)
}

fn source(text: &str) -> Result<IpNet, Reject> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| {
        Reject::new(
            Code::InvalidAddress,
            shown(text),
            "the source is no subnet and no address",
        )
        .hint("write it as 10.10.10.0/24, 10.10.10.10 or fd00::/64")
    })?;
    if net.trunc() != net {
        let message = format!("the source has host bits set: write {}", net.trunc());
        return Err(Reject::new(Code::HostBitsSet, net, message));
    }
    Ok(net)
}

pub(super) fn protocol(protocol: WireProtocol) -> Protocol {
    match protocol {
        WireProtocol::Tcp => Protocol::Tcp,
        WireProtocol::Udp => Protocol::Udp,
        WireProtocol::Sctp => Protocol::Sctp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(container: &str, host: Option<&str>) -> PublicationSpec {
        PublicationSpec {
            host: host.map(str::to_owned),
            ..PublicationSpec::new(container)
        }
    }

    fn refused(spec: &PublicationSpec) -> Code {
        publication(spec).unwrap_err().code
    }

    #[test]
    fn the_hosts_side_is_a_range_a_choice_or_left_open() {
        let fixed = publication(&spec("80-81", Some("8080-8081"))).unwrap();
        assert_eq!(fixed.ports.unwrap().to_string(), "8080-8081");
        assert!(!fixed.automatic);
        let one_of = publication(&spec("80", Some("8000-8010"))).unwrap();
        assert_eq!(one_of.within.unwrap().to_string(), "8000-8010");
        assert!(one_of.automatic && one_of.ports.is_none());
        for open in [None, Some("0")] {
            let any = publication(&spec("80", open)).unwrap();
            assert!(any.automatic && any.ports.is_none() && any.within.is_none());
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            "0",
            "65536",
            "99999999999999999999",
            "80-",
            "-80",
            "90-80",
            "80-65536",
            "+80",
            "http",
        ] {
            assert_eq!(refused(&spec(text, None)), Code::InvalidPort, "{text}");
        }
        assert_eq!(refused(&spec("80", Some("70000"))), Code::InvalidPort);
    }

    #[test]
    fn addresses_and_sources_are_checked() {
        let at = |address: &str| PublicationSpec {
            address: Some(address.to_owned()),
            ..spec("80", None)
        };
        assert_eq!(
            publication(&at("::")).unwrap().address,
            Some(HostAddress::AnyV6)
        );
        for bad in [
            "",
            "1.2.3",
            "fe80::1",
            "fe80::1%eth0",
            "224.0.0.1",
            "localhost",
        ] {
            assert_eq!(refused(&at(bad)), Code::InvalidAddress, "{bad}");
        }
        let from = |source: &str| PublicationSpec {
            from: vec![source.to_owned()],
            ..spec("80", None)
        };
        assert_eq!(
            publication(&from("10.0.0.7")).unwrap().from[0].to_string(),
            "10.0.0.7/32"
        );
        assert_eq!(refused(&from("10.0.0.7/8")), Code::HostBitsSet);
        assert_eq!(refused(&from("10.0.0")), Code::InvalidAddress);
    }

    #[test]
    fn a_unix_socket_stands_alone() {
        let unix = |path: &str| PublicationSpec {
            socket: Some(path.to_owned()),
            ..spec("80", None)
        };
        assert!(publication(&unix("/run/web.sock")).is_ok());
        assert_eq!(refused(&unix("web.sock")), Code::InvalidName);
        assert_eq!(
            refused(&unix(&format!("/{}", "x".repeat(107)))),
            Code::InvalidName
        );
        let both = PublicationSpec {
            host: Some("80".to_owned()),
            ..unix("/run/web.sock")
        };
        assert_eq!(refused(&both), Code::InvalidCombination);
    }

    #[test]
    fn all_exposed_ports_are_published_that_are_not_already() {
        let create = SandboxCreate {
            publish: vec![spec("80", Some("8080"))],
            publish_all: true,
            expose: vec!["80".to_owned(), "53/udp".to_owned(), "90-95/tcp".to_owned()],
            ..SandboxCreate::default()
        };
        let all = publications(&create).unwrap();
        let words: Vec<String> = all
            .iter()
            .map(|p| format!("{}/{} {}", p.container, p.protocol, p.automatic))
            .collect();
        assert_eq!(words, ["80/tcp false", "53/udp true", "90-95/tcp true"]);
        assert_eq!(
            exposed(&["80/icmp".to_owned()]).unwrap_err().code,
            Code::InvalidPort
        );
    }
}
