use tombolo_api::types::NetworkCreate;
use tombolo_core::ipam::DefaultPools;
use tombolo_core::model::{EndpointSpec, SubnetPick};
use tombolo_core::{Command, Facts, Reply, Settings};

use super::super::tests::{ask, perform};
use super::*;
use crate::translate::network_spec;

const POOL: &str = "10.9.0.0/24";

fn lent() -> Controller {
    let pools = DefaultPools::default();
    let mut controller = Controller::new(Settings::default(), pools, Facts::default());
    let request = EngineCommand::RequestPool {
        network: None,
        subnet: Some(POOL.parse().unwrap()),
        pick: SubnetPick::default(),
        range: None,
    };
    ask(&mut controller, request);
    for gateway in [true, false] {
        ask(&mut controller, address(gateway));
    }
    controller
}

fn address(gateway: bool) -> EngineCommand {
    EngineCommand::RequestAddress {
        subnet: POOL.parse().unwrap(),
        address: None,
        gateway,
    }
}

#[test]
fn a_router_is_not_doubted_while_its_pool_is_there() {
    let mut controller = lent();
    let listed = Known {
        pools: BTreeSet::from([POOL.parse().unwrap()]),
        ..Known::default()
    };
    let endpoints = Forgotten::Address("10.9.0.2".parse().unwrap());
    let found = Forgotten::among(&controller, &listed);
    assert_eq!(found, BTreeSet::from([endpoints]), "not the router's");
    let found = Forgotten::among(&controller, &Known::default());
    let pool = Forgotten::Pool(POOL.parse().unwrap());
    assert!(found.contains(&pool), "{found:?}");
    ask(&mut controller, pool.removal());
    assert_eq!(controller.loans().count(), 0, "its router goes with it");
}

#[test]
fn a_container_that_starts_is_missed_later_than_one_that_has_ended() {
    let pools = DefaultPools::default();
    let mut controller = Controller::new(Settings::default(), pools, Facts::default());
    let mut spec = network_spec(NetworkCreate::new("web")).unwrap();
    spec.engine = Some("f".repeat(64));
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
    let Reply::Endpoint(endpoint) = ask(&mut controller, create) else {
        panic!("an endpoint");
    };
    let endpoints = |controller: &Controller| {
        let found = Forgotten::among(controller, &Known::default());
        let is_endpoint = |one: &Forgotten| matches!(one, Forgotten::Endpoint(id) | Forgotten::Starting(id) if *id == endpoint);
        found.into_iter().find(is_endpoint)
    };
    let patience = |controller: &Controller| endpoints(controller).map(|one| one.patience());
    assert_eq!(patience(&controller), Some(DOCKER_FORGOTTEN_AFTER));
    let join = EngineCommand::Join {
        endpoint,
        path: "/run/docker/netns/0123456789ab".into(),
        inode: None,
        exposed: Vec::new(),
    };
    ask(&mut controller, join);
    assert_eq!(patience(&controller), Some(DOCKER_START_MAX));
    let sandbox = controller.endpoint(endpoint).unwrap().sandbox.unwrap();
    ask(&mut controller, EngineCommand::Adopt { sandbox, inode: 9 });
    assert_eq!(patience(&controller), None, "it runs");
    ask(&mut controller, EngineCommand::Leave(endpoint));
    assert_eq!(patience(&controller), Some(DOCKER_FORGOTTEN_AFTER));
}
