use proptest::prelude::*;

use super::*;
use crate::error::ErrorCode;
use crate::limits;
use crate::types::{
    Command, EndpointSettings, LinkSpec, NetnsChoice, NetworkAttachment, Protocol, PublicationSpec,
};

fn reference() -> String {
    "na me/ü?#%2f..".to_owned()
}

fn labels() -> Vec<String> {
    vec!["a=b&c".to_owned(), "d".to_owned()]
}

fn connect() -> NetworkConnect {
    let attachment = EndpointSettings {
        ipv4_address: Some("10.0.0.5".to_owned()),
        gateway_priority: Some(-1),
        aliases: vec!["db".to_owned()],
        ..EndpointSettings::default()
    };
    NetworkConnect {
        sandbox: "s".to_owned(),
        attachment,
    }
}

fn network_samples() -> Vec<Request> {
    let reference = reference();
    vec![
        Request::NetworkCreate(NetworkCreate {
            mtu: Some(1400),
            ..NetworkCreate::new("web")
        }),
        Request::NetworkList(NetworkFilter {
            name: Some("w b".to_owned()),
            driver: Some(String::new()),
            labels: labels(),
        }),
        Request::NetworkPrune,
        Request::NetworkInspect {
            reference: reference.clone(),
        },
        Request::NetworkDelete {
            reference: reference.clone(),
        },
        Request::NetworkConnect {
            reference: reference.clone(),
            connect: connect(),
        },
        Request::NetworkDisconnect {
            reference,
            disconnect: NetworkDisconnect {
                sandbox: "s".to_owned(),
                force: true,
            },
        },
    ]
}

fn endpoint_samples() -> Vec<Request> {
    let reference = reference();
    let sandbox = "s".to_owned();
    vec![
        Request::EndpointCreate(connect().attachment.on_network("web", None)),
        Request::EndpointList(EndpointFilter {
            network: None,
            sandbox: Some(sandbox.clone()),
        }),
        Request::EndpointInspect {
            reference: reference.clone(),
        },
        Request::EndpointDelete {
            reference: reference.clone(),
        },
        Request::EndpointJoin {
            reference: reference.clone(),
            join: EndpointJoin { sandbox },
        },
        Request::EndpointLeave { reference },
    ]
}

fn sandbox_samples() -> Vec<Request> {
    let reference = reference();
    let sandbox = SandboxCreate {
        netns: NetnsChoice::Pid { pid: 7 },
        networks: vec![NetworkAttachment {
            network: "web".to_owned(),
            ..Default::default()
        }],
        publish: vec![publication()],
        publish_all: true,
        expose: vec!["53/udp".to_owned()],
        links: vec![LinkSpec {
            sandbox: "db".to_owned(),
            alias: Some("store".to_owned()),
        }],
        ..SandboxCreate::default()
    };
    vec![
        Request::SandboxCreate(sandbox),
        Request::SandboxList(SandboxFilter {
            name: None,
            labels: labels(),
        }),
        Request::SandboxInspect {
            reference: reference.clone(),
        },
        Request::SandboxDelete {
            reference: reference.clone(),
            keep_endpoints: true,
        },
        Request::SandboxStop {
            reference: reference.clone(),
        },
        Request::SandboxStart { reference },
    ]
}

fn publication() -> PublicationSpec {
    PublicationSpec {
        protocol: Protocol::Sctp,
        host: Some("8080-8090".to_owned()),
        address: Some("::1".to_owned()),
        from: vec!["10.0.0.0/8".to_owned()],
        obey_host_firewall: Some(false),
        ..PublicationSpec::new("80-90")
    }
}

fn publication_samples() -> Vec<Request> {
    let reference = reference();
    vec![
        Request::SandboxPublications {
            reference: reference.clone(),
        },
        Request::PublicationsAdd {
            reference: reference.clone(),
            add: PublicationsAdd {
                publications: vec![
                    publication(),
                    PublicationSpec {
                        socket: Some("/run/web.sock".to_owned()),
                        ..PublicationSpec::new("80")
                    },
                ],
            },
        },
        Request::PublicationsRemove {
            reference,
            remove: PublicationsRemove {
                publications: vec!["8080->80/tcp".to_owned()],
            },
        },
        Request::PublicationList,
    ]
}

fn name_samples() -> Vec<Request> {
    vec![
        Request::DnsNames(DnsNameFilter {
            network: Some("w&b".to_owned()),
        }),
        Request::DnsResolve(DnsQuestion {
            name: "_http._tcp.web.x&y".to_owned(),
            kind: Some("SRV".to_owned()),
            sandbox: Some("s".to_owned()),
        }),
    ]
}

fn other_samples() -> Vec<Request> {
    let command = Command::NetworkConnect {
        reference: reference(),
        connect: connect(),
    };
    vec![
        Request::Plan(PlanRequest { command }),
        Request::Explain {
            reference: reference(),
        },
        Request::Drift,
        Request::Repair,
        Request::Doctor,
        Request::Prune,
    ]
}

/// One call of each operation, with as much set as it takes.
fn samples() -> Vec<Request> {
    let mut samples = vec![Request::Version, Request::Info];
    samples.extend(network_samples());
    samples.extend(endpoint_samples());
    samples.extend(sandbox_samples());
    samples.extend(publication_samples());
    samples.extend(name_samples());
    samples.extend(other_samples());
    samples
}

/// Splits a target as a server does: the reference in the path decoded, and the query as it is.
fn split(encoded: &EncodedRequest) -> (Option<String>, Option<String>) {
    let (path, query) = match encoded.target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (encoded.target.as_str(), None),
    };
    let template = encoded.operation.route().path;
    assert_eq!(
        path.split('/').count(),
        template.split('/').count(),
        "{path} has a stray slash"
    );
    let reference = template
        .split('/')
        .zip(path.split('/'))
        .find_map(|(word, segment)| {
            (word == "{reference}").then(|| {
                percent_encoding::percent_decode_str(segment)
                    .decode_utf8()
                    .unwrap()
                    .into_owned()
            })
        });
    (reference, query)
}

#[test]
fn every_call_survives_the_wire() {
    let samples = samples();
    let operations: Vec<_> = samples.iter().map(Request::operation).collect();
    assert_eq!(operations, Operation::ALL);
    for request in samples {
        let encoded = request.encode().unwrap();
        assert_eq!(
            encoded.body.is_some(),
            encoded.operation.route().body.is_some()
        );
        let (reference, query) = split(&encoded);
        let decoded = Request::decode(
            encoded.operation,
            reference.as_deref(),
            query.as_deref(),
            encoded.body.as_deref().unwrap_or_default(),
        );
        assert_eq!(decoded, Ok(request));
    }
}

#[test]
fn paths_and_methods_are_distinct() {
    let mut seen = std::collections::BTreeSet::new();
    for operation in Operation::ALL {
        let route = operation.route();
        assert!(
            seen.insert((route.path, route.method.to_string())),
            "{operation:?} stands twice"
        );
        assert!(route.path.starts_with("/v1/"));
    }
}

fn code(operation: Operation, query: &str, body: &str) -> Option<ErrorCode> {
    Request::decode(operation, Some("x"), Some(query), body.as_bytes())
        .err()
        .map(|e| e.code)
}

#[test]
fn bodies_refuse_what_they_do_not_know() {
    for (operation, body) in [
        (
            Operation::NetworkCreate,
            r#"{"name":"a","subnet":"10.0.0.0/8"}"#,
        ),
        (
            Operation::NetworkCreate,
            r#"{"name":"a","subnets":[{"cidr":"10.0.0.0/8"}]}"#,
        ),
        (
            Operation::NetworkCreate,
            r#"{"name":"a","dns":{"server":["10.0.0.1"]}}"#,
        ),
        (
            Operation::EndpointCreate,
            r#"{"network":"a","ip":"10.0.0.1"}"#,
        ),
        (
            Operation::NetworkConnect,
            r#"{"sandbox":"a","attachment":{"network":"b"}}"#,
        ),
        (
            Operation::SandboxCreate,
            r#"{"netns":{"kind":"new","path":"/x"}}"#,
        ),
        (
            Operation::SandboxCreate,
            r#"{"netns":{"kind":"pid","pid":1,"tid":1}}"#,
        ),
        (
            Operation::SandboxCreate,
            r#"{"networks":[{"network":"a","sandbox":"b"}]}"#,
        ),
        (
            Operation::Plan,
            r#"{"command":{"kind":"network_delete","request":{"reference":"a","x":1}}}"#,
        ),
        (
            Operation::Plan,
            r#"{"command":{"kind":"network_create","request":{"name":"a","x":1}}}"#,
        ),
        (Operation::SandboxStop, r#"{"timeout":1}"#),
        (Operation::NetworkCreate, ""),
        (Operation::NetworkCreate, "[]"),
        (Operation::NetworkCreate, r#"{"name":"a"} {}"#),
    ] {
        assert_eq!(
            code(operation, "", body),
            Some(ErrorCode::MalformedJson),
            "{body}"
        );
    }
    assert_eq!(code(Operation::SandboxStop, "", "{}"), None);
    assert_eq!(code(Operation::NetworkCreate, "", r#"{"name":"a"}"#), None);
}

#[test]
fn bodies_about_ports_refuse_what_they_do_not_know() {
    for (operation, body) in [
        (
            Operation::SandboxCreate,
            r#"{"publish":[{"container":"80","port":"8080"}]}"#,
        ),
        (
            Operation::SandboxCreate,
            r#"{"publish":[{"container":80}]}"#,
        ),
        (
            Operation::SandboxCreate,
            r#"{"links":[{"sandbox":"db","name":"x"}]}"#,
        ),
        (
            Operation::PublicationsAdd,
            r#"{"publications":[{"container":"80","protocol":"icmp"}]}"#,
        ),
        (Operation::PublicationsAdd, r#"{"publications":[{}]}"#),
        (Operation::PublicationsAdd, "{}"),
        (
            Operation::PublicationsRemove,
            r#"{"publications":["80"],"force":true}"#,
        ),
    ] {
        assert_eq!(
            code(operation, "", body),
            Some(ErrorCode::MalformedJson),
            "{body}"
        );
    }
    let body = r#"{"publications":[{"container":"80"}]}"#;
    assert_eq!(code(Operation::PublicationsAdd, "", body), None);
}

#[test]
fn json_errors_tell_line_and_column() {
    let error = Request::decode(Operation::NetworkCreate, None, None, b"{\n  \"name\": 5\n}");
    let message = error.unwrap_err().message;
    assert!(message.contains("line 2 column 11"), "{message}");
    let error = Request::decode(Operation::NetworkCreate, None, None, b"{\"name\"");
    let message = error.unwrap_err().message;
    assert!(
        message.contains("not JSON") && message.contains("line 1 column 7"),
        "{message}"
    );
}

#[test]
fn queries_refuse_what_they_do_not_know() {
    let unknown = Some(ErrorCode::UnknownParameter);
    assert_eq!(
        code(
            Operation::NetworkList,
            "name=a&driver=b&label=c&label=d",
            ""
        ),
        None
    );
    assert_eq!(code(Operation::NetworkList, "nmae=a", ""), unknown);
    assert_eq!(code(Operation::NetworkList, "name=a&name=b", ""), unknown);
    assert_eq!(code(Operation::Version, "verbose", ""), unknown);
    let invalid = Some(ErrorCode::InvalidParameter);
    assert_eq!(
        code(Operation::SandboxDelete, "keep_endpoints=yes", ""),
        invalid
    );
    for (query, expected) in [
        ("", false),
        ("keep_endpoints", true),
        ("keep_endpoints=1", true),
        ("keep_endpoints=true", true),
        ("keep_endpoints=false", false),
        ("keep_endpoints=0", false),
    ] {
        let request = Request::decode(Operation::SandboxDelete, Some("x"), Some(query), b"");
        let reference = "x".to_owned();
        let expected = Request::SandboxDelete {
            reference,
            keep_endpoints: expected,
        };
        assert_eq!(request, Ok(expected), "{query}");
    }
}

#[test]
fn references_have_limits() {
    let inspect = |reference: String| Request::NetworkInspect { reference }.encode();
    assert!(inspect("x".repeat(limits::REFERENCE_BYTES_MAX)).is_ok());
    for reference in [
        "x".repeat(limits::REFERENCE_BYTES_MAX + 1),
        String::new(),
        "a\nb".into(),
    ] {
        assert_eq!(
            inspect(reference.clone()).unwrap_err().code,
            ErrorCode::InvalidReference
        );
        let decoded = Request::decode(Operation::NetworkInspect, Some(&reference), None, b"");
        assert_eq!(decoded.unwrap_err().code, ErrorCode::InvalidReference);
    }
}

#[test]
fn what_is_left_open_is_left_out() {
    let bytes = |request: Request| String::from_utf8(request.encode().unwrap().body.unwrap());
    assert_eq!(
        bytes(Request::NetworkCreate(NetworkCreate::new("a"))).unwrap(),
        r#"{"name":"a","driver":"bridge"}"#
    );
    assert_eq!(
        bytes(Request::SandboxCreate(SandboxCreate::default())).unwrap(),
        "{}"
    );
    assert_eq!(Response::Done.encode().unwrap(), b"");
    assert_eq!(Response::Networks(Vec::new()).encode().unwrap(), b"[]");
}

proptest! {
    #[test]
    fn any_reference_survives_the_wire(reference in "\\PC{1,60}") {
        let request = Request::NetworkInspect { reference };
        let encoded = request.encode().unwrap();
        let (reference, query) = split(&encoded);
        prop_assert_eq!(query, None);
        let decoded = Request::decode(encoded.operation, reference.as_deref(), None, b"");
        prop_assert_eq!(decoded, Ok(request));
    }

    #[test]
    fn any_input_is_refused_politely_or_read(
        index in 0..Operation::ALL.len(),
        reference in any::<String>(),
        query in any::<String>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let decoded =
            Request::decode(Operation::ALL[index], Some(&reference), Some(&query), &body);
        if let Err(error) = decoded {
            prop_assert_eq!(error.http_status(), 400);
        }
    }
}
