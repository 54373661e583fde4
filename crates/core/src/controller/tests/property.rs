//! Any requests in any order, with failures, deaths, full stores, and others who meddle: in the end the
//! kernel holds what it should, and everybody was answered.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use tombolo_lab::Fault;
use tombolo_netstate::{Action, Key, Netns, Op, Plan, Spec};

use super::script;
use super::world::World;
use crate::command::Command;
use crate::limits::CORE_PORTS_MAX;

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody asks; nobody waits.
    Ask(String),
    /// A part of what is under way is performed.
    Go(u8),
    /// All of it is.
    Rest,
    /// The next plan goes wrong.
    Wrong(Fault),
    /// The store has room, or not.
    Store(bool),
    /// The kernel finishes its removals.
    Settle,
    /// Somebody removes one of our objects.
    Remove(u16),
    /// Somebody changes one of our links.
    Change(u16),
    /// The uplink's MTU is another one.
    Uplink(u32),
    /// The last process leaves the adopted namespace.
    Vanish,
    /// Time passes.
    Wait(u16),
    /// The daemon, or the host, starts again.
    Restart(bool),
}

fn network() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "lan", "six"])
}

fn sandbox() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["c1", "c2", "c3", "c4"])
}

fn publication() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "8080:80",
        "8080:80;udp",
        "8081:80;from=10.0.0.0/8",
        "9000-9100:100-200",
        "9050:80",
    ])
}

fn request() -> impl Strategy<Value = String> {
    let create = prop::sample::select(vec![
        "network a",
        "network b subnet=10.9.0.0/28",
        "network lan multicast internal",
        "network six ipv6",
        "network b no-icc",
        "network six ipv6 mode4=routed",
    ]);
    let network_and_sandbox = || (network(), sandbox());
    prop_oneof![
        2 => create.prop_map(str::to_owned),
        1 => network().prop_map(|n| format!("delete network {n}")),
        1 => Just("prune".to_owned()),
        5 => (sandbox(), prop::collection::btree_set(network(), 0..3)).prop_map(|(s, networks)| {
            let networks: Vec<&str> = networks.into_iter().collect();
            let how = if s == "c4" { "adopt c4 9".to_owned() } else { format!("run {s}") };
            format!("{how} {}", networks.join(" "))
        }),
        2 => (sandbox(), network(), publication()).prop_map(|(s, n, p)| format!("run {s} {n} publish={p}")),
        1 => (sandbox(), sandbox(), network())
            .prop_map(|(s, other, n)| format!("run {s} {n} link={other} expose=80")),
        2 => (sandbox(), publication()).prop_map(|(s, p)| format!("publish {s} {p}")),
        1 => sandbox().prop_map(|s| format!("unpublish {s} 80")),
        3 => network_and_sandbox().prop_map(|(n, s)| format!("connect {n} {s}")),
        1 => network_and_sandbox().prop_map(|(n, s)| format!("connect {n};priority=7;if=lan9 {s}")),
        2 => network_and_sandbox().prop_map(|(n, s)| format!("disconnect {n} {s}")),
        1 => network().prop_map(|n| format!("endpoint {n};name=e1")),
        1 => network_and_sandbox().prop_map(|(n, s)| format!("join {n}/e1 {s}")),
        1 => network_and_sandbox().prop_map(|(n, s)| format!("leave {n}/{s}")),
        1 => network().prop_map(|n| format!("delete endpoint {n}/e1")),
        2 => sandbox().prop_map(|s| format!("stop {s}")),
        2 => sandbox().prop_map(|s| format!("start {s}")),
        2 => sandbox().prop_map(|s| format!("rm {s}")),
        1 => sandbox().prop_map(|s| format!("rm {s} keep")),
        1 => Just("look".to_owned()),
        1 => Just("repair".to_owned()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fault = (0..25_usize, 0..3_u8).prop_map(|(n, kind)| match kind {
        0 => Fault::Fail(n),
        1 => Fault::Half(n),
        _ => Fault::CrashAfter(n),
    });
    prop_oneof![
        12 => request().prop_map(Step::Ask),
        6 => (1..6_u8).prop_map(Step::Go),
        3 => Just(Step::Rest),
        2 => fault.prop_map(Step::Wrong),
        1 => any::<bool>().prop_map(Step::Store),
        2 => Just(Step::Settle),
        1 => any::<u16>().prop_map(Step::Remove),
        1 => any::<u16>().prop_map(Step::Change),
        1 => prop::sample::select(vec![1_500, 1_400, 9_000]).prop_map(Step::Uplink),
        1 => Just(Step::Vanish),
        1 => (0..40_000_u16).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.3).prop_map(Step::Restart),
    ]
}

/// A host with some networks and one sandbox.
static QUIET: LazyLock<World> = LazyLock::new(|| {
    let mut world = World::new();
    world.kernel.adopt(adopted());
    world.put_foreign_bridge("br0", "192.168.50.1/24".parse().unwrap());
    for line in [
        "network a",
        "network b",
        "network lan multicast",
        "network six ipv6",
        "run c1 a six",
    ] {
        world.ask(script::command(line).unwrap()).unwrap().unwrap();
    }
    world
});

/// The same, where the next endpoint of a network needs a leaf bridge.
static CROWDED: LazyLock<World> = LazyLock::new(|| {
    let mut world = QUIET.clone();
    for n in 1..CORE_PORTS_MAX {
        world
            .ask(script::command(&format!("run x{n} a")).unwrap())
            .unwrap()
            .unwrap();
    }
    world
});

fn adopted() -> Netns {
    Netns::Adopted {
        path: Path::new("/proc/9/ns/net").into(),
        inode: 9,
    }
}

fn nth_key(world: &World, n: u16, which: impl Fn(&Key) -> bool) -> Option<Key> {
    let keys: Vec<Key> = world
        .held_objects()
        .into_keys()
        .filter(|key| which(key))
        .collect();
    (!keys.is_empty()).then(|| keys[usize::from(n) % keys.len()].clone())
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Ask(line) => drop(world.send(script::command(line).unwrap())),
        Step::Go(n) => {
            for _ in 0..*n {
                world.step();
            }
        }
        Step::Rest => world.rest(),
        Step::Wrong(fault) => world.inject(*fault),
        Step::Store(room) => world.store_full = !room,
        Step::Settle => world.settle(),
        Step::Remove(n) => {
            // Nobody removes somebody else's sysctl: it has some value.
            if let Some(key) = nth_key(world, *n, |key| !matches!(key, Key::Sysctl(_))) {
                world.kernel.vanish(&key);
            }
        }
        Step::Change(n) => change(world, *n),
        Step::Uplink(mtu) => {
            world.facts.uplinks[0].mtu = *mtu;
            world.tell_facts();
        }
        Step::Vanish => {
            let inside = |key: &Key| key.netns() == adopted();
            while let Some(key) = nth_key(world, 0, inside) {
                world.kernel.vanish(&key);
            }
            world.missing.insert(adopted());
        }
        Step::Wait(ms) => world.wait(u64::from(*ms)),
        Step::Restart(rebooted) => {
            world.restart(*rebooted);
            world.kernel.adopt(adopted());
            world.kernel.defer_removals(true);
        }
    }
}

/// Somebody gives a link another MTU and takes it off its bridge.
fn change(world: &mut World, n: u16) {
    let Some(key) = nth_key(world, n, |key| matches!(key, Key::Link(_))) else {
        return;
    };
    let Some(Spec::Link(link)) = world.held_objects().remove(&key) else {
        return;
    };
    let mut to = link.clone();
    to.mtu += 1;
    to.port = None;
    let action = Action::Update {
        from: Spec::Link(link),
        to: Spec::Link(to),
    };
    let plan = Plan {
        ops: vec![Op { key, action }],
        edges: vec![],
    };
    // Not what goes wrong next: that is for the program's own plan.
    let mut kernel = world.kernel.clone();
    kernel.inject(Fault::None);
    if kernel.apply(&plan).is_ok() {
        world.meddle(kernel);
    }
}

fn come_to_rest(world: &mut World) {
    world.store_full = false;
    world.inject(Fault::None);
    world.rest();
    for _ in 0..3 {
        world.settle();
        world.wait(20_000);
    }
    world.ask(Command::Repair).unwrap().unwrap();
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(300),
        max_shrink_iters: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn everything_comes_right_in_the_end(
        seed in 1..u64::MAX,
        deferred in any::<bool>(),
        crowded in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = if crowded { CROWDED.clone() } else { QUIET.clone() };
        world.shuffle(seed);
        world.kernel.defer_removals(deferred);
        let foreign = world.kernel.foreign();
        for step in &steps {
            take(&mut world, step);
        }
        come_to_rest(&mut world);
        let faults = world.faults();
        prop_assert!(faults.is_empty(), "{faults:#?}");
        prop_assert_eq!(world.kernel.foreign(), foreign);
        // Whatever is left can be removed, and then nothing is left.
        let names: Vec<String> = world.controller.sandboxes().map(|s| s.name.to_string()).collect();
        for name in names {
            world.ask(script::command(&format!("rm {name}")).unwrap());
        }
        world.ask(Command::Prune);
        world.settle();
        world.ask(Command::Repair).unwrap().unwrap();
        let faults = world.faults();
        prop_assert!(faults.is_empty(), "{faults:#?}");
        prop_assert_eq!(world.controller.counts(), (0, 0, 0));
        prop_assert_eq!(world.held_objects().into_keys().collect::<Vec<_>>(), vec![Key::NftBase]);
    }
}
