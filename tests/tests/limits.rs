//! Limits, reached from outside: what is at the limit works, and one more is refused without a trace.

use std::collections::BTreeMap;

use tombolo_api::limits::REQUEST_BYTES_MAX;
use tombolo_api::{
    ClientError, ErrorCode, NetworkAttachment, NetworkConnect, NetworkCreate, NetworkFilter,
    RouteConfig, SandboxCreate, SubnetConfig,
};
use tombolo_core::limits::{
    ENDPOINTS_PER_SANDBOX_MAX, LABEL_BYTES_MAX, LABELS_MAX, ROUTES_PER_NETWORK_MAX,
    SUBNETS_PER_NETWORK_MAX,
};
use tombolo_tests::Stage;

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
