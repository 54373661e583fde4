//! Limits, reached from outside: what is at the limit works, and one more is refused without a trace.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tombolo_api::limits::REQUEST_BYTES_MAX;
use tombolo_api::{
    Client, ClientError, ErrorCode, LinkSpec, NetworkAttachment, NetworkConnect, NetworkCreate,
    NetworkFilter, PublicationSpec, RouteConfig, SandboxCreate, SubnetConfig,
};
use tombolo_core::limits::{
    ENDPOINTS_PER_SANDBOX_MAX, LABEL_BYTES_MAX, LABELS_MAX, LINKS_PER_SANDBOX_MAX,
    PUBLICATIONS_PER_SANDBOX_MAX, RANGE_SOCKETS_MAX, ROUTES_PER_NETWORK_MAX,
    SOURCES_PER_PUBLICATION_MAX, SUBNETS_PER_NETWORK_MAX,
};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

/// Asserts that a request was refused for a limit, and that the refusal tells it.
#[track_caller]
fn assert_limit<T: std::fmt::Debug>(answer: Result<T, ClientError>, limit: usize) {
    let Err(ClientError::Api(error)) = answer else {
        panic!("not refused: {answer:?}")
    };
    assert!(matches!(error.code, ErrorCode::LimitReached), "{error:?}");
    let told = format!(
        "{} {}",
        error.message,
        error.hint.as_deref().unwrap_or_default()
    );
    assert!(
        told.contains(&limit.to_string()),
        "the limit {limit} is not told: {told}"
    );
}

fn network(name: &str, subnet: &str) -> NetworkCreate {
    let subnet = SubnetConfig {
        subnet: Some(subnet.to_owned()),
        ..SubnetConfig::default()
    };
    NetworkCreate {
        subnets: vec![subnet],
        ..NetworkCreate::new(name)
    }
}

fn labels(count: usize) -> BTreeMap<String, String> {
    (0..count)
        .map(|n| (format!("key{n}"), "value".to_owned()))
        .collect()
}

#[test]
fn labels_of_a_network() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let mut client = stage.client();
    let many = |count| NetworkCreate {
        labels: labels(count),
        ..NetworkCreate::new("many")
    };
    assert_limit(client.network_create(many(LABELS_MAX + 1)), LABELS_MAX);
    let long = |bytes: usize| {
        let labels = BTreeMap::from([("key".to_owned(), "v".repeat(bytes - 3))]);
        NetworkCreate {
            labels,
            ..NetworkCreate::new("long")
        }
    };
    let refused = client
        .network_create(long(LABEL_BYTES_MAX + 1))
        .unwrap_err();
    assert!(
        refused.to_string().contains(&LABEL_BYTES_MAX.to_string()),
        "{refused}"
    );
    stage.assert_traces(&before);
    assert_eq!(
        client
            .network_create(many(LABELS_MAX))
            .unwrap()
            .labels
            .len(),
        LABELS_MAX
    );
    let kept = client.network_create(long(LABEL_BYTES_MAX)).unwrap();
    assert_eq!(kept.labels["key"].len(), LABEL_BYTES_MAX - 3);
}

#[test]
fn subnets_and_routes_of_a_network() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let mut client = stage.client();
    let subnets = |count| NetworkCreate {
        subnets: (0..count)
            .flat_map(|n| network("", &format!("10.200.{n}.0/24")).subnets)
            .collect(),
        ..NetworkCreate::new("wide")
    };
    assert_limit(
        client.network_create(subnets(SUBNETS_PER_NETWORK_MAX + 1)),
        SUBNETS_PER_NETWORK_MAX,
    );
    let routes = |count| {
        let route = |n| RouteConfig {
            destination: format!("10.201.{n}.0/24"),
            via: None,
        };
        NetworkCreate {
            routes: (0..count).map(route).collect(),
            ..network("far", "10.202.0.0/24")
        }
    };
    assert_limit(
        client.network_create(routes(ROUTES_PER_NETWORK_MAX + 1)),
        ROUTES_PER_NETWORK_MAX,
    );
    stage.assert_traces(&before);
    client
        .network_create(subnets(SUBNETS_PER_NETWORK_MAX))
        .unwrap();
    client
        .network_create(routes(ROUTES_PER_NETWORK_MAX))
        .unwrap();
    let (a, b) = (
        stage.sandbox("a", "--network wide"),
        stage.sandbox("b", "--network wide"),
    );
    assert!(a.pings(b.v4()));
    let c = stage.sandbox("c", "--network far");
    assert_eq!(
        c.ok("ip route show").matches("10.201.").count(),
        ROUTES_PER_NETWORK_MAX
    );
    stage.assert_in_place();
}

#[test]
fn networks_of_a_sandbox() {
    let Some(stage) = Stage::start() else { return };
    let mut client = stage.client();
    for n in 0..=ENDPOINTS_PER_SANDBOX_MAX {
        client
            .network_create(network(&format!("n{n}"), &format!("10.200.{n}.0/24")))
            .unwrap();
    }
    let on = |count: usize| {
        let attach = |n| NetworkAttachment {
            network: format!("n{n}"),
            ..NetworkAttachment::default()
        };
        let networks = (0..count).map(attach).collect();
        SandboxCreate {
            name: Some("hub".to_owned()),
            networks,
            ..SandboxCreate::default()
        }
    };
    let before = stage.traces().unwrap();
    assert_limit(
        client.sandbox_create(on(ENDPOINTS_PER_SANDBOX_MAX + 1)),
        ENDPOINTS_PER_SANDBOX_MAX,
    );
    stage.assert_traces(&before);
    client
        .sandbox_create(on(ENDPOINTS_PER_SANDBOX_MAX))
        .unwrap();
    let full = stage.traces().unwrap();
    let connect = NetworkConnect {
        sandbox: "hub".to_owned(),
        attachment: Default::default(),
    };
    let last = format!("n{ENDPOINTS_PER_SANDBOX_MAX}");
    assert_limit(
        client.network_connect(&last, connect),
        ENDPOINTS_PER_SANDBOX_MAX,
    );
    stage.assert_traces(&full);
    let hub = stage.place("hub");
    assert_eq!(hub.addresses.len(), ENDPOINTS_PER_SANDBOX_MAX);
    let neighbour = stage.sandbox("neighbour", "--network n63");
    assert!(neighbour.pings(*hub.addresses.last().unwrap()));
    stage.assert_in_place();
    client.sandbox_delete("hub", false).unwrap();
    client.sandbox_delete("neighbour", false).unwrap();
    stage.assert_traces(&before);
}

#[test]
fn bytes_of_a_body() {
    let Some(stage) = Stage::start() else { return };
    let send = |name: &str, bytes: usize| {
        let mut body = format!("{{\"name\":\"{name}\"}}");
        body.push_str(&" ".repeat(bytes - body.len()));
        let head = format!(
            "POST /v1/networks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {bytes}\r\n\r\n"
        );
        let answer = stage
            .request(&[head.as_bytes(), body.as_bytes()].concat())
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = send("large", REQUEST_BYTES_MAX);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let answer = send("larger", REQUEST_BYTES_MAX + 1);
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"),
        "{answer}"
    );
    let found = stage
        .client()
        .network_list(NetworkFilter::default())
        .unwrap();
    let names: Vec<&str> = found.iter().map(|network| network.name.as_str()).collect();
    assert!(
        names.contains(&"large") && !names.contains(&"larger"),
        "{names:?}"
    );
}

/// Ports of a sandbox at these ports of the host, by TCP.
fn published(host: impl ToString, container: impl ToString) -> PublicationSpec {
    PublicationSpec {
        host: Some(host.to_string()),
        ..PublicationSpec::new(container.to_string())
    }
}

/// A sandbox on the network `bridge` that publishes these.
fn publishing(name: &str, publish: Vec<PublicationSpec>) -> SandboxCreate {
    let attachment = NetworkAttachment {
        network: "bridge".to_owned(),
        ..NetworkAttachment::default()
    };
    SandboxCreate {
        name: Some(name.to_owned()),
        networks: vec![attachment],
        publish,
        ..SandboxCreate::default()
    }
}

/// As many ports, one by one, from this one on.
fn singles(first: usize, count: usize) -> Vec<PublicationSpec> {
    (first..first + count)
        .map(|port| published(port, 80))
        .collect()
}

/// Whether a program on the node can have a port.
fn is_free(stage: &Stage, port: u16) -> bool {
    let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok();
    stage.here().inside(bind)
}

/// Whether a connection from outside to a port of the node arrives at another inside a sandbox.
fn arrives(stage: &Stage, port: u16, sandbox: &str, inside: u16) -> bool {
    let place = stage.place(sandbox);
    let server = place.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, inside)));
    let server = server.expect("the port is free in there");
    server.set_nonblocking(true).expect("a socket");
    let to = SocketAddr::new(stage.here().v4(), port);
    let far = stage.far();
    wait_until(PATIENCE, || {
        let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(1));
        let _connection = far.inside(connect);
        server.accept().is_ok()
    })
}

#[test]
fn publications_of_a_sandbox() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let mut client = stage.client();
    let many = |count| publishing("many", singles(20_000, count));
    assert_limit(
        client.sandbox_create(many(PUBLICATIONS_PER_SANDBOX_MAX + 1)),
        PUBLICATIONS_PER_SANDBOX_MAX,
    );
    stage.assert_traces(&before);
    assert!(is_free(&stage, 20_000));
    client
        .sandbox_create(many(PUBLICATIONS_PER_SANDBOX_MAX))
        .unwrap();
    let full = stage.traces().unwrap();
    assert_limit(
        client.publications_add("many", vec![published(30_000, 80)]),
        PUBLICATIONS_PER_SANDBOX_MAX,
    );
    stage.assert_traces(&full);
    assert!(is_free(&stage, 30_000));
    for port in [20_000, 20_511, 21_023] {
        assert!(!is_free(&stage, port) && arrives(&stage, port, "many", 80));
    }
    stage.assert_in_place();
    client.sandbox_delete("many", false).unwrap();
    stage.assert_traces(&before);
    assert!(wait_until(PATIENCE, || is_free(&stage, 21_023)));
}

#[test]
fn sources_of_a_publication() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let mut client = stage.client();
    let from = |count: usize| {
        // The outside is the last of them.
        let others = (1..count).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250));
        let all = others.chain(["192.0.2.1".to_owned()]).collect();
        publishing(
            "fussy",
            vec![PublicationSpec {
                from: all,
                ..published(8080, 80)
            }],
        )
    };
    assert_limit(
        client.sandbox_create(from(SOURCES_PER_PUBLICATION_MAX + 1)),
        SOURCES_PER_PUBLICATION_MAX,
    );
    stage.assert_traces(&before);
    client
        .sandbox_create(from(SOURCES_PER_PUBLICATION_MAX))
        .unwrap();
    assert!(arrives(&stage, 8080, "fussy", 80));
    stage.assert_in_place();
}

#[test]
fn ports_of_a_range_with_a_socket_each() {
    let Some(stage) = Stage::start() else { return };
    let mut client = stage.client();
    let range = |first: u32, count: u32| {
        let range = format!("{first}-{}", first + count - 1);
        published(&range, &range)
    };
    let free = |first: u32, count: u32| {
        let ports = (first..first + count).map(|port| u16::try_from(port).unwrap());
        ports.filter(|port| is_free(&stage, *port)).count()
    };
    let reserved = || stage.shell("cat /proc/sys/net/ipv4/ip_local_reserved_ports");
    let before = reserved();
    let few = publishing("few", vec![range(10_000, RANGE_SOCKETS_MAX)]);
    client.sandbox_create(few).unwrap();
    assert_eq!(free(10_000, RANGE_SOCKETS_MAX), 0);
    assert_eq!(reserved(), before);
    // Without sockets, somebody who has a port of it already is found, and named.
    let more = RANGE_SOCKETS_MAX + 1;
    let squatter = stage
        .here()
        .inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 11_032)))
        .unwrap();
    let refused = client
        .sandbox_create(publishing("more", vec![range(11_000, more)]))
        .unwrap_err();
    let ClientError::Api(error) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(error.code, ErrorCode::PortTaken, "{error:?}");
    assert!(error.message.contains("11032"), "{error:?}");
    drop(squatter);
    client
        .sandbox_create(publishing("more", vec![range(11_000, more)]))
        .unwrap();
    assert_eq!(free(11_000, more), more as usize);
    assert!(reserved().contains("11000-11064"), "{}", reserved());
    for (port, sandbox) in [(10_063, "few"), (11_000, "more"), (11_064, "more")] {
        assert!(arrives(&stage, port, sandbox, port), "at {port}");
    }
    // So many can be relayed, and no more.
    let relayed = |spec| PublicationSpec {
        obey_host_firewall: Some(true),
        ..spec
    };
    let obeying = publishing("obeying", vec![relayed(range(12_000, more))]);
    assert_limit(client.sandbox_create(obeying), RANGE_SOCKETS_MAX as usize);
    let obeying = publishing("obeying", vec![relayed(range(12_000, RANGE_SOCKETS_MAX))]);
    client.sandbox_create(obeying).unwrap();
    assert!(arrives(&stage, 12_063, "obeying", 12_063));
    stage.assert_in_place();
}

/// Resident memory in KiB of the process whose id is in a file of the node.
fn resident(stage: &Stage, pid_file: &str) -> u64 {
    let script = format!("awk '/^VmRSS/ {{print $2}}' /proc/$(cat {pid_file})/status");
    stage.shell(&script).parse().expect("a number of KiB")
}

#[test]
fn ten_thousand_ports_of_a_host() {
    const SANDBOXES: usize = 10;
    const EACH: usize = 1_000;
    let Some(mut stage) = Stage::start() else {
        return;
    };
    let before = stage.traces().unwrap();
    let mut client = stage.client();
    let first = |n: usize| 10_000 + n * EACH;
    for n in 0..SANDBOXES {
        let create = publishing(&format!("s{n}"), singles(first(n), EACH));
        client.sandbox_create(create).unwrap();
    }
    let check = |stage: &Stage| {
        for (port, sandbox) in [(10_000, "s0"), (15_500, "s5"), (19_999, "s9")] {
            assert!(!is_free(stage, port), "{port} is not held");
            assert!(arrives(stage, port, sandbox, 80), "no answer at {port}");
        }
        let (daemon, keeper) = (
            resident(stage, "/run/daemon.pid"),
            resident(stage, "/run/tombolo/keeper.pid"),
        );
        println!("10,000 ports: the daemon has {daemon} KiB, the keeper {keeper} KiB");
        // Far above what a build without optimisation takes; far below what a process for each port would.
        assert!(daemon < 400_000 && keeper < 40_000);
    };
    check(&stage);
    stage.kill().unwrap();
    stage.start_again();
    stage.assert_in_place();
    check(&stage);
    let mut client = stage.client();
    for n in 0..SANDBOXES {
        client.sandbox_delete(&format!("s{n}"), false).unwrap();
    }
    stage.assert_traces(&before);
    assert!(wait_until(PATIENCE, || is_free(&stage, 19_999)));
}

/// A sandbox on the network `apart` that serves a port.
fn serving(client: &mut Client, name: &str, links: &[String]) -> Result<(), ClientError> {
    let link = |name: &String| LinkSpec {
        sandbox: name.clone(),
        alias: None,
    };
    let create = SandboxCreate {
        networks: vec![NetworkAttachment {
            network: "apart".to_owned(),
            ..NetworkAttachment::default()
        }],
        expose: vec!["5432".to_owned()],
        links: links.iter().map(link).collect(),
        ..publishing(name, vec![])
    };
    client.sandbox_create(create).map(drop)
}

#[test]
fn links_of_a_sandbox() {
    let Some(stage) = Stage::start() else { return };
    let mut client = stage.client();
    client
        .network_create(NetworkCreate {
            icc: Some(false),
            ..NetworkCreate::new("apart")
        })
        .unwrap();
    let names: Vec<String> = (0..=LINKS_PER_SANDBOX_MAX)
        .map(|n| format!("db{n}"))
        .collect();
    for name in &names {
        serving(&mut client, name, &[]).unwrap();
    }
    let before = stage.traces().unwrap();
    assert_limit(serving(&mut client, "app", &names), LINKS_PER_SANDBOX_MAX);
    stage.assert_traces(&before);
    let (linked, left_out) = names.split_at(LINKS_PER_SANDBOX_MAX);
    serving(&mut client, "app", linked).unwrap();
    let app = stage.place("app");
    let reaches = |name: &str| {
        let there = stage.place(name);
        let server = there.inside(|| TcpListener::bind((there.v4(), 5432)));
        let _server = server.expect("the port is free in there");
        let to = SocketAddr::new(there.v4(), 5432);
        app.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok())
    };
    for name in [&linked[0], &linked[31], &linked[63]] {
        assert!(wait_until(PATIENCE, || reaches(name)), "{name}");
    }
    assert!(
        !reaches(&left_out[0]),
        "a sandbox without a link is reached"
    );
    stage.assert_in_place();
    client.sandbox_delete("app", false).unwrap();
    stage.assert_traces(&before);
}
