//! Properties of the planner, against a kernel that refuses and loses what a kernel does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use proptest::sample::Index;
use tombolo_lab::{FakeKernel, Fault, Scene, scene};
use tombolo_netstate::diff::vanishing;
use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::link::{KEPT_MAC, KEPT_MTU, LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::route::{RouteKey, RouteSpec};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{
    Action, Desired, IfName, Key, Mac, Netns, Objects, Outcome, Owner, Plan, Spec, diff,
};

fn host() -> FakeKernel {
    let mut kernel = FakeKernel::new();
    scene::adopted().for_each(|netns| kernel.adopt(netns));
    kernel
}

/// The whole difference, as a daemon without memory sees it.
fn plan(desired: &Desired, actual: &Objects) -> Plan {
    let keys: BTreeSet<&Key> = desired.keys().chain(actual.keys()).collect();
    diff(keys, desired, actual)
}

fn desired(scene: &Scene) -> Desired {
    scene.desired().expect("the owners of a scene agree")
}

/// A host that holds `scene`, and nothing was refused on the way.
fn host_with(scene: &Scene) -> FakeKernel {
    let mut kernel = host();
    reach(&mut kernel, &desired(scene));
    assert_eq!(kernel.refusals(), &[] as &[String]);
    kernel
}

/// One round, looking first. Returns the plan's text and whether all of it was carried out.
fn reach(kernel: &mut FakeKernel, desired: &Desired) -> (String, bool) {
    let plan = plan(desired, &kernel.objects());
    let report = kernel.apply(&plan).expect("no crash was asked for");
    (plan.to_string(), report.is_done())
}

fn assert_holds(kernel: &FakeKernel, desired: &Desired) {
    assert_same(&kernel.objects(), &desired.objects());
}

/// Equality with a message that names only what differs.
fn assert_same(have: &Objects, want: &Objects) {
    let keys: BTreeSet<&Key> = have.keys().chain(want.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| have.get(key) != want.get(key))
        .map(|key| {
            let text = |spec: Option<&Spec>| spec.map_or("absent".into(), Spec::to_string);
            format!(
                "{key}: have {}, want {}",
                text(have.get(key)),
                text(want.get(key))
            )
        })
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_reaches_what_is_desired_and_nothing_is_refused(a in Scene::any(), b in Scene::any()) {
        let mut kernel = host_with(&a);
        assert_holds(&kernel, &desired(&a));
        let (plan, done) = reach(&mut kernel, &desired(&b));
        prop_assert_eq!(kernel.refusals(), &[] as &[String], "{}", plan);
        prop_assert!(done);
        assert_holds(&kernel, &desired(&b));
        prop_assert!(self::plan(&desired(&b), &kernel.objects()).is_empty());
    }

    #[test]
    fn no_difference_is_no_plan(a in Scene::any()) {
        let desired = desired(&a);
        prop_assert!(plan(&desired, &desired.objects()).is_empty());
    }

    #[test]
    fn every_prefix_of_a_plan_converges(
        a in Scene::any(), b in Scene::any(), at in any::<Index>(), back in any::<bool>()
    ) {
        let mut kernel = host_with(&a);
        let towards = desired(&b);
        let plan = plan(&towards, &kernel.objects());
        kernel.crash_after(at.index(plan.ops.len() + 1));
        prop_assert!(kernel.apply(&plan).is_err());
        kernel.settle();
        let target = if back { desired(&a) } else { towards };
        let (again, done) = reach(&mut kernel, &target);
        prop_assert!(done, "{:?}\n{again}", kernel.refusals());
        assert_holds(&kernel, &target);
    }

    #[test]
    fn a_crash_on_the_way_to_one_scene_does_not_hinder_another(
        a in Scene::any(), b in Scene::any(), c in Scene::any(), at in any::<Index>()
    ) {
        let mut kernel = host_with(&a);
        let plan = plan(&desired(&b), &kernel.objects());
        kernel.crash_after(at.index(plan.ops.len() + 1));
        prop_assert!(kernel.apply(&plan).is_err());
        kernel.settle();
        let (again, _) = reach(&mut kernel, &desired(&c));
        prop_assert_eq!(kernel.refusals(), &[] as &[String], "{}", again);
        assert_holds(&kernel, &desired(&c));
    }

    #[test]
    fn one_failure_is_mended_in_the_next_round(
        a in Scene::any(), b in Scene::any(), at in any::<Index>(), half in any::<bool>()
    ) {
        let mut kernel = host_with(&a);
        let target = desired(&b);
        let plan = plan(&target, &kernel.objects());
        if plan.ops.is_empty() {
            return Ok(());
        }
        let n = at.index(plan.ops.len());
        kernel.inject(if half { Fault::Half(n) } else { Fault::Fail(n) });
        let report = kernel.apply(&plan).unwrap();
        prop_assert_eq!(report.failure(&plan).map(|(key, _)| key), Some(&plan.ops[n].key));
        kernel.settle();
        let (again, done) = reach(&mut kernel, &target);
        prop_assert!(done, "{:?}\n{again}", kernel.refusals());
        assert_holds(&kernel, &target);
    }

    #[test]
    fn going_back_leaves_nothing(a in Scene::any(), b in Scene::any()) {
        let mut kernel = host_with(&a);
        reach(&mut kernel, &desired(&b));
        reach(&mut kernel, &desired(&a));
        assert_holds(&kernel, &desired(&a));
        reach(&mut kernel, &Desired::default());
        assert_holds(&kernel, &Desired::default());
        prop_assert_eq!(kernel.refusals(), &[] as &[String]);
    }

    #[test]
    fn foreign_objects_are_never_named(a in Scene::any(), b in Scene::any()) {
        let mut kernel = host();
        let strangers = strangers();
        for (key, spec) in &strangers {
            kernel.put_foreign(key.clone(), spec).unwrap();
        }
        for scene in [&a, &b, &Scene::empty()] {
            let target = desired(scene);
            let plan = plan(&target, &kernel.objects());
            prop_assert!(plan.ops.iter().all(|op| !strangers.contains_key(&op.key)));
            prop_assert!(kernel.apply(&plan).unwrap().is_done());
            assert_holds(&kernel, &target);
            assert_same(&kernel.foreign(), &strangers);
        }
        prop_assert_eq!(kernel.trespasses(), &[] as &[Key]);
    }

    #[test]
    fn removal_is_the_reverse_of_creation(a in Scene::any()) {
        let target = desired(&a);
        let up = plan(&target, &Objects::new());
        let down = plan(&Desired::default(), &target.objects());
        let rising = up.ops.iter().map(|op| phase(&op.action)).collect::<Vec<_>>();
        prop_assert!(rising.is_sorted(), "{up}");
        let removed = |op: &&tombolo_netstate::Op| matches!(op.action, Action::Delete(_));
        let falling = down.ops.iter().filter(removed).map(|op| phase(&op.action)).collect::<Vec<_>>();
        prop_assert!(falling.is_sorted_by(|a, b| a >= b), "{down}");
        let doors = down.ops.iter().take_while(|op| {
            matches!(op.action, Action::Close(_)) || matches!(op.key, Key::Element(_))
        });
        let closing = |op: &&tombolo_netstate::Op| {
            matches!(op.action, Action::Close(_)) || matches!(op.key, Key::Element(_))
        };
        let elements = target.keys().filter(|key| matches!(key, Key::Element(_))).count();
        let removed = |key: &Key| down.ops.iter().any(|op| op.key == *key);
        let shut = target.keys().filter(|key| matches!(key, Key::Element(_)) && removed(key));
        prop_assert_eq!(shut.count(), elements, "{}", down);
        prop_assert_eq!(doors.count(), down.ops.iter().filter(closing).count(), "{}", down);
    }

    #[test]
    fn the_record_of_a_plan_is_what_the_kernel_holds(
        a in Scene::any(), b in Scene::any(), fault in fault(), late in any::<bool>(),
        deferred in any::<bool>()
    ) {
        let mut kernel = host_with(&a);
        kernel.defer_removals(deferred);
        let mut believed = kernel.objects();
        for (target, faulty) in [(desired(&b), !late), (desired(&a), late)] {
            let plan = plan(&target, &believed);
            let (fault, n) = fault.of(if faulty { plan.ops.len() } else { 0 });
            kernel.inject(fault);
            let report = kernel.apply(&plan).unwrap();
            let mut leaving = report.record(&plan, &mut believed);
            // Of what a creation failed to make and yet is there, only the presence is believed.
            let mut seen = kernel.objects();
            for (op, outcome) in plan.ops.iter().zip(&report.outcomes) {
                let made = matches!(op.action, Action::Create(_));
                if let (true, Outcome::Failed { exists: true, .. }) = (made, outcome) {
                    let (ours, real) = (believed.get(&op.key), seen.get_mut(&op.key));
                    prop_assert_eq!(ours.is_some(), real.is_some(), "{}", op);
                    if let (Some(ours), Some(real)) = (ours, real) {
                        *real = ours.clone();
                    }
                }
            }
            assert_same(&believed, &seen);
            let mut gone = kernel.settle();
            if n.is_some() {
                // A link whose removal failed may still go with its namespace.
                leaving.retain(|key| gone.contains(key));
            }
            leaving.sort();
            gone.sort();
            prop_assert_eq!(leaving, gone);
            believed = kernel.objects();
        }
    }

    #[test]
    fn what_vanishes_with_an_object_is_foretold(a in Scene::any(), which in any::<Index>()) {
        let kernel = host_with(&a);
        let before = kernel.objects();
        let holder = |key: &&Key| matches!(key, Key::Netns(_) | Key::Link(_) | Key::NftBase);
        let count = before.keys().filter(holder).count();
        let Some(key) = before.keys().filter(holder).nth(which.index(count.max(1))) else {
            return Ok(());
        };
        let mut after = kernel;
        after.vanish(key);
        let left = after.objects();
        let lost: BTreeSet<Key> =
            before.keys().filter(|k| *k != key && !left.contains_key(k)).cloned().collect();
        prop_assert_eq!(vanishing(&before, key), lost);
    }

    #[test]
    fn drift_is_repaired(a in Scene::any(), which in prop::collection::vec(any::<Index>(), 1..4)) {
        let mut kernel = host_with(&a);
        for index in which {
            let objects = kernel.objects();
            let Some(key) = objects.keys().nth(index.index(objects.len().max(1))) else { break };
            kernel.vanish(key);
        }
        let (plan, _) = reach(&mut kernel, &desired(&a));
        prop_assert_eq!(kernel.refusals(), &[] as &[String], "{}", plan);
        assert_holds(&kernel, &desired(&a));
    }

    #[test]
    fn owners_come_and_go_by_the_keys_they_touch(
        a in Scene::any(), b in Scene::any(), deferred in any::<bool>()
    ) {
        let mut kernel = host_with(&a);
        kernel.defer_removals(deferred);
        let (mut believed, mut desired) = (kernel.objects(), desired(&a));
        let (present, all) = (a.owned(), a.joined_by(&b).owned());
        let newcomers = all.iter().filter(|(owner, _)| !present.contains_key(owner));
        // Networks sort after endpoints: they come first and go last.
        let come = newcomers.rev().map(|(owner, objects)| (owner, Some(objects)));
        let go = all.keys().map(|owner| (owner, None));
        for (owner, objects) in come.chain(go) {
            let touched = match objects {
                Some(objects) => desired.set(owner, objects.clone()).unwrap(),
                None => desired.remove(owner),
            };
            let plan = diff(&touched, &desired, &believed);
            let report = kernel.apply(&plan).unwrap();
            prop_assert!(report.is_done(), "{:?}\n{plan}", kernel.refusals());
            let leaving = report.record(&plan, &mut believed);
            assert_same(&believed, &kernel.objects());
            prop_assert_eq!(leaving.len(), kernel.settle().len());
        }
        assert_holds(&kernel, &desired);
        prop_assert!(believed.is_empty());
    }

    #[test]
    fn a_failed_newcomer_is_withdrawn_without_a_trace(
        a in Scene::any(), b in Scene::any(), which in any::<Index>(), fault in fault()
    ) {
        let mut kernel = host_with(&a);
        let (mut believed, mut desired) = (kernel.objects(), desired(&a));
        let present = a.owned();
        let mut newcomers = a.joined_by(&b).owned();
        newcomers.retain(|owner, _| !present.contains_key(owner));
        let chosen = which.index(newcomers.len().max(1));
        let Some((owner, objects)) = newcomers.into_iter().nth(chosen) else { return Ok(()) };
        // An endpoint may come before its network: then the kernel refuses without our doing.
        let touched = desired.set(&owner, objects).unwrap();
        let up = diff(&touched, &desired, &believed);
        kernel.inject(fault.of(up.ops.len()).0);
        let report = kernel.apply(&up).unwrap();
        report.record(&up, &mut believed);
        let touched = desired.remove(&owner);
        let down = diff(&touched, &desired, &believed);
        prop_assert!(kernel.apply(&down).unwrap().is_done(), "{up}\n{down}");
        assert_holds(&kernel, &desired);
    }

    #[test]
    fn owners_share_objects_and_take_them_along_last(
        a in Scene::any(), order in any::<[Index; 16]>()
    ) {
        let mut owned: BTreeMap<Owner, Objects> = a.owned();
        let mut desired = desired(&a);
        for index in order {
            let Some(owner) = owned.keys().nth(index.index(owned.len().max(1))).cloned() else { break };
            let mine = owned.remove(&owner).unwrap();
            let touched = desired.remove(&owner);
            prop_assert_eq!(touched, mine.keys().cloned().collect::<BTreeSet<_>>());
            let left: Objects = owned.values().flatten().map(|(k, s)| (k.clone(), s.clone())).collect();
            assert_same(&desired.objects(), &left);
            prop_assert!(desired.keys_of(&owner).is_empty());
            for key in mine.keys() {
                let owners = owned.iter().filter(|(_, objects)| objects.contains_key(key));
                let mut held = desired.owners(key).to_vec();
                held.sort();
                prop_assert_eq!(held, owners.map(|(owner, _)| owner.clone()).collect::<Vec<_>>());
            }
        }
    }
}

/// A fault with a place yet to be chosen in a plan.
#[derive(Debug, Clone)]
enum Chance {
    None,
    Fail(Index),
    Half(Index),
}

impl Chance {
    fn of(&self, ops: usize) -> (Fault, Option<usize>) {
        match self {
            Self::Fail(at) if ops > 0 => (Fault::Fail(at.index(ops)), Some(at.index(ops))),
            Self::Half(at) if ops > 0 => (Fault::Half(at.index(ops)), Some(at.index(ops))),
            Self::None | Self::Fail(_) | Self::Half(_) => (Fault::None, None),
        }
    }
}

fn fault() -> impl Strategy<Value = Chance> {
    prop_oneof![
        Just(Chance::None),
        any::<Index>().prop_map(Chance::Fail),
        any::<Index>().prop_map(Chance::Half),
    ]
}

fn phase(action: &Action) -> tombolo_netstate::object::Phase {
    match action {
        Action::Close(spec)
        | Action::Create(spec)
        | Action::Update { to: spec, .. }
        | Action::Delete(spec) => spec.phase(),
    }
}

/// Another engine's bridge with an address and a route, and a setting.
fn strangers() -> Objects {
    let name = IfName::new("docker0").expect("a name");
    let link = LinkSpec {
        kind: LinkKind::Bridge {
            snooping: true,
            localnet: false,
        },
        mac: Mac::local(77),
        mtu: 1500,
        port: None,
        ipv6: true,
        link_local: true,
        alias: "".into(),
    };
    let address = AddressSpec {
        prefix_len: 16,
        prefix_route: true,
        announce: None,
    };
    let route = RouteSpec {
        link: name,
        via: None,
        source: None,
    };
    let setting = SysctlSpec {
        value: "1".into(),
        restore: "0".into(),
    };
    let destination = IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16));
    Objects::from([
        (
            Key::Link(LinkKey {
                netns: Netns::Host,
                name,
            }),
            Spec::Link(Box::new(link)),
        ),
        (
            Key::Address(AddressKey {
                netns: Netns::Host,
                link: name,
                ip: Ipv4Addr::new(172, 17, 0, 1).into(),
            }),
            Spec::Address(address),
        ),
        (
            Key::Route(RouteKey {
                netns: Netns::Host,
                destination,
                metric: 0,
            }),
            Spec::Route(route),
        ),
        (
            Key::Sysctl(SysctlKey {
                path: "kernel/panic".into(),
            }),
            Spec::Sysctl(setting),
        ),
    ])
}

#[test]
fn a_clash_changes_nothing() {
    let setting = |value: &str| {
        let spec = SysctlSpec {
            value: value.into(),
            restore: "0".into(),
        };
        (
            Key::Sysctl(SysctlKey {
                path: "net/ipv4/ip_forward".into(),
            }),
            Spec::Sysctl(spec),
        )
    };
    let extra = strangers();
    let (one, two) = (Owner("network/1".into()), Owner("network/2".into()));
    let mut desired = Desired::default();
    desired.set(&one, Objects::from([setting("1")])).unwrap();
    desired.set(&two, extra.clone()).unwrap();
    let before = desired.objects();

    let clash = desired
        .set(&two, Objects::from([setting("2")]))
        .unwrap_err();

    assert_eq!((clash.owner, *clash.key), (one.clone(), setting("1").0));
    assert_same(&desired.objects(), &before);
    assert_eq!(desired.keys_of(&two).len(), extra.len());
    assert_eq!(desired.owners(&setting("1").0), std::slice::from_ref(&one));
    desired.set(&one, Objects::from([setting("2")])).unwrap();
    assert_eq!(desired.get(&setting("2").0), Some(&setting("2").1));
}

/// A namespace that goes with a link of others in it: the link leaves first, and is not merely implied.
#[test]
fn a_taken_link_leaves_a_namespace_before_it_goes() {
    let netns = Netns::Owned("sb1".into());
    let name = |text: &str| IfName::new(text).unwrap();
    let spec = LinkSpec {
        kind: LinkKind::Taken { from: name("vp1") },
        mac: KEPT_MAC,
        mtu: KEPT_MTU,
        port: None,
        ipv6: true,
        link_local: false,
        alias: "endpoint/e1".into(),
    };
    let link = Key::Link(LinkKey {
        netns: netns.clone(),
        name: name("eth0"),
    });
    let address = Key::Address(AddressKey {
        netns,
        link: name("eth0"),
        ip: Ipv4Addr::new(10, 9, 0, 2).into(),
    });
    let address_spec = AddressSpec {
        prefix_len: 24,
        prefix_route: true,
        announce: None,
    };
    let place = Key::Netns(NetnsKey { name: "sb1".into() });
    let actual = Objects::from([
        (place.clone(), Spec::Netns(NetnsSpec)),
        (link.clone(), Spec::Link(Box::new(spec))),
        (address, Spec::Address(address_spec)),
    ]);
    let going = plan(&Desired::default(), &actual);
    let keys: Vec<&Key> = going.ops.iter().map(|op| &op.key).collect();
    assert_eq!(keys, [&link, &place], "{going}");
}
