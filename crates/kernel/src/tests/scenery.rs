//! Hosts to test in, and the objects of a small routed network.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::fdb::{FdbKey, FdbSpec};
use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec, Port};
use tombolo_netstate::object::neighbour::{NeighbourKey, NeighbourSpec};
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::nft::{BaseSpec, ElementKey, ElementSpec, Field, SetName};
use tombolo_netstate::object::route::{RouteKey, RouteSpec};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{Desired, IfName, Key, Mac, Netns, Objects, Owner, Plan, Spec, diff};

use crate::netlink::socket::Protocol;
use crate::netlink::{ReadBuffer, Socket, link};
use crate::{Kernel, KernelConfig, Scope, sys};

#[path = "../../../core/src/driver/firewall.rs"]
#[expect(
    unreachable_pub,
    reason = "the rules as the planners make them, for which we may not depend on them"
)]
pub(super) mod firewall;

/// Runs `test` with a kernel whose host is a new network namespace.
pub(super) fn on_host(pool: usize, test: impl FnOnce(&Kernel) + Send) {
    let directory = tempfile::tempdir().unwrap();
    let config = KernelConfig {
        run_dir: directory.path().to_owned(),
        instance: "test".into(),
        pool,
        ports: None,
    };
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            sys::new_netns().unwrap();
            sys::new_private_mounts().unwrap();
            let socket = Socket::open(Protocol::Route).unwrap();
            link::loopback_up(&socket, &mut ReadBuffer::new()).unwrap();
            test(&Kernel::open(config).unwrap());
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a program in the test's host; its output, or a panic with what it complained of.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a program in a sandbox; whether it succeeded.
pub(super) fn succeeds_in(kernel: &Kernel, sandbox: &str, arguments: &[&str]) -> bool {
    let netns = format!("--net={}", kernel.netns_path(sandbox).display());
    Command::new("nsenter")
        .arg(netns)
        .args(arguments)
        .output()
        .unwrap()
        .status
        .success()
}

pub(super) fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

pub(super) fn owned(sandbox: &str) -> Netns {
    Netns::Owned(Arc::from(sandbox))
}

pub(super) fn link_key(netns: &Netns, link: &str) -> LinkKey {
    LinkKey {
        netns: netns.clone(),
        name: name(link),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) const BRIDGE_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

pub(super) fn bridge(objects: &mut Objects, bridge: &str) {
    let spec = LinkSpec {
        kind: LinkKind::Bridge {
            snooping: false,
            localnet: false,
        },
        mac: BRIDGE_MAC,
        mtu: 1450,
        port: None,
        ipv6: true,
        link_local: false,
        alias: Arc::from("network/n1"),
    };
    objects.insert(
        Key::Link(link_key(&Netns::Host, bridge)),
        Spec::Link(Box::new(spec)),
    );
}

pub(super) fn address(
    objects: &mut Objects,
    netns: &Netns,
    link: &str,
    ip_text: &str,
    prefix_len: u8,
) {
    let key = AddressKey {
        netns: netns.clone(),
        link: name(link),
        ip: ip(ip_text),
    };
    let prefix_route = prefix_len != 32 && prefix_len != 128;
    let spec = AddressSpec {
        prefix_len,
        prefix_route,
        announce: None,
    };
    objects.insert(Key::Address(key), Spec::Address(spec));
}

fn neighbour(objects: &mut Objects, netns: &Netns, link: &str, ip_text: &str, mac: Mac) {
    let key = NeighbourKey {
        netns: netns.clone(),
        link: name(link),
        ip: ip(ip_text),
    };
    objects.insert(Key::Neighbour(key), Spec::Neighbour(NeighbourSpec { mac }));
}

pub(super) fn element(objects: &mut Objects, set: SetName, fields: Vec<Field>, data: Vec<Field>) {
    objects.insert(
        Key::Element(ElementKey::new(set, fields)),
        Spec::Element(ElementSpec::new(data)),
    );
}

/// Namespace, veth and other end, without addresses.
pub(super) fn veth(objects: &mut Objects, number: u8, bridge: &str) {
    let sandbox = format!("sb{number}");
    let (host_end, inner) = (format!("tv{number}"), owned(&sandbox));
    let mac = endpoint_mac(number);
    objects.insert(
        Key::Netns(NetnsKey {
            name: Arc::from(sandbox.as_str()),
        }),
        Spec::Netns(NetnsSpec),
    );
    let outer_key = link_key(&Netns::Host, &host_end);
    let inner_key = link_key(&inner, "eth0");
    let outer = LinkSpec {
        kind: LinkKind::Veth {
            peer: inner_key.clone(),
            peer_mac: mac,
        },
        mac: Mac([2, 0, 0, 0, 1, number]),
        mtu: 1450,
        port: Some(Port {
            bridge: name(bridge),
            isolated: true,
            flood: false,
            hairpin: false,
            direct: None,
        }),
        ipv6: false,
        link_local: false,
        alias: Arc::from(format!("endpoint/e{number}")),
    };
    let other = LinkSpec {
        kind: LinkKind::Peer {
            pair: outer_key.clone(),
        },
        mac,
        port: None,
        ipv6: true,
        ..outer.clone()
    };
    objects.insert(Key::Link(outer_key), Spec::Link(Box::new(outer)));
    objects.insert(Key::Link(inner_key), Spec::Link(Box::new(other)));
}

pub(super) fn endpoint_mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 2, number])
}

/// An endpoint that knows nobody but its gateway.
pub(super) fn endpoint(objects: &mut Objects, number: u8, bridge: &str) {
    veth(objects, number, bridge);
    let inner = owned(&format!("sb{number}"));
    let mac = endpoint_mac(number);
    let v4 = format!("10.9.0.{number}");
    let v6 = format!("fd09::{number}");
    for (own, prefix_len, gateway, any) in [
        (&v4, 32, "10.9.0.1", "0.0.0.0/0"),
        (&v6, 128, "fd09::1", "::/0"),
    ] {
        address(objects, &inner, "eth0", own, prefix_len);
        neighbour(objects, &inner, "eth0", gateway, BRIDGE_MAC);
        neighbour(objects, &Netns::Host, bridge, own, mac);
        let key = RouteKey {
            netns: inner.clone(),
            destination: any.parse().unwrap(),
            metric: if prefix_len == 32 { 0 } else { 1024 },
        };
        let spec = RouteSpec {
            link: name("eth0"),
            via: Some(ip(gateway)),
            source: None,
        };
        objects.insert(Key::Route(key), Spec::Route(spec));
    }
    let port = name(&format!("tv{number}"));
    let key = FdbKey {
        bridge: name(bridge),
        mac,
    };
    objects.insert(Key::Fdb(key), Spec::Fdb(FdbSpec { port }));
}

pub(super) fn base() -> BaseSpec {
    firewall::base()
}

/// A bridge with its gateway addresses, rules and forwarding.
pub(super) fn network(objects: &mut Objects, name_text: &str) {
    bridge(objects, name_text);
    address(objects, &Netns::Host, name_text, "10.9.0.1", 24);
    address(objects, &Netns::Host, name_text, "fd09::1", 64);
    objects.insert(Key::NftBase, Spec::NftBase(base()));
    let bridge = Field::Name(name(name_text));
    element(objects, SetName::Bridges, vec![bridge], vec![]);
    element(objects, SetName::Intra, vec![bridge, bridge], vec![]);
    let net = |text: &str| Field::Net(text.parse().unwrap());
    element(
        objects,
        SetName::Masquerade4,
        vec![net("10.9.0.0/24")],
        vec![],
    );
    element(
        objects,
        SetName::Masquerade4,
        vec![net("10.9.1.0/24")],
        vec![],
    );
    element(
        objects,
        SetName::Masquerade6,
        vec![net("fd09::/64")],
        vec![],
    );
    element(
        objects,
        SetName::Snat4,
        vec![net("10.7.0.0/16")],
        vec![Field::Address(ip("192.0.2.7"))],
    );
    element(
        objects,
        SetName::Snat6,
        vec![net("fd07::/64")],
        vec![Field::Address(ip("fd00::7"))],
    );
    for (path, restore) in [
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
    ] {
        let spec = SysctlSpec {
            value: Arc::from("1"),
            restore: Arc::from(restore),
        };
        objects.insert(
            Key::Sysctl(SysctlKey {
                path: Arc::from(path),
            }),
            Spec::Sysctl(spec),
        );
    }
}

/// What must be asked for to see all of `objects`.
pub(super) fn scope_of(objects: &Objects) -> Scope {
    let mut scope = Scope {
        host: true,
        ..Scope::default()
    };
    for (key, spec) in objects {
        match (key, spec) {
            (Key::Netns(key), _) => scope.sandboxes.push(Netns::Owned(key.name.clone())),
            (Key::Detour(key), _) => scope.sandboxes.push(key.netns.clone()),
            (Key::Sysctl(key), Spec::Sysctl(spec)) => {
                scope.sysctls.push((key.clone(), spec.clone()))
            }
            _ => {}
        }
    }
    scope
}

/// The plan from `actual` to `wanted`.
pub(super) fn plan(wanted: &Objects, actual: &Objects) -> Plan {
    let mut desired = Desired::default();
    let _touched = desired
        .set(&Owner(Arc::from("test")), wanted.clone())
        .unwrap();
    diff(wanted.keys().chain(actual.keys()), &desired, actual)
}

/// Applies what is missing, and panics with the first failure.
pub(super) fn must_apply(kernel: &Kernel, wanted: &Objects, actual: &Objects) {
    let plan = plan(wanted, actual);
    let report = kernel.apply(&plan);
    assert!(report.is_done(), "{:?}\n{plan}", report.failure(&plan));
}

/// Fails, with the difference as a plan, unless what is there is what is wanted.
pub(super) fn assert_holds(kernel: &Kernel, wanted: &Objects) {
    let seen = kernel.observe(&scope_of(wanted)).unwrap();
    let difference = plan(wanted, &seen.objects);
    assert!(
        difference.is_empty(),
        "to be done still:\n{difference}\nnotes: {:?}",
        seen.notes
    );
    assert_eq!(&seen.objects, wanted);
    assert_eq!(seen.notes, Vec::<String>::new());
}
