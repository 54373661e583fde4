//! Names: what networks say of them, which there are, and questions to the resolver.

use tombolo_api::{
    DnsAnswer, DnsName, DnsNameFilter, DnsQuestion, DnsRecord, DnsSource, ErrorCode, Named,
    NetworkCreate, NetworkDnsConfig, Request, Response,
};

use crate::fake::{Host, refusal};
use crate::samples::network;

fn answer(name: &str, code: &str, data: &[&str]) -> DnsAnswer {
    let record = |data: &&str| DnsRecord {
        name: name.into(),
        kind: "A".into(),
        ttl_seconds: 5,
        data: (*data).into(),
    };
    DnsAnswer {
        name: name.into(),
        kind: "A".into(),
        code: code.into(),
        source: DnsSource::Own,
        records: data.iter().map(record).collect(),
        took_us: 12,
        server: None,
    }
}

fn host() -> Host {
    Host::answering(|request| {
        Ok(match request {
            Request::NetworkCreate(create) => Response::Network(network(&create.name)),
            Request::DnsNames(_) => Response::DnsNames(vec![DnsName {
                network: "blue".into(),
                name: "web".into(),
                sandbox: Named {
                    id: "77".repeat(16),
                    name: "web".into(),
                },
                addresses: vec!["10.1.0.2".into(), "fd00::2".into()],
                aliases: Vec::new(),
            }]),
            Request::DnsResolve(question) => Response::DnsAnswer(match question.name.as_str() {
                "web" => answer("web", "NOERROR", &["10.1.0.2", "10.2.0.2"]),
                "v6only" => answer("v6only", "NOERROR", &[]),
                "nobody" => answer("nobody", "NXDOMAIN", &[]),
                "outside" => DnsAnswer {
                    source: DnsSource::Refused,
                    ..answer("outside", "REFUSED", &[])
                },
                "down" => DnsAnswer {
                    source: DnsSource::Forwarded,
                    server: Some("192.0.2.53".into()),
                    ..answer("down", "SERVFAIL", &[])
                },
                _ => return Err(refusal(ErrorCode::NoResolver, "the resolver does not run")),
            }),
            other => panic!("{other:?}"),
        })
    })
}

#[test]
fn what_a_network_says_of_names_travels_to_the_daemon() {
    let host = host();
    let words = "network create --dns 192.0.2.53 --dns 2001:DB8::53 --dns-search example.org \
        --dns-option ndots:1 --dns-opt rotate --resolver gateway --dns-forward always --mdns blue";
    host.output(&words.split_whitespace().collect::<Vec<_>>());
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let dns = NetworkDnsConfig {
        servers: text(&["192.0.2.53", "2001:db8::53"]),
        searches: text(&["example.org"]),
        options: text(&["ndots:1", "rotate"]),
        resolver: Some("gateway".into()),
        forward: Some("always".into()),
        mdns: true,
    };
    let create = NetworkCreate {
        dns,
        ..NetworkCreate::new("blue")
    };
    assert_eq!(host.asked(), [Request::NetworkCreate(create)]);
}

#[test]
fn names_are_listed() {
    let host = host();
    assert_eq!(
        host.output(&["dns", "ls"]),
        "NETWORK   NAME   SANDBOX   ADDRESSES           ALIASES\n\
         blue      web    web       10.1.0.2, fd00::2   -\n"
    );
    let json: Vec<DnsName> =
        serde_json::from_str(&host.output(&["dns", "ls", "--network", "blue", "--json"])).unwrap();
    assert_eq!(json.len(), 1);
    let filter = |network: Option<&str>| {
        Request::DnsNames(DnsNameFilter {
            network: network.map(Into::into),
        })
    };
    assert_eq!(host.asked(), [filter(None), filter(Some("blue"))]);
}

#[test]
fn an_answer_is_shown_with_its_source() {
    let host = host();
    let (code, out, err) = host.tombolo(&["dns", "resolve", "--from", "db", "-t", "A", "web"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "NAME   TYPE   TTL   DATA\nweb    A      5     10.1.0.2\nweb    A      5     10.2.0.2\n"
    );
    assert_eq!(err, "tombolo: answered (from what is known here, 12 us)\n");
    let question = DnsQuestion {
        name: "web".into(),
        kind: Some("A".into()),
        sandbox: Some("db".into()),
    };
    assert_eq!(host.asked(), [Request::DnsResolve(question)]);
    let json: DnsAnswer =
        serde_json::from_str(&host.output(&["dns", "resolve", "--json", "web"])).unwrap();
    assert_eq!(json.records.len(), 2);
}

#[test]
fn scripts_see_whether_a_name_was_found() {
    let host = host();
    for (name, expected, message) in [
        (
            "v6only",
            5,
            "v6only has no A record (from what is known here, 12 us)",
        ),
        (
            "nobody",
            5,
            "there is no name nobody (from what is known here, 12 us)",
        ),
        (
            "outside",
            3,
            "outside cannot be resolved: REFUSED (nobody was to be asked, 12 us)",
        ),
        (
            "down",
            4,
            "down cannot be resolved: SERVFAIL (by 192.0.2.53, 12 us)",
        ),
        ("x", 4, "the resolver does not run"),
    ] {
        let (code, out, err) = host.tombolo(&["dns", "resolve", name]);
        assert_eq!((code, out.as_str()), (expected, ""), "{name}");
        assert_eq!(err, format!("tombolo: {message}\n"));
    }
    let (code, out, err) = host.tombolo(&["dns", "resolve", "--json", "nobody"]);
    assert_eq!((code, err.as_str()), (5, ""));
    assert!(out.contains("NXDOMAIN"));
}
