//! The program dies after every operation of every kind of request, starts again and compares: what was
//! answered is there, nothing else is, and no address is lost.

use tombolo_lab::Fault;

use super::script;
use super::world::{Sight, World};
use crate::command::Command;

/// What follows from a request that nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is taken back.
    Back,
    /// It is gone on with.
    On,
}

/// Requests, each with what was there before it; `crowd` fills the bridge of a network.
const CASES: [(&str, &[&str], Fate); 22] = [
    ("network web ipv6", &[], Fate::Back),
    (
        "network web multicast internal",
        &["network db"],
        Fate::Back,
    ),
    (
        "run c1 web db",
        &["network web ipv6", "network db ipv6"],
        Fate::Back,
    ),
    ("run c2 web", &["network web", "run c1 web"], Fate::Back),
    (
        "adopt c1 9 web db",
        &["network web ipv6", "network db multicast"],
        Fate::Back,
    ),
    (
        "connect alpha c1",
        &["network web ipv6", "network alpha ipv6", "run c1 web"],
        Fate::Back,
    ),
    ("run p web", &["network web", "crowd"], Fate::Back),
    ("disconnect web x3", &["network web", "crowd"], Fate::On),
    (
        "join e1 c1",
        &["network web", "endpoint web;name=e1", "run c1"],
        Fate::Back,
    ),
    (
        "disconnect alpha c1",
        &["network web", "network alpha", "run c1 web alpha"],
        Fate::On,
    ),
    ("leave web/c1", &["network web", "run c1 web"], Fate::On),
    (
        "run c1 web publish=8080:80 publish=9000-9200:100-300;udp publish=53:53;udp;from=10.0.0.0/8",
        &["network web ipv6"],
        Fate::Back,
    ),
    (
        "publish c1 8080:80 8443:443;from=fd00::/8",
        &[
            "network web ipv6",
            "run c1 web publish=8080:80;from=10.0.0.0/8",
        ],
        Fate::Back,
    ),
    (
        "unpublish c1 100-300",
        &[
            "network web ipv6",
            "run c1 web publish=9000-9200:100-300 publish=80:80",
        ],
        Fate::On,
    ),
    (
        "run app web link=db:store publish=80:80",
        &["network web no-icc", "run db web expose=5432"],
        Fate::Back,
    ),
    (
        "rm db",
        &[
            "network web no-icc",
            "run db web expose=5432",
            "run app web link=db",
        ],
        Fate::On,
    ),
    (
        "stop c1",
        &[
            "network web mode4=routed",
            "run c1 web publish=80:80 publish=81-99:81-99",
        ],
        Fate::On,
    ),
    (
        "stop c1",
        &["network web ipv6", "network db", "run c1 web db"],
        Fate::On,
    ),
    (
        "start c1",
        &["network web ipv6", "network db", "run c1 web db", "stop c1"],
        Fate::On,
    ),
    (
        "rm c1",
        &[
            "network web ipv6",
            "network db",
            "run c1 web db",
            "run c2 web",
        ],
        Fate::On,
    ),
    ("rm c1 keep", &["network web", "run c1 web"], Fate::On),
    (
        "delete network web",
        &["network web ipv6", "network db"],
        Fate::On,
    ),
];

fn command(line: &str) -> Command {
    script::command(line).unwrap()
}

fn before(lines: &[&str], deferred: bool) -> World {
    let mut world = World::new();
    let netns = tombolo_netstate::Netns::Adopted {
        path: std::path::Path::new("/proc/9/ns/net").into(),
        inode: 9,
    };
    world.kernel.adopt(netns);
    world.kernel.defer_removals(deferred);
    for line in lines {
        if *line == "crowd" {
            for n in 0..crate::limits::CORE_PORTS_MAX {
                world
                    .ask(command(&format!("run x{n} web")))
                    .unwrap()
                    .unwrap();
            }
            continue;
        }
        world.ask(command(line)).unwrap().unwrap();
        world.settle();
    }
    world.check();
    world.sights.clear();
    world
}

/// What people see, without what only counts attempts.
fn summary(world: &World) -> Vec<String> {
    let control = &world.controller;
    let networks = control
        .networks()
        .map(|n| format!("{} {:?}", n.spec.name, n.state));
    let sandboxes = control
        .sandboxes()
        .map(|s| format!("{} {:?}", s.name, s.state));
    let endpoints = control.endpoints().map(|e| {
        let sandbox = e
            .sandbox
            .and_then(|id| control.sandbox(id))
            .map(|s| s.name.to_string());
        let interface = e.attachment.as_ref().map(|a| a.interface.as_str());
        format!(
            "{} {:?} in {sandbox:?} as {interface:?}",
            e.name, e.addresses
        )
    });
    networks.chain(sandboxes).chain(endpoints).collect()
}

fn operations(world: &World) -> usize {
    let plans = world.sights.iter().filter_map(|sight| match sight {
        Sight::Plan(plan) => Some(plan.ops.len()),
        Sight::Answer(_) | Sight::Files(..) | Sight::Died | Sight::Restored(_) => None,
    });
    plans.sum()
}

/// Dies after `n` operations of `line`, and after `m` operations of the repair that follows.
fn die(start: &World, line: &str, n: usize, m: Option<usize>) -> World {
    let mut world = start.clone();
    world.inject(Fault::CrashAfter(n));
    world.after_restart.extend(m.map(Fault::CrashAfter));
    assert_eq!(world.ask(command(line)), None, "{line} was answered");
    world.inject(Fault::None);
    world.settle();
    world
}

#[test]
fn a_death_after_any_operation_leaves_all_or_nothing() {
    for (line, lines, fate) in CASES {
        for deferred in [false, true] {
            let start = before(lines, deferred);
            let mut done = start.clone();
            done.ask(command(line)).unwrap().unwrap();
            let total = operations(&done);
            assert!(total > 0, "{line}");
            done.settle();
            done.check();
            let expected = summary(if fate == Fate::Back { &start } else { &done });
            for n in 0..=total {
                let mut world = die(&start, line, n, None);
                assert_eq!(
                    world.faults(),
                    Vec::<String>::new(),
                    "{line} after {n} of {total}"
                );
                assert_eq!(summary(&world), expected, "{line} after {n} of {total}");
                if fate == Fate::Back {
                    world.ask(command(line)).unwrap().unwrap();
                    world.settle();
                    assert_eq!(world.faults(), Vec::<String>::new(), "{line} again");
                    assert_eq!(summary(&world).len(), summary(&done).len(), "{line} again");
                }
            }
        }
    }
}

#[test]
fn a_death_in_the_repair_after_a_death_changes_nothing() {
    for (line, lines, fate) in CASES {
        let start = before(lines, true);
        let mut done = start.clone();
        done.ask(command(line)).unwrap().unwrap();
        let total = operations(&done);
        let expected = summary(if fate == Fate::Back { &start } else { &done });
        for n in (0..=total).step_by(3) {
            for m in [0, 1, 2, 4, 7] {
                let world = die(&start, line, n, Some(m));
                assert_eq!(
                    world.faults(),
                    Vec::<String>::new(),
                    "{line} after {n}, then {m}"
                );
                assert_eq!(summary(&world), expected, "{line} after {n}, then {m}");
            }
        }
    }
}

/// Every operation fails once, whole or half done: requests are taken back or gone on with, and a look at
/// the kernel finds nothing to mend but what could not be removed.
#[test]
fn a_failure_of_any_operation_leaves_all_or_nothing() {
    for (line, lines, _) in CASES {
        for deferred in [false, true] {
            let start = before(lines, deferred);
            let mut done = start.clone();
            done.ask(command(line)).unwrap().unwrap();
            let total = operations(&done);
            for fault in (0..total).flat_map(|n| [Fault::Fail(n), Fault::Half(n)]) {
                let mut world = start.clone();
                world.inject(fault);
                let answer = world.ask(command(line)).unwrap();
                world.settle();
                let expected = summary(if answer.is_ok() { &done } else { &start });
                assert_eq!(summary(&world), expected, "{line} with {fault:?}");
                world.wait(1_000);
                world.settle();
                world.ask(Command::Repair).unwrap().unwrap();
                world.settle();
                assert_eq!(
                    world.faults(),
                    Vec::<String>::new(),
                    "{line} with {fault:?}"
                );
                if answer.is_err() {
                    world.ask(command(line)).unwrap().unwrap();
                    world.settle();
                    assert_eq!(
                        world.faults(),
                        Vec::<String>::new(),
                        "{line} again, {fault:?}"
                    );
                }
            }
        }
    }
}

/// A store without room takes nothing of a request, and what it held it still holds.
#[test]
fn a_full_store_leaves_everything_as_it_was() {
    for (line, lines, _) in CASES {
        let start = before(lines, false);
        let mut world = start.clone();
        world.store_full = true;
        let answer = world.ask(command(line)).unwrap();
        assert_eq!(
            answer.unwrap_err().code,
            crate::reject::Code::Store,
            "{line}"
        );
        assert_eq!(operations(&world), 0, "{line}");
        assert_eq!(summary(&world), summary(&start), "{line}");
        assert_eq!(world.store, start.store, "{line}");
        world.store_full = false;
        world.check();
        world.ask(command(line)).unwrap().unwrap();
        world.check();
    }
}
