//! What comes through a published port from another host, with and without many others beside it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::hosts::{Host, ports};
use crate::netns::Named;
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};
use crate::{machine, say};

/// Endpoints of the host with many publications, each with ten ports.
const MANY: usize = 1_000;
/// The published port.
const PORT: u16 = 25_000;
/// Connections that are timed together.
const CONNECTIONS: u32 = 1_000;
/// Bytes that are timed together.
const VOLUME: usize = 256 << 20;
/// Bytes that are written at once.
const CHUNK: usize = 128 << 10;
/// How often each is measured.
const TIMES: usize = 25;
/// The host's address towards the outside, and that of the outside.
const CABLE: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// Longest time for a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);
/// At least so many times a host with one publication.
const TARGET: Target = Target::RatioLeast(0.95);

/// A host, the outside, and a published port between them.
struct Scene {
    host: Host,
    outside: Named,
    connections: Samples,
    data: Samples,
}

/// Measures packets.
pub(super) fn run(place: &Path) -> anyhow::Result<Vec<Row>> {
    let mut one = Scene::new(place, "packets-one")?;
    let mut many = Scene::new(place, "packets-many")?;
    many.host.fill(MANY)?;
    let busy = machine::await_quiet(STORM)?;
    say(&format!("publish: packets ({:.0} % busy)", busy * 100.0));
    for turn in 0..=TIMES {
        let mut pair = [&mut one, &mut many];
        pair.rotate_left(turn % 2);
        for scene in pair {
            let connections = scene.connect()?;
            let data = scene.send()?;
            // The first ones find everything cold.
            if turn > 0 {
                scene.connections.push(connections);
                scene.data.push(data);
            }
        }
    }
    Ok(rows(&one, &many))
}

fn rows(one: &Scene, many: &Scene) -> Vec<Row> {
    let rate =
        |scene: &Scene| Amount::Rate(f64::from(CONNECTIONS) * 1e6 / scene.connections.median());
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bits = |scene: &Scene| Amount::Gigabits(VOLUME as f64 * 8.0 / 1e3 / scene.data.median());
    let publications = MANY * usize::from(super::hosts::EACH) + 1;
    let row = |what: &str, here: Amount, beside: Amount| {
        Row::new(
            format!("{what} through a published port beside {publications}"),
            here,
        )
        .beside("only one", beside)
        .target(TARGET)
    };
    vec![
        row("connections", rate(many), rate(one)),
        row("data", bits(many), bits(one)),
    ]
}

impl Scene {
    fn new(place: &Path, name: &str) -> anyhow::Result<Self> {
        let mut host = Host::start(place, name)?;
        let outside = Named::create(place.join(format!("{name}-outside")), &host.home)?;
        host.home.inside(|| {
            ip(&format!(
                "link add up0 type veth peer name up0 netns {}",
                outside.path.display()
            ))?;
            bring_up(CABLE[0])
        })?;
        outside.netns.inside(|| bring_up(CABLE[1]))?;
        host.attach(&ports(PORT, 1))?;
        Ok(Self {
            host,
            outside,
            connections: Samples::default(),
            data: Samples::default(),
        })
    }

    /// How long many connections take, one after the other, each with a byte from the server.
    fn connect(&self) -> anyhow::Result<Duration> {
        let listener = self.listen()?;
        let serve = move || -> anyhow::Result<()> {
            for _ in 0..CONNECTIONS {
                listener.accept()?.0.write_all(b"x")?;
            }
            Ok(())
        };
        let work = || -> anyhow::Result<Duration> {
            let began = Instant::now();
            for _ in 0..CONNECTIONS {
                let mut stream = dial()?;
                stream.read_exact(&mut [0])?;
                // Ends with a reset, so that no port has to wait for its next use.
                let at_once = linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&stream, sockopt::Linger, &at_once)?;
            }
            Ok(began.elapsed())
        };
        self.together(serve, work).map(|(_, took)| took)
    }

    /// How long it takes until so much data has arrived.
    fn send(&self) -> anyhow::Result<Duration> {
        let listener = self.listen()?;
        let serve = move || -> anyhow::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut chunk = vec![0; CHUNK];
            let mut left = VOLUME;
            while left > 0 {
                match stream.read(&mut chunk)? {
                    0 => bail!("{left} bytes did not arrive"),
                    count => left -= count.min(left),
                }
            }
            stream.write_all(b"x")?;
            Ok(())
        };
        let work = || -> anyhow::Result<Duration> {
            let mut stream = dial()?;
            let chunk = vec![0; CHUNK];
            let began = Instant::now();
            for _ in 0..VOLUME / CHUNK {
                stream.write_all(&chunk)?;
            }
            stream.read_exact(&mut [0])?;
            Ok(began.elapsed())
        };
        self.together(serve, work).map(|(_, took)| took)
    }

    /// A server in the sandbox while a client on the outside works.
    fn together<S: Send, T: Send>(
        &self,
        serve: impl FnOnce() -> anyhow::Result<S> + Send,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<(S, T)> {
        std::thread::scope(|scope| {
            let server = scope.spawn(serve);
            let result = self.outside.netns.inside(work)?;
            let served = server.join().ok().context("the server panicked")?;
            Ok((served?, result))
        })
    }

    fn listen(&self) -> anyhow::Result<TcpListener> {
        let server = self.host.newest()?;
        let ip = server.addresses.iter().find(|ip| ip.is_ipv4());
        let ip = *ip.context("the server has no IPv4 address")?;
        let inside = super::hosts::FIRST_INSIDE;
        let bind = move || Ok(TcpListener::bind((ip, inside))?);
        let listener = server.place.netns.inside(bind)?;
        // Also holds for accept(2), which must not wait for a client that has failed.
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&listener, sockopt::ReceiveTimeout, &patience)?;
        Ok(listener)
    }
}

fn dial() -> anyhow::Result<TcpStream> {
    let ip: Ipv4Addr = CABLE[0].parse()?;
    let target = SocketAddr::new(IpAddr::V4(ip), PORT);
    let stream = TcpStream::connect_timeout(&target, PATIENCE);
    let stream = stream.with_context(|| format!("port {PORT} does not answer"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn bring_up(address: &str) -> anyhow::Result<()> {
    ip(&format!("address add {address}/24 dev up0"))?;
    ip("link set up0 up")
}

fn ip(words: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.context("no ip(8): install Debian's iproute2")?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
