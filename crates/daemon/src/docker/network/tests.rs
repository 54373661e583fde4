use tombolo_api::types::{NetworkCreate, SubnetConfig};
use tombolo_core::ipam::DefaultPools;
use tombolo_core::model::SubnetPick;
use tombolo_core::{Facts, Reply, Settings};

use super::super::tests::{ask, perform};
use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OURS: &str = "tombolo-local";
const THEIRS: &str = "LocalDefault";

fn create(subnet: &str, modes: &[(&str, &str)]) -> NetworkSpec {
    let mut create = NetworkCreate::new("web");
    create.subnets.push(SubnetConfig {
        subnet: Some(subnet.to_owned()),
        gateway: Some("10.9.0.1".to_owned()),
        ..SubnetConfig::default()
    });
    let modes = modes.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    create.options = modes.collect();
    network_spec(create).unwrap()
}

/// Records with the network `web`, which nobody has made for an engine unless `engine` says so.
fn with_web(engine: Option<&str>) -> (Controller, NetworkId) {
    let pools = DefaultPools::default();
    let mut controller = Controller::new(Settings::default(), pools, Facts::default());
    let mut spec = create("10.9.0.0/24", &[]);
    spec.engine = engine.map(str::to_owned);
    let command = Command::CreateNetwork {
        spec: Box::new(spec),
        predefined: false,
    };
    match perform(&mut controller, command) {
        Reply::Network(id) => (controller, id),
        other => panic!("{other:?}"),
    }
}

fn data(space: &str, pool: &str, gateway: &str) -> IpamData {
    IpamData {
        address_space: space.to_owned(),
        pool: pool.to_owned(),
        gateway: gateway.to_owned(),
        ..IpamData::default()
    }
}

fn understood(controller: &Controller, data: IpamData) -> Result<Wanted, Reject> {
    let pools = [data];
    let is_ours = |data: &IpamData| is_our_space(&data.address_space);
    let wanted = translate::network(ID, NetworkOptions::default(), &pools, is_ours).unwrap();
    existing(controller, wanted, &pools)
}

#[test]
fn a_pool_is_a_networks_only_in_our_own_address_space() {
    let (controller, web) = with_web(None);
    let ours = understood(&controller, data(OURS, "10.9.0.0/24", "10.9.0.1/24")).unwrap();
    let expected = Wanted::Existing {
        name: web.to_string(),
        pools: vec!["10.9.0.0/24".parse().unwrap()],
    };
    assert_eq!(ours, expected);
    let theirs = understood(&controller, data(THEIRS, "10.9.0.0/24", "10.9.0.1/24"));
    assert!(matches!(theirs, Ok(Wanted::New(_))), "{theirs:?}");
}

#[test]
fn a_hidden_pool_is_that_of_a_network_or_refused() {
    let (controller, web) = with_web(None);
    let found = understood(&controller, data(OURS, EVERYWHERE, "10.9.0.1/24")).unwrap();
    let expected = Wanted::Existing {
        name: web.to_string(),
        pools: Vec::new(),
    };
    assert_eq!(found, expected);
    for gateway in ["", "10.8.0.1/24"] {
        let refused = understood(&controller, data(OURS, EVERYWHERE, gateway)).unwrap_err();
        assert_eq!(refused.code, Code::InvalidCombination, "{gateway}");
        assert!(refused.hint.contains("--opt network=NAME"), "{refused}");
    }
    let (of_engine, _) = with_web(Some(ID));
    let refused = understood(&of_engine, data(OURS, EVERYWHERE, "10.9.0.1/24")).unwrap_err();
    assert_eq!(refused.code, Code::InvalidCombination);
    let none = understood(&controller, data("null", EVERYWHERE, ""));
    assert!(matches!(none, Ok(Wanted::New(_))), "{none:?}");
}

#[test]
fn an_engines_own_allocator_cannot_have_what_is_lent() {
    let pools = DefaultPools::default();
    let mut controller = Controller::new(Settings::default(), pools, Facts::default());
    let request = EngineCommand::RequestPool {
        network: None,
        subnet: Some("10.9.0.0/24".parse().unwrap()),
        pick: SubnetPick::default(),
        range: None,
    };
    ask(&mut controller, request);
    let of = |space, pool| must_not_be_lent(&controller, &[data(space, pool, "")]);
    of(OURS, "10.9.0.0/24").unwrap();
    of(THEIRS, "10.8.0.0/24").unwrap();
    let refused = of(THEIRS, "10.9.0.0/24").unwrap_err();
    assert_eq!(refused.code, Code::OverlappingSubnet);
}

#[test]
fn an_isolated_network_has_no_router_whatever_the_engine_asked_for() {
    let mut spec = create("10.9.0.0/24", &[("gateway_mode_ipv4", "isolated")]);
    leave_routers_out(&mut spec);
    assert_eq!(spec.subnets[0].gateway, None);
    let mut spec = create("10.9.0.0/24", &[("gateway_mode_ipv6", "isolated")]);
    leave_routers_out(&mut spec);
    assert!(spec.subnets[0].gateway.is_some(), "of the other family");
}
