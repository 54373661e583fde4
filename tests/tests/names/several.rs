//! Several servers: which is asked, how soon the next one, and which answer counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::upstream::{Deed, Upstream, always, outside_address, says, silence};
use crate::wire::{A, NXDOMAIN, REFUSED, SERVFAIL, SOA, ask, soa, timed};

/// A daemon that asks `198.51.100.1` and then `198.51.100.2`, and a sandbox.
fn scene() -> Option<(Stage, Place)> {
    let stage = Stage::start_with(&["--dns", "198.51.100.1", "--dns", "198.51.100.2"])?;
    for last in [1, 2] {
        outside_address(&stage, last);
    }
    stage.ok("network create one");
    let a = stage.sandbox("a", "--network one");
    Some((stage, a))
}

/// Asks for names that were not asked for before; how long each took.
fn ask_new(a: &Place, prefix: &str, count: usize, expected: &str) -> Vec<Duration> {
    (0..count)
        .map(|nth| {
            let (answer, took) = timed(a, &format!("{prefix}{nth}.example"), A);
            assert_eq!(answer.texts(A), [expected], "{answer:?}");
            took
        })
        .collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_silent_server_costs_little_once_and_then_nothing() {
    let Some((stage, a)) = scene() else { return };
    let revived = Arc::new(AtomicBool::new(false));
    let is_revived = Arc::clone(&revived);
    let first = Upstream::outside(&stage, 1, move |seen| {
        if is_revived.load(Ordering::Relaxed) {
            vec![says(seen, "10.1.1.1", 0)]
        } else {
            vec![]
        }
    });
    let _second = Upstream::outside(&stage, 2, always("10.2.2.2", 0));
    let begun = ask_new(&a, "begun", 2, "10.2.2.2");
    println!("the first questions took {begun:?}");
    assert!(
        *begun.iter().min().unwrap() < Duration::from_secs(1),
        "{begun:?}"
    );
    // It takes a second to know that no answer comes.
    std::thread::sleep(Duration::from_millis(1_200));
    let after = median(ask_new(&a, "after", 40, "10.2.2.2"));
    println!("then the median is {after:?}");
    assert!(after < Duration::from_millis(30), "{after:?}");
    let asked = first.total();
    assert!(asked < 15, "the dead one was asked {asked} times");
    revived.store(true, Ordering::Relaxed);
    let (mut nth, mut in_a_row) = (0, 0);
    let back = wait_until(Duration::from_secs(40), || {
        nth += 1;
        let answer = ask(&a, &format!("back{nth}.example"), A);
        let is_first = answer.texts(A) == ["10.1.1.1"];
        in_a_row = if is_first { in_a_row + 1 } else { 0 };
        in_a_row == 5
    });
    assert!(back, "the first server is not preferred again");
}

#[test]
fn a_server_that_is_not_there_is_passed_over_at_once() {
    let Some((stage, a)) = scene() else { return };
    let _second = Upstream::outside(&stage, 2, always("10.2.2.2", 0));
    // The port is closed, and the host says so.
    let times = ask_new(&a, "x", 20, "10.2.2.2");
    println!("{times:?}");
    let fastest = *times[..3].iter().min().unwrap();
    assert!(fastest < Duration::from_millis(100), "{times:?}");
    assert!(median(times) < Duration::from_millis(30));
}

#[test]
fn a_slow_server_is_helped_out() {
    let Some((stage, a)) = scene() else { return };
    let slow = |seen: &crate::upstream::Seen| {
        vec![
            Deed::Wait(Duration::from_millis(200)),
            says(seen, "10.1.1.1", 0),
        ]
    };
    let _first = Upstream::outside(&stage, 1, slow);
    let second = Upstream::outside(&stage, 2, always("10.2.2.2", 0));
    let times: Vec<Duration> = (0..12)
        .map(|nth| {
            let (answer, took) = timed(&a, &format!("slow{nth}.example"), A);
            assert_eq!(answer.texts(A).len(), 1, "{answer:?}");
            took
        })
        .collect();
    println!("beside a server that takes 200 ms: {times:?}");
    assert!(second.total() >= 10);
    assert!(
        median(times.clone()) < Duration::from_millis(230),
        "{times:?}"
    );
    assert!(
        times[11] < Duration::from_millis(100),
        "it learns: {times:?}"
    );
}

#[test]
fn the_next_is_asked_when_one_fails_or_refuses() {
    let Some((stage, a)) = scene() else { return };
    let first = Upstream::outside(&stage, 1, |seen| {
        let code = match seen.asked() {
            name if name.starts_with("fails") => SERVFAIL,
            _ => REFUSED,
        };
        vec![Deed::Send(seen.reply().code(code).bytes())]
    });
    let second = Upstream::outside(&stage, 2, always("10.2.2.2", 60));
    for what in ["fails", "refuses"] {
        // A busy machine makes some of them slow, but not all.
        let times = (0..5).map(|nth| {
            let name = format!("{what}{nth}.example");
            let (answer, took) = timed(&a, &name, A);
            assert_eq!(answer.texts(A), ["10.2.2.2"], "{answer:?}");
            assert!(first.count(&name) <= 1 && second.count(&name) >= 1);
            took
        });
        let fastest = times.min().unwrap();
        assert!(fastest < Duration::from_millis(300), "{what}: {fastest:?}");
    }
}

#[test]
fn nobody_knows_better_than_the_first_while_it_may_still_answer() {
    let Some((stage, a)) = scene() else { return };
    let delay = Arc::new(AtomicU64::new(400));
    let time = Arc::clone(&delay);
    let _first = Upstream::outside(&stage, 1, move |seen| {
        let wait = Deed::Wait(Duration::from_millis(time.load(Ordering::Relaxed)));
        vec![wait, says(seen, "10.1.1.1", 60)]
    });
    let second = Upstream::outside(&stage, 2, |seen| {
        let nothing = seen.reply().code(NXDOMAIN);
        let nothing = nothing.authority("example", SOA, 60, &soa(60));
        vec![Deed::Send(nothing.bytes())]
    });
    let answer = ask(&a, "only-the-first-knows.example", A);
    assert_eq!(answer.texts(A), ["10.1.1.1"], "{answer:?}");
    assert_eq!(second.total(), 1, "it was asked meanwhile");
    // But one that stays silent does not make a "no" disappear.
    delay.store(60_000, Ordering::Relaxed);
    let begun = Instant::now();
    let no = ask(&a, "nobody-knows.example", A);
    println!(
        "\"no such name\" beside a silent server took {:?}",
        begun.elapsed()
    );
    assert_eq!(no.code(), NXDOMAIN, "{no:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_question_that_nobody_answers_fails_before_its_client_gives_up() {
    let Some((stage, a)) = scene() else { return };
    let _servers = [1, 2].map(|last| Upstream::outside(&stage, last, silence));
    let (answer, took) = timed(&a, "x.example", A);
    println!("failed after {took:?}");
    assert_eq!(answer.code(), SERVFAIL, "{answer:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let (again, took) = timed(&a, "x.example", A);
    assert_eq!(again.code(), SERVFAIL, "{answer:?}");
    println!("again after {took:?}");
    assert!(
        took < Duration::from_millis(500),
        "it is remembered: {took:?}"
    );
}

#[test]
fn all_that_were_dead_are_asked_at_once() {
    let Some((stage, a)) = scene() else { return };
    {
        let _servers = [1, 2].map(|last| Upstream::outside(&stage, last, silence));
        // Each is asked twice, and then known to be dead.
        assert_eq!(ask(&a, "dead.example", A).code(), SERVFAIL);
    }
    let _servers = [1, 2].map(|last| Upstream::outside(&stage, last, always("10.1.1.1", 0)));
    let (answer, took) = timed(&a, "alive.example", A);
    println!("the first answer of revived servers took {took:?}");
    assert_eq!(answer.texts(A), ["10.1.1.1"], "{answer:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(wait_until(PATIENCE, || timed(&a, "more.example", A).1
        < Duration::from_millis(50)));
}

#[test]
fn a_server_that_takes_more_than_a_second_is_heard() {
    let Some(stage) = Stage::start_with(&["--dns", "198.51.100.1"]) else {
        return;
    };
    let _server = Upstream::outside(&stage, 1, |seen| {
        let wait = Deed::Wait(Duration::from_millis(1_400));
        vec![wait, says(seen, "10.1.1.1", 60)]
    });
    stage.ok("network create one");
    let a = stage.sandbox("a", "--network one");
    for name in ["one.example", "two.example", "three.example"] {
        let (answer, took) = timed(&a, name, A);
        println!("{name} took {took:?}");
        assert_eq!(answer.texts(A), ["10.1.1.1"], "{answer:?} after {took:?}");
    }
}
