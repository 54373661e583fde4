//! Seeing: plans, explanations, drift, repair, the doctor, and what things are.

use tombolo_api::{
    Action, Counts, ErrorCode, Explanation, Finding, FindingLevel, FindingReport, Info,
    ObjectState, ObjectView, OperationFailure, OperationView, Operations, Pruned, RepairReport,
    Request, Response, Version,
};

use crate::fake::{Host, refusal};
use crate::samples::{endpoint, network, sandbox};

fn operation(action: Action, text: &str) -> OperationView {
    OperationView {
        action,
        object: "link br-blue".into(),
        kind: "link".into(),
        text: text.into(),
        owners: Vec::new(),
    }
}

fn host() -> Host {
    Host::answering(|request| {
        let broken = operation(Action::Create, "+ link br-blue");
        Ok(match request {
            Request::Plan(_) | Request::Drift => Response::Operations(Operations {
                operations: vec![broken, operation(Action::Delete, "- route 10.0.0.0/8")],
            }),
            Request::Repair => Response::RepairReport(RepairReport {
                operations: vec![broken.clone()],
                failures: vec![OperationFailure {
                    operation: broken,
                    message: "no such device".into(),
                }],
            }),
            Request::Doctor => Response::FindingReport(FindingReport {
                findings: vec![
                    finding(FindingLevel::Ok, "forwarding", "is on", None),
                    finding(
                        FindingLevel::Error,
                        "nftables",
                        "is missing",
                        Some("install it"),
                    ),
                ],
            }),
            Request::SandboxInspect { reference } if reference == "web" => {
                let on = |name: &str| endpoint(&network(name), "web", "10.1.0.2/24");
                Response::Sandbox(sandbox("web", vec![on("blue"), on("green")]))
            }
            Request::SandboxInspect { .. } => {
                return Err(refusal(ErrorCode::UnknownSandbox, "none"));
            }
            Request::NetworkInspect { reference } if reference == "blue" => {
                Response::Network(network("blue"))
            }
            Request::NetworkInspect { .. } => {
                return Err(refusal(ErrorCode::UnknownNetwork, "none"));
            }
            Request::EndpointInspect { .. } => {
                return Err(refusal(ErrorCode::UnknownEndpoint, "none"));
            }
            Request::Explain { reference } if reference == "nobody" => {
                return Err(refusal(
                    ErrorCode::UnknownEndpoint,
                    "no endpoint is called nobody",
                ));
            }
            Request::Explain { reference } => Response::Explanation(Explanation {
                endpoint: reference,
                objects: vec![ObjectView {
                    object: "veth1".into(),
                    kind: "link".into(),
                    spec: "up".into(),
                    owners: vec![format!(
                        "endpoint/{}",
                        "0123456789ab".repeat(3).split_at(32).0
                    )],
                    state: ObjectState::InPlace,
                    last: Some("done".into()),
                }],
            }),
            Request::Version => Response::Version(version()),
            Request::Info => Response::Info(info()),
            Request::Prune => Response::Pruned(Pruned {
                networks: vec!["old".into()],
                endpoints: Vec::new(),
                sandboxes: vec!["dead".into()],
            }),
            other => panic!("{other:?}"),
        })
    })
}

fn finding(level: FindingLevel, topic: &str, text: &str, hint: Option<&str>) -> Finding {
    Finding {
        level,
        topic: topic.into(),
        text: text.into(),
        hint: hint.map(Into::into),
    }
}

fn version() -> Version {
    Version {
        version: "9.9.9".into(),
        api_version: "v1".into(),
        commit: None,
        os: "linux".into(),
        arch: "x86_64".into(),
    }
}

fn info() -> Info {
    Info {
        version: "9.9.9".into(),
        node: "n1".into(),
        hostname: "h".into(),
        kernel: "6.12".into(),
        store: "embedded".into(),
        state_dir: "/var/lib/tombolo".into(),
        run_dir: "/run/tombolo".into(),
        drivers: vec!["bridge".into(), "host".into()],
        counts: Counts {
            networks: 3,
            ..Counts::default()
        },
        started_ms: 0,
    }
}

#[test]
fn drift_and_repair_list_operations() {
    let host = host();
    let expected = "+ link br-blue\n- route 10.0.0.0/8\n";
    assert_eq!(host.output(&["drift"]), expected);
    assert_eq!(host.output(&["plan", "network", "rm", "x"]), expected);
    let (code, out, err) = host.tombolo(&["repair"]);
    assert_eq!((code, out.as_str()), (1, "+ link br-blue\n"));
    assert_eq!(err, "tombolo: + link br-blue failed: no such device\n");
    let json: Operations = serde_json::from_str(&host.output(&["drift", "--json"])).unwrap();
    assert_eq!(json.operations.len(), 2);
}

#[test]
fn the_doctor_fails_when_something_does_not_work() {
    let (code, out, _) = host().tombolo(&["doctor"]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "ok       forwarding: is on\nerror    nftables: is missing\n         install it\n"
    );
}

#[test]
fn a_sandbox_is_explained_by_its_endpoints() {
    let host = host();
    let table = "STATE      KIND   OBJECT   SPEC   OWNERS                  LAST\nin place   link   veth1    up     endpoint/0123456789ab   done\n";
    let expected = format!("endpoint web on blue\n{table}\nendpoint web on green\n{table}");
    assert_eq!(host.output(&["explain", "web"]), expected);
    assert_eq!(
        host.output(&["explain", "lone"]),
        format!("endpoint lone\n{table}")
    );
    let (code, _, err) = host.tombolo(&["explain", "nobody"]);
    assert_eq!(code, 5);
    assert!(
        err.starts_with("tombolo: nothing is called nobody"),
        "{err}"
    );
}

#[test]
fn inspect_finds_whatever_has_the_name() {
    let host = host();
    let (code, out, err) = host.tombolo(&["inspect", "web", "blue", "nobody"]);
    assert_eq!(code, 5);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found[0]["hostname"], "web-host");
    assert_eq!(found[1]["driver"], "bridge");
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert!(err.contains("nothing is called nobody"), "{err}");
    assert_eq!(host.tombolo(&["inspect", "--type", "network", "web"]).0, 5);
}

#[test]
fn versions_info_and_prune() {
    let host = host();
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(
        host.output(&["version"]),
        format!("Client:  {ours}\nDaemon:  9.9.9 (API v1, linux/x86_64)\n")
    );
    let (code, out, _) = Host::silent().tombolo(&["version"]);
    assert_eq!((code, out), (4, format!("Client:  {ours}\n")));
    let text = host.output(&["info"]);
    assert!(
        text.contains("Drivers:         bridge, host\nNetworks:        3\n"),
        "{text}"
    );
    assert_eq!(
        host.output(&["system", "prune", "-f"]),
        "sandbox dead\nnetwork old\n"
    );
    host.asked();
    let (code, _, err) = host.tombolo(&["system", "prune"]);
    assert_eq!(code, 3);
    assert!(
        err.contains("[y/N]") && err.contains("nothing was removed"),
        "{err}"
    );
    assert!(host.asked().is_empty());
}
