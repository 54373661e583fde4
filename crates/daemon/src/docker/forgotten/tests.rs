use tombolo_core::ipam::DefaultPools;
use tombolo_core::model::SubnetPick;
use tombolo_core::{Facts, Settings};

use super::super::tests::{ask, join, with_endpoint};
use super::*;

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
    let (mut controller, endpoint) = with_endpoint();
    let endpoints = |controller: &Controller| {
        let found = Forgotten::among(controller, &Known::default());
        let is_endpoint = |one: &Forgotten| matches!(one, Forgotten::Endpoint(id) | Forgotten::Starting(id) if *id == endpoint);
        found.into_iter().find(is_endpoint)
    };
    let patience = |controller: &Controller| endpoints(controller).map(|one| one.patience());
    assert_eq!(patience(&controller), Some(DOCKER_FORGOTTEN_AFTER));
    ask(&mut controller, join(endpoint));
    assert_eq!(patience(&controller), Some(DOCKER_START_MAX));
    let sandbox = controller.endpoint(endpoint).unwrap().sandbox.unwrap();
    ask(&mut controller, EngineCommand::Adopt { sandbox, inode: 9 });
    assert_eq!(patience(&controller), None, "it runs");
    ask(&mut controller, EngineCommand::Leave(endpoint));
    assert_eq!(patience(&controller), Some(DOCKER_FORGOTTEN_AFTER));
}
