use super::super::tests::{ask, join, with_endpoint};
use super::*;

#[test]
fn a_container_that_runs_keeps_its_address() {
    let (mut controller, id) = with_endpoint();
    let endpoint = controller.endpoint(id).unwrap();
    let (network, ip) = (endpoint.network, endpoint.addresses[0].addr());
    let at = |controller: &Controller, is_there: bool| {
        forgotten_at(controller, network, &[ip], |_, _| is_there)
    };
    assert_eq!(at(&controller, true), [id], "it is in no container");
    ask(&mut controller, join(id));
    assert_eq!(at(&controller, true), [id], "its container never came");
    let sandbox = controller.endpoint(id).unwrap().sandbox.unwrap();
    ask(&mut controller, EngineCommand::Adopt { sandbox, inode: 9 });
    assert!(at(&controller, true).is_empty());
    assert_eq!(at(&controller, false), [id], "its container has ended");
    ask(&mut controller, EngineCommand::Leave(id));
    assert_eq!(at(&controller, true), [id], "it was left");
}
