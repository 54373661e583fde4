//! Clients that lie, stutter and stall, and more questions than can be worked on: what others notice of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::held::Held;
use crate::upstream::{Upstream, always, outside_address, silence};
use crate::wire::{
    A, Client, FORMERR, Message, Query, REFUSED, SERVFAIL, ask_over_tcp, connect, framed,
    read_framed,
};

/// The code for kinds of queries that there are none of.
const NOTIMP: u8 = 4;

/// A daemon, and two sandboxes on two networks, with one that is asked for on each.
fn scene(servers: &[&str]) -> Option<(Stage, Place, Place)> {
    let flags: Vec<&str> = servers
        .iter()
        .flat_map(|server| ["--dns", server])
        .collect();
    let stage = Stage::start_with(&flags)?;
    let [a, other] = ["a", "other"].map(|name| {
        stage.ok(&format!("network create net-{name}"));
        stage.sandbox(&format!("{name}-peer"), &format!("--network net-{name}"));
        stage.sandbox(name, &format!("--network net-{name}"))
    });
    Some((stage, a, other))
}

/// The median and the longest time that an own name takes over UDP, while something else goes on.
fn asked_now(place: &Place, name: &str) -> (Duration, Duration) {
    let client = Client::at(place);
    let query = Query::new(name, A);
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let (answer, took) = client.ask(&query);
            assert_eq!(answer.answers.len(), 1, "{answer:?}");
            took
        })
        .collect();
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// Asserts that clients over UDP and TCP in both sandboxes are answered.
#[track_caller]
fn assert_others_are_answered(what: &str, a: &Place, other: &Place) {
    for (place, name) in [(a, "a-peer"), (other, "other-peer")] {
        let (median, longest) = asked_now(place, name);
        let begun = Instant::now();
        let over_tcp = ask_over_tcp(place, &Query::new(name, A));
        let took = begun.elapsed();
        assert_eq!(over_tcp.answers.len(), 1, "{over_tcp:?}");
        println!("{what}: {name} in {median:?}, at most {longest:?}, over TCP {took:?}");
        assert!(median < Duration::from_millis(50), "{what}: {median:?}");
        assert!(longest < Duration::from_secs(1), "{what}: {longest:?}");
        assert!(took < Duration::from_secs(1), "{what}: {took:?}");
    }
}

#[test]
fn what_is_no_query_gets_an_error_or_nothing() {
    let Some((stage, a, other)) = scene(&["198.51.100.1"]) else {
        return;
    };
    let server = Upstream::outside(&stage, 1, always("10.1.1.1", 60));
    let good = Query::new("a-peer", A).bytes();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let class = good.len() - 1;
    let padded = [&good[..], &[0; 3_000]].concat();
    // What is sent, and the code of the answer, if there is one.
    let cases: [(&str, Vec<u8>, Option<u8>); 10] = [
        ("no question", changed(5, 0), Some(FORMERR)),
        ("two questions", changed(5, 2), Some(FORMERR)),
        ("a response", changed(2, 0x81), None),
        ("a header cut short", good[..11].to_vec(), None),
        ("a name cut short", good[..15].to_vec(), Some(FORMERR)),
        ("nothing", vec![], None),
        ("a status query", changed(2, 0x11), Some(NOTIMP)),
        ("an update", changed(2, 0x29), Some(NOTIMP)),
        ("class CH", changed(class, 3), Some(REFUSED)),
        (
            "a name that points to itself",
            {
                let mut bytes = good[..12].to_vec();
                bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
                bytes
            },
            Some(FORMERR),
        ),
    ];
    let client = Client::at(&a);
    for (what, bytes, code) in cases {
        client.send(&bytes);
        let answer = client.receive(Duration::from_millis(match code {
            Some(_) => 3_000,
            None => 150,
        }));
        assert_eq!(answer.map(|answer| answer.code()), code, "{what}");
        let mut stream = connect(&a);
        stream.write_all(&framed(&bytes)).unwrap();
        let answer = read_framed(&mut stream).ok();
        let answer = answer.and_then(|answer| Message::read(&answer));
        assert_eq!(answer.map(|answer| answer.code()), code, "{what} over TCP");
    }
    client.send(&padded);
    drop(client.receive(Duration::from_millis(150)));
    let mut stream = connect(&a);
    stream.write_all(&framed(&padded)).unwrap();
    assert!(read_framed(&mut stream).is_err(), "it hangs up");
    assert_others_are_answered("after nonsense", &a, &other);
    assert_eq!(server.total(), 0);
}

/// A connection that ends with a reset.
fn reset(stream: TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, Linger, &linger).unwrap();
}

#[test]
fn a_client_that_dawdles_over_tcp_disturbs_nobody() {
    let Some((stage, a, other)) = scene(&["198.51.100.1"]) else {
        return;
    };
    let _server = Upstream::outside(&stage, 1, silence);
    let before = Held::now(&stage);
    let query = framed(&Query::new("a-peer", A).bytes());
    // It says nothing; it announces more than it sends; it sends a byte now and then; it asks and does not listen.
    let silent = connect(&a);
    let mut announces = connect(&a);
    announces.write_all(&[0, 200]).unwrap();
    let mut trickles = connect(&a);
    let trickled = query.clone();
    let trickle = std::thread::spawn(move || {
        let sent = trickled.iter().take_while(|byte| {
            std::thread::sleep(Duration::from_secs(1));
            trickles.write_all(&[**byte]).is_ok()
        });
        sent.count()
    });
    let mut deaf = connect(&a);
    let many = query.repeat(2_000);
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    drop(deaf.write_all(&many));
    for nth in 0..50 {
        let mut stream = connect(&a);
        if nth % 2 == 0 {
            stream.write_all(&query).unwrap();
        }
        reset(stream);
    }
    assert_others_are_answered("beside dawdlers", &a, &other);
    let sent = trickle.join().unwrap();
    println!("the one that trickles was cut off after {sent} bytes");
    assert!(sent < query.len(), "{sent}");
    for (what, mut stream) in [("silent", silent), ("announces", announces)] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let end = stream.read(&mut [0; 8]);
        assert!(matches!(end, Ok(0)), "{what}: {end:?}");
    }
    drop(deaf);
    before.assert_same(&stage);
}

#[test]
fn two_hundred_connections_are_borne_and_those_of_others_too() {
    let Some((stage, a, other)) = scene(&["198.51.100.1"]) else {
        return;
    };
    let _server = Upstream::outside(&stage, 1, silence);
    let before = Held::now(&stage);
    let query = framed(&Query::new("a-peer", A).bytes());
    let mut streams: Vec<TcpStream> = (0..200).map(|_| connect(&a)).collect();
    let mut answered = 0;
    for stream in &mut streams {
        let asked = stream.write_all(&query);
        answered += usize::from(asked.is_ok() && read_framed(stream).is_ok());
    }
    println!("{answered} of 200 connections at once were answered");
    assert!((64..=200).contains(&answered), "{answered}");
    let (median, _) = asked_now(&a, "a-peer");
    let (others, _) = asked_now(&other, "other-peer");
    let begun = Instant::now();
    ask_over_tcp(&other, &Query::new("other-peer", A));
    let over_tcp = begun.elapsed();
    println!("beside: {median:?}, another sandbox {others:?} and over TCP {over_tcp:?}");
    assert!(median.max(others) < Duration::from_millis(50) && over_tcp < Duration::from_secs(1));
    drop(streams);
    before.assert_same(&stage);
    assert_others_are_answered("after them", &a, &other);
}

/// How many failures a client is told, until there are no more.
fn failures(client: &Client) -> u16 {
    let mut count = 0;
    while let Some(answer) = client.receive(Duration::from_secs(6)) {
        assert_eq!(answer.code(), SERVFAIL);
        count += 1;
    }
    count
}

/// Questions for names that only dead servers could know, from two clients.
const QUESTIONS: u16 = 2_000;

/// Sends the questions; how many the clients are told have failed.
fn ask_in_vain(round: u8, places: [&Place; 2]) -> u16 {
    let clients = places.map(Client::at);
    std::thread::scope(|scope| {
        // A socket holds only so many answers: they are taken while questions are sent.
        let told = clients
            .each_ref()
            .map(|client| scope.spawn(|| failures(client)));
        for id in 0..QUESTIONS {
            let query = Query {
                id,
                ..Query::new(&format!("black-hole-{round}-{id}.example"), A)
            };
            clients[usize::from(id % 2)].send(&query.bytes());
            if id % 64 == 63 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        told.map(|thread| thread.join().unwrap()).iter().sum()
    })
}

/// Times of own names, one question after the other, until it is told to end.
fn ask_until(place: &Place, name: &str, ends: &AtomicBool) -> Vec<Duration> {
    let client = Client::at(place);
    let mut times = vec![];
    while !ends.load(Ordering::Relaxed) {
        let (answer, took) = client.ask(&Query::new(name, A));
        assert_eq!(answer.answers.len(), 1, "{answer:?}");
        times.push(took);
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    times
}

#[test]
fn two_thousand_questions_to_dead_servers_delay_no_own_name() {
    let servers = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
    let Some((stage, a, other)) = scene(&servers) else {
        return;
    };
    for last in [1, 2, 3] {
        outside_address(&stage, last);
    }
    let dead = [1, 2, 3].map(|last| Upstream::outside(&stage, last, silence));
    let mut before = Held::now(&stage);
    for round in 0..2 {
        let ends = AtomicBool::new(false);
        let (failed, times, most) = std::thread::scope(|scope| {
            let own = [(&a, "a-peer"), (&other, "other-peer")]
                .map(|(place, name)| scope.spawn(|| ask_until(place, name, &ends)));
            let foreign = scope.spawn(|| ask_in_vain(round, [&a, &other]));
            let mut most = before;
            while !foreign.is_finished() {
                let now = Held::now(&stage);
                most = if now.daemon > most.daemon { now } else { most };
                std::thread::sleep(Duration::from_millis(50));
            }
            ends.store(true, Ordering::Relaxed);
            let times = own.map(|thread| thread.join().unwrap());
            (foreign.join().unwrap(), times, most)
        });
        for times in times {
            let at = |percent: usize| times[(times.len() - 1) * percent / 100];
            let (median, longest) = (at(50), at(100));
            println!(
                "own names: {median:?}, 99 of 100 {:?}, at most {longest:?}",
                at(99)
            );
            assert!(median < Duration::from_millis(50), "{median:?}");
            assert!(longest < Duration::from_secs(2), "{longest:?}");
        }
        let asked = dead.each_ref().map(Upstream::total);
        println!("{failed} failed; servers asked {asked:?}; at most {most:?}");
        assert!(failed > QUESTIONS * 9 / 10, "{failed}");
        before.assert_same(&stage);
        // What the first round has taken of memory serves the second.
        before.memory_kb = Held::now(&stage).memory_kb;
    }
    assert_others_are_answered("after them", &a, &other);
}
