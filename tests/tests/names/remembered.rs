//! What is remembered of the answers of other servers, for how long, and for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::upstream::{Deed, Seen, Upstream, always, says};
use crate::wire::{A, AAAA, NXDOMAIN, SERVFAIL, SOA, TXT, address, ask, ask_over_tcp, soa, text};
use crate::wire::{Client, Query};

fn scene() -> Option<(Stage, Place)> {
    let stage = Stage::start_with(&["--dns", "198.51.100.1"])?;
    stage.ok("network create one");
    let a = stage.sandbox("a", "--network one");
    Some((stage, a))
}

fn after(begun: Instant, time: Duration) {
    std::thread::sleep((begun + time).saturating_duration_since(Instant::now()));
}

#[test]
fn that_there_is_nothing_is_remembered_as_long_as_the_zone_says() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen| {
        let name = seen.asked();
        let reply = match &name {
            name if name.contains("missing") => seen.reply().code(NXDOMAIN),
            _ => seen.reply(),
        };
        // The lower of the record's own time and the one that it tells counts (RFC 2308, section 5).
        let reply = match name.split('.').next().unwrap() {
            "missing" | "nodata" => reply.authority("example", SOA, 3_600, &soa(2)),
            "own-missing" => reply.authority("example", SOA, 2, &soa(3_600)),
            _ => reply,
        };
        vec![Deed::Send(reply.bytes())]
    });
    let names = ["missing.example", "nodata.example", "own-missing.example"];
    let ask_all = |is_first: bool| {
        for name in names {
            let answer = ask(&a, name, A);
            let code = if name.contains("missing") {
                NXDOMAIN
            } else {
                0
            };
            assert_eq!(
                (answer.code(), answer.answers.len()),
                (code, 0),
                "{answer:?}"
            );
            assert_eq!(server.count(name), 1, "{name}");
            // What comes from memory says for how long it still holds.
            let left = answer.authorities[0].ttl;
            assert!(is_first || left <= 2, "{name}: {answer:?}");
        }
    };
    let begun = Instant::now();
    ask_all(true);
    ask_all(false);
    ask(&a, names[1], AAAA);
    assert_eq!(
        server.count(names[1]),
        2,
        "another type is another question"
    );
    after(begun, Duration::from_millis(2_500));
    for name in names {
        ask(&a, name, A);
    }
    assert_eq!(server.total(), 7);
    // Without the record that says for how long, nothing is remembered.
    for _ in 0..2 {
        assert_eq!(ask(&a, "bare-missing.example", A).code(), NXDOMAIN);
    }
    assert_eq!(server.count("bare-missing.example"), 2);
}

#[test]
fn an_answer_ages_and_one_of_no_time_is_not_kept() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen| {
        let ttl = if seen.asked().starts_with("now") {
            0
        } else {
            3
        };
        vec![says(seen, "10.1.1.1", ttl)]
    });
    let begun = Instant::now();
    let ttl = || ask(&a, "ages.example", A).answers[0].ttl;
    assert_eq!(ttl(), 3);
    after(begun, Duration::from_millis(1_300));
    let left = ttl();
    assert!((1..=2).contains(&left), "{left}");
    assert_eq!(server.count("ages.example"), 1);
    after(begun, Duration::from_millis(3_300));
    assert_eq!(ttl(), 3);
    assert_eq!(server.count("ages.example"), 2);
    for count in 1..=3 {
        let answer = ask(&a, "now.example", A);
        assert_eq!(answer.answers[0].ttl, 0, "{answer:?}");
        assert_eq!(server.count("now.example"), count);
    }
}

#[test]
fn who_asks_the_same_servers_shares_what_they_said() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, always("10.1.1.1", 60));
    let other = Upstream::outside(&stage, 2, always("10.2.2.2", 60));
    let b = stage.sandbox("b", "--network one");
    let own = stage.sandbox("own", "--network one --dns 198.51.100.2");
    let beside = stage.sandbox("beside", "--network one --dns 198.51.100.2");
    for place in [&a, &b] {
        assert_eq!(ask(place, "x.example", A).texts(A), ["10.1.1.1"]);
        let mixed = ask(place, "X.Example", A);
        assert_eq!(mixed.answers[0].name, "X.Example", "as it was asked");
    }
    assert_eq!((server.total(), other.total()), (1, 0));
    // The same address may be another server where another sandbox is.
    for (count, place) in [(1, &own), (2, &beside)] {
        assert_eq!(ask(place, "x.example", A).texts(A), ["10.2.2.2"]);
        assert_eq!(ask(place, "x.example", A).texts(A), ["10.2.2.2"]);
        assert_eq!((server.total(), other.total()), (1, count));
    }
}

#[test]
fn the_same_question_of_many_is_asked_once() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen| {
        let wait = Deed::Wait(Duration::from_millis(150));
        vec![wait, says(seen, "10.1.1.1", 0)]
    });
    let clients: Vec<Client> = (0..50).map(|_| Client::at(&a)).collect();
    for (id, client) in (0..).zip(&clients) {
        let query = Query {
            id,
            ..Query::new("same.example", A)
        };
        client.send(&query.bytes());
    }
    for (id, client) in (0..).zip(&clients) {
        let answer = client.receive(PATIENCE).unwrap();
        assert_eq!((answer.id, answer.texts(A)), (id, vec!["10.1.1.1"]));
    }
    assert_eq!(server.total(), 1);
}

#[test]
fn what_was_too_long_for_a_datagram_is_remembered_whole() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen: &Seen| {
        let whole = seen.reply().answer("@", TXT, 60, &text(4_000)).bytes();
        let cut = seen.reply().with(crate::wire::TRUNCATED).bytes();
        vec![Deed::Send(if seen.over_tcp { whole } else { cut })]
    });
    let query = Query::new("big.example", TXT);
    for _ in 0..2 {
        let (cut, _) = Client::at(&a).ask(&query);
        assert!(cut.has(crate::wire::TRUNCATED), "{cut:?}");
        let whole = ask_over_tcp(&a, &query);
        assert_eq!(whole.texts(TXT).concat().len(), 4_000);
    }
    let over_tcp = server.seen().iter().filter(|seen| seen.over_tcp).count();
    assert_eq!((server.total(), over_tcp), (2, 1));
}

#[test]
fn an_answer_that_has_ended_serves_while_the_server_is_away() {
    let Some((stage, a)) = scene() else { return };
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    let _server = Upstream::outside(&stage, 1, move |seen| {
        if is_away.load(Ordering::Relaxed) {
            return vec![Deed::Send(seen.reply().code(SERVFAIL).bytes())];
        }
        let reply = seen.reply().answer("@", A, 1, &address("10.1.1.1"));
        vec![Deed::Send(reply.bytes())]
    });
    assert_eq!(ask(&a, "x.example", A).texts(A), ["10.1.1.1"]);
    away.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1_500));
    let stale = ask(&a, "x.example", A);
    assert_eq!(stale.texts(A), ["10.1.1.1"]);
    assert_eq!(stale.answers[0].ttl, 30, "{stale:?}");
    assert_eq!(ask(&a, "never-known.example", A).code(), SERVFAIL);
    away.store(false, Ordering::Relaxed);
    let back = wait_until(PATIENCE, || {
        ask(&a, "never-known.example", A).texts(A) == ["10.1.1.1"]
    });
    assert!(back, "a failure is remembered for too long");
}
