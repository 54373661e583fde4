//! Questions as dig(1) asks them, programs in sandboxes with their files, and a server that writes down what it is
//! asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tombolo_lab::node::{FAR_V4, Outcome, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

/// Where the resolver answers inside a sandbox.
pub(crate) const INSIDE: &str = "127.0.0.11";
/// What the [`Recorder`] says of every name.
pub(crate) const RECORDED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The node's file with its resolvers, while it has one of its own.
const RESOLV_CONF: &str = "/run/resolv.conf";
/// How often a recorder looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// An answer as dig(1) tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The code of the answer; empty if there was none.
    pub(crate) status: String,
    /// Such as `qr aa rd ra`.
    pub(crate) flags: String,
    /// Records as `NAME TYPE DATA`.
    pub(crate) answers: Vec<String>,
    /// Those that say who speaks for the name.
    pub(crate) authority: Vec<String>,
    /// Those that go with the answer.
    pub(crate) additional: Vec<String>,
    /// Everything that was printed.
    pub(crate) text: String,
}

impl Reply {
    fn parse(text: String) -> Self {
        let mut reply = Self::default();
        let mut section = "";
        for line in text.lines() {
            if let Some((_, rest)) = line.split_once("status: ") {
                rest.split(',')
                    .next()
                    .unwrap()
                    .clone_into(&mut reply.status);
            } else if let Some(rest) = line.strip_prefix(";; flags: ") {
                rest.split(';').next().unwrap().clone_into(&mut reply.flags);
            } else if let Some(name) = line.strip_suffix(" SECTION:") {
                section = name;
            } else if !line.starts_with(';') && !line.is_empty() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let record = [&words[..1], &words[3..]].concat().join(" ");
                match section {
                    ";; ANSWER" => reply.answers.push(record),
                    ";; AUTHORITY" => reply.authority.push(record),
                    ";; ADDITIONAL" => reply.additional.push(record),
                    _ => {}
                }
            }
        }
        Self { text, ..reply }
    }

    /// What the records of the answer say, in their order.
    pub(crate) fn data(&self) -> Vec<String> {
        let data = self.answers.iter().map(|record| {
            let words = record.splitn(3, ' ');
            words.last().unwrap_or_default().to_owned()
        });
        data.collect()
    }

    /// Whether the name is known, but has nothing of the kind, as its authority says.
    pub(crate) fn is_no_data(&self) -> bool {
        let soa = self.authority.iter().any(|record| record.contains(" SOA "));
        self.status == "NOERROR" && self.answers.is_empty() && soa
    }

    /// Whether there is no such name, as its authority says.
    pub(crate) fn is_missing(&self) -> bool {
        let soa = self.authority.iter().any(|record| record.contains(" SOA "));
        self.status == "NXDOMAIN" && self.answers.is_empty() && soa
    }
}

/// What the resolver at an address answers to these words of dig(1).
pub(crate) fn ask_at(place: &Place, server: IpAddr, words: &str) -> Reply {
    ask_port(place, SocketAddr::new(server, 53), words)
}

/// The same with the server's port.
pub(crate) fn ask_port(place: &Place, server: SocketAddr, words: &str) -> Reply {
    let (at, port) = (server.ip(), server.port());
    // Of a machine at its limits an answer may be late.
    let line = format!("dig @{at} -p {port} +time=5 +tries=1 +nocookie {words}");
    Reply::parse(place.run(&line).stdout)
}

/// What the resolver inside a sandbox answers to these words of dig(1).
pub(crate) fn ask(place: &Place, words: &str) -> Reply {
    ask_at(place, ip(INSIDE), words)
}

/// The addresses of a name in a family, sorted.
pub(crate) fn found(place: &Place, name: &str, kind: &str) -> Vec<String> {
    let mut data = ask(place, &format!("{name} {kind}")).data();
    data.sort();
    data
}

/// Asserts that a name has exactly these addresses, over UDP and over TCP.
#[track_caller]
pub(crate) fn assert_named(place: &Place, name: &str, addresses: &[IpAddr]) {
    for carrier in ["+notcp", "+tcp"] {
        for (kind, ipv6) in [("A", false), ("AAAA", true)] {
            let of_kind = addresses.iter().filter(|ip| ip.is_ipv6() == ipv6);
            let mut wanted: Vec<String> = of_kind.map(ToString::to_string).collect();
            wanted.sort();
            let reply = ask(place, &format!("{carrier} {name} {kind}"));
            let mut data = reply.data();
            data.sort();
            assert_eq!(data, wanted, "{name} {kind}: {}", reply.text);
            assert_eq!(reply.status, "NOERROR", "{name} {kind}: {}", reply.text);
            assert_eq!(reply.flags, "qr aa rd ra", "{name} {kind}: {}", reply.text);
            assert!(
                !wanted.is_empty() || reply.is_no_data(),
                "{name} {kind}: {}",
                reply.text
            );
        }
    }
}

/// Asserts that there is no such name.
#[track_caller]
pub(crate) fn assert_missing(place: &Place, name: &str) {
    for kind in ["A", "AAAA"] {
        let reply = ask(place, &format!("{name} {kind}"));
        assert!(reply.is_missing(), "{name} {kind}: {}", reply.text);
    }
}

/// Asserts that a name is soon answered so.
#[track_caller]
pub(crate) fn assert_soon(what: &str, holds: impl FnMut() -> bool) {
    assert!(wait_until(PATIENCE, holds), "not in time: {what}");
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A shell inside a running program's namespaces, to its end.
pub(crate) fn tries_inside(stage: &Stage, name: &str, script: &str) -> Outcome {
    stage.node_tombolo(&["exec", name, "sh", "-c", script])
}

/// What a shell inside a running program's namespaces prints.
#[track_caller]
pub(crate) fn inside(stage: &Stage, name: &str, script: &str) -> String {
    stage.ok_words(&["exec", name, "sh", "-c", script])
}

/// A program that does nothing in a sandbox with all its files.
#[track_caller]
pub(crate) fn idle(stage: &Stage, name: &str, words: &str) -> Place {
    stage.ok(&format!("run -d --name {name} {words} sleep 1000"));
    stage.place(name)
}

/// A sandbox's own file, by its last name.
#[track_caller]
pub(crate) fn file(stage: &Stage, sandbox: &str, name: &str) -> String {
    std::fs::read_to_string(file_path(stage, sandbox, name)).unwrap()
}

/// Where a sandbox's own file is, as the test finds it.
#[track_caller]
pub(crate) fn file_path(stage: &Stage, sandbox: &str, name: &str) -> std::path::PathBuf {
    let files = stage.inspect(sandbox).files.unwrap();
    let path = match name {
        "hosts" => files.hosts,
        "hostname" => files.hostname,
        _ => files.resolv_conf,
    };
    stage.path(path)
}

/// A machine whose resolv.conf is this, and its daemon with these flags.
pub(crate) fn with_resolv_conf(text: &str, flags: &[&str]) -> Option<Stage> {
    let mut stage = Stage::bare()?;
    set_resolv_conf(&stage, text);
    stage.shell(&format!("mount --bind {RESOLV_CONF} /etc/resolv.conf"));
    stage.start_with(flags, &[]).unwrap();
    Some(stage)
}

/// Changes the machine's resolv.conf.
pub(crate) fn set_resolv_conf(stage: &Stage, text: &str) {
    std::fs::write(stage.path(RESOLV_CONF), text).unwrap();
}

/// A machine that asks a [`Recorder`] in the outside, with these further lines of resolv.conf.
pub(crate) fn recorded(lines: &str, flags: &[&str]) -> Option<(Stage, Recorder)> {
    let stage = with_resolv_conf(&format!("nameserver {FAR_V4}\n{lines}"), flags)?;
    let recorder = Recorder::start(&stage.far(), ip(FAR_V4));
    Some((stage, recorder))
}

/// A server that knows every name, and which it was asked for.
#[derive(Debug)]
pub(crate) struct Recorder {
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn start(place: &Place, address: IpAddr) -> Self {
        let socket = place.inside(move || UdpSocket::bind(SocketAddr::new(address, 53)));
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (seen, told) = (Arc::clone(&asked), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut room = [0; 4096];
            while !told.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut room) else {
                    continue;
                };
                if let Some((name, answer)) = answer(&room[..size]) {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(name);
                    drop(socket.send_to(&answer, from));
                }
            }
        });
        Self {
            asked,
            ends,
            thread: Some(thread),
        }
    }

    /// The names that it was asked for, in lower case, in their order.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The name that is asked for, and an answer: [`RECORDED`] for type A, else nothing.
fn answer(query: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let is_address = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = query.get(..2)?.to_vec();
    // A response that recursion was there for, with one question.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(RECORDED.octets());
    }
    Some((labels.join("."), answer))
}
