//! Generated networks on both kernels, from one to the next, with single faults in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tombolo_core::driver::{Context, host_objects};
use tombolo_core::{Facts, Settings};
use tombolo_lab::{Scene, scene};
use tombolo_netstate::object::link::LinkKind;
use tombolo_netstate::object::nft::{BaseSpec, Ruleset};
use tombolo_netstate::{Desired, Key, Netns, Objects, Owner, Plan, Spec, diff};

use crate::fault;
use crate::host::{foreign_netns, on_host};
use crate::twin::Twin;

/// How many scenes follow each other on one host.
const SCENES: usize = 6;
/// At how many places a plan is cut short.
const CUTS: usize = 6;
/// How many objects are removed by somebody else in each scene.
const FAULTS: usize = 8;

#[test]
fn scenes_and_single_faults_read_back_equal() {
    on_host(|directory| {
        let mut runner = TestRunner::deterministic();
        let mut twin = Twin::new(directory);
        let places = places(directory, &mut twin);
        let mut kinds = BTreeMap::new();
        for n in 0..SCENES {
            let scene = Scene::any().new_tree(&mut runner).unwrap().current();
            let wanted = real_objects(&scene, &places);
            converge(&mut twin, &wanted, &format!("scene {n}"));
            break_and_mend(&mut twin, &wanted, n, &mut kinds);
        }
        converge(&mut twin, &Objects::new(), "nothing");
        let all = [
            "netns",
            "nft-base",
            "link",
            "address",
            "neighbour",
            "fdb",
            "route",
            "element",
        ];
        let missed: Vec<_> = all
            .iter()
            .filter(|kind| !kinds.contains_key(**kind))
            .collect();
        assert!(missed.is_empty(), "no fault hit {missed:?}, only {kinds:?}");
    });
}

#[test]
fn a_plan_cut_short_anywhere_reads_back_equal_and_converges() {
    on_host(|directory| {
        let mut runner = TestRunner::deterministic();
        let mut twin = Twin::new(directory);
        let places = places(directory, &mut twin);
        let scenes =
            std::iter::repeat_with(|| Scene::any().new_tree(&mut runner).unwrap().current());
        let mut scenes = scenes.filter(is_small);
        let (from, to) = (scenes.next().unwrap(), scenes.next().unwrap());
        let from = real_objects(&from, &places);
        let to = real_objects(&to, &places);
        let total = plan(&to, &from).ops.len();
        for cut in (0..total).step_by(total / CUTS) {
            converge(&mut twin, &from, "the first scene");
            let whole = plan(&to, &twin.observe(&from, "the first scene"));
            let part = Plan {
                ops: whole.ops[..cut].to_vec(),
                edges: vec![],
            };
            assert!(twin.apply(&part).is_done());
            drop(twin.settle());
            let _ = twin.fake.settle();
            let both: Objects = from.clone().into_iter().chain(to.clone()).collect();
            drop(twin.observe(&both, &format!("cut after {cut} of {total}")));
            converge(&mut twin, &to, &format!("after the cut at {cut}"));
        }
        assert!(total > 40, "only {total} operations");
    });
}

/// Links take the kernel long to remove: a few show what there is to see.
fn is_small(scene: &Scene) -> bool {
    let is_tied = |end: &&scene::Endpoint| scene.bridges.contains_key(&end.bridge);
    let leaves: u8 = scene.bridges.values().map(|bridge| bridge.leaves).sum();
    (2..=4).contains(&scene.endpoints.values().filter(is_tied).count()) && (1..=2).contains(&leaves)
}

/// Brings both from what they hold to `wanted`, in the few rounds that a repair may take.
fn converge(twin: &mut Twin, wanted: &Objects, what: &str) {
    for round in 0..3 {
        let held = twin.observe(wanted, &format!("before {what}, round {round}"));
        let plan = plan(wanted, &held);
        if plan.is_empty() {
            assert_eq!(&held, wanted, "{what}");
            return;
        }
        let report = twin.apply(&plan);
        assert!(
            report.is_done(),
            "{what}: {:?}\n{plan}",
            report.failure(&plan)
        );
        drop(twin.settle());
        let _ = twin.fake.settle();
    }
    panic!("{what} is not reached");
}

fn break_and_mend(
    twin: &mut Twin,
    wanted: &Objects,
    n: usize,
    kinds: &mut BTreeMap<&'static str, usize>,
) {
    let mut groups: BTreeMap<&'static str, Vec<&Key>> = BTreeMap::new();
    let is_ours_alone = |key: &&Key| matches!(key, Key::Sysctl(_) | Key::Listener(_));
    for key in wanted.keys().filter(|key| !is_ours_alone(key)) {
        groups.entry(key.kind()).or_default().push(key);
    }
    // The kinds that came up least often.
    let mut chosen: Vec<(&'static str, Vec<&Key>)> = groups.into_iter().collect();
    chosen.sort_by_key(|(kind, _)| kinds.get(kind).copied().unwrap_or(0));
    let chosen = chosen
        .into_iter()
        .take(FAULTS)
        .map(|(_, keys)| keys[n % keys.len()]);
    for key in chosen {
        assert!(fault::remove(&twin.real, wanted, key), "{key}");
        twin.fake.vanish(key);
        *kinds.entry(key.kind()).or_default() += 1;
        converge(twin, wanted, &format!("scene {n} without {key}"));
    }
}

fn plan(wanted: &Objects, actual: &Objects) -> Plan {
    let mut desired = Desired::default();
    drop(
        desired
            .set(&Owner(Arc::from("test")), wanted.clone())
            .unwrap(),
    );
    diff(wanted.keys().chain(actual.keys()), &desired, actual)
}

/// Namespaces of somebody else that exist, for those of which the scenes speak.
fn places(directory: &Path, twin: &mut Twin) -> BTreeMap<Netns, Netns> {
    let mut places = BTreeMap::new();
    for (n, netns) in scene::adopted().enumerate() {
        let (path, inode) = foreign_netns(directory.join(format!("foreign{n}")));
        let path = path.into();
        let real = Netns::Adopted { path, inode };
        twin.fake.adopt(real.clone());
        places.insert(netns, real);
    }
    places
}

/// The objects of a scene with real rules, in namespaces that exist.
fn real_objects(scene: &Scene, places: &BTreeMap<Netns, Netns>) -> Objects {
    let objects = scene.desired().unwrap().objects();
    let moved = objects
        .into_iter()
        .map(|(key, spec)| (moved_key(key, places), moved_spec(spec, places)));
    moved.collect()
}

fn moved_key(mut key: Key, places: &BTreeMap<Netns, Netns>) -> Key {
    let netns = match &mut key {
        Key::Link(at) => &mut at.netns,
        Key::Address(at) => &mut at.netns,
        Key::Neighbour(at) => &mut at.netns,
        Key::Route(at) => &mut at.netns,
        Key::Listener(at) => &mut at.netns,
        Key::Detour(at) => &mut at.netns,
        Key::Netns(_)
        | Key::Sysctl(_)
        | Key::NftBase
        | Key::Fdb(_)
        | Key::Port(_)
        | Key::Accept(_)
        | Key::Element(_) => return key,
    };
    if let Some(real) = places.get(netns) {
        *netns = real.clone();
    }
    key
}

fn moved_spec(mut spec: Spec, places: &BTreeMap<Netns, Netns>) -> Spec {
    match &mut spec {
        Spec::Link(link) => {
            let netns = match &mut link.kind {
                LinkKind::Veth { peer, .. } => &mut peer.netns,
                LinkKind::Peer { pair } => &mut pair.netns,
                LinkKind::Bridge { .. } | LinkKind::Lent { .. } | LinkKind::Taken { .. } => {
                    return spec;
                }
            };
            if let Some(real) = places.get(netns) {
                *netns = real.clone();
            }
        }
        Spec::NftBase(base) | Spec::Detour(base) => *base = rules(base.digest),
        _ => {}
    }
    spec
}

/// Constant rules that the kernel takes: the planners' own, and a variant without the last rule.
fn rules(variant: u64) -> BaseSpec {
    let (facts, settings) = (Facts::default(), Settings::default());
    let context = Context {
        facts: &facts,
        settings: &settings,
    };
    let Some(Spec::NftBase(own)) = host_objects(&[], &[], context).remove(&Key::NftBase) else {
        panic!("the planners make no rules");
    };
    if variant % 2 == 1 {
        return own;
    }
    let mut ruleset = Ruleset::clone(&own.ruleset);
    let longest = ruleset
        .chains
        .iter_mut()
        .max_by_key(|chain| chain.rules.len())
        .unwrap();
    assert!(longest.rules.pop().is_some());
    let digest = ruleset.digest();
    BaseSpec {
        digest,
        ruleset: Arc::new(ruleset),
    }
}
