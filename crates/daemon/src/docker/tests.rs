//! What engines say, turned into our words.

use std::collections::{BTreeMap, VecDeque};

use axum::body::Bytes;
use ipnet::IpNet;
use tombolo_api::types::NetworkCreate;
use tombolo_core::id::EndpointId;
use tombolo_core::ipam::DefaultPools;
use tombolo_core::limits::EXPOSED_PER_SANDBOX_MAX;
use tombolo_core::model::EndpointSpec;
use tombolo_core::{Code, Command, Controller, Effect, EngineCommand, Event, Reply, RequestId};
use tombolo_core::{Facts, Settings};
use tombolo_netstate::Report;
use tombolo_netstate::object::port::HostAddress;

use super::ipam;
use super::server::{self, CallError};
use super::translate::{self, Wanted};
use crate::limits::PLUGIN_RUN_MAX;
use crate::plugin::wire::network::{EndpointInterface, IpamData, NetworkRequest};
use crate::plugin::wire::options::{NetworkOptions, PortBinding, TransportPort};
use crate::translate::network_spec;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn options(generic: &[(&str, &str)]) -> NetworkOptions {
    let generic = generic.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    NetworkOptions {
        generic: generic.collect(),
        ..NetworkOptions::default()
    }
}

fn data(pool: &str, gateway: &str) -> IpamData {
    IpamData {
        pool: pool.to_owned(),
        gateway: gateway.to_owned(),
        ..IpamData::default()
    }
}

fn bound(container: u16, host: u16, end: u16) -> PortBinding {
    PortBinding {
        proto: 6,
        port: container,
        host_port: host,
        host_port_end: end,
        ..PortBinding::default()
    }
}

fn new(wanted: Wanted) -> NetworkCreate {
    match wanted {
        Wanted::New(create) => *create,
        other => panic!("{other:?}"),
    }
}

/// What becomes of a command on a kernel that does everything it is told.
pub(super) fn perform(controller: &mut Controller, command: Command) -> Reply {
    let event = Event::Command {
        request: RequestId(1),
        command,
        seed: 7 << 64,
    };
    let mut queue = VecDeque::from([event]);
    let mut replies = Vec::new();
    while let Some(event) = queue.pop_front() {
        let decision = controller.handle(1, event);
        replies.extend(decision.replies);
        for effect in decision.effects {
            if let Effect::Apply { job, plan } = effect {
                let report = Report::done(&plan);
                queue.push_back(Event::Applied { job, report });
            }
        }
    }
    let (_, reply) = replies.pop().expect("an answer");
    reply.unwrap()
}

pub(super) fn ask(controller: &mut Controller, command: EngineCommand) -> Reply {
    perform(controller, Command::Engine(command))
}

/// Records with an endpoint of an engine, in a network that was made for it.
pub(super) fn with_endpoint() -> (Controller, EndpointId) {
    let pools = DefaultPools::default();
    let mut controller = Controller::new(Settings::default(), pools, Facts::default());
    let mut spec = network_spec(NetworkCreate::new("web")).unwrap();
    spec.engine = Some(ID.to_owned());
    let create = Command::CreateNetwork {
        spec: Box::new(spec),
        predefined: false,
    };
    let Reply::Network(network) = perform(&mut controller, create) else {
        panic!("a network");
    };
    let spec = EndpointSpec {
        engine: true,
        ..EndpointSpec::default()
    };
    let create = EngineCommand::CreateEndpoint {
        network,
        spec: Box::new(spec),
    };
    match ask(&mut controller, create) {
        Reply::Endpoint(endpoint) => (controller, endpoint),
        other => panic!("{other:?}"),
    }
}

/// Joins an endpoint to a sandbox that has no namespace yet.
pub(super) fn join(endpoint: EndpointId) -> EngineCommand {
    EngineCommand::Join {
        endpoint,
        path: "/run/docker/netns/0123456789ab".into(),
        inode: None,
        exposed: Vec::new(),
    }
}

#[test]
fn ids_of_engines_are_halved_and_checked() {
    assert_eq!(
        translate::id(ID).unwrap(),
        0x0123_4567_89ab_cdef_0123_4567_89ab_cdef
    );
    for bad in [
        "",
        "abc",
        &ID[1..],
        &format!("{ID}0"),
        &ID.replace('f', "g"),
    ] {
        let refused = translate::id(bad).unwrap_err();
        assert_eq!(refused.code, Code::InvalidName, "{bad}");
    }
}

#[test]
fn a_body_that_was_lost_means_nothing() {
    let lost = server::read::<NetworkRequest>(&Bytes::new());
    let Err(CallError::Malformed(reason)) = lost else {
        panic!("{lost:?}");
    };
    assert!(reason.contains("empty"), "{reason}");
    for (space, ours) in [
        ("tombolo-local", true),
        ("tombolo-global", true),
        ("", false),
    ] {
        assert_eq!(ipam::is_our_space(space), ours, "{space}");
    }
}

#[test]
fn a_network_with_lent_addresses_is_a_hub_and_one_with_others_is_plain() {
    let pools = [data("10.9.0.0/24", "10.9.0.1/24")];
    let lent = translate::network(ID, options(&[]), &pools, |_| true).unwrap();
    let lent = new(lent);
    assert_eq!(lent.name, "docker-0123456789ab");
    assert_eq!(lent.multicast, None);
    assert_eq!(lent.subnets[0].gateway.as_deref(), Some("10.9.0.1"));
    assert!(lent.subnets[0].ip_range.is_empty());
    let theirs = translate::network(ID, options(&[]), &pools, |_| false).unwrap();
    let theirs = new(theirs);
    assert_eq!(theirs.multicast, Some(true));
    assert_eq!(theirs.subnets[0].ip_range, ["10.9.0.128/25"]);
    let hub = options(&[("multicast", "false")]);
    let refused = translate::network(ID, hub, &pools, |_| false).unwrap_err();
    assert_eq!(refused.code, Code::InvalidCombination);
}

#[test]
fn families_and_names_are_taken_over() {
    let mut wanted = options(&[("name", "web"), ("driver", "bridge")]);
    wanted.enable_ipv6 = Some(true);
    wanted.internal = Some(true);
    let create = new(translate::network(ID, wanted, &[], |_| true).unwrap());
    assert_eq!((create.ipv4, create.ipv6), (Some(true), Some(true)));
    assert!(create.internal && create.name == "web");
    assert_eq!(
        create.options,
        BTreeMap::new(),
        "what was understood is used up"
    );
    let other = translate::network(ID, options(&[("driver", "ovs")]), &[], |_| true);
    assert_eq!(other.unwrap_err().object, "ovs");
}

#[test]
fn an_existing_network_takes_no_options() {
    let pools = [data("0.0.0.0/0", ""), data("10.9.0.0/24", "")];
    let wanted = translate::network(ID, options(&[("network", "web")]), &pools, |_| true);
    let expected: Vec<IpNet> = vec!["10.9.0.0/24".parse().unwrap()];
    assert_eq!(
        wanted.unwrap(),
        Wanted::Existing {
            name: "web".to_owned(),
            pools: expected
        }
    );
    let more = options(&[("network", "web"), ("mtu", "1400")]);
    let refused = translate::network(ID, more, &pools, |_| true).unwrap_err();
    assert_eq!(
        (refused.code, refused.object.as_str()),
        (Code::UnknownOption, "mtu")
    );
}

#[test]
fn an_existing_network_has_no_addresses_of_the_engines_own() {
    let wanted = |pool| {
        let pools = [data(pool, "")];
        translate::network(ID, options(&[("network", "web")]), &pools, |_| false)
    };
    let refused = wanted("10.9.0.0/24").unwrap_err();
    assert_eq!(refused.code, Code::InvalidCombination);
    assert!(refused.hint.contains("--ipam-driver tombolo"), "{refused}");
    wanted("0.0.0.0/0").unwrap();
}

#[test]
fn of_what_is_kept_out_of_a_lent_pool_only_another_router_means_more() {
    let mut pool = data("10.9.0.0/24", "10.9.0.1/24");
    let aux = [
        ("printer", "10.9.0.7"),
        ("DefaultGatewayIPv4", "10.9.0.254"),
    ];
    let aux = aux.map(|(name, ip)| (name.to_owned(), ip.to_owned()));
    pool.aux_addresses = BTreeMap::from(aux.clone());
    let kept = |lent: bool| {
        let pools = [pool.clone()];
        let create = new(translate::network(ID, options(&[]), &pools, |_| lent).unwrap());
        create.subnets[0].aux_addresses.clone()
    };
    assert_eq!(kept(true), BTreeMap::from([aux[1].clone()]));
    assert_eq!(kept(false), BTreeMap::from(aux.clone()));
}

#[test]
fn an_endpoint_has_the_addresses_named_and_of_the_right_family() {
    let interface = EndpointInterface {
        address: "10.9.0.2/32".to_owned(),
        address_ipv6: "fd00::2/128".to_owned(),
        mac_address: "02:42:00:00:00:01".to_owned(),
    };
    let spec = translate::endpoint(&interface).unwrap();
    assert!(spec.engine);
    assert_eq!(spec.addresses.len(), 2);
    assert_eq!(spec.mac, Some([2, 0x42, 0, 0, 0, 1]));
    let swapped = EndpointInterface {
        address: "fd00::2/128".to_owned(),
        ..EndpointInterface::default()
    };
    assert_eq!(
        translate::endpoint(&swapped).unwrap_err().code,
        Code::InvalidAddress
    );
    let group = EndpointInterface {
        mac_address: "01:00:5e:00:00:01".to_owned(),
        ..EndpointInterface::default()
    };
    assert!(translate::endpoint(&group).is_err());
}

#[test]
fn options_of_people_are_refused_by_name_and_those_of_the_engine_are_not() {
    let engines = [(
        "com.docker.network.endpoint.sysctls",
        "net.ipv4.conf.IFNAME.forwarding=1",
    )];
    translate::refuse_options(engines.into_iter()).unwrap();
    for strange in [
        "colour",
        "com.docker.network.endpoint.ifname",
        "com.docker.colour",
    ] {
        let refused = translate::refuse_options([(strange, "red")].into_iter()).unwrap_err();
        assert_eq!(refused.object, strange);
    }
}

#[test]
fn ports_that_follow_each_other_become_one() {
    let bindings: Vec<PortBinding> = (0..100)
        .map(|n| bound(80 + n, 8_000 + n, 8_000 + n))
        .collect();
    let publications = translate::publications(&bindings).unwrap();
    let parts: Vec<String> = publications
        .iter()
        .map(|p| format!("{}:{}", p.ports.unwrap(), p.container))
        .collect();
    assert_eq!(parts, ["8000-8063:80-143", "8064-8099:144-179"]);
    let run = |count: u16| -> Vec<PortBinding> {
        (0..count).map(|n| bound(n + 1, n + 2_001, 0)).collect()
    };
    let longest = run(u16::try_from(PLUGIN_RUN_MAX).unwrap());
    assert_eq!(translate::publications(&longest).unwrap().len(), 16);
    let longer = run(u16::try_from(PLUGIN_RUN_MAX + 1).unwrap());
    assert_eq!(
        translate::publications(&longer).unwrap().len(),
        1,
        "a longer one stays whole"
    );
    let apart = [
        bound(80, 8_000, 0),
        bound(81, 8_002, 0),
        bound(80, 8_000, 8_000),
    ];
    assert_eq!(
        translate::publications(&apart).unwrap().len(),
        2,
        "one was there twice"
    );
}

#[test]
fn free_ports_are_chosen_within_what_is_named() {
    let any = translate::publications(&[bound(80, 0, 0)]).unwrap();
    assert!(any[0].automatic && any[0].within.is_none() && any[0].by_engine);
    let some = translate::publications(&[bound(80, 8_000, 8_010)]).unwrap();
    assert_eq!(some[0].within.unwrap().to_string(), "8000-8010");
    assert_eq!(some[0].ports, None);
}

#[test]
fn addresses_of_the_host_keep_their_meaning() {
    for (text, address) in [
        ("", None),
        ("0.0.0.0", Some(HostAddress::AnyV4)),
        ("::", Some(HostAddress::AnyV6)),
        (
            "192.0.2.1",
            Some(HostAddress::One("192.0.2.1".parse().unwrap())),
        ),
    ] {
        let binding = PortBinding {
            host_ip: text.to_owned(),
            ..bound(80, 8_080, 8_080)
        };
        assert_eq!(
            translate::publications(&[binding]).unwrap()[0].address,
            address
        );
    }
    for bad in [
        PortBinding {
            host_ip: "localhost".to_owned(),
            ..bound(80, 8_080, 0)
        },
        PortBinding {
            proto: 1,
            ..bound(80, 8_080, 0)
        },
        bound(0, 8_080, 0),
    ] {
        assert!(
            translate::publications(std::slice::from_ref(&bad)).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn exposed_ports_become_ranges_and_never_too_many() {
    let port = |proto, port| TransportPort { proto, port };
    let all: Vec<TransportPort> = (8000..=9999).rev().map(|p| port(6, p)).collect();
    let mut ports = all.clone();
    ports.extend([port(17, 53), port(6, 80), port(6, 8000)]);
    let ranges: Vec<String> = translate::exposed(&ports)
        .unwrap()
        .iter()
        .map(|e| format!("{} {}-{}", e.protocol, e.ports.first(), e.ports.last()))
        .collect();
    assert_eq!(ranges, ["tcp 80-80", "tcp 8000-9999", "udp 53-53"]);
    let scattered: Vec<TransportPort> = (1..3000).map(|p| port(6, p * 2)).collect();
    let kept = translate::exposed(&scattered).unwrap();
    assert_eq!(kept.len(), EXPOSED_PER_SANDBOX_MAX);
    let refused = translate::exposed(&[port(6, 0)]).unwrap_err();
    assert_eq!(refused.code, Code::InvalidPort);
}
