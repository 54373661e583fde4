//! What lists and trees look like.

use tombolo_api::{ErrorCode, Request, Response};

use crate::fake::{Host, refusal};
use crate::samples::{endpoint, network, sandbox, summary};

fn host() -> Host {
    Host::answering(|request| {
        let (mut blue, none) = (network("blue"), bare("none", "null"));
        let tied = endpoint(&blue, "web", "10.1.0.2/24");
        blue.endpoints = vec![summary(&tied)];
        let lone = sandbox("lone\u{1b}[2J", Vec::new());
        Ok(match request {
            Request::NetworkList(_) => Response::Networks(vec![blue, none]),
            Request::NetworkInspect { .. } => Response::Network(blue),
            Request::EndpointList(_) => Response::Endpoints(vec![tied]),
            Request::SandboxList(_) => Response::Sandboxes(vec![sandbox("web", vec![tied]), lone]),
            other => panic!("{other:?}"),
        })
    })
}

fn bare(name: &str, driver: &str) -> tombolo_api::Network {
    tombolo_api::Network {
        driver: driver.into(),
        subnets: Vec::new(),
        device: None,
        ..network(name)
    }
}

#[test]
fn networks_in_every_form() {
    let host = host();
    let table = "\
ID             NAME   DRIVER   SUBNETS       GATEWAYS   DEVICE    ENDPOINTS   STATE
000000000000   blue   bridge   10.1.0.0/24   10.1.0.1   br-blue   1           ready
000000000000   none   null     -             -          -         0           ready
";
    assert_eq!(host.output(&["network", "ls"]), table);
    assert_eq!(host.output(&["network", "list"]), table);
    assert_eq!(
        host.output(&["network", "ls", "-q"]),
        "000000000000\n000000000000\n"
    );
    let json = host.output(&["network", "ls", "--json"]);
    let networks: Vec<tombolo_api::Network> = serde_json::from_str(&json).unwrap();
    assert_eq!(networks[0].endpoints[0].name, "web");
    let one: serde_json::Value =
        serde_json::from_str(&host.output(&["network", "inspect", "blue"])).unwrap();
    assert_eq!(one[0]["subnets"][0]["gateway"], "10.1.0.1");
}

#[test]
fn filters_travel_to_the_daemon() {
    let host = host();
    host.output(&[
        "network",
        "ls",
        "--filter",
        "name=b",
        "-f",
        "label=a=1",
        "-f",
        "driver=bridge",
    ]);
    let asked = host.asked();
    let [Request::NetworkList(filter)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(filter.name.as_deref(), Some("b"));
    assert_eq!(filter.driver.as_deref(), Some("bridge"));
    assert_eq!(filter.labels, ["a=1"]);
    let (code, _, err) = host.tombolo(&["network", "ls", "--filter", "colour=red"]);
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "tombolo: unknown filter colour; known are name, driver, label\n"
        )
    );
    assert!(host.asked().is_empty());
}

#[test]
fn endpoints_and_sandboxes() {
    let host = host();
    assert_eq!(
        host.output(&["endpoint", "ls", "--network", "blue"]),
        "\
ID         NAME   NETWORK   SANDBOX   ADDRESSES     MAC                 INTERFACE   STATE
ewebblue   web    blue      web       10.1.0.2/24   02:00:00:00:00:02   eth0        attached
"
    );
    let sandboxes = host.output(&["sandbox", "ls"]);
    let lines: Vec<&str> = sandboxes.lines().collect();
    assert!(lines[1].starts_with("776562000000   web"), "{sandboxes}");
    assert!(
        lines[1].ends_with("blue 10.1.0.2   /run/netns/web"),
        "{sandboxes}"
    );
    // What the daemon holds cannot command the terminal.
    assert!(
        !sandboxes.contains('\u{1b}') && lines[2].contains("lone\u{fffd}[2J"),
        "{sandboxes}"
    );
}

#[test]
fn the_topology_is_a_tree() {
    assert_eq!(
        host().output(&["topology"]),
        "\
blue (bridge)  10.1.0.0/24 via 10.1.0.1  device br-blue  mtu 1500  uplink: masqueraded
└─ web  10.1.0.2/24  eth0 <- vethabc  sandbox web (running)
none (null)
(on no network)
└─ sandbox lone\u{fffd}[2J (running)
"
    );
    let json: serde_json::Value =
        serde_json::from_str(&host().output(&["topology", "--json"])).unwrap();
    assert_eq!(json["endpoints"][0]["interface"], "eth0");
}

#[test]
fn errors_go_to_standard_error_with_a_hint_and_an_exit_code_by_kind() {
    let host = Host::answering(|request| match request {
        Request::NetworkDelete { reference } if reference == "used" => {
            Err(refusal(ErrorCode::NetworkInUse, "network used has endpoints").hint("remove them"))
        }
        Request::NetworkDelete { reference } if reference == "gone" => Err(refusal(
            ErrorCode::UnknownNetwork,
            "no network is called gone",
        )),
        Request::NetworkDelete { .. } => Ok(Response::Done),
        other => panic!("{other:?}"),
    });
    let (code, out, err) = host.tombolo(&["network", "rm", "a", "used", "gone", "b"]);
    assert_eq!((code, out.as_str()), (3, "a\nb\n"));
    assert_eq!(
        err,
        "tombolo: network used has endpoints\n  hint: remove them\ntombolo: no network is called gone\n"
    );
    assert_eq!(host.tombolo(&["network", "rm", "gone"]).0, 5);
    assert_eq!(host.tombolo(&["network", "rm", "-f", "gone"]).0, 0);
    let (code, out, err) = Host::silent().tombolo(&["network", "ls"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(
        err.starts_with("tombolo: no daemon answers at unix:///"),
        "{err}"
    );
    assert!(err.contains("\n  hint: start it with"), "{err}");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let host = host();
    let mut child = host
        .command(&["network", "ls", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
