//! What the tests of this program begin with: a node with two networks, and two sandboxes that reach each
//! other.

use std::collections::BTreeMap;
use std::time::Duration;

use tombolo_api::{
    Client, ClientError, Endpoint, EndpointFilter, ErrorCode, NetworkAttachment, NetworkCreate,
    NetworkFilter, SandboxCreate, SandboxFilter, SandboxState,
};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;

/// Longest time for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where the daemon finds its configuration, on the node.
const CONFIG: &str = "/run/scene.toml";
/// Addresses are given out again at once, so that a lost one shows; few namespaces are prepared, to start fast.
const SETTINGS: &str =
    "address-cooldown-seconds = 0\nprepared-namespaces = 1\nlog-level = \"debug\"\n";

/// The answer of a command of which only the success counts.
pub(crate) type Answer = Result<(), ClientError>;

/// A node with its daemon, the networks `one` and `two`, and the sandboxes `p` and `q` on both. None where
/// nodes cannot be made.
pub(crate) fn scene() -> Option<Stage> {
    let mut stage = Stage::bare()?;
    furnish(&mut stage);
    Some(stage)
}

/// Makes the scene on a node without a daemon.
pub(crate) fn furnish(stage: &mut Stage) {
    std::fs::write(stage.path(CONFIG), SETTINGS).unwrap();
    // The administrator's own choice, which is to be kept.
    stage.shell("echo 22 >/proc/sys/net/ipv4/ip_local_reserved_ports");
    start(stage, &[]);
    let mut client = stage.client();
    for name in ["one", "two"] {
        make_network(&mut client, name).unwrap();
    }
    for name in ["p", "q"] {
        make_sandbox(&mut client, name, &["one", "two"]).unwrap();
    }
    assert_in_touch(stage, "p", "q");
}

/// Starts the daemon of a scene with these variables.
#[track_caller]
pub(crate) fn start(stage: &mut Stage, environment: &[(&str, &str)]) {
    if let Err(error) = stage.start_with(&["--config", CONFIG], environment) {
        panic!("{error}");
    }
}

/// Kills the daemon and starts it again.
#[track_caller]
pub(crate) fn restart(stage: &mut Stage) {
    stage.kill().unwrap();
    start(stage, &[]);
}

/// A dual-stack network.
pub(crate) fn make_network(client: &mut Client, name: &str) -> Answer {
    let create = NetworkCreate {
        ipv6: Some(true),
        ..NetworkCreate::new(name)
    };
    client.network_create(create).map(drop)
}

/// A sandbox on these networks.
pub(crate) fn make_sandbox(client: &mut Client, name: &str, networks: &[&str]) -> Answer {
    let create = SandboxCreate {
        name: Some(name.to_owned()),
        networks: on(networks),
        ..SandboxCreate::default()
    };
    client.sandbox_create(create).map(drop)
}

/// Networks to join, as they come.
pub(crate) fn on(networks: &[&str]) -> Vec<NetworkAttachment> {
    let attachment = |network: &&str| NetworkAttachment {
        network: (*network).to_owned(),
        ..NetworkAttachment::default()
    };
    networks.iter().map(attachment).collect()
}

/// Asserts that one sandbox reaches every address that another has on a network of both.
#[track_caller]
pub(crate) fn assert_in_touch(stage: &Stage, from: &str, to: &str) {
    let (from, to) = (stage.inspect(from), stage.inspect(to));
    let here = stage.place_of(&from);
    let shared = |end: &&Endpoint| from.endpoints.iter().any(|own| own.network == end.network);
    let mut addresses = 0;
    for address in to
        .endpoints
        .iter()
        .filter(shared)
        .flat_map(|end| &end.addresses)
    {
        let address = address.parse::<ipnet::IpNet>().unwrap().addr();
        let echo = wait_until(PATIENCE, || here.pings(address));
        assert!(
            echo,
            "{} gets no echo from {address} of {}",
            from.name, to.name
        );
        addresses += 1;
    }
    assert!(
        addresses >= 2,
        "{} and {} share no network: {to:?}",
        from.name,
        to.name
    );
}

/// Everything that the daemon says it has, as lines that can be compared.
pub(crate) fn records(stage: &Stage) -> Vec<String> {
    let mut client = stage.client();
    let networks = client.network_list(NetworkFilter::default()).unwrap();
    let endpoints = client.endpoint_list(EndpointFilter::default()).unwrap();
    let sandboxes = client.sandbox_list(SandboxFilter::default()).unwrap();
    let lines = networks
        .iter()
        .map(|network| serde_json::to_string(network).unwrap());
    let lines = lines.chain(
        endpoints
            .iter()
            .map(|end| serde_json::to_string(end).unwrap()),
    );
    let lines = lines.chain(
        sandboxes
            .iter()
            .map(|place| serde_json::to_string(place).unwrap()),
    );
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// The addresses of all endpoints, by network and name.
pub(crate) fn addresses(stage: &Stage) -> BTreeMap<String, Vec<String>> {
    let endpoints = stage
        .client()
        .endpoint_list(EndpointFilter::default())
        .unwrap();
    let line = |end: Endpoint| (format!("{}/{}", end.network.name, end.name), end.addresses);
    endpoints.into_iter().map(line).collect()
}

/// Whether a sandbox runs.
pub(crate) fn runs(stage: &Stage, name: &str) -> bool {
    stage.inspect(name).state == SandboxState::Running
}

/// The code of a refusal; none when there was no answer.
pub(crate) fn code(error: &ClientError) -> Option<ErrorCode> {
    match error {
        ClientError::Api(error) => Some(error.code),
        _ => None,
    }
}
