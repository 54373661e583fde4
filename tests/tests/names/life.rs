//! Answers go on while the daemon is restarted, killed and replaced, and no question keeps a sandbox from going.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::held::{Held, keeper, veths};
use crate::upstream::{Deed, Upstream, says, silence};
use crate::wire::{A, Client, Message, Query, ask, connect, framed, read_framed};

const FLAGS: &[&str] = &["--dns", "198.51.100.1"];

fn scene() -> Option<(Stage, Place)> {
    let stage = Stage::start_with(FLAGS)?;
    stage.ok("network create --ipv6 one");
    let a = stage.sandbox("a", "--network one");
    stage.sandbox("b", "--network one");
    Some((stage, a))
}

fn again(stage: &mut Stage) {
    stage.start_with(FLAGS, &[]).unwrap();
}

/// A client that asks for an own name every 20 ms, and once more if there is no answer within a second.
struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Told>,
}

/// What became of its questions.
#[derive(Debug, Default)]
struct Told {
    questions: usize,
    retried: usize,
    failed: usize,
    longest: Duration,
}

impl Steady {
    fn begin(place: &Place) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Client::at(place);
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut told = Told::default();
            while !ends.load(Ordering::Relaxed) {
                told.ask(&client);
                std::thread::sleep(Duration::from_millis(20));
            }
            told
        });
        Self { stop, thread }
    }

    fn end(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Told {
    fn ask(&mut self, client: &Client) {
        self.questions += 1;
        let begun = Instant::now();
        for attempt in 0..2 {
            let id = u16::try_from(2 * self.questions + attempt).unwrap();
            let query = Query {
                id,
                ..Query::new("b", A)
            };
            client.send(&query.bytes());
            let end = Instant::now() + Duration::from_secs(1);
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                let answer = client.receive(left.max(Duration::from_millis(1)));
                if answer.is_some_and(|answer| answer.id == id && !answer.answers.is_empty()) {
                    self.longest = self.longest.max(begun.elapsed());
                    return;
                }
            }
            self.retried += usize::from(attempt == 0);
        }
        self.failed += 1;
    }
}

/// Asks steadily while something is done to the daemon.
fn asks_during(what: &str, work: impl FnOnce(&mut Stage)) {
    let Some((mut stage, a)) = scene() else {
        return;
    };
    let steady = [&a, &stage.place("b")].map(Steady::begin);
    std::thread::sleep(Duration::from_millis(200));
    work(&mut stage);
    std::thread::sleep(Duration::from_millis(200));
    for told in steady.map(Steady::end) {
        println!("{what}: {told:?}");
        assert!(told.failed == 0 && told.questions > 10, "{what}: {told:?}");
        // The questions wait in their sockets; only a start that takes long makes one wait too long.
        assert!(told.retried <= 1, "{what}: {told:?}");
    }
    stage.assert_in_place();
}

#[test]
fn no_question_is_lost_by_a_restart() {
    asks_during("three restarts", |stage| {
        for _ in 0..3 {
            stage.stop().unwrap();
            again(stage);
            std::thread::sleep(Duration::from_millis(300));
        }
    });
}

#[test]
fn no_question_is_lost_by_a_kill() {
    asks_during("a kill and 300 ms without a daemon", |stage| {
        stage.kill().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        again(stage);
    });
}

#[test]
fn no_question_is_lost_by_a_replacement() {
    asks_during("another program", |stage| {
        let copy = stage.path("/run/tombolo-new");
        let program = std::env::var_os("TOMBOLO_BINARY").map(PathBuf::from);
        let beside = || {
            let me = std::env::current_exe().unwrap();
            me.parent().unwrap().parent().unwrap().join("tombolo")
        };
        std::fs::copy(program.unwrap_or_else(beside), &copy).unwrap();
        stage.stop().unwrap();
        let mut command = stage.command("/run/tombolo-new");
        command.args(["daemon", "--dns", "198.51.100.1"]);
        let mut other = command.spawn().unwrap();
        stage.await_answer().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        stage.shell("kill $(pidof tombolo-new)");
        other.wait().unwrap();
        again(stage);
    });
}

#[test]
fn a_question_waits_while_there_is_no_daemon() {
    let Some((mut stage, a)) = scene() else {
        return;
    };
    let b = stage.place("b").v4().to_string();
    for hard in [true, false] {
        if hard {
            stage.kill().unwrap();
        } else {
            stage.stop().unwrap();
        }
        let client = Client::at(&a);
        client.send(&Query::new("b", A).bytes());
        let mut stream = connect(&a);
        stream
            .write_all(&framed(&Query::new("b", A).bytes()))
            .unwrap();
        assert!(client.receive(Duration::from_millis(300)).is_none());
        again(&mut stage);
        let answer = client.receive(PATIENCE).unwrap();
        assert_eq!(answer.texts(A), [b.as_str()]);
        let answer = Message::read(&read_framed(&mut stream).unwrap()).unwrap();
        assert_eq!(answer.texts(A), [b.as_str()]);
    }
}

#[test]
fn a_question_that_was_passed_on_is_answered_before_the_end() {
    let Some((mut stage, a)) = scene() else {
        return;
    };
    let server = Upstream::outside(&stage, 1, |seen| {
        let wait = Deed::Wait(Duration::from_millis(700));
        vec![wait, says(seen, "10.1.1.1", 60)]
    });
    let client = Client::at(&a);
    client.send(&Query::new("slow.example", A).bytes());
    let mut stream = connect(&a);
    stream
        .write_all(&framed(&Query::new("slower.example", A).bytes()))
        .unwrap();
    assert!(wait_until(PATIENCE, || server.total() == 2));
    let begun = Instant::now();
    stage.stop().unwrap();
    println!("the daemon ended after {:?}", begun.elapsed());
    let answer = client.receive(Duration::from_millis(100));
    assert_eq!(answer.unwrap().texts(A), ["10.1.1.1"]);
    // The connection ends with the daemon that had it, but not before its answer.
    let answer = Message::read(&read_framed(&mut stream).unwrap()).unwrap();
    assert_eq!(answer.texts(A), ["10.1.1.1"]);
    assert!(read_framed(&mut stream).is_err());
    again(&mut stage);
    assert_eq!(ask(&a, "slow.example", A).texts(A), ["10.1.1.1"]);
}

#[test]
fn names_are_answered_without_a_keeper_and_after_a_restart_without_it() {
    let Some((mut stage, a)) = scene() else {
        return;
    };
    let b = stage.place("b").v4().to_string();
    let answers = |stage: &Stage, what: &str| {
        assert_eq!(ask(&a, "b", A).texts(A), [b.as_str()], "{what}");
        let _ = stage;
    };
    stage.shell(&format!("kill -KILL {}", keeper(&stage)));
    answers(&stage, "after the keeper's end");
    stage.stop().unwrap();
    again(&mut stage);
    answers(&stage, "after a restart");
    stage.assert_in_place();
    // Both at once: nobody has the sockets any more.
    let pid = keeper(&stage);
    stage.kill().unwrap();
    stage.shell(&format!("kill -KILL {pid}"));
    again(&mut stage);
    let back = wait_until(PATIENCE, || {
        let client = Client::at(&a);
        client.send(&Query::new("b", A).bytes());
        client.receive(Duration::from_millis(500)).is_some()
    });
    assert!(back, "nobody answers after both were killed");
    stage.assert_in_place();
}

#[test]
fn a_sandbox_goes_soon_whatever_was_asked_from_it() {
    let Some((stage, a)) = scene() else { return };
    let far = Upstream::outside(&stage, 1, silence);
    let own = Upstream::outside(&stage, 2, |seen| {
        if seen.asked().starts_with("tcp") && !seen.over_tcp {
            return vec![Deed::Send(
                seen.reply().with(crate::wire::TRUNCATED).bytes(),
            )];
        }
        vec![]
    });
    // As many addresses as it takes: the next sandbox can only have the one that was given back.
    stage.ok("network create --subnet 10.88.0.0/30 --dns 198.51.100.2 tight");
    let before = (stage.traces().unwrap(), Held::now(&stage), veths(&stage));
    for round in 0..3 {
        let begun = Instant::now();
        // The address is given back when the link has really gone.
        let made = wait_until(Duration::from_secs(5), || {
            stage
                .tries("sandbox create --name tight --network tight")
                .success()
        });
        assert!(made, "the address is not given back");
        let tight = stage.place("tight");
        let both = stage.sandbox("both", "--network one");
        assert_eq!(tight.v4().to_string(), "10.88.0.2");
        let clients = [&tight, &both].map(Client::at);
        for client in &clients {
            for nth in 0..20 {
                let prefix = if nth % 2 == 0 { "tcp" } else { "udp" };
                let query = Query::new(&format!("{prefix}{nth}-{round}.example"), A);
                client.send(&query.bytes());
            }
        }
        let mut streams = [&tight, &both, &tight].map(connect);
        let query = framed(&Query::new("stream.example", A).bytes());
        streams[0].write_all(&query).unwrap();
        streams[1].write_all(&query[..5]).unwrap();
        assert!(wait_until(PATIENCE, || own.total() > 5 && far.total() > 5));
        if round == 1 {
            stage.ok("sandbox stop tight");
        }
        stage.ok("sandbox rm tight both");
        // Our own end of the clients' sockets would keep the namespaces, too.
        drop((clients, streams));
        let gone = wait_until(Duration::from_secs(5), || veths(&stage) == before.2);
        println!(
            "round {round}: gone {:?} after the start of the round",
            begun.elapsed()
        );
        assert!(gone, "a namespace stays: {}", stage.shell("ip -o link"));
    }
    before.1.assert_same(&stage);
    stage.assert_traces(&before.0);
    assert_eq!(ask(&a, "b", A).answers.len(), 1);
}

#[test]
fn a_namespace_that_is_removed_by_hand_takes_nothing_along() {
    let Some((stage, a)) = scene() else { return };
    let before = (stage.traces().unwrap(), Held::now(&stage));
    for _ in 0..3 {
        let lost = stage.sandbox("lost", "--network one");
        assert_eq!(ask(&lost, "b", A).answers.len(), 1);
        let netns = stage.inspect("lost").netns.unwrap();
        stage.shell(&format!("umount {netns} && rm -f {netns}"));
        assert_eq!(ask(&a, "b", A).answers.len(), 1);
        stage.ok("repair");
        stage.ok("sandbox rm lost");
    }
    before.1.assert_same(&stage);
    stage.assert_in_place();
    stage.assert_traces(&before.0);
}

/// Makes sandboxes one after the other, each asked until it has gone; how many answers they got meanwhile.
fn make_and_ask(stage: &Stage, worker: usize, count: usize) -> usize {
    let mut answered = 0;
    for nth in 0..count {
        let name = format!("s{worker}-{nth}");
        let place = stage.sandbox(&name, "--network one");
        let netns = place.netns.clone();
        let ends = AtomicBool::new(false);
        let client = Client::at(&place);
        // The very first question is answered: whoever made the sandbox knows its names are there.
        client.ask(&Query::new("b", A));
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let mut heard = 0;
                for id in 0.. {
                    for name in ["b", "foreign.example"] {
                        let query = Query {
                            id,
                            ..Query::new(name, A)
                        };
                        drop(client.tries_to_send(&query.bytes()));
                    }
                    heard += usize::from(client.receive(Duration::from_millis(20)).is_some());
                    if ends.load(Ordering::Relaxed) {
                        return heard;
                    }
                }
                heard
            });
            std::thread::sleep(Duration::from_millis(10));
            stage.ok(&format!("sandbox rm {name}"));
            ends.store(true, Ordering::Relaxed);
            answered += asker.join().unwrap();
        });
        assert!(!netns.exists(), "{}", netns.display());
    }
    answered
}

#[test]
fn a_hundred_sandboxes_come_and_go_while_they_ask() {
    let Some((stage, a)) = scene() else { return };
    let _server = Upstream::outside(&stage, 1, silence);
    let before = (stage.traces().unwrap(), Held::now(&stage));
    let begun = Instant::now();
    let answered: usize = std::thread::scope(|scope| {
        let stage = &stage;
        let workers: Vec<_> = (0..4)
            .map(|worker| scope.spawn(move || make_and_ask(stage, worker, 25)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    println!(
        "100 sandboxes came and went in {:?}, {answered} answers while they went",
        begun.elapsed()
    );
    before.1.assert_same(&stage);
    stage.assert_in_place();
    stage.assert_traces(&before.0);
    assert_eq!(ask(&a, "b", A).answers.len(), 1);
    assert!(!stage.log().contains("WARN"), "{}", stage.log());
}
