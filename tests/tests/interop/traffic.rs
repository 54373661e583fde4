//! Servers that say who they saw, and connections to published ports.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tombolo_lab::node::{NODE_V4, NODE_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

/// How long one try for a connection waits.
const TRY: Duration = Duration::from_millis(300);
/// How long a port that must not answer is tried.
const SILENCE: Duration = Duration::from_millis(1_200);
/// What "within a second" leaves for the try that finds it so.
pub(crate) const SECOND: Duration = Duration::from_millis(1_000);
/// How often a server looks whether it is to end.
const POLL: Duration = Duration::from_millis(2);

/// A TCP server at every address of a place. It tells each client the address that it sees, and then sends
/// back what it is sent.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one.
    pub(crate) fn start(place: &Place, port: u16) -> Self {
        let bind = move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = place.inside(bind).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let worker = thread::spawn(move || {
            let mut clients = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => clients.push(thread::spawn(move || serve(stream, peer))),
                    Err(_) => thread::sleep(POLL),
                }
            }
        });
        Self {
            stop,
            worker: Some(worker),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.worker.take().map(JoinHandle::join));
    }
}

fn serve(mut stream: TcpStream, peer: SocketAddr) {
    let told = format!("{}\n", peer.ip().to_canonical());
    let started = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(told.as_bytes()));
    let mut bytes = [0; 64];
    // The client ends it, by hanging up or by silence.
    while let (Ok(()), Ok(count @ 1..)) = (&started, stream.read(&mut bytes)) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// A connection to a [`Server`], and who that sees.
pub(crate) fn connect(from: &Place, to: SocketAddr) -> Option<(TcpStream, IpAddr)> {
    let stream = from.inside(move || TcpStream::connect_timeout(&to, TRY));
    let mut stream = stream.ok()?;
    stream.set_read_timeout(Some(TRY)).ok()?;
    stream.set_write_timeout(Some(TRY)).ok()?;
    let mut text = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|count| count == 1) && byte != *b"\n" {
        text.push(char::from(byte[0]));
    }
    Some((stream, text.parse().ok()?))
}

/// Whether a connection still takes bytes there and back, given some time.
pub(crate) fn is_alive(stream: &mut TcpStream) -> bool {
    let sent = stream.write_all(b"ping").is_ok();
    let end = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut byte = [0];
    while sent && bytes.len() < 4 && Instant::now() < end {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return false,
        }
    }
    bytes == b"ping"
}

/// The node's addresses with a port.
pub(crate) fn node(port: u16) -> [SocketAddr; 2] {
    [NODE_V4, NODE_V6].map(|ip| SocketAddr::new(ip.parse().unwrap(), port))
}

/// Asserts that a published port answers from a place, given a little time; who the servers saw.
#[track_caller]
pub(crate) fn assert_answers(from: &Place, to: &[SocketAddr]) -> Vec<IpAddr> {
    to.iter()
        .map(|target| {
            let mut seen = None;
            wait_until(PATIENCE, || {
                seen = connect(from, *target).map(|(_, seen)| seen);
                seen.is_some()
            });
            seen.unwrap_or_else(|| panic!("{target} does not answer"))
        })
        .collect()
}

/// Asserts that a port stays silent from a place.
#[track_caller]
pub(crate) fn assert_silent(from: &Place, to: &[SocketAddr]) {
    for target in to {
        let end = Instant::now() + SILENCE;
        while Instant::now() < end {
            assert!(connect(from, *target).is_none(), "{target} answers");
            thread::sleep(POLL);
        }
    }
}

/// Asserts that a port comes to answer from a place unasked, although it may not at once.
#[track_caller]
pub(crate) fn assert_answers_soon(from: &Place, to: &[SocketAddr]) {
    for target in to {
        let answers = || connect(from, *target).is_some();
        assert!(
            wait_until(PATIENCE, answers),
            "{target} does not answer any more"
        );
    }
}

/// A dual-stack network `front` and a program `web` on it, with these further words of `run`.
#[track_caller]
pub(crate) fn publish(stage: &Stage, words: &str) -> Place {
    stage.ok("network create front --ipv6");
    stage.ok(&format!(
        "run -d --name web --network front {words} sleep 100000"
    ));
    stage.place("web")
}

/// The bridge of that network.
#[track_caller]
pub(crate) fn bridge(stage: &Stage) -> String {
    stage.network("front").device.unwrap()
}

/// Adds to published ports that the host's own firewall has no say.
pub(crate) const FREE: &str = ",obey-host-firewall=false";
/// Adds to published ports that the host's own firewall decides.
pub(crate) const OBEYING: &str = ",obey-host-firewall=true";
