//! Clients ask for all sorts of things while the daemon is killed again and again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tombolo_api::{
    Address, Client, ClientError, NetworkConnect, NetworkDisconnect, PublicationSpec, SandboxCreate,
};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;

use crate::away::keeper;
use crate::ports::{SOCKETS, assert_published, assert_taken, taken, tcp, udp};
use crate::scene::{
    Answer, PATIENCE, assert_in_touch, make_network, on, records, runs, scene, start,
};

/// Environment variable with the length of the storm in seconds.
const SECONDS: &str = "TOMBOLO_STORM_SECONDS";
/// Its length where nobody says.
const SECONDS_USUAL: u64 = 15;
const CLIENTS: u64 = 4;
/// Sandboxes of each client.
const SANDBOXES: u64 = 4;

/// What a client knows of one of its sandboxes. A request without an answer leaves it in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Known {
    exists: Option<bool>,
    running: Option<bool>,
    /// Its second port is published, besides the one with which it was made.
    published: Option<bool>,
}

/// A sequence of numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_else_is_left() {
    let Some(mut stage) = scene() else { return };
    let before = stage.traces().unwrap();
    let (known_before, free) = (records(&stage), taken(&stage));
    let seconds = std::env::var(SECONDS)
        .ok()
        .and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS_USUAL));
    let over = AtomicBool::new(false);
    let socket = stage.socket();
    let known: Vec<(BTreeMap<String, Known>, usize)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                scope.spawn({
                    let (over, socket) = (&over, &socket);
                    move || client(n, socket, over)
                })
            })
            .collect();
        let mut numbers = Numbers(7);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100 + numbers.draw(900)));
            if numbers.draw(4) == 0 {
                stage.shell("kill -9 $(cat /run/tombolo/keeper.pid) 2>/dev/null || true");
            }
            if numbers.draw(6) > 0 {
                stage.kill().unwrap();
                start(&mut stage, &[]);
            }
        }
        over.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let answered: usize = known.iter().map(|(_, answered)| answered).sum();
    assert!(answered > 20, "only {answered} answers");
    stage.kill().unwrap();
    start(&mut stage, &[]);
    stage.assert_in_place();
    assert_in_touch(&stage, "p", "q");
    for (name, known) in known.iter().flat_map(|(known, _)| known) {
        let found = stage.client().sandbox_inspect(name);
        if let Some(exists) = known.exists {
            assert_eq!(found.is_ok(), exists, "{name}, known as {known:?}");
        }
        if found.is_ok() {
            assert_as_known(&stage, name, *known);
            stage.client().sandbox_delete(name, false).unwrap();
        }
    }
    for n in 0..CLIENTS {
        drop(stage.client().network_delete(&format!("own{n}")));
    }
    stage.assert_traces(&before);
    assert_eq!(records(&stage), known_before);
    assert_taken(&stage, &free, "at the end");
    // The sockets at which sandboxes ask for names are kept, too.
    for name in ["p", "q"] {
        stage.client().sandbox_delete(name, false).unwrap();
    }
    stage.stop().unwrap();
    let ended = wait_until(PATIENCE, || keeper(&stage).is_none());
    assert!(ended, "a keeper of nothing is left");
    assert_eq!(stage.shell("ss -H -lntu"), "", "somebody still listens");
}

/// Asserts that a sandbox is as its client left it, and within reach.
#[track_caller]
fn assert_as_known(stage: &Stage, name: &str, known: Known) {
    if known.exists == Some(true) {
        let now = Known {
            running: known.running.and(Some(runs(stage, name))),
            published: known.published.and(Some(has_second(stage, name))),
            ..known
        };
        assert_eq!(now, known, "{name}");
    }
    if runs(stage, name) {
        assert_in_touch(stage, "p", name);
        assert_published(stage, name);
    }
}

/// Asks at random until the storm is over; what it knows at the end, and how many answers it got.
fn client(n: u64, socket: &Path, over: &AtomicBool) -> (BTreeMap<String, Known>, usize) {
    let mut numbers = Numbers(1_000 + n);
    let mut known = BTreeMap::new();
    let mut answers = 0;
    let mut connection = None;
    while !over.load(Ordering::Relaxed) {
        if connection.is_none() {
            connection = Client::connect(Address::Unix(socket.to_owned())).ok();
        }
        let Some(client) = &mut connection else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let name = format!("c{n}-{}", numbers.draw(SANDBOXES));
        let state = known.entry(name.clone()).or_insert(Known {
            exists: Some(false),
            running: None,
            published: None,
        });
        let (done, what) = ask(client, &mut numbers, &name, n);
        match done {
            Ok(()) => {
                answers += 1;
                *state = after(*state, what);
            }
            Err(ClientError::Api(_)) => answers += 1,
            Err(_) => {
                // Perhaps it was done, perhaps not.
                if matches!(what, What::Create | What::Delete) {
                    state.exists = None;
                }
                state.running = None;
                state.published = None;
                connection = None;
            }
        }
    }
    (known, answers)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Create,
    Delete,
    Stop,
    Start,
    Publish,
    Unpublish,
    Other,
}

fn after(state: Known, what: What) -> Known {
    match what {
        What::Create => Known {
            exists: Some(true),
            running: Some(true),
            published: Some(false),
        },
        What::Delete => Known {
            exists: Some(false),
            running: None,
            published: None,
        },
        What::Publish => Known {
            published: Some(true),
            ..state
        },
        What::Unpublish => Known {
            published: Some(false),
            ..state
        },
        What::Stop => Known {
            running: Some(false),
            ..state
        },
        What::Start => Known {
            running: Some(true),
            ..state
        },
        What::Other => state,
    }
}

fn ask(client: &mut Client, numbers: &mut Numbers, name: &str, n: u64) -> (Answer, What) {
    let own = format!("own{n}");
    match numbers.draw(16) {
        0..=3 => (make(client, name, ports(name)[0]), What::Create),
        12..=13 => {
            let forms = publications(ports(name)[1]);
            (
                client.publications_add(name, forms).map(drop),
                What::Publish,
            )
        }
        14 => {
            let port = ports(name)[1];
            let words = publications(port).iter().map(words).collect();
            (client.publications_remove(name, words), What::Unpublish)
        }
        15 => {
            // Everybody wants this one.
            let wanted = vec![tcp("8179", "179")];
            (client.publications_add(name, wanted).map(drop), What::Other)
        }
        4..=5 => (client.sandbox_delete(name, false), What::Delete),
        6 => (client.sandbox_stop(name).map(drop), What::Stop),
        7 => (client.sandbox_start(name).map(drop), What::Start),
        8 => (make_network(client, &own), What::Other),
        9 => (client.network_delete(&own), What::Other),
        10 => {
            let connect = NetworkConnect {
                sandbox: name.to_owned(),
                attachment: Default::default(),
            };
            (client.network_connect(&own, connect).map(drop), What::Other)
        }
        _ => {
            let disconnect = NetworkDisconnect {
                sandbox: name.to_owned(),
                force: false,
            };
            (client.network_disconnect(&own, disconnect), What::Other)
        }
    }
}

/// The first two of the ports that belong to a sandbox such as `c2-3`.
fn ports(name: &str) -> [u16; 2] {
    let number = |at: usize| u16::from(name.as_bytes()[at] - b'0');
    let first = SOCKETS.start() + number(1) * 24 + number(3) * 6;
    [first, first + 3]
}

/// What is published together at a port and the two that follow it.
fn publications(port: u16) -> Vec<PublicationSpec> {
    let (range, large) = (
        format!("{}-{}", port + 1, port + 2),
        format!("{0}00-{0}99", u32::from(port) - 7_900),
    );
    vec![
        tcp(&port.to_string(), "80"),
        udp(&range, "81-82"),
        PublicationSpec {
            from: ["192.0.2.1", "2001:db8::1"].map(str::to_owned).to_vec(),
            ..tcp(&large, &large)
        },
    ]
}

/// How a publication is named to take it back.
fn words(publication: &PublicationSpec) -> String {
    let host = publication.host.as_deref().unwrap_or_default();
    let (container, protocol) = (&publication.container, publication.protocol);
    format!("{host}:{container}/{protocol}")
}

fn make(client: &mut Client, name: &str, port: u16) -> Answer {
    let create = SandboxCreate {
        name: Some(name.to_owned()),
        networks: on(&["one", "two"]),
        publish: publications(port),
        ..SandboxCreate::default()
    };
    client.sandbox_create(create).map(drop)
}

/// Whether the second port of a sandbox is published.
fn has_second(stage: &Stage, name: &str) -> bool {
    let host = ports(name)[1].to_string();
    let publications = stage.inspect(name).publications;
    publications
        .iter()
        .any(|p| p.host.as_deref() == Some(&host))
}
