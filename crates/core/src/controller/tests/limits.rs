//! Each limit of the model: what is just inside it is taken, what is beyond is refused.

use std::collections::BTreeMap;

use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::{Key, Netns, Report};

use super::script;
use super::world::World;
use crate::command::{Command, Reference};
use crate::driver::names;
use crate::event::{Effect, Event, RequestId};
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::limits::*;
use crate::model::{Endpoint, Network, NetworkSpec, Sandbox};
use crate::reject::Code;

fn ask(world: &mut World, line: &str) -> Result<(), Code> {
    ask_for(world, script::command(line).unwrap())
}

fn ask_for(world: &mut World, command: Command) -> Result<(), Code> {
    world
        .ask(command)
        .unwrap()
        .map(drop)
        .map_err(|reject| reject.code)
}

fn name(text: &str) -> Reference {
    Reference(text.to_owned())
}

fn spec(line: &str) -> NetworkSpec {
    match script::command(line) {
        Some(Command::CreateNetwork { spec, .. }) => *spec,
        other => panic!("{line} is no network: {other:?}"),
    }
}

fn create(spec: NetworkSpec) -> Command {
    Command::CreateNetwork {
        spec: Box::new(spec),
        predefined: false,
    }
}

/// Records like one that is there, without what they would be in the kernel.
fn clone_networks(world: &mut World, count: usize) {
    let like: Network = world.controller.networks().next().unwrap().clone();
    for n in 0..count {
        let mut network = like.clone();
        network.id = NetworkId(n as u128);
        network.spec.name = format!("clone-{n}").parse().unwrap();
        network.device = format!("clone-{n}");
        network.pools = vec![];
        world
            .controller
            .state
            .swap_network(network.id, Some(network));
    }
}

#[test]
fn networks_of_a_node() {
    let mut world = World::new();
    ask(&mut world, "network first").unwrap();
    clone_networks(&mut world, NETWORKS_MAX - 2);
    assert_eq!(ask(&mut world, "network last"), Ok(()));
    assert_eq!(ask(&mut world, "network more"), Err(Code::LimitReached));
    assert_eq!(world.controller.counts().0, NETWORKS_MAX);
}

#[test]
fn endpoints_of_a_network() {
    let mut world = World::new();
    ask(&mut world, "network web subnet=10.4.0.0/16").unwrap();
    ask(&mut world, "endpoint web").unwrap();
    let like: Endpoint = world.controller.endpoints().next().unwrap().clone();
    for n in 0..ENDPOINTS_PER_NETWORK_MAX - 2 {
        let mut endpoint = like.clone();
        endpoint.id = EndpointId(n as u128);
        endpoint.name = format!("clone-{n}").parse().unwrap();
        world
            .controller
            .state
            .swap_endpoint(endpoint.id, Some(endpoint));
    }
    assert_eq!(ask(&mut world, "endpoint web"), Ok(()));
    assert_eq!(ask(&mut world, "endpoint web"), Err(Code::LimitReached));
}

#[test]
fn endpoints_of_a_sandbox() {
    let mut world = World::new();
    let networks: Vec<String> = (0..=ENDPOINTS_PER_SANDBOX_MAX)
        .map(|n| format!("n{n}"))
        .collect();
    for network in &networks {
        ask(&mut world, &format!("network {network}")).unwrap();
    }
    let all = networks.join(" ");
    assert_eq!(
        ask(&mut world, &format!("run c1 {all}")),
        Err(Code::LimitReached)
    );
    let most = networks[1..].join(" ");
    assert_eq!(ask(&mut world, &format!("run c1 {most}")), Ok(()));
    assert_eq!(ask(&mut world, "connect n0 c1"), Err(Code::LimitReached));
    assert_eq!(ask(&mut world, "disconnect n9 c1"), Ok(()));
    assert_eq!(ask(&mut world, "connect n0 c1"), Ok(()));
    world.check();
}

#[test]
fn sandboxes_of_a_node() {
    let mut world = World::new();
    ask(&mut world, "run first").unwrap();
    let like: Sandbox = world.controller.sandboxes().next().unwrap().clone();
    for n in 0..SANDBOXES_MAX - 2 {
        let mut sandbox = like.clone();
        sandbox.id = SandboxId(n as u128);
        sandbox.name = format!("clone-{n}").parse().unwrap();
        world
            .controller
            .state
            .swap_sandbox(sandbox.id, Some(sandbox));
    }
    assert_eq!(ask(&mut world, "run last"), Ok(()));
    assert_eq!(ask(&mut world, "run more"), Err(Code::LimitReached));
}

#[test]
fn subnets_and_routes_of_a_network() {
    let mut world = World::new();
    let subnets = |count: usize| -> String {
        (0..count)
            .map(|n| format!(" subnet=10.5.{n}.0/24"))
            .collect()
    };
    let over = format!("network web{}", subnets(SUBNETS_PER_NETWORK_MAX + 1));
    assert_eq!(ask(&mut world, &over), Err(Code::LimitReached));
    let most = format!("network web{}", subnets(SUBNETS_PER_NETWORK_MAX));
    assert_eq!(ask(&mut world, &most), Ok(()));
    let routes = |count: usize| -> String {
        (0..count)
            .map(|n| format!(" route=10.6.{n}.0/24"))
            .collect()
    };
    let over = format!("network db{}", routes(ROUTES_PER_NETWORK_MAX + 1));
    assert_eq!(ask(&mut world, &over), Err(Code::LimitReached));
    let most = format!("network db{}", routes(ROUTES_PER_NETWORK_MAX));
    assert_eq!(ask(&mut world, &most), Ok(()));
    assert_eq!(ask(&mut world, "run c1 web db"), Ok(()));
    world.check();
}

#[test]
fn labels_and_options_of_an_object() {
    let many = |count: usize| -> BTreeMap<String, String> {
        (0..count)
            .map(|n| (format!("k{n}"), String::new()))
            .collect()
    };
    let long = |bytes: usize| BTreeMap::from([("k".to_owned(), "v".repeat(bytes - 1))]);
    let mut world = World::new();
    let cases = [
        (many(LABELS_MAX), Ok(())),
        (many(LABELS_MAX + 1), Err(Code::LimitReached)),
        (long(LABEL_BYTES_MAX), Ok(())),
        (long(LABEL_BYTES_MAX + 1), Err(Code::LimitReached)),
    ];
    for (n, (map, expected)) in cases.into_iter().enumerate() {
        let mut labelled = spec(&format!("network a{n}"));
        labelled.labels = map.clone();
        assert_eq!(
            ask_for(&mut world, create(labelled)),
            expected,
            "labels {n}"
        );
        let mut chosen = spec(&format!("network b{n}"));
        chosen.options = map.clone();
        assert_eq!(ask_for(&mut world, create(chosen)), expected, "options {n}");
        let Some(Command::CreateSandbox { mut spec, networks }) =
            script::command(&format!("run c{n}"))
        else {
            panic!("no sandbox");
        };
        spec.labels = map.clone();
        let command = Command::CreateSandbox { spec, networks };
        assert_eq!(ask_for(&mut world, command), expected, "sandbox {n}");
        let Some(Command::CreateEndpoint {
            network,
            sandbox,
            mut spec,
        }) = script::command("endpoint a0")
        else {
            panic!("no endpoint");
        };
        spec.labels = map;
        let command = Command::CreateEndpoint {
            network,
            sandbox,
            spec,
        };
        assert_eq!(ask_for(&mut world, command), expected, "endpoint {n}");
    }
}

#[test]
fn requests_that_wait() {
    let mut world = World::new();
    world.held = true;
    let run = world.send(script::command("run c1").unwrap());
    let waiting: Vec<RequestId> = (0..WAITING_MAX)
        .map(|_| world.send(Command::StopSandbox(name("c1"))))
        .collect();
    assert!(
        waiting
            .iter()
            .all(|request| !world.answers.contains_key(request))
    );
    let over = world.send(Command::StopSandbox(name("c1")));
    assert_eq!(world.answers[&over].as_ref().unwrap_err().code, Code::Busy);
    world.held = false;
    world.rest();
    assert!(world.answers[&run].is_ok());
    assert!(world.answers[&waiting[0]].is_ok());
    let code = |request: &RequestId| {
        world.answers[request]
            .as_ref()
            .map(drop)
            .map_err(|r| r.code)
    };
    assert!(
        waiting[1..]
            .iter()
            .all(|request| code(request) == Err(Code::NotRunning))
    );
    world.check();
}

#[test]
fn ports_of_bridges() {
    let mut world = World::new();
    ask(&mut world, "network web").unwrap();
    let total = CORE_PORTS_MAX + LEAF_PORTS_MAX + 1;
    for n in 0..total {
        ask(&mut world, &format!("run c{n} web")).unwrap();
    }
    let mut leaves = BTreeMap::<u16, u16>::new();
    for endpoint in world.controller.endpoints() {
        *leaves
            .entry(endpoint.attachment.as_ref().unwrap().leaf)
            .or_default() += 1;
    }
    assert_eq!(
        leaves,
        BTreeMap::from([(0, CORE_PORTS_MAX), (1, LEAF_PORTS_MAX), (2, 1)])
    );
    world.check();
    // Room on the first bridge is used first.
    ask(&mut world, "rm c3").unwrap();
    ask(&mut world, "run late web").unwrap();
    let late = world.controller.find_endpoint(&name("web/late")).unwrap();
    assert_eq!(late.attachment.as_ref().unwrap().leaf, 0);
    let network = world.controller.find_network(&name("web")).unwrap().id;
    let leaf = names::leaf(network, 2).unwrap();
    let leaf = Key::Link(LinkKey {
        netns: Netns::Host,
        name: leaf,
    });
    assert!(world.controller.believed().contains_key(&leaf));
}

#[test]
fn mtu_of_a_network() {
    let mut world = World::new();
    let cases = [
        ("", MTU_MIN - 1, false),
        ("", MTU_MIN, true),
        ("", MTU_MAX, true),
        ("", MTU_MAX + 1, false),
        ("ipv6", MTU_IPV6_MIN - 1, false),
        ("ipv6", MTU_IPV6_MIN, true),
        ("ipv6", MTU_MAX, true),
        ("ipv6", MTU_MAX + 1, false),
    ];
    for (n, (family, mtu, taken)) in cases.into_iter().enumerate() {
        let expected = if taken { Ok(()) } else { Err(Code::MtuRange) };
        let line = format!("network n{n} {family} mtu={mtu}");
        assert_eq!(ask(&mut world, &line), expected, "{line}");
    }
}

/// Reports that say nothing keep the repair going only so long.
#[test]
fn rounds_of_repair() {
    let mut world = World::new();
    ask(&mut world, "network web").unwrap();
    world.kernel.vanish(&Key::NftBase);
    let found = Box::new(world.held_objects());
    let request = RequestId(u64::MAX);
    let event = Event::Command {
        request,
        command: Command::Repair,
        seed: 1,
    };
    let decision = world.controller.handle(world.now_ms, event);
    let Some(Effect::Observe { job, .. }) = decision.effects.into_iter().next() else {
        panic!("nothing is observed");
    };
    let event = Event::Observed {
        job,
        found: Ok(found),
        missing: vec![],
    };
    let mut decision = world.controller.handle(world.now_ms, event);
    let mut rounds = 0;
    while let Some(Effect::Apply { job, .. }) = decision.effects.into_iter().next() {
        rounds += 1;
        let event = Event::Applied {
            job,
            report: Report::default(),
        };
        decision = world.controller.handle(world.now_ms, event);
    }
    assert_eq!(rounds, REPAIR_ROUNDS_MAX);
    assert_eq!(decision.replies.len(), 1);
    world.ask(Command::Repair).unwrap().unwrap();
    world.check();
}
