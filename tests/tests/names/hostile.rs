//! Servers that lie, stutter and stall: what of it reaches a client, and what is remembered.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tombolo_tests::{Place, Stage};

use crate::upstream::{Deed, Program, Seen, Upstream, always, says};
use crate::wire::{
    A, AAAA, CNAME, Client, Query, Reply, SERVFAIL, TRUNCATED, TXT, address, ask, ask_over_tcp,
    connect, datagrams, encode, framed, read_framed, text, timed,
};

const TRUE: &str = "10.1.1.1";
const FALSE: &str = "10.66.66.66";

/// A daemon that asks a server with this script, and a sandbox.
fn scene(
    script: impl Fn(&Seen) -> Vec<Deed> + Send + Sync + 'static,
) -> Option<(Stage, Upstream, Place)> {
    let stage = Stage::start_with(&["--dns", "198.51.100.1"])?;
    let server = Upstream::outside(&stage, 1, script);
    stage.ok("network create one");
    let a = stage.sandbox("a", "--network one");
    Some((stage, server, a))
}

/// A false answer with another id than was asked with.
fn with_other_id(seen: &Seen, more: u16) -> Deed {
    let mut query = seen.bytes.clone();
    query[..2].copy_from_slice(&seen.id.wrapping_add(more).to_be_bytes());
    let reply = Reply::to(&query).answer("@", A, 600, &address(FALSE));
    Deed::Send(reply.bytes())
}

fn false_reply(seen: &Seen) -> Reply {
    seen.reply().answer("@", A, 600, &address(FALSE))
}

/// The name with the case of every letter turned.
const fn turn(byte: u8) -> u8 {
    if byte.is_ascii_alphabetic() {
        byte ^ 0x20
    } else {
        byte
    }
}

/// An answer with another question.
fn other_question(seen: &Seen) -> Vec<u8> {
    let mut query = seen.bytes[..12].to_vec();
    query[11] = 0;
    query.extend(encode("other.example"));
    query.extend_from_slice(&[0, 1, 0, 1]);
    let reply = Reply::to(&query).answer("@", A, 600, &address(FALSE));
    reply.bytes()
}

/// What a forger and a broken server send before the true answer, by the name that is asked for.
fn forged(seen: &Seen) -> Vec<Deed> {
    let elsewhere = SocketAddr::new("198.51.100.66".parse().unwrap(), 53);
    let other_port = SocketAddr::new("198.51.100.1".parse().unwrap(), 5_353);
    let send = |bytes: &[u8]| Deed::Send(bytes.to_vec());
    let mut two_questions = false_reply(seen).bytes();
    two_questions[5] = 2;
    let mut no_response = false_reply(seen).bytes();
    no_response[2] &= 0x7f;
    let whole = false_reply(seen).bytes();
    match seen.asked().split('.').next().unwrap() {
        "id" => (1..200).map(|more| with_other_id(seen, more)).collect(),
        "address" => vec![Deed::SendFrom(elsewhere, whole)],
        "port" => vec![Deed::SendFrom(other_port, whole)],
        "question" => vec![send(&other_question(seen))],
        "questions" => vec![send(&two_questions)],
        "query" => vec![send(&no_response)],
        "garbage" => vec![send(&[0xff; 300]), send(b"x"), send(b"")],
        "header" => vec![send(&whole[..11])],
        _ => vec![],
    }
}

#[test]
fn a_forged_answer_loses_against_the_true_one() {
    let script = |seen: &Seen| {
        let mut deeds = forged(seen);
        deeds.push(Deed::Wait(Duration::from_millis(20)));
        deeds.push(says(seen, TRUE, 600));
        deeds
    };
    let Some((stage, server, a)) = scene(script) else {
        return;
    };
    stage.shell_outside("ip address add 198.51.100.66/32 dev lo");
    let kinds = [
        "id",
        "address",
        "port",
        "question",
        "questions",
        "query",
        "garbage",
        "header",
    ];
    for kind in kinds {
        let name = format!("{kind}.forged-names.example");
        for _ in 0..2 {
            assert_eq!(ask(&a, &name, A).texts(A), [TRUE], "{kind}");
        }
        assert_eq!(server.count(&name), 1, "the true answer of {kind} is kept");
    }
    assert_ne!(ask(&a, "other.example", A).texts(A), [FALSE]);
}

#[test]
fn an_answer_in_another_case_counts_only_over_a_connection() {
    let script = |seen: &Seen| {
        if seen.over_tcp {
            return vec![says(seen, TRUE, 600)];
        }
        vec![Deed::Send(false_reply(seen).cased(turn).bytes())]
    };
    let Some((_stage, server, a)) = scene(script) else {
        return;
    };
    for name in ["forged.example", "forged.example", "forged-more.example"] {
        assert_eq!(ask(&a, name, A).texts(A), [TRUE]);
    }
    // A forger cannot have the case given up: over the connection the server keeps it.
    let mixed = |seen: &Seen| seen.name != seen.asked();
    assert!(server.seen().iter().all(mixed), "{:?}", server.seen());
}

#[test]
fn an_answer_that_comes_late_or_twice_does_no_harm() {
    let script = |seen: &Seen| match seen.asked() {
        name if name.starts_with("twice") => {
            let second = Deed::Send(false_reply(seen).bytes());
            vec![says(seen, TRUE, 600), second.clone(), second]
        }
        name if name.starts_with("late") => {
            let late = Deed::Wait(Duration::from_millis(5_500));
            vec![late, says(seen, FALSE, 600)]
        }
        _ => vec![says(seen, TRUE, 600)],
    };
    let Some((_stage, _server, a)) = scene(script) else {
        return;
    };
    for _ in 0..3 {
        assert_eq!(ask(&a, "twice.example", A).texts(A), [TRUE]);
    }
    let client = Client::at(&a);
    let (late, took) = client.ask(&Query::new("late.example", A));
    println!("too late an answer: failed after {took:?}");
    assert_eq!(late.code(), SERVFAIL);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(client.receive(Duration::from_millis(1_500)).is_none());
    assert_eq!(ask(&a, "after.example", A).texts(A), [TRUE]);
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    let script = |seen: &Seen| {
        let mut loops = seen.reply().answer("@", A, 60, &address(FALSE)).bytes();
        // The name of the record points to itself.
        let at = loops.len() - 16;
        let here = u16::try_from(at).unwrap() | 0xc000;
        loops[at..at + 2].copy_from_slice(&here.to_be_bytes());
        let short = false_reply(seen).bytes();
        let deed = match seen.asked().split('.').next().unwrap() {
            "loop" => Deed::Send(loops),
            "short" => Deed::Send(short[..short.len() - 2].to_vec()),
            "counts" => {
                let mut many = short;
                many[6..8].copy_from_slice(&[0xff, 0xff]);
                Deed::Send(many)
            }
            _ => says(seen, TRUE, 60),
        };
        vec![deed]
    };
    let Some((_stage, _server, a)) = scene(script) else {
        return;
    };
    for kind in ["loop", "short", "counts"] {
        let (answer, took) = timed(&a, &format!("{kind}.example"), A);
        println!("{kind}: {} after {took:?}", answer.code());
        assert_eq!(answer.code(), SERVFAIL, "{kind}: {answer:?}");
        assert_eq!(answer.texts(A), Vec::<&str>::new());
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(ask(&a, "well.example", A).texts(A), [TRUE]);
}

#[test]
fn records_that_were_not_asked_for_are_not_told() {
    let script = |seen: &Seen| {
        let evil = address(FALSE);
        let reply = seen.reply();
        let reply = match seen.asked().split('.').next().unwrap() {
            "alias" => reply
                .answer("@", CNAME, 60, &encode("target.example"))
                .answer("target.example", A, 60, &address(TRUE)),
            _ => reply.answer("@", A, 60, &address(TRUE)),
        };
        let reply = reply
            .answer("bank.example", A, 600, &evil)
            .authority("bank.example", 2, 600, &encode("ns.bank.example"))
            .additional("bank.example", A, 600, &evil)
            .additional("ns.bank.example", A, 600, &evil);
        vec![Deed::Send(reply.bytes())]
    };
    let Some((_stage, server, a)) = scene(script) else {
        return;
    };
    for name in ["plain.example", "alias.example"] {
        for _ in 0..2 {
            let answer = ask(&a, name, A);
            assert_eq!(answer.texts(A), [TRUE], "{answer:?}");
            let others = answer.authorities.len() + answer.additionals.len();
            assert_eq!(others, 0, "{answer:?}");
        }
    }
    ask(&a, "bank.example", A);
    assert_eq!(
        server.count("bank.example"),
        1,
        "nothing was remembered of it"
    );
}

#[test]
fn a_server_that_stalls_over_tcp_ends_in_a_failure() {
    let script = |seen: &Seen| {
        let cut = seen.reply().with(TRUNCATED).bytes();
        if !seen.over_tcp {
            return vec![Deed::Send(cut)];
        }
        let whole = seen.reply().answer("@", TXT, 60, &text(400)).bytes();
        match seen.asked().split('.').next().unwrap() {
            "closes" => vec![Deed::Close],
            "silent" => vec![Deed::Wait(Duration::from_secs(8))],
            "cut" => vec![Deed::Send(cut)],
            "half" => vec![Deed::Raw(framed(&whole)[..100].to_vec()), Deed::Close],
            "nothing" => vec![Deed::Raw(vec![0, 0])],
            _ => vec![Deed::Send(whole)],
        }
    };
    let Some((_stage, _server, a)) = scene(script) else {
        return;
    };
    for kind in ["closes", "silent", "cut", "half", "nothing"] {
        let (answer, took) = timed(&a, &format!("{kind}.example"), TXT);
        println!("{kind}: {} after {took:?}", answer.code());
        assert_eq!(answer.code(), SERVFAIL, "{kind}: {answer:?}");
        assert!(took < Duration::from_secs(5), "{kind}: {took:?}");
    }
    let well = ask(&a, "well.example", TXT);
    assert_eq!(well.texts(TXT).concat().len(), 400);
}

#[test]
fn an_answer_of_64_kilobytes_gets_through() {
    let script = |seen: &Seen| {
        if !seen.over_tcp {
            return vec![Deed::Send(seen.reply().with(TRUNCATED).bytes())];
        }
        let mut reply = seen.reply();
        for _ in 0..16 {
            reply = reply.answer("@", TXT, 60, &text(4_000));
        }
        vec![Deed::Send(reply.bytes())]
    };
    let Some((stage, _server, a)) = scene(script) else {
        return;
    };
    let query = Query::new("huge.example", TXT);
    let whole = ask_over_tcp(&a, &query);
    assert_eq!(whole.texts(TXT).len(), 16);
    assert!(whole.length > 64_000, "{}", whole.length);
    let (cut, _) = Client::at(&a).ask(&query);
    assert!(cut.has(TRUNCATED), "{cut:?}");
    // Own names are answered on the same connection, in whatever order.
    let mut stream = connect(&a);
    let queries = [&query, &Query::new("a", A)].map(|query| framed(&query.bytes()));
    stream.write_all(&queries.concat()).unwrap();
    let lengths = [0, 1].map(|_| read_framed(&mut stream).unwrap().len());
    assert!(lengths.iter().max().unwrap() > &64_000, "{lengths:?}");
    assert!(lengths.iter().min().unwrap() < &100, "{lengths:?}");
    stage.assert_in_place();
}

/// A dnsmasq in a sandbox that asks the resolver of its sandbox, which asks it.
#[test]
fn questions_that_go_round_in_circles_fail_soon() {
    let Some((stage, _server, _)) = scene(always(TRUE, 60)) else {
        return;
    };
    stage.ok("network create --subnet 10.77.0.0/24 ring");
    let at: IpAddr = "10.77.0.53".parse().unwrap();
    let b = stage.sandbox("b", "--network name=ring,ip=10.77.0.53 --dns 10.77.0.53");
    let c = stage.sandbox("c", "--network ring --dns 10.77.0.53");
    let words = ["--server=127.0.0.11", "--dns-forward-max=1000"];
    let Some(_dnsmasq) = Program::dnsmasq(&b, at, &words) else {
        return;
    };
    for (name, seconds) in [("a-long-name-with-many-letters.example", 1), ("x.io", 5)] {
        for place in [&b, &c] {
            for kind in [A, AAAA] {
                let before = datagrams(&b)["InDatagrams"];
                let (answer, took) = timed(place, name, kind);
                let packets = datagrams(&b)["InDatagrams"] - before;
                println!(
                    "{name} {kind}: {} after {took:?}, {packets} packets",
                    answer.code()
                );
                assert_eq!(answer.code(), SERVFAIL, "{answer:?}");
                assert!(took < Duration::from_secs(seconds), "{name}: {took:?}");
                assert!(packets < 60, "{name}: {packets}");
            }
        }
    }
    assert_eq!(ask(&c, "b", A).texts(A), ["10.77.0.53"]);
}
