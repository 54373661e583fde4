//! Published ports: what flags become on their way to the daemon, and how they are shown.

use tombolo_api::{
    ErrorCode, LinkSpec, Named, NetworkCreate, Path, Protocol, Publication, PublicationSpec,
    PublicationsAdd, PublicationsRemove, Request, Response, SandboxCreate,
};

use crate::fake::{Host, refusal};
use crate::samples::{network, publication, sandbox};

fn published() -> Vec<Publication> {
    vec![
        publication("web", "8080", "80"),
        Publication {
            address: "192.0.2.1".into(),
            ipv6: None,
            from: vec!["10.0.0.0/8".into(), "10.10.10.10".into()],
            ..publication("web", "8000-8010", "80-90")
        },
        Publication {
            address: String::new(),
            host: None,
            socket: Some("/run/web.sock".into()),
            ..publication("web", "", "91")
        },
        Publication {
            host: None,
            ipv4: Some(Path::Routed),
            ipv6: Some(Path::Routed),
            targets: vec!["10.1.0.2:53".into(), "[fd00::2]:53".into()],
            protocol: Protocol::Udp,
            ..publication("web", "", "53")
        },
        Publication {
            active: false,
            ipv4: None,
            ipv6: None,
            network: None,
            ..publication("web", "8443", "443")
        },
    ]
}

fn host() -> Host {
    Host::answering(|request| {
        Ok(match request {
            Request::SandboxCreate(_) => Response::Sandbox(sandbox("web", Vec::new())),
            Request::NetworkCreate(create) => Response::Network(network(&create.name)),
            Request::SandboxPublications { reference } if reference == "nobody" => {
                return Err(refusal(ErrorCode::UnknownSandbox, "no such sandbox"));
            }
            Request::SandboxPublications { .. } => Response::Publications(published()),
            Request::PublicationsAdd { add, .. } => {
                let answers = add.publications.iter().map(|spec| {
                    let host = spec.host.as_deref().unwrap_or("32768");
                    publication("web", host, &spec.container)
                });
                Response::Publications(answers.collect())
            }
            Request::PublicationsRemove { remove, .. } if remove.publications == ["99"] => {
                return Err(refusal(
                    ErrorCode::UnknownPublication,
                    "web has no publication 99",
                ));
            }
            Request::PublicationsRemove { .. } => Response::Done,
            Request::PublicationList => {
                let mut all = published();
                all[0].sandbox = Named {
                    id: "1".into(),
                    name: "evil\u{1b}[2J".into(),
                };
                Response::Publications(all)
            }
            other => panic!("{other:?}"),
        })
    })
}

#[test]
fn flags_of_a_sandbox_travel_to_the_daemon() {
    let host = host();
    let words = "sandbox create -p 8080:80 --publish [::1]::53/udp,from=2001:db8::/32 -P --expose 80 \
        --expose 8000-8010/udp --link db --link cache:redis";
    host.output(&words.split_whitespace().collect::<Vec<_>>());
    let link = |sandbox: &str, alias: Option<&str>| LinkSpec {
        sandbox: sandbox.into(),
        alias: alias.map(Into::into),
    };
    let expected = SandboxCreate {
        publish: vec![
            PublicationSpec {
                host: Some("8080".into()),
                ..PublicationSpec::new("80")
            },
            PublicationSpec {
                protocol: Protocol::Udp,
                address: Some("::1".into()),
                from: vec!["2001:db8::/32".into()],
                ..PublicationSpec::new("53")
            },
        ],
        publish_all: true,
        expose: vec!["80/tcp".into(), "8000-8010/udp".into()],
        links: vec![link("db", None), link("cache", Some("redis"))],
        ..SandboxCreate::default()
    };
    assert_eq!(host.asked(), [Request::SandboxCreate(expected)]);
}

#[test]
fn gateway_modes_travel_to_the_daemon() {
    let host = host();
    let words = "network create --gateway-mode routed --gateway-mode-ipv4 nat-unprotected \
        --obey-host-firewall --host-binding 127.0.0.1 blue";
    host.output(&words.split_whitespace().collect::<Vec<_>>());
    host.output(&["network", "create", "--obey-host-firewall=false", "green"]);
    let blue = NetworkCreate {
        gateway_mode_ipv4: Some("nat-unprotected".into()),
        gateway_mode_ipv6: Some("routed".into()),
        obey_host_firewall: Some(true),
        host_binding: Some("127.0.0.1".into()),
        ..NetworkCreate::new("blue")
    };
    let green = NetworkCreate {
        obey_host_firewall: Some(false),
        ..NetworkCreate::new("green")
    };
    assert_eq!(host.asked(), [blue, green].map(Request::NetworkCreate));
    let (code, _, err) = host.tombolo(&["network", "create", "--gateway-mode", "bridged", "red"]);
    assert_eq!(code, 2);
    assert!(err.contains("nat-unprotected"), "{err}");
}

#[test]
fn what_cannot_be_published_never_reaches_the_daemon() {
    let host = host();
    for (words, expected) in [
        (
            &["sandbox", "create", "-p", "70000:80"][..],
            "port 70000 is out of range",
        ),
        (
            &["sandbox", "create", "-p", "8080-8081:80-90"],
            "host side 8080-8081 has 2 ports and container side 80-90 has 11 ports",
        ),
        (&["sandbox", "create", "--link", "db:"], "is not a link"),
        (&["publish", "add", "web", "80/icmp"], "unknown protocol"),
        (&["port", "web", "0"], "nothing can listen at port 0"),
        (
            &["sandbox", "create", "--network", "container:a", "-p", "80"],
            "--publish cannot be combined with --network container:a: set it on a",
        ),
    ] {
        let (code, out, err) = host.tombolo(words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}");
        assert!(err.contains(expected), "{words:?}: {err}");
    }
    let words = ["run", "--network", "container:a", "--link", "b", "true"];
    let (code, _, err) = host.tombolo(&words);
    assert_eq!(code, 125);
    assert!(err.contains("--link cannot be combined"), "{err}");
    assert!(host.asked().is_empty());
}

#[test]
fn ports_are_shown_as_in_docker() {
    let host = host();
    assert_eq!(
        host.output(&["port", "web"]),
        "\
80/tcp -> 0.0.0.0:8080
80/tcp -> [::]:8080
80-90/tcp -> 192.0.2.1:8000-8010
91/tcp -> unix:/run/web.sock
53/udp -> 10.1.0.2:53
53/udp -> [fd00::2]:53
"
    );
    let reference = "web".to_owned();
    assert_eq!(host.asked(), [Request::SandboxPublications { reference }]);
    for (port, expected) in [
        ("80", "0.0.0.0:8080\n[::]:8080\n192.0.2.1:8000\n"),
        ("85/tcp", "192.0.2.1:8005\n"),
        ("89-90", "192.0.2.1:8009-8010\n"),
        ("91", "unix:/run/web.sock\n"),
        ("53/udp", "10.1.0.2:53\n[fd00::2]:53\n"),
    ] {
        assert_eq!(host.output(&["port", "web", port]), expected, "{port}");
    }
    assert_eq!(
        host.output(&["port", "-v", "web", "80"]),
        "0.0.0.0:8080 (kernel)\n[::]:8080 (relay)\n192.0.2.1:8000 (kernel) from 10.0.0.0/8, 10.10.10.10\n"
    );
    let json = host.output(&["port", "--json", "web", "443"]);
    let found: Vec<Publication> = serde_json::from_str(&json).unwrap();
    assert_eq!(found, published()[4..]);
    for port in ["443", "53", "92", "89-91"] {
        let (code, out, err) = host.tombolo(&["port", "web", port]);
        assert_eq!((code, out.as_str()), (5, ""));
        let expected = format!("tombolo: no port of the host leads to {port}/tcp of web now");
        assert!(err.starts_with(&expected), "{err}");
    }
    assert_eq!(host.tombolo(&["port", "nobody"]).0, 5);
}

#[test]
fn ports_of_a_running_sandbox_are_added_removed_and_listed() {
    let host = host();
    let out = host.output(&["publish", "add", "web", "8080:80", "53,from=10.0.0.1"]);
    assert_eq!(out, "*:8080->80/tcp\n*:32768->53/tcp\n");
    let out = host.output(&["publish", "rm", "web", "80/tcp", "*:8080->80/tcp"]);
    assert_eq!(out, "80/tcp\n*:8080->80/tcp\n");
    let reference = || "web".to_owned();
    let first = PublicationSpec {
        host: Some("8080".into()),
        ..PublicationSpec::new("80")
    };
    let second = PublicationSpec {
        from: vec!["10.0.0.1".into()],
        ..PublicationSpec::new("53")
    };
    let expected = [
        Request::PublicationsAdd {
            reference: reference(),
            add: PublicationsAdd {
                publications: vec![first, second],
            },
        },
        Request::PublicationsRemove {
            reference: reference(),
            remove: PublicationsRemove {
                publications: vec!["80/tcp".into(), "*:8080->80/tcp".into()],
            },
        },
    ];
    assert_eq!(host.asked(), expected);
    let (code, out, err) = host.tombolo(&["publish", "rm", "web", "99"]);
    assert_eq!((code, out.as_str()), (5, ""));
    assert_eq!(err, "tombolo: web has no publication 99\n");
    let table = "\
SANDBOX   HOST                  PORT        FROM                      NETWORK   IPV4     IPV6     STATE
web       *:8080                80/tcp      -                         blue      kernel   relay    active
web       192.0.2.1:8000-8010   80-90/tcp   10.0.0.0/8, 10.10.10.10   blue      kernel   -        active
web       unix:/run/web.sock    91/tcp      -                         blue      kernel   relay    active
web       -                     53/udp      -                         blue      routed   routed   active
web       *:8443                443/tcp     -                         -         -        -        inactive
";
    assert_eq!(host.output(&["publish", "ls", "web"]), table);
    let all = host.output(&["publish", "ls"]);
    assert!(
        all.contains("evil\u{fffd}[2J") && !all.contains('\u{1b}'),
        "{all}"
    );
    let json = host.output(&["publish", "ls", "--json", "web"]);
    let found: Vec<Publication> = serde_json::from_str(&json).unwrap();
    assert_eq!(found, published());
}
