//! Networks of plugins in the records and the kernel: the parts of requests, in the order in which the daemon gives them.

use ipnet::IpNet;
use tombolo_netstate::Key;

use super::script;
use super::world::World;
use crate::command::{Command, EngineCommand, PluginCommand, Reference};
use crate::event::Reply;
use crate::id::{EndpointId, NetworkId, SandboxId};
use crate::model::{
    Driver, EndpointPlugin, EndpointSpec, IpamSpec, Joined, NetworkSpec, NetworkState, PluginPool,
    Pool, SandboxState, SubnetPick,
};
use crate::reject::{Code, Reject};

fn spec(name: &str) -> Box<NetworkSpec> {
    let Some(Command::CreateNetwork { spec, .. }) = script::command(&format!("network {name}"))
    else {
        panic!("a network is made by its word");
    };
    spec
}

fn remote(name: &str) -> Box<NetworkSpec> {
    let mut spec = spec(name);
    spec.driver = Driver::Remote;
    spec.plugin = Some("peer".to_owned());
    spec
}

impl World {
    fn plugin(&mut self, command: PluginCommand) -> Result<Reply, Reject> {
        self.ask(Command::Plugin(command)).unwrap()
    }

    fn reserved(&mut self, spec: Box<NetworkSpec>) -> NetworkId {
        match self.plugin(PluginCommand::ReserveNetwork(spec)).unwrap() {
            Reply::Network(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn remote_network(&mut self, name: &str) -> NetworkId {
        let id = self.reserved(remote(name));
        self.plugin(PluginCommand::TellNetwork(id)).unwrap();
        self.plugin(PluginCommand::FinishNetwork(id)).unwrap();
        id
    }

    fn endpoint_in(&mut self, network: &str, sandbox: &str) -> EndpointId {
        let reserve = PluginCommand::ReserveEndpoint {
            network: Reference(network.to_owned()),
            sandbox: Some(Reference(sandbox.to_owned())),
            spec: Box::new(EndpointSpec::default()),
        };
        match self.plugin(reserve).unwrap() {
            Reply::Endpoint(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Of a sandbox `s`, which is made.
    fn endpoint_of_new_sandbox(&mut self, network: &str) -> EndpointId {
        self.ask(script::command("run s").unwrap())
            .unwrap()
            .unwrap();
        self.endpoint_in(network, "s")
    }

    /// The plugin has answered, and its link is taken.
    fn attached(&mut self, id: EndpointId) {
        self.plugin(PluginCommand::NotePlugin(id, joined()))
            .unwrap();
        self.plugin(PluginCommand::Attach(id)).unwrap();
    }

    fn sandbox_id(&self, name: &str) -> SandboxId {
        let found = self.controller.find_sandbox(&Reference(name.to_owned()));
        found.unwrap().id
    }

    fn has_link(&self) -> bool {
        let objects = self.held_objects();
        let taken = |key: &Key| matches!(key, Key::Link(at) if at.name.as_str() == "lan0");
        objects.keys().any(taken)
    }
}

fn joined() -> Option<Box<EndpointPlugin>> {
    Some(Box::new(EndpointPlugin {
        draw: 1,
        addresses: vec![],
        mac: None,
        way_out: false,
        joined: Some(Joined {
            source: "vp1".to_owned(),
            prefix: "lan".to_owned(),
            gateway4: Some([10, 9, 0, 1].into()),
            gateway6: None,
            routes: vec![],
        }),
    }))
}

#[test]
fn a_network_is_there_once_its_plugin_has_made_it() {
    let mut world = World::new();
    let id = world.reserved(remote("far"));
    let network = world.controller.network(id).unwrap();
    assert_eq!(network.state, NetworkState::Reserved);
    assert_eq!(network.pools.len(), 1, "a subnet of ours");
    let early = world.ask(script::command("run s far").unwrap());
    assert!(early.unwrap().is_err(), "nobody uses it yet");
    world.plugin(PluginCommand::TellNetwork(id)).unwrap();
    world.plugin(PluginCommand::FinishNetwork(id)).unwrap();
    let network = world.controller.network(id).unwrap();
    assert_eq!(
        (network.state, network.plugin_told),
        (NetworkState::Ready, true)
    );
    let retire = PluginCommand::RetireNetwork(Reference("far".to_owned()));
    world.plugin(retire).unwrap();
    world.plugin(PluginCommand::DropNetwork(id)).unwrap();
    assert!(world.controller.network(id).is_none());
    world.check();
}

#[test]
fn an_endpoint_is_attached_as_the_plugin_said_and_taken_out_again() {
    let mut world = World::new();
    world.remote_network("far");
    let id = world.endpoint_of_new_sandbox("far");
    assert!(!world.has_link(), "the plugin was not asked yet");
    let unasked = world.plugin(PluginCommand::Attach(id));
    assert!(unasked.is_ok(), "{unasked:?}");
    assert!(!world.has_link());
    world.attached(id);
    assert!(world.has_link());
    let sandbox = world.sandbox_id("s");
    assert_eq!(world.controller.ways_out(sandbox), [id]);
    assert!(world.controller.endpoint(id).unwrap().fresh);
    world.plugin(PluginCommand::FinishEndpoint(id)).unwrap();
    assert!(!world.controller.endpoint(id).unwrap().fresh);
    world.restart(false);
    world.settle();
    assert!(world.has_link(), "the facts are in the records");
    world.plugin(PluginCommand::Detach(id)).unwrap();
    assert!(!world.has_link());
    world.plugin(PluginCommand::NotePlugin(id, None)).unwrap();
    world.plugin(PluginCommand::DropEndpoint(id)).unwrap();
    assert!(world.controller.endpoint(id).is_none());
    world.check();
}

/// What a killed daemon had begun is marked for removal, so that the plugin is told.
#[test]
fn a_restart_keeps_what_plugins_must_be_told_of() {
    let mut world = World::new();
    let whole = world.remote_network("far");
    let half = world.reserved(remote("half"));
    let id = world.endpoint_of_new_sandbox("far");
    world.attached(id);
    world.restart(false);
    world.settle();
    assert!(!world.has_link());
    let endpoint = world.controller.endpoint(id).unwrap();
    assert!(endpoint.deleting && endpoint.plugin.is_some() && endpoint.sandbox.is_none());
    let state = |id| world.controller.network(id).unwrap().state;
    assert_eq!(state(whole), NetworkState::Ready);
    assert_eq!(state(half), NetworkState::Deleting);
    world.plugin(PluginCommand::DropEndpoint(id)).unwrap();
    world.plugin(PluginCommand::DropNetwork(half)).unwrap();
    assert!(world.controller.network(half).is_none());
    world.check();
}

#[test]
fn a_reboot_stops_sandboxes_and_keeps_what_the_plugin_knew() {
    let mut world = World::new();
    world.remote_network("far");
    let id = world.endpoint_of_new_sandbox("far");
    world.attached(id);
    world.plugin(PluginCommand::FinishEndpoint(id)).unwrap();
    world.restart(true);
    world.settle();
    let endpoint = world.controller.endpoint(id).unwrap();
    assert!(endpoint.attachment.is_none() && endpoint.plugin.is_some());
    let sandbox = world.controller.sandbox(world.sandbox_id("s")).unwrap();
    assert_eq!(sandbox.state, SandboxState::Stopped);
    world.check();
}

#[test]
fn a_bridge_network_has_the_addresses_that_a_plugin_hands_out() {
    let mut world = World::new();
    let mut wanted = spec("lan");
    wanted.ipam = Some(IpamSpec {
        plugin: "peer".to_owned(),
        options: Default::default(),
    });
    let planned = world.ask(Command::CreateNetwork {
        spec: wanted.clone(),
        predefined: false,
    });
    assert_eq!(planned.unwrap().unwrap_err().code, Code::InvalidCombination);
    let id = world.reserved(wanted);
    let subnet: IpNet = "10.99.0.0/24".parse().unwrap();
    assert!(world.controller.is_free_subnet(subnet));
    let pool = Pool {
        subnet,
        ranges: vec![],
        gateway: Some([10, 99, 0, 1].into()),
        reserved: Default::default(),
        plugin: Some(PluginPool {
            id: "p1".to_owned(),
            space: "local".to_owned(),
            requested: vec![],
            replay: false,
        }),
    };
    world
        .plugin(PluginCommand::NotePool(id, Box::new(pool.clone())))
        .unwrap();
    world
        .plugin(PluginCommand::NotePool(id, Box::new(pool)))
        .unwrap();
    assert!(!world.controller.is_free_subnet(subnet));
    world.plugin(PluginCommand::FinishNetwork(id)).unwrap();
    let endpoint = world.endpoint_of_new_sandbox("lan");
    let address: IpNet = "10.99.0.7/24".parse().unwrap();
    world
        .plugin(PluginCommand::NoteAddress(endpoint, address))
        .unwrap();
    let twice = world.plugin(PluginCommand::NoteAddress(
        endpoint,
        "10.99.0.1/24".parse().unwrap(),
    ));
    assert_eq!(twice.unwrap_err().code, Code::AddressInUse);
    world.plugin(PluginCommand::Attach(endpoint)).unwrap();
    world
        .plugin(PluginCommand::FinishEndpoint(endpoint))
        .unwrap();
    let has = |key: &Key| matches!(key, Key::Address(at) if at.ip == address.addr());
    assert!(world.held_objects().keys().any(has));
    world.check();
    world.plugin(PluginCommand::DropEndpoint(endpoint)).unwrap();
    world.wait(1_000);
    world.check();
}

#[test]
fn the_link_by_which_the_host_lives_is_no_plugins() {
    let mut world = World::new();
    world.remote_network("far");
    let id = world.endpoint_of_new_sandbox("far");
    let uplink = world.facts.uplinks[0].name.clone();
    let mut said = joined();
    said.as_mut().unwrap().joined.as_mut().unwrap().source = uplink;
    let refused = world
        .plugin(PluginCommand::NotePlugin(id, said))
        .unwrap_err();
    assert_eq!(refused.code, Code::PluginRefused);
    world.plugin(PluginCommand::DropEndpoint(id)).unwrap();
    world.check();
}

/// A network with addresses of a plugin, in the pool 10.99.0.0/24.
fn network_of_peer(world: &mut World) -> (NetworkId, Pool) {
    let mut wanted = spec("lan");
    wanted.ipam = Some(IpamSpec {
        plugin: "peer".to_owned(),
        options: Default::default(),
    });
    let id = world.reserved(wanted);
    let pool = Pool {
        subnet: "10.99.0.0/24".parse().unwrap(),
        ranges: vec![],
        gateway: None,
        reserved: Default::default(),
        plugin: Some(PluginPool {
            id: "p1".to_owned(),
            space: "local".to_owned(),
            requested: vec![],
            replay: true,
        }),
    };
    let note = PluginCommand::NotePool(id, Box::new(pool.clone()));
    world.plugin(note).unwrap();
    (id, pool)
}

#[test]
fn a_pool_that_cannot_be_changed_stays_what_it_was() {
    let mut world = World::new();
    let (id, mut pool) = network_of_peer(&mut world);
    pool.gateway = Some([10, 98, 0, 1].into());
    let strange = PluginCommand::NotePool(id, Box::new(pool.clone()));
    assert!(world.plugin(strange).is_err());
    assert!(!world.controller.is_free_subnet(pool.subnet));
    let other = script::command("network other subnet=10.99.0.0/24").unwrap();
    let taken = world.ask(other.clone());
    assert_eq!(
        taken.unwrap().unwrap_err().code,
        Code::OverlappingSubnet,
        "the space is still the first one's"
    );
    pool.gateway = Some([10, 99, 0, 1].into());
    world
        .plugin(PluginCommand::NotePool(id, Box::new(pool)))
        .unwrap();
    world.plugin(PluginCommand::DropNetwork(id)).unwrap();
    world.ask(other).unwrap().unwrap();
    world.check();
}

/// The plugin may call a pool something else after a restart, when endpoints have addresses of it.
#[test]
fn what_a_plugin_calls_a_pool_changes_while_it_is_in_use() {
    let mut world = World::new();
    let (id, mut pool) = network_of_peer(&mut world);
    world.plugin(PluginCommand::FinishNetwork(id)).unwrap();
    let endpoint = world.endpoint_of_new_sandbox("lan");
    let address = "10.99.0.7/24".parse().unwrap();
    world
        .plugin(PluginCommand::NoteAddress(endpoint, address))
        .unwrap();
    pool.plugin.as_mut().unwrap().id = "p2".to_owned();
    world
        .plugin(PluginCommand::NotePool(id, Box::new(pool.clone())))
        .unwrap();
    let network = world.controller.network(id).unwrap();
    assert_eq!(network.pools, [pool]);
    world
        .plugin(PluginCommand::FinishEndpoint(endpoint))
        .unwrap();
    world.check();
}

#[test]
fn addresses_that_a_driver_chose_go_with_what_it_knew() {
    let mut world = World::new();
    world.remote_network("far");
    let id = world.endpoint_of_new_sandbox("far");
    let chosen: IpNet = "fd09::7/64".parse().unwrap();
    let mut said = joined();
    said.as_mut().unwrap().addresses = vec![chosen];
    let note = PluginCommand::NotePlugin(id, said.clone());
    world.plugin(note).unwrap();
    world.plugin(PluginCommand::Attach(id)).unwrap();
    let has = |world: &World| {
        let endpoint = world.controller.endpoint(id).unwrap();
        endpoint.addresses.contains(&chosen)
    };
    world.plugin(PluginCommand::FinishEndpoint(id)).unwrap();
    assert!(has(&world));
    world.check();
    let other = world.ask(script::command("run t").unwrap());
    other.unwrap().unwrap();
    let other = world.endpoint_in("far", "t");
    let twice = world.plugin(PluginCommand::NotePlugin(other, said));
    assert_eq!(twice.unwrap_err().code, Code::AddressInUse);
    world.plugin(PluginCommand::Detach(id)).unwrap();
    world.plugin(PluginCommand::NotePlugin(id, None)).unwrap();
    assert!(!has(&world));
    assert_eq!(world.controller.endpoint(id).unwrap().addresses.len(), 1);
    world.plugin(PluginCommand::FinishEndpoint(other)).unwrap();
    world.check();
}

/// From then on plugins may have forgotten it: a daemon that is killed must not keep it.
#[test]
fn an_endpoint_whose_removal_began_is_not_kept_by_a_restart() {
    let mut world = World::new();
    world.remote_network("far");
    let id = world.endpoint_of_new_sandbox("far");
    world.attached(id);
    world.plugin(PluginCommand::FinishEndpoint(id)).unwrap();
    world.plugin(PluginCommand::RetireEndpoint(id)).unwrap();
    assert!(world.has_link(), "it is only written down");
    world.restart(false);
    world.settle();
    let endpoint = world.controller.endpoint(id).unwrap();
    assert!(endpoint.deleting && endpoint.plugin.is_some());
    assert!(!world.has_link());
    world.plugin(PluginCommand::DropEndpoint(id)).unwrap();
    world.check();
}

#[test]
fn a_network_with_addresses_of_a_plugin_is_no_engines() {
    let mut world = World::new();
    let (id, pool) = network_of_peer(&mut world);
    world.plugin(PluginCommand::FinishNetwork(id)).unwrap();
    for command in [
        EngineCommand::BindNetwork {
            id: NetworkId(77),
            engine_id: "77".to_owned(),
            network: Reference("lan".to_owned()),
            pools: vec![pool.subnet],
        },
        EngineCommand::RequestPool {
            network: Some(Reference("lan".to_owned())),
            subnet: None,
            pick: SubnetPick::default(),
            range: None,
        },
    ] {
        let refused = world.ask(Command::Engine(command)).unwrap().unwrap_err();
        assert_eq!(refused.code, Code::InvalidCombination);
        assert!(refused.message.contains("peer"), "{refused}");
    }
}

/// It is still the endpoint's here, as the kernel may still have it.
#[test]
fn an_address_is_given_back_once_and_kept_until_its_endpoint_is_gone() {
    let mut world = World::new();
    let (id, _) = network_of_peer(&mut world);
    world.plugin(PluginCommand::FinishNetwork(id)).unwrap();
    let endpoint = world.endpoint_of_new_sandbox("lan");
    let address: IpNet = "10.99.0.7/24".parse().unwrap();
    let note = |id| PluginCommand::NoteAddress(id, address);
    world.plugin(note(endpoint)).unwrap();
    world
        .plugin(PluginCommand::RetireEndpoint(endpoint))
        .unwrap();
    for _ in 0..2 {
        let given = PluginCommand::NoteGivenBack(endpoint, address.addr());
        world.plugin(given).unwrap();
        world.restart(false);
        let left = world.controller.endpoint(endpoint).unwrap();
        assert_eq!(left.given_back, [address.addr()]);
        assert_eq!(left.addresses, [address]);
    }
    world
        .ask(script::command("run t").unwrap())
        .unwrap()
        .unwrap();
    let other = world.endpoint_in("lan", "t");
    assert_eq!(
        world.plugin(note(other)).unwrap_err().code,
        Code::AddressInUse
    );
    world.plugin(PluginCommand::DropEndpoint(endpoint)).unwrap();
    world.wait(1_000);
    world.plugin(note(other)).unwrap();
    world.plugin(PluginCommand::FinishEndpoint(other)).unwrap();
    world.check();
}
