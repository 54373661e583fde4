//! Things that happen at an awkward moment.

use tombolo_netstate::{Key, Spec};

use super::script;
use super::world::World;
use crate::command::{Command, Reference};
use crate::event::{Event, Notice, Reply};
use crate::id::NetworkId;
use crate::model::NetworkState;
use crate::record;

fn world(lines: &[&str]) -> World {
    let mut world = World::new();
    for line in lines {
        world.ask(script::command(line).unwrap()).unwrap().unwrap();
    }
    world
}

/// What was seen of the kernel before a request was carried out, and is told only afterwards, is not taken
/// for a difference.
#[test]
fn a_comparison_passes_over_what_is_worked_on() {
    let lines = ["network web", "network db", "run c1 web db", "run c2 web"];
    for line in [
        "disconnect db c1",
        "connect db c2",
        "stop c1",
        "run c3 web db",
    ] {
        for command in [Command::Drift, Command::Repair] {
            let mut world = world(&lines);
            let look = world.send(command.clone());
            world.perform_first();
            let request = world.send(script::command(line).unwrap());
            world.perform_first();
            world.rest();
            assert!(world.answers[&request].is_ok(), "{line}");
            let Ok(Reply::Operations { ops, failures }) = &world.answers[&look] else {
                panic!("{line}: {:?}", world.answers[&look]);
            };
            assert_eq!(
                (ops.as_slice(), failures.as_slice()),
                (&[][..], &[][..]),
                "{line}, {command:?}"
            );
            world.check();
        }
    }
}

/// A comparison that was held back with an outcome that the store did not take is made another time, and
/// nobody waits for the first one.
#[test]
fn a_comparison_that_is_held_back_is_made_again() {
    let mut world = world(&["network web"]);
    world.held = true;
    let request = world.send(script::command("run c1 web").unwrap());
    world.held = false;
    world.handle(Event::KernelChanged(Notice::NftChanged));
    world.now_ms += 60_000;
    world.store_full = true;
    world.rest();
    assert!(world.answers[&request].is_ok());
    world.store_full = false;
    let answer = world.ask(Command::Repair);
    assert!(answer.is_some_and(|answer| answer.is_ok()));
    world.wait(20_000);
    world.check();
}

/// A network that was being removed when the program died does not take the name of its successor along.
#[test]
fn a_name_belongs_to_the_record_that_stays() {
    for id in [NetworkId(1), NetworkId(u128::MAX)] {
        let mut world = world(&["network web"]);
        let mut old = world.controller.networks().next().unwrap().clone();
        old.id = id;
        old.state = NetworkState::Deleting;
        let write = record::put(record::NETWORK, &id.to_string(), &old);
        world.store.insert(write.key, write.value.unwrap());
        world.restart(false);
        let found = world.controller.find_network(&Reference("web".to_owned()));
        assert!(found.is_ok_and(|network| network.id != id));
        world.check();
    }
}

/// The last network that needs a setting goes while another one that needs it comes.
#[test]
fn a_request_waits_for_objects_that_another_one_works_on() {
    let mut world = world(&["network a"]);
    world.held = true;
    let gone = world.send(script::command("delete network a").unwrap());
    let made = world.send(script::command("network b").unwrap());
    world.held = false;
    world.rest();
    assert!(world.answers[&gone].is_ok() && world.answers[&made].is_ok());
    world.check();
}

/// A stopped sandbox that an endpoint is just joining is in use.
#[test]
fn a_pruning_leaves_what_is_being_joined() {
    let mut world = world(&["network web", "run c1", "stop c1"]);
    world.held = true;
    let joined = world.send(script::command("connect web c1").unwrap());
    let pruned = world.send(Command::Prune);
    world.held = false;
    world.rest();
    assert!(world.answers[&joined].is_ok() && world.answers[&pruned].is_ok());
    assert_eq!(world.controller.counts(), (1, 1, 1));
    world.check();
}

/// A setting that was read while it was ours, and is told after it was put back, is not what was there before us.
#[test]
fn settings_that_were_read_too_early_are_not_taken_for_the_hosts_own() {
    const SETTING: &str = "net/ipv4/ip_local_reserved_ports";
    let mut world = World::new();
    world.facts.sysctls.insert(SETTING.into(), "22".into());
    world.tell_facts();
    let range = "run c1 web publish=20000-20999:20000-20999";
    for line in ["network web", range] {
        world.ask(script::command(line).unwrap()).unwrap().unwrap();
    }
    let mut early = world.facts.clone();
    early.settings_changed = world.controller.settings_changed();
    early
        .sysctls
        .insert(SETTING.into(), "22,20000-20999".into());
    let stop = script::command("stop c1").unwrap();
    world.ask(stop).unwrap().unwrap();
    world.handle(Event::Facts(Box::new(early)));
    let start = script::command("start c1").unwrap();
    world.ask(start).unwrap().unwrap();
    let believed = world.controller.believed();
    let settings = believed.iter().filter_map(|(key, spec)| match (key, spec) {
        (Key::Sysctl(key), Spec::Sysctl(spec)) if &*key.path == SETTING => Some(&*spec.restore),
        _ => None,
    });
    assert_eq!(settings.collect::<Vec<_>>(), ["22"]);
}
