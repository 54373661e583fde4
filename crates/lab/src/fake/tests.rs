use std::net::IpAddr;

use tombolo_netstate::object::fdb::{FdbKey, FdbSpec};
use tombolo_netstate::object::link::{LinkSpec, Port};
use tombolo_netstate::object::neighbour::{NeighbourKey, NeighbourSpec};
use tombolo_netstate::object::nft::{BaseSpec, ElementKey, ElementSpec, Field, SetName};
use tombolo_netstate::object::route::{RouteKey, RouteSpec};
use tombolo_netstate::object::{address::AddressSpec, netns::NetnsSpec};
use tombolo_netstate::{IfName, Mac};

use super::*;

type Object = (Key, Spec);

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn place(netns: &str) -> Netns {
    if netns.is_empty() {
        Netns::Host
    } else {
        Netns::Owned(netns.into())
    }
}

fn at(netns: &str, link: &str) -> LinkKey {
    LinkKey {
        netns: place(netns),
        name: name(link),
    }
}

fn link(at: LinkKey, kind: LinkKind, bridge: Option<&str>) -> Object {
    let port = bridge.map(|bridge| Port {
        bridge: name(bridge),
        isolated: true,
        flood: false,
        hairpin: false,
        direct: None,
    });
    let spec = LinkSpec {
        kind,
        mac: Mac::local(1),
        mtu: 1500,
        port,
        ipv6: true,
        link_local: false,
        alias: "".into(),
    };
    (Key::Link(at), Spec::Link(Box::new(spec)))
}

fn bridge(text: &str) -> Object {
    link(
        at("", text),
        LinkKind::Bridge {
            snooping: false,
            localnet: false,
        },
        None,
    )
}

fn netns(text: &str) -> Object {
    (
        Key::Netns(NetnsKey { name: text.into() }),
        Spec::Netns(NetnsSpec),
    )
}

fn veth(text: &str, inside: &str, on: &str) -> Object {
    let kind = LinkKind::Veth {
        peer: at(inside, "eth0"),
        peer_mac: Mac::local(2),
    };
    link(at("", text), kind, Some(on))
}

fn peer(inside: &str, of: &str) -> Object {
    link(
        at(inside, "eth0"),
        LinkKind::Peer { pair: at("", of) },
        None,
    )
}

fn address(inside: &str, on: &str, text: &str) -> Object {
    let LinkKey { netns, name: link } = at(inside, on);
    let key = AddressKey {
        netns,
        link,
        ip: ip(text),
    };
    let spec = AddressSpec {
        prefix_len: 24,
        prefix_route: true,
        announce: None,
    };
    (Key::Address(key), Spec::Address(spec))
}

fn neighbour(inside: &str, on: &str, text: &str) -> Object {
    let LinkKey { netns, name: link } = at(inside, on);
    let key = NeighbourKey {
        netns,
        link,
        ip: ip(text),
    };
    (
        Key::Neighbour(key),
        Spec::Neighbour(NeighbourSpec { mac: Mac::local(3) }),
    )
}

fn route(inside: &str, on: &str, to: &str, source: Option<&str>) -> Object {
    let key = RouteKey {
        netns: place(inside),
        destination: to.parse().unwrap(),
        metric: 1,
    };
    let spec = RouteSpec {
        link: name(on),
        via: None,
        source: source.map(ip),
    };
    (Key::Route(key), Spec::Route(spec))
}

fn fdb(on: &str, port: &str) -> Object {
    let key = FdbKey {
        bridge: name(on),
        mac: Mac::local(2),
    };
    (Key::Fdb(key), Spec::Fdb(FdbSpec { port: name(port) }))
}

fn base(digest: u64) -> Object {
    let ruleset = std::sync::Arc::default();
    (Key::NftBase, Spec::NftBase(BaseSpec { digest, ruleset }))
}

fn element(text: &str) -> Object {
    let key = ElementKey {
        set: SetName::Bridges,
        fields: [Field::Name(name(text))].into(),
    };
    (Key::Element(key), Spec::Element(ElementSpec::default()))
}

fn masquerade(text: &str) -> Object {
    let fields = vec![Field::Net(text.parse().unwrap())];
    let key = ElementKey {
        set: SetName::Masquerade4,
        fields: fields.into(),
    };
    (Key::Element(key), Spec::Element(ElementSpec::default()))
}

fn plan(actions: impl IntoIterator<Item = (Key, Action)>) -> Plan {
    let ops = actions
        .into_iter()
        .map(|(key, action)| Op { key, action })
        .collect();
    Plan { ops, edges: vec![] }
}

fn make(objects: impl IntoIterator<Item = Object>) -> Plan {
    plan(
        objects
            .into_iter()
            .map(|(key, spec)| (key, Action::Create(spec))),
    )
}

fn remove((key, spec): Object) -> Plan {
    plan([(key, Action::Delete(spec))])
}

fn change(from: Object, to: Object) -> Plan {
    plan([(
        to.0,
        Action::Update {
            from: from.1,
            to: to.1,
        },
    )])
}

/// A bridge with one endpoint that has an address, a neighbour, a route and a forwarding entry.
fn house() -> Vec<Object> {
    vec![
        netns("s1"),
        bridge("br0"),
        veth("t1", "s1", "br0"),
        peer("s1", "t1"),
        address("s1", "eth0", "10.0.0.2"),
        neighbour("s1", "eth0", "10.0.0.1"),
        fdb("br0", "t1"),
        route("s1", "eth0", "0.0.0.0/0", Some("10.0.0.2")),
    ]
}

fn kernel(objects: Vec<Object>) -> FakeKernel {
    let mut kernel = FakeKernel::new();
    let count = objects.len();
    assert!(kernel.apply(&make(objects)).unwrap().is_done());
    assert_eq!(kernel.objects().len(), count);
    kernel
}

fn kinds(kernel: &FakeKernel) -> Vec<&'static str> {
    let objects = kernel.objects();
    let mut kinds: Vec<_> = objects.keys().map(Key::kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn what_is_missing_is_refused_and_leaves_no_trace() {
    let cases = [
        (veth("t1", "s1", "br0"), "no link br0"),
        (
            link(
                at("s1", "br0"),
                LinkKind::Bridge {
                    snooping: false,
                    localnet: false,
                },
                None,
            ),
            "no namespace s1",
        ),
        (peer("", "t1"), "t1 has no other end eth0"),
        (address("", "br0", "10.0.0.1"), "no link br0"),
        (neighbour("", "br0", "10.0.0.1"), "no link br0"),
        (route("", "br0", "10.0.0.0/8", None), "no link br0"),
        (
            route("", "br0", "10.0.0.0/8", Some("10.0.0.1")),
            "10.0.0.1 is no address of host",
        ),
        (fdb("br0", "t1"), "no link t1"),
        (element("br0"), "no table"),
    ];
    for (object, expected) in cases {
        let mut kernel = FakeKernel::new();
        let plan = make([object]);
        let report = kernel.apply(&plan).unwrap();
        let (_, error) = report.failure(&plan).unwrap();
        assert_eq!(error, expected);
        assert!(kernel.objects().is_empty());
        assert_eq!(kernel.refusals().len(), 1);
    }
}

#[test]
fn what_exists_or_does_not_fit_is_refused() {
    let cases = [
        (bridge("br0"), "link br0 exists"),
        (veth("t2", "s1", "br0"), "link s1:eth0 exists"),
        (
            link(
                at("", "t2"),
                LinkKind::Bridge {
                    snooping: false,
                    localnet: false,
                },
                Some("t1"),
            ),
            "t1 is no bridge",
        ),
        (fdb("br1", "t1"), "t1 is no port of br1"),
        (masquerade("10.1.0.0/24"), "overlaps"),
    ];
    for (object, expected) in cases {
        let mut objects = house();
        objects.extend([bridge("br1"), base(1), masquerade("10.1.0.0/16")]);
        let mut kernel = kernel(objects);
        let plan = make([object]);
        let report = kernel.apply(&plan).unwrap();
        let (_, error) = report.failure(&plan).unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_veth_takes_both_ends_and_all_on_them() {
    for gone in [veth("t1", "s1", "br0"), peer("s1", "t1")] {
        let mut kernel = kernel(house());
        assert!(kernel.apply(&remove(gone)).unwrap().is_done());
        assert_eq!(kinds(&kernel), ["netns", "link"]);
    }
    let mut kernel = kernel(house());
    assert!(kernel.apply(&remove(netns("s1"))).unwrap().is_done());
    assert_eq!(kinds(&kernel), ["link"]);
}

#[test]
fn a_bridge_leaves_its_ports_behind_without_master() {
    let mut kernel = kernel(house());
    assert!(kernel.apply(&remove(bridge("br0"))).unwrap().is_done());
    let objects = kernel.objects();
    assert!(!objects.contains_key(&fdb("br0", "t1").0));
    let Some(Spec::Link(port)) = objects.get(&veth("t1", "s1", "br0").0) else {
        panic!()
    };
    assert_eq!(port.port, None);
}

#[test]
fn changes_in_place_lose_what_linux_loses() {
    let mut kernel = kernel(house());
    let (key, mut spec) = peer("s1", "t1");
    if let Spec::Link(link) = &mut spec {
        link.mac = Mac::local(9);
    }
    assert!(
        kernel
            .apply(&change(peer("s1", "t1"), (key, spec)))
            .unwrap()
            .is_done()
    );
    assert!(
        !kernel
            .objects()
            .contains_key(&neighbour("s1", "eth0", "10.0.0.1").0)
    );

    assert!(kernel.apply(&make([bridge("br1")])).unwrap().is_done());
    let moved = change(veth("t1", "s1", "br0"), veth("t1", "s1", "br1"));
    assert!(kernel.apply(&moved).unwrap().is_done());
    assert!(!kernel.objects().contains_key(&fdb("br0", "t1").0));

    assert!(
        kernel
            .apply(&make([base(1), element("br0")]))
            .unwrap()
            .is_done()
    );
    assert!(kernel.apply(&change(base(1), base(2))).unwrap().is_done());
    assert!(!kernel.objects().contains_key(&element("br0").0));
}

#[test]
fn the_last_ipv4_address_takes_ipv4_along_and_a_source_its_routes() {
    let mut one = kernel(house());
    assert!(
        one.apply(&remove(address("s1", "eth0", "10.0.0.2")))
            .unwrap()
            .is_done()
    );
    assert_eq!(kinds(&one), ["netns", "link", "fdb"]);

    let mut objects = house();
    objects.push(address("s1", "eth0", "10.9.0.2"));
    let mut two = kernel(objects);
    assert!(
        two.apply(&remove(address("s1", "eth0", "10.0.0.2")))
            .unwrap()
            .is_done()
    );
    assert_eq!(
        kinds(&two),
        ["netns", "link", "address", "neighbour", "fdb"]
    );
}

#[test]
fn an_ipv6_route_outlives_its_source() {
    let mut objects = house();
    let route = |source| route("s1", "eth0", "::/0", source);
    objects.extend([address("s1", "eth0", "fd00::2"), route(Some("fd00::2"))]);
    let mut kernel = kernel(objects);
    assert!(
        kernel
            .apply(&remove(address("s1", "eth0", "fd00::2")))
            .unwrap()
            .is_done()
    );
    let (key, spec) = route(None);
    assert_eq!(kernel.objects().get(&key), Some(&spec));
}

#[test]
fn secondaries_go_with_their_primary_unless_promoted() {
    let second = address("s1", "eth0", "10.0.0.3");
    for promote in [true, false] {
        let mut objects = house();
        objects.push(second.clone());
        let mut kernel = kernel(objects);
        kernel.promote_secondaries(promote);
        assert!(
            kernel
                .apply(&remove(address("s1", "eth0", "10.0.0.2")))
                .unwrap()
                .is_done()
        );
        assert_eq!(kernel.objects().contains_key(&second.0), promote);
    }
}

#[test]
fn dependants_of_a_failure_are_skipped_and_others_are_not() {
    let mut kernel = FakeKernel::new();
    kernel.fail_at(2);
    let report = kernel.apply(&make(house())).unwrap();
    let done: Vec<bool> = report.outcomes.iter().map(Outcome::is_done).collect();
    assert_eq!(done, [true, true, false, false, false, false, false, false]);
    let because = Box::new(veth("t1", "s1", "br0").0);
    assert_eq!(report.outcomes[3], Outcome::Skipped { because });
    assert_eq!(kinds(&kernel), ["netns", "link"]);
    assert!(kernel.refusals().is_empty());
    assert!(
        kernel
            .apply(&make(house()[2..].to_vec()))
            .unwrap()
            .is_done()
    );
}

#[test]
fn a_crash_leaves_the_first_operations_and_no_report() {
    let mut kernel = FakeKernel::new();
    kernel.crash_after(3);
    assert_eq!(kernel.apply(&make(house())), Err(Died));
    // The other end of the veth is there, but nobody has made it ours.
    assert_eq!(kernel.objects().len(), 3);
    assert!(kernel.apply(&make([peer("s1", "t1")])).unwrap().is_done());
}

#[test]
fn a_deferred_removal_keeps_the_names_until_it_is_over() {
    let mut kernel = kernel(house());
    kernel.defer_removals(true);
    let report = kernel.apply(&remove(veth("t1", "s1", "br0"))).unwrap();
    assert_eq!(report.outcomes, [Outcome::Deferred]);
    assert_eq!(kinds(&kernel), ["netns", "link"]);
    for taken in [veth("t1", "s1", "br0"), veth("t2", "s1", "br0")] {
        assert!(!kernel.apply(&make([taken])).unwrap().is_done());
    }
    assert_eq!(kernel.settle(), [veth("t1", "s1", "br0").0]);
    assert!(
        kernel
            .apply(&make([veth("t2", "s1", "br0")]))
            .unwrap()
            .is_done()
    );
}

#[test]
fn foreign_objects_are_kept_from_plans() {
    let mut kernel = FakeKernel::new();
    let (key, spec) = bridge("docker0");
    kernel.put_foreign(key.clone(), &spec).unwrap();
    assert!(kernel.objects().is_empty());
    let report = kernel.apply(&remove(bridge("docker0"))).unwrap();
    assert!(matches!(
        report.outcomes[..],
        [Outcome::Failed { exists: false, .. }]
    ));
    assert_eq!(kernel.trespasses(), std::slice::from_ref(&key));
    assert_eq!(kernel.foreign(), Objects::from([(key, spec)]));
}
