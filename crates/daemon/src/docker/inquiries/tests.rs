use tombolo_core::{Described, EngineCommand};

use super::super::tests::{ask, join, with_endpoint};
use super::*;

fn drained(inquiries: &mut Inquiries) -> Vec<String> {
    std::iter::from_fn(|| inquiries.next()).collect()
}

#[test]
fn a_container_is_asked_about_until_it_is_described() {
    let (mut controller, endpoint) = with_endpoint();
    ask(&mut controller, join(endpoint));
    let known = Known {
        containers: vec![
            ("db".to_owned(), vec![endpoint]),
            ("other".to_owned(), Vec::new()),
        ],
        ..Known::default()
    };
    let mut inquiries = Inquiries::default();
    inquiries.look(&controller, &known);
    assert_eq!(drained(&mut inquiries), ["db", "other"], "all, at first");
    inquiries.look(&controller, &known);
    assert_eq!(drained(&mut inquiries), ["db"], "it was not described");
    let sandbox = controller.endpoint(endpoint).unwrap().sandbox.unwrap();
    let described = Described {
        labels: vec![(CONTAINER_ID.to_owned(), "1".to_owned())],
        ..Described::default()
    };
    let describe = EngineCommand::Describe {
        sandbox,
        described: Box::new(described),
    };
    ask(&mut controller, describe);
    inquiries.look(&controller, &known);
    assert!(drained(&mut inquiries).is_empty());
    for silent in ["other", "gone"] {
        inquiries.note_silence(silent.to_owned());
    }
    inquiries.look(&controller, &known);
    assert_eq!(drained(&mut inquiries), ["other"], "and nobody else");
    inquiries.look(&controller, &known);
    assert!(drained(&mut inquiries).is_empty());
}

#[test]
fn containers_that_wait_have_a_limit_and_none_is_forgotten() {
    let (controller, _) = with_endpoint();
    let known = Known {
        containers: vec![("last".to_owned(), Vec::new())],
        ..Known::default()
    };
    let mut inquiries = Inquiries::default();
    inquiries.look(&controller, &Known::default());
    for number in 0..DOCKER_INQUIRIES_MAX {
        for _ in 0..2 {
            inquiries.add(format!("{number:05}"));
        }
    }
    inquiries.look(&controller, &known);
    assert_eq!(drained(&mut inquiries).len(), DOCKER_INQUIRIES_MAX);
    for number in 0..=DOCKER_INQUIRIES_MAX {
        inquiries.add(format!("{number:05}"));
    }
    assert_eq!(drained(&mut inquiries).len(), DOCKER_INQUIRIES_MAX);
    inquiries.look(&controller, &known);
    assert_eq!(drained(&mut inquiries), ["last"]);
}
