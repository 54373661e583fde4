//! Every reason for which the engine refuses something says what, why, and what to do.

use tombolo_lab::Fault;

use super::script;
use super::world::World;
use crate::reject::Code;

/// What is there, what is asked then, and why it is refused.
const CASES: &[(&[&str], &str, Code)] = &[
    (&[], "network x subnet=10.0.2.0/25", Code::OverlappingSubnet),
    (&[], "network x subnet=10.0.0.0/14", Code::OverlappingSubnet),
    (
        &["network a subnet=10.9.0.0/24"],
        "network x subnet=10.9.0.128/25",
        Code::OverlappingSubnet,
    ),
    (
        &[],
        "network x subnet=10.9.0.0/24 gateway=10.8.0.1",
        Code::GatewayOutsideSubnet,
    ),
    (&[], "network x subnet=10.9.0.7/24", Code::HostBitsSet),
    (
        &[],
        "network x subnet=10.9.0.0/24 range=10.8.0.0/28",
        Code::InvalidAddress,
    ),
    (&[], "network x subnet=224.0.0.0/24", Code::InvalidAddress),
    (
        &[],
        "network x subnet=10.9.0.0/24 route=10.7.0.0/16,10.8.0.1",
        Code::InvalidAddress,
    ),
    (
        &["network a"],
        "endpoint a;ip=10.8.0.1",
        Code::InvalidAddress,
    ),
    (
        &["network a"],
        "endpoint a;ip=172.18.0.255",
        Code::InvalidAddress,
    ),
    (
        &["network a"],
        "endpoint a;mac=01:00:00:00:00:01",
        Code::InvalidAddress,
    ),
    (
        &["network a"],
        "endpoint a;ip=172.18.0.1",
        Code::AddressInUse,
    ),
    (
        &["network a", "endpoint a"],
        "endpoint a;ip=172.18.0.2",
        Code::AddressInUse,
    ),
    (
        &["network a subnet=10.9.0.0/30", "endpoint a"],
        "endpoint a",
        Code::PoolExhausted,
    ),
    (&["network a"], "network a", Code::NameTaken),
    (
        &["network a"],
        "run c a publish=8000-8010:80-89",
        Code::InvalidPort,
    ),
    (
        &["network a"],
        "run c a publish=80:80;at=0.0.0.0;from=fd00::/8",
        Code::InvalidAddress,
    ),
    (
        &["network a"],
        "run c a publish=80:80 publish=80:81",
        Code::PortTaken,
    ),
    (
        &["network a", "run d a publish=8000-8010:80-90"],
        "run c a publish=8005:80;at=192.0.2.1",
        Code::PortTaken,
    ),
    (
        &["network a", "run c a"],
        "unpublish c 80",
        Code::UnknownPublication,
    ),
    (
        &["network a internal"],
        "run c a publish=80:80",
        Code::NotPublishable,
    ),
    (
        &["network n predefined null"],
        "run c n publish=80:80",
        Code::NotPublishable,
    ),
    (
        &["network h predefined host"],
        "share c h publish=80:80",
        Code::NotPublishable,
    ),
    (
        &["network a"],
        "run c a publish=1000-1999:1000-1999;at=192.0.2.77",
        Code::AddressNotHere,
    ),
    (
        &["network a"],
        "run c a publish=1000-1999:1000-1999;obey",
        Code::LimitReached,
    ),
    (
        &["network a"],
        "run c a publish=5000:5000;sctp;obey",
        Code::InvalidCombination,
    ),
    (&["network a"], "run c a link=x", Code::UnknownSandbox),
    (
        &["network a", "run d a", "stop d"],
        "run c a link=d",
        Code::NotRunning,
    ),
    (
        &["network a", "network b", "run d b"],
        "run c a link=d",
        Code::UnknownLink,
    ),
    (&["network a"], "run c a link=c", Code::LinkLoop),
    (
        &["network a", "run d a", "run e a link=d", "rm d"],
        "run d a link=e",
        Code::LinkLoop,
    ),
    (
        &["network a multicast no-icc", "run d a"],
        "run c a link=d",
        Code::InvalidCombination,
    ),
    (&[], "network a mode4=isolated", Code::InvalidCombination),
    (
        &[],
        "network a internal mode4=isolated resolver=gateway",
        Code::InvalidCombination,
    ),
    (
        &[],
        "network n predefined null resolver=gateway",
        Code::InvalidCombination,
    ),
    (
        &[],
        "network a internal mode4=routed",
        Code::InvalidCombination,
    ),
    (&["run c"], "run c", Code::NameTaken),
    (
        &["network a", "endpoint a;name=e"],
        "endpoint a;name=e",
        Code::NameTaken,
    ),
    (
        &["network n predefined null"],
        "network x predefined null",
        Code::NameTaken,
    ),
    (&[], "delete network x", Code::UnknownNetwork),
    (&[], "run c x", Code::UnknownNetwork),
    (&[], "delete endpoint x", Code::UnknownEndpoint),
    (&["network a"], "delete endpoint a/x", Code::UnknownEndpoint),
    (&[], "stop x", Code::UnknownSandbox),
    (
        &["network a", "network b", "run c a b"],
        "delete endpoint c",
        Code::AmbiguousReference,
    ),
    (
        &["network a", "endpoint a"],
        "delete network a",
        Code::NetworkInUse,
    ),
    (&[], "network bridge", Code::PredefinedNetwork),
    (
        &["network a predefined"],
        "delete network a",
        Code::PredefinedNetwork,
    ),
    (
        &["network a", "run c a", "run d"],
        "join c d",
        Code::AlreadyJoined,
    ),
    (
        &["network a", "run c a"],
        "connect a;name=x c",
        Code::AlreadyJoined,
    ),
    (&["network a", "run c"], "disconnect a c", Code::NotJoined),
    (
        &["network a", "endpoint a;name=e"],
        "leave e",
        Code::NotJoined,
    ),
    (&["run c", "stop c"], "stop c", Code::NotRunning),
    (&["run c"], "start c", Code::Running),
    (&["adopt c 5"], "adopt d 5", Code::NamespaceTaken),
    (
        &["adopt c 5", "stop c", "adopt d 5"],
        "start c",
        Code::NamespaceTaken,
    ),
    (
        &[],
        "network x device=much-too-long-a-name",
        Code::InterfaceName,
    ),
    (&[], "network x prefix=a/b", Code::InterfaceName),
    (
        &["network a", "run c"],
        "connect a;if=a:b c",
        Code::InterfaceName,
    ),
    (&[], "network x device=eth0", Code::InterfaceNameTaken),
    (
        &["network a device=br-a"],
        "network x device=br-a",
        Code::InterfaceNameTaken,
    ),
    (
        &["network a", "run c"],
        "connect a;if=lo c",
        Code::InterfaceNameTaken,
    ),
    (
        &["network a", "network b", "run c a;if=lan0"],
        "connect b;if=lan0 c",
        Code::InterfaceNameTaken,
    ),
    (&[], "network x mtu=67", Code::MtuRange),
    (&[], "network x no-ipv4", Code::InvalidCombination),
    (
        &[],
        "network x no-ipv4 ipv6 subnet=10.9.0.0/24",
        Code::InvalidCombination,
    ),
    (
        &["network n predefined null", "network a"],
        "run c n a",
        Code::InvalidCombination,
    ),
    (&["network a"], "share c a", Code::InvalidCombination),
    (
        &["network h predefined host"],
        "run c h",
        Code::InvalidCombination,
    ),
    (
        &["network a route=10.7.0.0/16", "network b route=10.7.0.0/16"],
        "run c a b",
        Code::InvalidCombination,
    ),
];

fn refused(world: &mut World, line: &str, code: Code) {
    let before = format!("{:?}", world.held_objects());
    let reject = world
        .ask(script::command(line).unwrap())
        .unwrap()
        .expect_err(line);
    assert_eq!(reject.code, code, "{line}: {reject}");
    for text in [&reject.object, &reject.message, &reject.hint] {
        assert!(!text.trim().is_empty(), "{line}: {reject:?}");
        assert!(!text.ends_with('.') && text.len() < 400, "{line}: {text}");
    }
    assert_ne!(reject.message, reject.hint, "{line}");
    assert_eq!(
        format!("{:?}", world.held_objects()),
        before,
        "{line} left something behind"
    );
}

#[test]
fn refusals_say_what_and_why_and_what_to_do() {
    for (lines, line, code) in CASES {
        let mut world = World::new();
        for line in *lines {
            world
                .ask(script::command(line).unwrap())
                .unwrap()
                .expect(line);
        }
        refused(&mut world, line, *code);
        world.check();
    }
}

#[test]
fn refusals_for_the_state_of_the_host() {
    let mut world = World::new();
    world.facts.ipv6 = false;
    world.tell_facts();
    refused(&mut world, "network x ipv6", Code::Ipv6Disabled);
    world.inject(Fault::Fail(1));
    refused(&mut world, "network x", Code::Kernel);
    world.store_full = true;
    refused(&mut world, "network x", Code::Store);
    world.store_full = false;
    world.wait(1_000);
    world.check();
}

/// What the engine gives is what is tried above, in the limits, with other engines and in the scenarios of reboot; the rest is
/// refused before it.
#[test]
fn every_reason_is_tried() {
    let elsewhere = [
        Code::InvalidName,
        Code::MissingFeature,
        Code::MissingNamespace,
        Code::UnknownOption,
        Code::Busy,
        Code::EngineOwned,
        Code::Ipv6Disabled,
        Code::Kernel,
        Code::Store,
        Code::PluginUnavailable,
        Code::PluginRefused,
    ];
    for code in Code::ALL {
        let tried = CASES.iter().any(|(_, _, given)| given == code);
        assert!(tried != elsewhere.contains(code), "{}", code.as_str());
    }
}
