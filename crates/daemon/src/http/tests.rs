use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tombolo_api::types::*;
use tombolo_api::{Address, Operation};

use super::*;
use crate::listen;

mod calls;
mod hostile;
mod tls;

/// Answers every call with something of the right shape, and remembers what it was asked.
#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Service for Fake {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        self.asked.lock().unwrap().push(request.clone());
        match &request {
            Request::NetworkInspect { reference } if reference == "slow" => {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
            Request::NetworkInspect { reference } if reference == "gone" => {
                let error =
                    ApiError::new(tombolo_api::ErrorCode::UnknownNetwork, "no network gone");
                return Err(error.on("gone").hint("list them"));
            }
            _ => {}
        }
        Ok(answer(request.operation()))
    }
}

fn answer(operation: Operation) -> Response {
    match operation {
        Operation::Version => Response::Version(version()),
        Operation::Info => Response::Info(info()),
        Operation::NetworkCreate | Operation::NetworkInspect => Response::Network(network()),
        Operation::NetworkList => Response::Networks(vec![network(), network()]),
        Operation::NetworkPrune | Operation::Prune => Response::Pruned(pruned()),
        Operation::EndpointCreate
        | Operation::NetworkConnect
        | Operation::EndpointInspect
        | Operation::EndpointJoin
        | Operation::EndpointLeave => Response::Endpoint(endpoint()),
        Operation::EndpointList => Response::Endpoints(vec![endpoint()]),
        Operation::SandboxCreate
        | Operation::SandboxInspect
        | Operation::SandboxStop
        | Operation::SandboxStart => Response::Sandbox(sandbox()),
        Operation::SandboxList => Response::Sandboxes(vec![]),
        Operation::SandboxPublications
        | Operation::PublicationsAdd
        | Operation::PublicationList => Response::Publications(vec![]),
        Operation::DnsNames => Response::DnsNames(vec![dns_name()]),
        Operation::DnsResolve => Response::DnsAnswer(dns_answer()),
        Operation::NetworkDelete
        | Operation::PublicationsRemove
        | Operation::NetworkDisconnect
        | Operation::EndpointDelete
        | Operation::SandboxDelete => Response::Done,
        Operation::Plan | Operation::Drift => Response::Operations(operations()),
        Operation::Explain => Response::Explanation(explanation()),
        Operation::Repair => Response::RepairReport(repair_report()),
        Operation::Doctor => Response::FindingReport(finding_report()),
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn version() -> Version {
    Version {
        version: text("1.2.3"),
        api_version: text("v1"),
        commit: None,
        os: text("linux"),
        arch: text("x86_64"),
    }
}

fn info() -> Info {
    Info {
        version: text("1.2.3"),
        node: text("n1"),
        hostname: text("h"),
        kernel: text("6.12"),
        store: text("embedded"),
        state_dir: text("/var/lib/tombolo"),
        run_dir: text("/run/tombolo"),
        drivers: vec![text("bridge")],
        counts: Counts {
            networks: 1,
            endpoints: 2,
            sandboxes: 3,
            objects: 4,
        },
        started_ms: 5,
    }
}

fn network() -> Network {
    Network {
        id: text("0123"),
        name: text("web"),
        driver: text("bridge"),
        subnets: vec![Subnet {
            subnet: text("10.0.0.0/24"),
            ip_range: vec![],
            gateway: Some(text("10.0.0.1")),
            aux_addresses: [(text("router"), text("10.0.0.9"))].into(),
            leases: 2,
        }],
        ipv4: true,
        ipv6: false,
        internal: false,
        mtu: 1500,
        mtu_configured: None,
        device: Some(text("br0")),
        multicast: false,
        icc: true,
        masquerade: true,
        gateway_mode_ipv4: Some(text("nat")),
        gateway_mode_ipv6: None,
        obey_host_firewall: false,
        host_binding: None,
        dns: NetworkDns {
            resolver: Some(text("sandbox")),
            ..NetworkDns::default()
        },
        snat_ipv4: None,
        snat_ipv6: None,
        routes: vec![RouteConfig {
            destination: text("10.1.0.0/16"),
            via: None,
        }],
        interface_prefix: None,
        labels: [(text("a"), text("b"))].into(),
        options: [].into(),
        ipam_driver: None,
        ipam_options: Default::default(),
        plugins: Vec::new(),
        state: NetworkState::Ready,
        endpoints: vec![EndpointSummary {
            id: text("4567"),
            name: text("e"),
            sandbox: None,
            addresses: vec![text("10.0.0.2/24")],
            mac: None,
            state: EndpointState::Allocated,
        }],
        created_ms: 1_763_644_800_000,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: text("4567"),
        name: text("e"),
        network: Named {
            id: text("0123"),
            name: text("web"),
        },
        sandbox: Some(Named {
            id: text("89ab"),
            name: text("s"),
        }),
        addresses: vec![text("10.0.0.2/24")],
        gateways: vec![text("10.0.0.1")],
        mac: Some(text("02:42:0a:00:00:02")),
        interface: Some(text("eth0")),
        host_interface: Some(text("tmb0")),
        mtu: 1500,
        state: EndpointState::Attached,
        gateway_priority: -1,
        aliases: vec![text("db")],
        labels: [].into(),
    }
}

fn sandbox() -> Sandbox {
    Sandbox {
        id: text("89ab"),
        name: text("s"),
        hostname: Some(text("s")),
        state: SandboxState::Running,
        netns: Some(text("/run/netns/s")),
        files: Some(SandboxFiles {
            directory: text("/run/tombolo/s"),
            hosts: text("/run/tombolo/s/hosts"),
            hostname: text("/run/tombolo/s/hostname"),
            resolv_conf: text("/run/tombolo/s/resolv.conf"),
        }),
        endpoints: vec![endpoint()],
        publications: vec![],
        expose: vec![text("80/tcp")],
        links: vec![],
        linked_by: vec![],
        labels: [].into(),
        created_ms: 1,
    }
}

fn dns_name() -> DnsName {
    DnsName {
        network: text("web"),
        name: text("s"),
        sandbox: Named {
            id: text("89ab"),
            name: text("s"),
        },
        addresses: vec![text("10.0.0.2")],
        aliases: vec![text("db")],
    }
}

fn dns_answer() -> DnsAnswer {
    DnsAnswer {
        name: text("s"),
        kind: text("A"),
        code: text("NOERROR"),
        source: DnsSource::Forwarded,
        records: vec![DnsRecord {
            name: text("s"),
            kind: text("A"),
            ttl_seconds: 5,
            data: text("10.0.0.2"),
        }],
        took_us: 7,
        server: Some(text("192.0.2.53")),
    }
}

fn pruned() -> Pruned {
    Pruned {
        networks: vec![text("web")],
        endpoints: vec![],
        sandboxes: vec![text("s")],
    }
}

fn operation() -> OperationView {
    OperationView {
        action: Action::Create,
        object: text("link br0"),
        kind: text("link"),
        text: text("make bridge br0"),
        owners: vec![text("network web")],
    }
}

fn operations() -> Operations {
    Operations {
        operations: vec![operation()],
    }
}

fn explanation() -> Explanation {
    let object = |state| ObjectView {
        object: text("link br0"),
        kind: text("link"),
        spec: text("bridge, mtu 1500"),
        owners: vec![],
        state,
        last: None,
    };
    Explanation {
        endpoint: text("4567"),
        objects: vec![
            object(ObjectState::InPlace),
            object(ObjectState::Missing),
            object(ObjectState::Different),
            object(ObjectState::Leaving),
        ],
    }
}

fn repair_report() -> RepairReport {
    let failure = OperationFailure {
        operation: operation(),
        message: text("busy"),
    };
    RepairReport {
        operations: vec![operation()],
        failures: vec![failure],
    }
}

fn finding_report() -> FindingReport {
    let finding = Finding {
        level: FindingLevel::Warning,
        topic: text("firewall"),
        text: text("another table drops forwarded packets"),
        hint: Some(text("add an exception")),
    };
    FindingReport {
        findings: vec![finding],
    }
}

/// A server in front of a fake, on a Unix socket in a directory of its own.
struct Running {
    fake: Fake,
    address: Address,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(adjust: impl FnOnce(&mut Server)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.sock");
        let listener = listen::unix(&path, None).unwrap();
        let fake = Fake::default();
        let mut server = Server::new(router(fake.clone()));
        adjust(&mut server);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(vec![listener], async { drop(stopped.await) }));
        Self {
            fake,
            address: Address::Unix(path),
            stop,
            task,
            directory,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("t.sock")
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.fake.asked.lock().unwrap())
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}
