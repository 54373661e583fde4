//! Other engines: their pools, addresses, endpoints and sandboxes, asked for twice, given back in any order, with the
//! program dying in between.

use std::net::IpAddr;
use std::path::Path;

use tombolo_lab::Fault;
use tombolo_netstate::object::link::LinkKind;
use tombolo_netstate::{Key, Netns, Spec};

use super::script;
use super::world::World;
use crate::command::{Command, Described, EngineCommand, Reference};
use crate::event::Reply;
use crate::facts::Settings;
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::limits::LOANS_MAX;
use crate::model::{EndpointSpec, Publication, SubnetPick};
use crate::reject::Code;

const PATH: &str = "/run/docker/netns/0123456789ab";
const INODE: u64 = 77;

fn ask(world: &mut World, command: EngineCommand) -> Result<Reply, Code> {
    let answer = world.ask(Command::Engine(command)).expect("an answer");
    answer.map_err(|reject| reject.code)
}

fn pool(subnet: &str) -> EngineCommand {
    EngineCommand::RequestPool {
        network: None,
        subnet: Some(subnet.parse().unwrap()),
        pick: SubnetPick::default(),
        range: None,
    }
}

fn address(subnet: &str, ip: Option<&str>, gateway: bool) -> EngineCommand {
    EngineCommand::RequestAddress {
        subnet: subnet.parse().unwrap(),
        address: ip.map(|ip| ip.parse().unwrap()),
        gateway,
    }
}

fn endpoint(network: NetworkId, ip: &str) -> EngineCommand {
    let spec = EndpointSpec {
        addresses: vec![ip.parse().unwrap()],
        engine: true,
        ..EndpointSpec::default()
    };
    EngineCommand::CreateEndpoint {
        network,
        spec: Box::new(spec),
    }
}

fn join(endpoint: EndpointId) -> EngineCommand {
    EngineCommand::Join {
        endpoint,
        path: PATH.into(),
        inode: None,
        exposed: vec![],
    }
}

fn publication() -> Publication {
    let command = script::command("publish c 8080:80").unwrap();
    let Command::Publish { publications, .. } = command else {
        panic!("{command:?}");
    };
    Publication {
        by_engine: true,
        ..publications[0].clone()
    }
}

/// A network with a lent pool and a lent router, and an endpoint with a lent address in it.
fn made(world: &mut World) -> (NetworkId, EndpointId) {
    assert!(ask(world, pool("10.9.0.0/24")).is_ok());
    let gateway = ask(world, address("10.9.0.0/24", None, true));
    assert_eq!(gateway, Ok(Reply::Address("10.9.0.1/24".parse().unwrap())));
    let Command::CreateNetwork { mut spec, .. } =
        script::command("network web subnet=10.9.0.0/24 gateway=10.9.0.1").unwrap()
    else {
        panic!("a network");
    };
    spec.engine = Some("f".repeat(64));
    let created = world.ask(Command::CreateNetwork {
        spec,
        predefined: false,
    });
    let Some(Ok(Reply::Network(network))) = created else {
        panic!("{created:?}");
    };
    let leased = ask(world, address("10.9.0.0/24", None, false));
    assert_eq!(leased, Ok(Reply::Address("10.9.0.2/32".parse().unwrap())));
    match ask(world, endpoint(network, "10.9.0.2")) {
        Ok(Reply::Endpoint(id)) => (network, id),
        other => panic!("{other:?}"),
    }
}

fn netns() -> Netns {
    Netns::Adopted {
        path: Path::new(PATH).into(),
        inode: INODE,
    }
}

fn sandbox_of(world: &World, endpoint: EndpointId) -> SandboxId {
    let found = world.controller.endpoint(endpoint).unwrap();
    found.sandbox.expect("it is joined")
}

/// Joins, and lets the engine make the namespace.
fn started(world: &mut World, endpoint: EndpointId) -> SandboxId {
    ask(world, join(endpoint)).unwrap();
    world.kernel.adopt(netns());
    let sandbox = sandbox_of(world, endpoint);
    let adopt = EngineCommand::Adopt {
        sandbox,
        inode: INODE,
    };
    ask(world, adopt).unwrap();
    sandbox
}

fn lent_links(world: &World) -> usize {
    let is_lent = |spec: &Spec| matches!(spec, Spec::Link(link) if matches!(link.kind, LinkKind::Lent { .. }));
    world.held_objects().values().filter(|s| is_lent(s)).count()
}

fn count(world: &World, is_one: fn(&Key) -> bool) -> usize {
    world.held_objects().keys().filter(|k| is_one(k)).count()
}

/// Takes everything back in the engine's order.
fn given_back(world: &mut World, network: NetworkId, endpoint: EndpointId) {
    ask(world, EngineCommand::Unpublish(endpoint)).unwrap();
    for _ in 0..2 {
        drop(ask(world, EngineCommand::Leave(endpoint)));
        ask(world, EngineCommand::DeleteEndpoint(endpoint)).unwrap();
        for ip in ["10.9.0.2", "10.9.0.1"] {
            ask(world, EngineCommand::ReleaseAddress(ip.parse().unwrap())).unwrap();
        }
        ask(
            world,
            EngineCommand::ReleasePool("10.9.0.0/24".parse().unwrap()),
        )
        .unwrap();
    }
    for _ in 0..2 {
        let gone = ask(world, EngineCommand::DeleteNetwork(network));
        assert_eq!(gone, Ok(Reply::Done));
    }
    world.settle();
    assert_eq!(world.controller.loans().count(), 0);
    assert_eq!(world.controller.counts(), (0, 0, 0));
    assert_eq!(
        world.held_objects().into_keys().collect::<Vec<_>>(),
        vec![Key::NftBase]
    );
}

#[test]
fn a_container_comes_and_goes() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    ask(&mut world, join(endpoint)).unwrap();
    assert_eq!(lent_links(&world), 1);
    let is_listener = |key: &Key| matches!(key, Key::Listener(_));
    let is_detour = |key: &Key| matches!(key, Key::Detour(_));
    assert_eq!(
        count(&world, is_listener),
        0,
        "nothing is known of its namespace"
    );
    started(&mut world, endpoint);
    assert_eq!(count(&world, is_listener), 1);
    assert_eq!(count(&world, is_detour), 1);
    let publish = EngineCommand::Publish {
        endpoint,
        publications: vec![publication()],
    };
    for _ in 0..2 {
        ask(&mut world, publish.clone()).unwrap();
        assert_eq!(count(&world, |key| matches!(key, Key::Port(_))), 1);
    }
    assert_eq!(
        world.ask(Command::Drift).unwrap().unwrap(),
        Reply::Operations {
            ops: vec![],
            failures: vec![]
        }
    );
    given_back(&mut world, network, endpoint);
}

#[test]
fn a_restart_between_any_two_requests_changes_nothing() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    world.restart(false);
    ask(&mut world, join(endpoint)).unwrap();
    world.restart(false);
    assert_eq!(lent_links(&world), 1);
    let sandbox = started(&mut world, endpoint);
    world.restart(false);
    assert_eq!(sandbox_of(&world, endpoint), sandbox);
    let before = world.held_objects();
    ask(&mut world, join(endpoint)).unwrap();
    assert_eq!(world.held_objects(), before, "asked twice");
    let taken = ask(&mut world, address("10.9.0.0/24", Some("10.9.0.2"), false));
    assert_eq!(taken, Err(Code::AddressInUse));
    ask(&mut world, EngineCommand::Leave(endpoint)).unwrap();
    world.restart(false);
    assert_eq!(lent_links(&world), 1, "it is there until the endpoint goes");
    given_back(&mut world, network, endpoint);
}

#[test]
fn a_death_at_any_operation_of_a_join_is_survived_by_asking_again() {
    for n in 0..4 {
        let mut world = World::new();
        let (network, endpoint) = made(&mut world);
        world.inject(Fault::CrashAfter(n));
        let answer = world.ask(Command::Engine(join(endpoint)));
        if answer.is_none() {
            world.restart(false);
        }
        ask(&mut world, join(endpoint)).unwrap();
        assert_eq!(lent_links(&world), 1, "after {n} operations");
        given_back(&mut world, network, endpoint);
    }
}

#[test]
fn a_join_that_fails_leaves_the_endpoint_as_it_was() {
    for n in 0..3 {
        let mut world = World::new();
        let (network, endpoint) = made(&mut world);
        world.inject(Fault::Fail(n));
        assert_eq!(ask(&mut world, join(endpoint)), Err(Code::Kernel), "{n}");
        assert_eq!(world.controller.endpoint(endpoint).unwrap().sandbox, None);
        world.settle();
        assert_eq!(lent_links(&world), 0);
        given_back(&mut world, network, endpoint);
    }
}

#[test]
fn after_a_reboot_containers_are_gone_and_loans_are_not() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    started(&mut world, endpoint);
    world.restart(true);
    assert_eq!(world.controller.counts(), (1, 0, 0));
    let taken = ask(&mut world, address("10.9.0.0/24", Some("10.9.0.2"), false));
    assert_eq!(
        taken,
        Err(Code::AddressInUse),
        "the engine has not given it back"
    );
    given_back(&mut world, network, endpoint);
}

#[test]
fn a_full_store_refuses_and_keeps_nothing() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    world.store_full = true;
    for command in [
        pool("10.8.0.0/24"),
        address("10.9.0.0/24", None, false),
        join(endpoint),
    ] {
        assert_eq!(ask(&mut world, command), Err(Code::Store));
    }
    world.store_full = false;
    assert_eq!(world.controller.endpoint(endpoint).unwrap().sandbox, None);
    ask(&mut world, pool("10.8.0.0/24")).unwrap();
    ask(
        &mut world,
        EngineCommand::ReleasePool("10.8.0.0/24".parse().unwrap()),
    )
    .unwrap();
    given_back(&mut world, network, endpoint);
}

#[test]
fn people_cannot_change_what_an_engine_has_made() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    let sandbox = Reference(started(&mut world, endpoint).to_string());
    let endpoint_reference = Reference(endpoint.to_string());
    for command in [
        Command::DeleteSandbox {
            sandbox: sandbox.clone(),
            keep_endpoints: false,
        },
        Command::StopSandbox(sandbox.clone()),
        Command::Leave(endpoint_reference.clone()),
        Command::DeleteEndpoint(endpoint_reference),
        Command::Disconnect {
            network: Reference(network.to_string()),
            sandbox: sandbox.clone(),
        },
        Command::CreateEndpoint {
            network: Reference(network.to_string()),
            sandbox: Some(sandbox),
            spec: Box::default(),
        },
        Command::DeleteNetwork(Reference(network.to_string())),
    ] {
        let answer = world.ask(command.clone()).unwrap();
        assert_eq!(answer.unwrap_err().code, Code::EngineOwned, "{command:?}");
    }
    given_back(&mut world, network, endpoint);
}

#[test]
fn an_address_given_back_too_early_stays_its_endpoints() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    let ip: IpAddr = "10.9.0.2".parse().unwrap();
    ask(&mut world, EngineCommand::ReleaseAddress(ip)).unwrap();
    let taken = ask(&mut world, address("10.9.0.0/24", Some("10.9.0.2"), false));
    assert_eq!(taken, Err(Code::AddressInUse));
    world.restart(false);
    let taken = ask(&mut world, address("10.9.0.0/24", Some("10.9.0.2"), false));
    assert_eq!(taken, Err(Code::AddressInUse));
    given_back(&mut world, network, endpoint);
}

#[test]
fn what_the_engine_says_names_a_sandbox_once() {
    let mut world = World::new();
    world.ask(script::command("network a").unwrap());
    world.ask(script::command("run db a").unwrap());
    let (_, endpoint) = made(&mut world);
    let sandbox = started(&mut world, endpoint);
    let described = Described {
        name: Some("db".parse().unwrap()),
        hostname: Some("till".to_owned()),
        aliases: vec![(endpoint, vec!["store".to_owned()])],
        ..Described::default()
    };
    for _ in 0..2 {
        let command = EngineCommand::Describe {
            sandbox,
            described: Box::new(described.clone()),
        };
        ask(&mut world, command).unwrap();
        let found = world.controller.sandbox(sandbox).unwrap();
        assert_eq!(
            found.name.as_str(),
            "db-1",
            "a sandbox of ours is called so"
        );
        assert_eq!(found.hostname(), "till");
        let found = world.controller.endpoint(endpoint).unwrap();
        assert_eq!(found.spec.aliases, ["store"]);
    }
}

#[test]
fn loans_have_a_limit() {
    let mut world = World::new();
    ask(&mut world, pool("10.0.16.0/20")).unwrap();
    ask(&mut world, pool("10.16.0.0/15")).unwrap();
    // Pools count as well.
    for _ in 2..LOANS_MAX {
        ask(&mut world, address("10.16.0.0/15", None, false)).unwrap();
    }
    let one_more = ask(&mut world, address("10.0.16.0/20", None, false));
    assert_eq!(one_more, Err(Code::LimitReached));
    let free = EngineCommand::ReleaseAddress("10.16.0.9".parse().unwrap());
    ask(&mut world, free).unwrap();
    ask(&mut world, address("10.0.16.0/20", None, false)).unwrap();
}

#[test]
fn a_subnet_that_is_lent_is_nobody_elses() {
    let mut world = World::new();
    ask(&mut world, pool("10.9.0.0/24")).unwrap();
    let stranger = || script::command("network strange subnet=10.9.0.0/24").unwrap();
    let refused = world.ask(stranger()).unwrap().unwrap_err();
    assert_eq!(refused.code, Code::OverlappingSubnet);
    let (network, endpoint) = made(&mut world);
    let refused = world.ask(stranger()).unwrap().unwrap_err();
    assert_eq!(refused.code, Code::OverlappingSubnet);
    given_back(&mut world, network, endpoint);
    assert!(
        world.ask(stranger()).unwrap().is_ok(),
        "given back, it is free"
    );
}

#[test]
fn a_router_asked_for_twice_has_one_address() {
    let mut world = World::new();
    ask(&mut world, pool("10.9.0.0/24")).unwrap();
    let first = ask(&mut world, address("10.9.0.0/24", None, true));
    assert_eq!(first, ask(&mut world, address("10.9.0.0/24", None, true)));
    assert_eq!(world.controller.loans().count(), 2);
}

#[test]
fn the_range_of_a_lent_pool_outlasts_a_restart() {
    let mut world = World::new();
    let subnet = "10.9.0.0/24".parse().unwrap();
    let range: ipnet::IpNet = "10.9.0.128/25".parse().unwrap();
    let pool = EngineCommand::RequestPool {
        network: None,
        subnet: Some(subnet),
        pick: SubnetPick::default(),
        range: Some(range),
    };
    ask(&mut world, pool).unwrap();
    let Command::CreateNetwork { mut spec, .. } =
        script::command("network web subnet=10.9.0.0/24 gateway=10.9.0.1").unwrap()
    else {
        panic!("a network");
    };
    spec.engine = Some("f".repeat(64));
    ask(&mut world, address("10.9.0.0/24", Some("10.9.0.1"), true)).unwrap();
    let predefined = false;
    let created = world.ask(Command::CreateNetwork { spec, predefined });
    assert!(matches!(created, Some(Ok(_))), "{created:?}");
    for _ in 0..2 {
        let got = ask(&mut world, address("10.9.0.0/24", None, false));
        let Ok(Reply::Address(net)) = got else {
            panic!("{got:?}");
        };
        assert!(range.contains(&net.addr()), "{net}");
        let router = ask(&mut world, address("10.9.0.0/24", Some("10.9.0.1"), false));
        assert_eq!(router, Err(Code::AddressInUse));
        world.restart(false);
    }
}

#[test]
fn the_router_of_a_lent_pool_is_nobody_elses_after_a_restart() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    let router: IpAddr = "10.9.0.1".parse().unwrap();
    ask(&mut world, EngineCommand::ReleaseAddress(router)).unwrap();
    for _ in 0..2 {
        let taken = ask(&mut world, address("10.9.0.0/24", Some("10.9.0.1"), false));
        assert_eq!(taken, Err(Code::AddressInUse));
        world.restart(false);
    }
    given_back(&mut world, network, endpoint);
}

#[test]
fn a_router_that_no_engine_asked_for_is_kept_out_of_a_lent_pool() {
    let mut world = World::new();
    ask(&mut world, pool("10.9.0.0/24")).unwrap();
    let Command::CreateNetwork { mut spec, .. } =
        script::command("network web subnet=10.9.0.0/24").unwrap()
    else {
        panic!("a network");
    };
    spec.engine = Some("f".repeat(64));
    let predefined = false;
    let created = world.ask(Command::CreateNetwork { spec, predefined });
    assert!(matches!(created, Some(Ok(_))), "{created:?}");
    let leased = ask(&mut world, address("10.9.0.0/24", None, false));
    assert_eq!(leased, Ok(Reply::Address("10.9.0.2/32".parse().unwrap())));
}

#[test]
fn people_remove_no_network_that_an_engine_has() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    world.ask(script::command("network ours").unwrap());
    let bind = EngineCommand::BindNetwork {
        id: NetworkId(9),
        engine_id: "9".repeat(64),
        network: Reference("ours".to_owned()),
        pools: vec![],
    };
    ask(&mut world, bind).unwrap();
    for command in [Command::PruneNetworks, Command::Prune] {
        world.ask(command).unwrap().unwrap();
        assert_eq!(world.controller.counts(), (2, 1, 0), "nothing of an engine");
    }
    ask(&mut world, EngineCommand::DeleteEndpoint(endpoint)).unwrap();
    for command in [Command::PruneNetworks, Command::Prune] {
        world.ask(command).unwrap().unwrap();
        assert_eq!(world.controller.counts(), (2, 0, 0));
    }
    for name in ["web", "ours"] {
        let refused = world.ask(Command::DeleteNetwork(Reference(name.to_owned())));
        assert_eq!(
            refused.unwrap().unwrap_err().code,
            Code::EngineOwned,
            "{name}"
        );
    }
    ask(&mut world, EngineCommand::UnbindNetwork(NetworkId(9))).unwrap();
    world.ask(Command::PruneNetworks).unwrap().unwrap();
    assert_eq!(world.controller.counts(), (1, 0, 0), "it is people's again");
    given_back(&mut world, network, endpoint);
}

#[test]
fn a_network_that_its_engine_has_given_up_is_peoples_to_remove() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    world
        .ask(script::command("run www web").unwrap())
        .unwrap()
        .unwrap();
    ask(&mut world, EngineCommand::DeleteEndpoint(endpoint)).unwrap();
    let stays = ask(&mut world, EngineCommand::DeleteNetwork(network));
    assert_eq!(stays, Ok(Reply::Network(network)));
    world.restart(false);
    let remove = || Command::DeleteNetwork(Reference("web".to_owned()));
    let used = world.ask(remove()).unwrap().unwrap_err();
    assert_eq!(used.code, Code::NetworkInUse, "a sandbox is on it");
    let sandbox = Reference("www".to_owned());
    let keep_endpoints = false;
    world
        .ask(Command::DeleteSandbox {
            sandbox,
            keep_endpoints,
        })
        .unwrap()
        .unwrap();
    assert_eq!(world.ask(remove()), Some(Ok(Reply::Done)));
}

#[test]
fn people_take_back_no_port_that_an_engine_has_published() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    let sandbox = started(&mut world, endpoint);
    let publish = EngineCommand::Publish {
        endpoint,
        publications: vec![publication()],
    };
    ask(&mut world, publish).unwrap();
    let name = world.controller.sandbox(sandbox).unwrap().name.clone();
    for line in [
        format!("publish {name} 8080:80"),
        format!("unpublish {name} 80"),
    ] {
        let refused = world.ask(script::command(&line).unwrap()).unwrap();
        assert_eq!(refused.unwrap_err().code, Code::EngineOwned, "{line}");
    }
    let own = script::command(&format!("publish {name} 8081:81")).unwrap();
    world.ask(own).unwrap().unwrap();
    let own = script::command(&format!("unpublish {name} 81")).unwrap();
    world.ask(own).unwrap().unwrap();
    given_back(&mut world, network, endpoint);
}

/// Nobody is left who could: the engine is gone from the host, and its plugin was switched off.
#[test]
fn without_engines_everything_is_peoples_to_remove() {
    let settings = Settings {
        engines: false,
        ..Settings::default()
    };
    let mut world = World::with(settings);
    let (_, endpoint) = made(&mut world);
    let sandbox = started(&mut world, endpoint);
    let name = world.controller.sandbox(sandbox).unwrap().name.to_string();
    world
        .ask(script::command(&format!("rm {name}")).unwrap())
        .unwrap()
        .unwrap();
    // Docker's own bridge had this one.
    ask(&mut world, pool("10.8.0.0/24")).unwrap();
    ask(&mut world, address("10.8.0.0/24", None, true)).unwrap();
    world.ask(Command::PruneNetworks).unwrap().unwrap();
    assert_eq!(world.controller.counts(), (0, 0, 0));
    assert_eq!(world.controller.loans().count(), 0);
    for subnet in ["10.8.0.0/24", "10.9.0.0/24"] {
        let again = script::command(&format!("network x{} subnet={subnet}", &subnet[3..4]));
        world.ask(again.unwrap()).unwrap().unwrap();
    }
    world.restart(false);
    world.check();
}

#[test]
fn a_network_that_stands_for_another_engines_stays_until_that_is_gone() {
    let mut world = World::new();
    let (network, endpoint) = made(&mut world);
    let other = NetworkId(9);
    let bind = EngineCommand::BindNetwork {
        id: other,
        engine_id: "9".repeat(64),
        network: Reference("web".to_owned()),
        pools: vec![],
    };
    ask(&mut world, bind).unwrap();
    ask(&mut world, EngineCommand::DeleteEndpoint(endpoint)).unwrap();
    let stays = ask(&mut world, EngineCommand::DeleteNetwork(network));
    assert_eq!(stays, Ok(Reply::Network(network)));
    assert!(world.controller.engine_network(other).is_some());
    ask(&mut world, EngineCommand::UnbindNetwork(other)).unwrap();
    given_back(&mut world, network, endpoint);
}
