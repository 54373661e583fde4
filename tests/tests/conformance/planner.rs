//! The plans of the controller and its drivers, carried out on both kernels side by side.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use ipnet::IpNet;
use tombolo_core::command::PublicationMatch;
use tombolo_core::driver::reserved;
use tombolo_core::ipam::DefaultPools;
use tombolo_core::model::{
    DnsSettings, Driver, EndpointSpec, Exposed, GatewayMode, Link, NetworkDns, NetworkSpec,
    Publication, SandboxNetns, SandboxSpec, SubnetSpec,
};
use tombolo_core::{
    Command, Controller, Effect, Event, Facts, Reference, Reply, RequestId, Settings, Uplink,
};
use tombolo_netstate::object::port::Protocol;
use tombolo_netstate::{Key, Netns, Objects};

use crate::fault;
use crate::host::{foreign_netns, on_host, run};
use crate::twin::Twin;

/// A controller over both kernels, without a store.
struct World {
    controller: Controller,
    twin: Twin,
    requests: u64,
    now_ms: u64,
    /// Everything that was ever planned, by which observing knows where to look.
    planned: Objects,
    operations: usize,
    /// Whether both kernels are compared after every plan.
    compares: bool,
}

impl World {
    fn new(directory: &Path) -> Self {
        run(&["ip", "link", "add", "up0", "type", "bridge"]);
        run(&["ip", "link", "set", "up0", "up"]);
        let reserved = Path::new("/proc/sys").join(reserved::SYSCTL);
        std::fs::write(reserved, "22\n").unwrap();
        let twin = Twin::new(directory);
        let sysctl = |path: &str| (path.to_owned(), twin.real.read_sysctl(path).unwrap());
        let paths = [
            "net/ipv4/ip_forward",
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/conf/up0/accept_ra",
            reserved::SYSCTL,
        ];
        let facts = Facts {
            uplinks: vec![Uplink {
                name: "up0".to_owned(),
                mtu: 1_460,
            }],
            ipv6: true,
            relay_port: Some(40_000),
            sysctls: paths.map(sysctl).into(),
            node: [1; 16],
            ..Facts::default()
        };
        let pools = DefaultPools::default().with_ula(&[7; 8]).unwrap();
        let mut world = Self {
            controller: Controller::new(Settings::default(), pools, facts),
            twin,
            requests: 0,
            now_ms: 1_000_000,
            planned: Objects::new(),
            operations: 0,
            compares: true,
        };
        let restored = world.controller.restore([], false).unwrap();
        assert_eq!(restored.writes, vec![]);
        world.ask(Command::Repair);
        world
    }

    /// Carries out a command that must succeed, and compares both kernels after every plan and at the end.
    fn ask(&mut self, command: Command) -> Reply {
        self.requests += 1;
        self.now_ms += 1;
        let request = RequestId(self.requests);
        let seed = u128::from(self.requests.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64;
        let what = format!("{command:?}");
        let mut answer = None;
        let mut events = VecDeque::from([Event::Command {
            request,
            command,
            seed,
        }]);
        while let Some(event) = events.pop_front() {
            let decision = self.controller.handle(self.now_ms, event);
            for effect in decision.effects {
                events.extend(self.perform(effect, &what));
            }
            answer = decision
                .replies
                .into_iter()
                .find(|(to, _)| *to == request)
                .or(answer);
        }
        let gone = self.twin.settle();
        let _ = self.twin.fake.settle();
        drop(self.controller.handle(self.now_ms, Event::Gone(gone)));
        let (_, answer) = answer.unwrap_or_else(|| panic!("{what} has no answer"));
        answer.unwrap_or_else(|reject| panic!("{what}: {reject}"))
    }

    fn perform(&mut self, effect: Effect, what: &str) -> Option<Event> {
        match effect {
            Effect::Apply { job, plan } => {
                let report = self.twin.apply(&plan);
                assert!(
                    report.is_done(),
                    "{what}: {:?}\n{plan}",
                    report.failure(&plan)
                );
                self.operations += plan.ops.len();
                self.remember(&plan);
                if self.compares {
                    drop(self.twin.observe(&self.planned, what));
                }
                Some(Event::Applied { job, report })
            }
            Effect::Observe { job, .. } => {
                let found = self.twin.observe(&self.planned, what);
                let missing = vec![];
                Some(Event::Observed {
                    job,
                    found: Ok(Box::new(found)),
                    missing,
                })
            }
            Effect::WriteFiles(_) | Effect::RemoveFiles(_) => None,
        }
    }

    fn remember(&mut self, plan: &tombolo_netstate::Plan) {
        use tombolo_netstate::Action;
        for op in &plan.ops {
            if let Action::Create(spec) | Action::Update { to: spec, .. } = &op.action {
                self.planned.insert(op.key.clone(), spec.clone());
            }
        }
    }
}

fn name(text: &str) -> Reference {
    Reference(text.to_owned())
}

fn network(text: &str) -> NetworkSpec {
    NetworkSpec {
        name: text.parse().unwrap(),
        driver: Driver::Bridge,
        subnets: vec![],
        ipv4: true,
        ipv6: true,
        internal: false,
        mtu: None,
        device: None,
        address_device: false,
        multicast: false,
        icc: true,
        masquerade: true,
        snat: vec![],
        gateway_mode4: GatewayMode::default(),
        gateway_mode6: GatewayMode::default(),
        obey_host_firewall: None,
        host_binding: None,
        dns: NetworkDns::default(),
        routes: vec![],
        interface_prefix: "eth".to_owned(),
        engine: None,
        plugin: None,
        ipam: None,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

fn make(spec: NetworkSpec) -> Command {
    Command::CreateNetwork {
        spec: Box::new(spec),
        predefined: false,
    }
}

fn sandbox(text: &str, netns: SandboxNetns, networks: &[&str]) -> Command {
    let spec = SandboxSpec {
        name: Some(text.parse().unwrap()),
        hostname: None,
        netns,
        dns: DnsSettings::default(),
        extra_hosts: vec![],
        publications: publications(text),
        exposed: vec![Exposed {
            protocol: Protocol::Tcp,
            ports: "7000-7009".parse().unwrap(),
        }],
        links: links(text),
        labels: BTreeMap::new(),
    };
    let networks = networks
        .iter()
        .map(|network| (name(network), EndpointSpec::default()));
    Command::CreateSandbox {
        spec: Box::new(spec),
        networks: networks.collect(),
    }
}

/// Ports of a sandbox at ports of the host, with `change` made to them.
fn published(
    protocol: Protocol,
    host: &str,
    container: &str,
    change: impl FnOnce(&mut Publication),
) -> Publication {
    let mut publication = Publication {
        protocol,
        address: None,
        ports: Some(host.parse().unwrap()),
        automatic: false,
        within: None,
        container: container.parse().unwrap(),
        from: vec![],
        socket: None,
        by_engine: false,
        obey_host_firewall: None,
    };
    change(&mut publication);
    publication
}

/// What the sandbox of that name publishes: every form of element and reservation is made by one of them.
fn publications(sandbox: &str) -> Vec<Publication> {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let inner = "10.0.0.0/8".parse::<IpNet>().unwrap();
    let doc = "2001:db8::/32".parse::<IpNet>().unwrap();
    match sandbox {
        "a" => vec![
            published(tcp, "8080", "80", |_| {}),
            published(udp, "8000-8009", "9000-9009", |p| p.from = vec![inner, doc]),
            published(tcp, "10000-10199", "20000-20199", |_| {}),
        ],
        "b" => vec![
            published(tcp, "8081", "80", |p| {
                p.address = Some("127.0.0.1".parse().unwrap());
            }),
            published(udp, "8081", "81", |p| {
                p.address = Some("0.0.0.0".parse().unwrap())
            }),
            published(tcp, "8082-8083", "80-81", |p| {
                p.obey_host_firewall = Some(true)
            }),
        ],
        "d" => vec![
            published(tcp, "8084", "80", |_| {}),
            published(tcp, "8085-8089", "85-89", |p| p.from = vec![inner]),
        ],
        "f" => vec![published(tcp, "8090", "80", |_| {})],
        _ => vec![],
    }
}

/// The sandbox `e` is linked to `b`.
fn links(sandbox: &str) -> Vec<Link> {
    let link = Link {
        sandbox: "b".parse().unwrap(),
        alias: "db".to_owned(),
    };
    if sandbox == "e" { vec![link] } else { vec![] }
}

/// Publishes, changes who may use it, and takes it back.
fn change_publications(world: &mut World) {
    let open = published(Protocol::Tcp, "8091", "91", |_| {});
    let filtered = published(Protocol::Tcp, "8091", "91", |p| {
        p.from = vec!["10.1.0.0/16".parse().unwrap()];
    });
    for publication in [open, filtered] {
        world.ask(Command::Publish {
            sandbox: name("c"),
            publications: vec![publication],
        });
    }
    world.ask(Command::Unpublish {
        sandbox: name("a"),
        publications: vec![PublicationMatch {
            text: "9000-9009/udp".to_owned(),
            protocol: Some(Protocol::Udp),
            address: None,
            ports: None,
            container: Some("9000-9009".parse().unwrap()),
            socket: None,
        }],
    });
}

/// The networks of the test: every choice of the bridge driver is made by one of them.
fn networks() -> Vec<NetworkSpec> {
    let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
    let subnet = |text: &str| SubnetSpec {
        subnet: net(text),
        ..SubnetSpec::default()
    };
    vec![
        network("dual"),
        NetworkSpec {
            internal: true,
            ..network("inner")
        },
        NetworkSpec {
            multicast: true,
            icc: false,
            ..network("plain")
        },
        NetworkSpec {
            ipv4: false,
            mtu: Some(1_400),
            ..network("six")
        },
        NetworkSpec {
            ipv6: false,
            snat: vec!["192.0.2.7".parse().unwrap()],
            subnets: vec![subnet("10.77.0.0/24"), subnet("10.78.0.0/24")],
            device: Some("odd0".to_owned()),
            interface_prefix: "net".to_owned(),
            ..network("four")
        },
        NetworkSpec {
            icc: false,
            ..network("apart")
        },
        NetworkSpec {
            gateway_mode4: GatewayMode::Routed,
            gateway_mode6: GatewayMode::NatUnprotected,
            ..network("open")
        },
        NetworkSpec {
            internal: true,
            gateway_mode4: GatewayMode::Isolated,
            gateway_mode6: GatewayMode::Isolated,
            ..network("alone")
        },
    ]
}

#[test]
fn the_controllers_plans_read_back_equal() {
    on_host(|directory| {
        let mut world = World::new(directory);
        for spec in networks() {
            world.ask(make(spec));
        }
        let (path, inode) = foreign_netns(directory.join("theirs"));
        world.twin.fake.adopt(Netns::Adopted {
            path: path.as_path().into(),
            inode,
        });
        let adopted = SandboxNetns::Adopted { path, inode };
        world.ask(sandbox("a", SandboxNetns::New, &["dual", "six", "four"]));
        world.ask(sandbox("b", SandboxNetns::New, &["plain", "dual", "apart"]));
        world.ask(sandbox("c", adopted, &["inner", "dual"]));
        world.ask(sandbox("d", SandboxNetns::New, &["open", "alone"]));
        world.ask(sandbox("e", SandboxNetns::New, &["apart"]));
        world.ask(sandbox("f", SandboxNetns::New, &["six"]));
        let (network, at) = (name("inner"), Some(name("a")));
        world.ask(Command::CreateEndpoint {
            network,
            sandbox: at,
            spec: Box::default(),
        });
        world.ask(Command::Disconnect {
            network: name("dual"),
            sandbox: name("b"),
        });
        world.ask(Command::StopSandbox(name("a")));
        world.ask(Command::StartSandbox {
            sandbox: name("a"),
            picked: vec![],
        });
        change_publications(&mut world);
        mend_each_kind(&mut world);
        for text in ["e", "a", "b", "c", "d", "f"] {
            let keep_endpoints = text == "b";
            world.ask(Command::DeleteSandbox {
                sandbox: name(text),
                keep_endpoints,
            });
        }
        world.ask(Command::Prune);
        let left: Vec<String> = world
            .twin
            .fake
            .objects()
            .keys()
            .map(Key::to_string)
            .collect();
        // Of the host, and not of any network: these stay.
        let stays = ["nft", "sysctl", "element relay {"];
        let ours = |key: &&String| !stays.iter().any(|word| key.contains(word));
        assert_eq!(left.iter().filter(ours).count(), 0, "left: {left:?}");
        assert!(
            world.operations > 150,
            "only {} operations",
            world.operations
        );
    });
}

#[test]
fn leaf_bridges_read_back_equal() {
    on_host(|directory| {
        let mut world = World::new(directory);
        world.ask(make(network("wide")));
        // The first bridge is full before there are leaves.
        world.compares = false;
        for n in 0..40 {
            world.ask(sandbox(&format!("s{n}"), SandboxNetns::New, &["wide"]));
        }
        world.compares = true;
        mend_each_kind(&mut world);
        for n in 0..40 {
            world.compares = n % 8 == 0;
            let sandbox = name(&format!("s{n}"));
            world.ask(Command::DeleteSandbox {
                sandbox,
                keep_endpoints: false,
            });
        }
        world.compares = true;
        world.ask(Command::DeleteNetwork(name("wide")));
        assert_eq!(world.twin.fake.refusals(), Vec::<String>::new());
    });
}

/// Removes the first, the middle and the last object of each kind behind the controller's back, and has it
/// repaired.
fn mend_each_kind(world: &mut World) {
    let held = world.twin.fake.objects();
    let mut kinds: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
    for key in held.keys() {
        kinds.entry(key.kind()).or_default().push(key);
    }
    for keys in kinds.values() {
        let mut at = vec![0, keys.len() / 2, keys.len() - 1];
        at.dedup();
        for n in at {
            if fault::remove(&world.twin.real, &held, keys[n]) {
                world.twin.fake.vanish(keys[n]);
                world.ask(Command::Repair);
                assert_eq!(
                    world.twin.fake.objects(),
                    held,
                    "after {} was removed",
                    keys[n]
                );
            }
        }
    }
}
