//! Published ports while the daemon, or the keeper of its sockets, is away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tombolo_api::{PublicationSpec, SandboxCreate, SandboxFilter};
use tombolo_lab::node::{self, wait_until};
use tombolo_tests::{Place, Stage};

use crate::ports::{
    assert_published, assert_taken, converse, every_form, listen, taken, tcp, tcp_seen, udp,
    udp_seen, within,
};
use crate::scene::{PATIENCE, on, restart, scene, start};

/// A scene with the sandbox `s`, which publishes these.
pub(crate) fn publishing(publish: Vec<PublicationSpec>) -> Option<Stage> {
    let stage = scene()?;
    let create = SandboxCreate {
        name: Some("s".to_owned()),
        networks: on(&["one"]),
        publish,
        ..SandboxCreate::default()
    };
    stage.client().sandbox_create(create).unwrap();
    Some(stage)
}

/// An open connection from beyond the router to a port of the node that leads to another inside `s`.
pub(crate) fn connection(stage: &Stage, to: SocketAddr, port: u16) -> (TcpStream, TcpStream) {
    let server = stage.place("s").inside(|| listen(port)).unwrap();
    let mut client = None;
    wait_until(PATIENCE, || {
        client = stage
            .far()
            .inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)))
            .ok();
        client.is_some()
    });
    let (served, _) = within(PATIENCE, || server.accept()).expect("a connection");
    served.set_nonblocking(false).unwrap();
    (client.expect("a connection"), served)
}

/// The process id of the keeper; none when there is none.
pub(crate) fn keeper(stage: &Stage) -> Option<u32> {
    let script = "pid=$(cat /run/tombolo/keeper.pid 2>/dev/null) && [ -n \"$pid\" ] && [ -d /proc/$pid ] \
         && ! grep -q '^State:.Z' /proc/$pid/status && echo $pid || true";
    stage.shell(script).parse().ok()
}

/// Somebody who tries again and again to have ports for itself.
struct Siege {
    over: Arc<AtomicBool>,
    /// How often it tried, and how often it had its way.
    worker: Option<JoinHandle<(usize, usize)>>,
}

impl Siege {
    fn of(stage: &Stage, ports: &'static [u16]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (here, is_over) = (stage.here(), Arc::clone(&over));
        let worker = std::thread::spawn(move || {
            here.inside(|| {
                let (mut tries, mut won) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    won += ports.iter().filter(|port| could_have(**port)).count();
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                (tries, won)
            })
        });
        Self {
            over,
            worker: Some(worker),
        }
    }

    /// Ends it, and asserts that it never had its way.
    #[track_caller]
    fn assert_in_vain(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let (tries, won) = self.worker.take().unwrap().join().unwrap();
        assert!(tries > 20, "only {tries} tries");
        assert_eq!(won, 0, "a published port was free, in {tries} tries");
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Whether a program in the namespace of this thread can have a port at any address by TCP or UDP.
fn could_have(port: u16) -> bool {
    let addresses: [IpAddr; 4] = [
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.into(),
        node::NODE_V6.parse().unwrap(),
    ];
    addresses
        .into_iter()
        .any(|ip| TcpListener::bind((ip, port)).is_ok() || UdpSocket::bind((ip, port)).is_ok())
}

/// Asserts that a port of the node leads to another inside `s` from outside, by TCP and UDP over both families.
#[track_caller]
fn assert_answers(stage: &Stage, port: u16, inside: (&Place, u16)) {
    let (far, here) = (stage.far(), stage.here());
    for ip in [here.v4(), here.v6()] {
        let to = SocketAddr::new(ip, port);
        let (place, served) = inside;
        let own = Some(ip.is_ipv4());
        let by_tcp = tcp_seen(&far, to, place, served).map(|ip| ip.is_ipv4());
        let by_udp = udp_seen(&far, to, place, served).map(|ip| ip.is_ipv4());
        assert_eq!((by_tcp, by_udp), (own, own), "at {to}");
    }
}

/// The same port by TCP and UDP, and ranges with a socket for each port.
fn both_protocols() -> Vec<PublicationSpec> {
    let forms = [("8080", "80"), ("8090-8099", "8090-8099")];
    let both = forms.map(|(host, container)| [tcp(host, container), udp(host, container)]);
    both.into_iter().flatten().collect()
}

#[test]
fn nobody_notices_that_the_daemon_was_killed() {
    let Some(mut stage) = publishing(both_protocols()) else {
        return;
    };
    let (here, inside) = (stage.here(), stage.place("s"));
    let (mut client, mut served) = connection(&stage, SocketAddr::new(here.v4(), 8080), 80);
    assert_answers(&stage, 8080, (&inside, 80));
    let kept = taken(&stage);
    let siege = Siege::of(&stage, &[8080, 8093]);
    for _ in 0..3 {
        stage.kill().unwrap();
        assert!(converse(&mut client, &mut served), "the connection is dead");
        assert_answers(&stage, 8080, (&inside, 80));
        start(&mut stage, &[]);
    }
    assert!(converse(&mut client, &mut served), "the connection is dead");
    siege.assert_in_vain();
    assert_taken(&stage, &kept, "after the restart");
    let own = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 8080);
    let relayed = wait_until(PATIENCE, || tcp_seen(&here, own, &inside, 80).is_some());
    assert!(relayed, "the relay does not work after a restart");
    assert_published(&stage, "s");
    stage.assert_in_place();
}

#[test]
fn what_is_relayed_waits_for_the_daemon_and_then_goes_on() {
    let Some(mut stage) = publishing(every_form()) else {
        return;
    };
    let (here, inside, kept) = (stage.here(), stage.place("s"), taken(&stage));
    let own = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 8080);
    let listening = SocketAddr::new(here.v4(), 8084);
    for _ in 0..2 {
        for (to, port) in [(own, 80), (listening, 84)] {
            let relayed = wait_until(PATIENCE, || tcp_seen(&here, to, &inside, port).is_some());
            assert!(relayed, "nothing is relayed from {to}");
        }
        stage.kill().unwrap();
        assert_eq!(taken(&stage), kept, "while the daemon is away");
        // The kernel takes the connection into the queue of the socket that is kept.
        let early = stage
            .far()
            .inside(|| TcpStream::connect(listening))
            .unwrap();
        let server = inside.inside(|| listen(84)).unwrap();
        start(&mut stage, &[]);
        let (mut served, _) = within(PATIENCE, || server.accept()).expect("the early connection");
        served.set_nonblocking(false).unwrap();
        let mut early = early;
        assert!(converse(&mut early, &mut served));
    }
    assert_published(&stage, "s");
    stage.assert_in_place();
}

#[test]
fn a_killed_keeper_is_followed_by_another_that_holds_the_same() {
    is_followed(both_protocols());
}

#[test]
fn a_killed_keeper_is_followed_by_another_that_holds_what_is_relayed() {
    is_followed(every_form());
}

/// Kills the keeper of a sandbox that publishes these, with the daemon and without it.
fn is_followed(publish: Vec<PublicationSpec>) {
    let Some(mut stage) = publishing(publish) else {
        return;
    };
    let kept = taken(&stage);
    for daemon_was_away in [false, true] {
        let first = keeper(&stage).expect("ports are held by a keeper");
        if daemon_was_away {
            stage.kill().unwrap();
        }
        stage.shell(&format!("kill -9 {first}"));
        if daemon_was_away {
            start(&mut stage, &[]);
        }
        let followed = wait_until(PATIENCE, || keeper(&stage).is_some_and(|pid| pid != first));
        assert!(followed, "no other keeper, daemon away: {daemon_was_away}");
        assert_taken(&stage, &kept, "after the keeper's death");
        assert_published(&stage, "s");
        stage.assert_in_place();
        // What the new one holds outlives the daemon as well.
        restart(&mut stage);
        assert_taken(&stage, &kept, "after a restart");
    }
}

#[test]
fn the_keeper_ends_with_the_daemon_when_nothing_is_published_or_asked() {
    let Some(mut stage) = publishing(both_protocols()) else {
        return;
    };
    stage.stop().unwrap();
    assert!(keeper(&stage).is_some(), "ports are held by nobody");
    start(&mut stage, &[]);
    stage.client().sandbox_delete("s", false).unwrap();
    let free = wait_until(PATIENCE, || stage.here().inside(|| could_have(8080)));
    assert!(free, "port 8080 is still held");
    // The sockets at which sandboxes ask for names are kept, too.
    for sandbox in stage
        .client()
        .sandbox_list(SandboxFilter::default())
        .unwrap()
    {
        stage.client().sandbox_delete(&sandbox.name, false).unwrap();
    }
    stage.stop().unwrap();
    let ended = wait_until(PATIENCE, || keeper(&stage).is_none());
    assert!(ended, "a keeper of nothing is left: {:?}", keeper(&stage));
    let left =
        stage.shell("ls /run/tombolo/keeper.sock /run/tombolo/keeper.new 2>/dev/null || true");
    assert_eq!(left, "");
}
