//! What is held while the daemon is away.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use super::super::connection::{Connection, Entry};
use super::super::keeper;
use super::*;

/// A directory with a keeper, whose end it waits for, or brings about.
pub(crate) struct Fixture(tempfile::TempDir);

impl Fixture {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Ports {
        Ports::open(self.config())
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn config(&self) -> PortsConfig {
        PortsConfig {
            directory: self.0.path().to_owned(),
            keeper: Some(self.command()),
        }
    }

    fn command(&self) -> KeeperCommand {
        KeeperCommand {
            program: std::env::current_exe().unwrap(),
            arguments: vec![
                "ports::tests::away::serves_as_keeper".into(),
                "--exact".into(),
                self.0.path().into(),
            ],
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.0.path().join("keeper.pid")).ok()?;
        text.trim().parse().ok()
    }

    pub(crate) fn kill(&self) -> u32 {
        let pid = self.pid().unwrap();
        assert!(send_kill(pid));
        pid
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.pid().is_none() && !self.0.path().join(keeper::SOCKET).exists()
    }
}

impl Drop for Fixture {
    /// A keeper without anything to hold ends by itself, perhaps this very moment: that it is gone already is no failure.
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            send_kill(pid);
        }
    }
}

/// Whether there was such a process.
fn send_kill(pid: u32) -> bool {
    let output = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .output();
    output.unwrap().status.success()
}

/// With a directory as its last argument, this program is the keeper of it; else that there is none is an error.
#[test]
fn serves_as_keeper() {
    let last = std::env::args().next_back().unwrap_or_default();
    if Path::new(&last).is_dir() {
        keep_sockets(Path::new(&last)).unwrap();
    } else {
        assert!(keep_sockets(Path::new("/nonexistent")).is_err());
    }
}

#[test]
fn what_is_held_outlives_its_owner_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let wishes = [
            (key(Protocol::Tcp, HostAddress::Any, 80, 80), PortSpec::Held),
            (
                key(Protocol::Tcp, HostAddress::AnyV4, 90, 390),
                PortSpec::Held,
            ),
            (
                key(Protocol::Tcp, HostAddress::AnyV6, 443, 443),
                PortSpec::Relayed,
            ),
            (
                key(Protocol::Udp, one("127.0.0.1"), 53, 54),
                PortSpec::Relayed,
            ),
            (
                key(Protocol::Udp, HostAddress::Any, 1000, 60_000),
                PortSpec::Checked,
            ),
            (key(Protocol::Sctp, one("::1"), 80, 81), PortSpec::Held),
        ];
        let borrowed: Vec<_> = wishes.iter().map(|(key, spec)| (key, *spec)).collect();
        let ports = fixture.open();
        for result in ports.reserve_all(&borrowed) {
            result.unwrap();
        }
        let relay = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay_port = relay.local_addr().unwrap().port();
        ports.keep("relay", relay.as_fd()).unwrap();
        drop((ports, relay));
        for port in [90, 240, 390] {
            assert_refused(Protocol::Tcp, HostAddress::AnyV4, port);
        }
        assert_refused(Protocol::Udp, one("127.0.0.1"), 54);

        let ports = fixture.open();
        let mut held: Vec<_> = wishes.to_vec();
        held.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(ports.held(), held);
        let mut caller = TcpStream::connect("[::1]:443").unwrap();
        let listener = TcpListener::from(ports.listener(&wishes[2].0, 443).unwrap());
        drop(listener.accept().unwrap());
        assert_eq!(caller.read(&mut [0]).unwrap(), 0);
        let relay = TcpListener::from(ports.kept("relay").unwrap());
        assert_eq!(relay.local_addr().unwrap().port(), relay_port);
        assert!(ports.kept("other").is_none());
        // The same again changes nothing; what is given back is free at once.
        for result in ports.reserve_all(&borrowed) {
            result.unwrap();
        }
        ports.release(&[&wishes[0].0, &wishes[1].0]);
        drop(bind(Protocol::Tcp, ip("::"), 80, &[], false).unwrap());
        drop(bind(Protocol::Tcp, ip("0.0.0.0"), 390, &[], false).unwrap());
        assert_eq!(ports.held().len(), 4);
    });
}

#[test]
fn the_keeper_ends_with_nothing_to_keep_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let ports = fixture.open();
        let web = key(Protocol::Tcp, HostAddress::Any, 80, 80);
        reserve(&ports, &web, PortSpec::Held).unwrap();
        let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
        ports.keep("relay", relay.as_fd()).unwrap();
        let pid = fixture.pid().unwrap();
        drop(ports);
        let ports = fixture.open();
        assert_eq!(fixture.pid(), Some(pid));
        ports.release(&[&web]);
        drop(ports);
        eventually("the keeper ends", || fixture.has_ended());
    });
}

#[test]
fn the_keeper_does_not_wait_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    let path = directory.path().to_owned();
    let keeper = thread::spawn(move || {
        sender
            .send(keeper::serve(&path, Duration::from_millis(300)))
            .unwrap();
    });
    let nobody = KeeperCommand {
        program: "/nonexistent".into(),
        arguments: Vec::new(),
    };
    eventually("it listens", || {
        directory.path().join(keeper::SOCKET).exists()
    });
    let connection = Connection::open(directory.path(), &nobody, &mut None).unwrap();
    let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let entry = Entry {
        name: b"p".to_vec(),
        tag: 1,
        socket: Some(socket),
    };
    connection.put(&[entry]).unwrap();
    // While somebody is connected it waits longer than that.
    assert!(ended.recv_timeout(Duration::from_millis(900)).is_err());
    drop(connection);
    ended.recv_timeout(PATIENCE).unwrap().unwrap();
    keeper.join().unwrap();
    assert_eq!(fs::read(directory.path().join("keeper.pid")).unwrap(), b"");
}

#[test]
fn a_keeper_that_cannot_be_found_lets_go_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let ports = fixture.open();
        let web = key(Protocol::Tcp, HostAddress::Any, 80, 80);
        reserve(&ports, &web, PortSpec::Held).unwrap();
        drop(ports);
        fs::remove_file(fixture.0.path().join(keeper::SOCKET)).unwrap();
        eventually("it lets go", || TcpListener::bind("[::]:80").is_ok());
    });
}

#[test]
fn a_keeper_that_dies_is_replaced_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let ports = fixture.open();
        let web = key(Protocol::Tcp, HostAddress::Any, 80, 99);
        let lost = key(Protocol::Udp, HostAddress::Any, 53, 53);
        reserve(&ports, &web, PortSpec::Relayed).unwrap();
        reserve(&ports, &lost, PortSpec::Held).unwrap();
        let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
        ports.keep("relay", relay.as_fd()).unwrap();
        for _ in 0..2 {
            let pid = fixture.kill();
            eventually("another serves", || {
                fixture.pid().is_some_and(|other| other != pid)
                    && bind(Protocol::Tcp, ip("::"), 99, &[libc::SO_REUSEADDR], false).is_err()
            });
            assert_eq!(ports.held().len(), 2);
            assert_refused(Protocol::Tcp, HostAddress::Any, 80);
            assert!(ports.listener(&web, 80).is_some());
        }
        // Also what the daemon keeps is with the new one.
        drop((ports, relay));
        let ports = fixture.open();
        assert!(ports.kept("relay").is_some());
        // What somebody else snatches meanwhile is missing from then on.
        ports.release(&[&lost]);
        drop(ports);
        fixture.kill();
        eventually("it is dead", || TcpListener::bind("[::]:80").is_ok());
        let ports = fixture.open();
        assert_eq!(ports.held(), []);
    });
}

#[test]
fn half_a_reservation_is_none_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let ports = fixture.open();
        let key = key(Protocol::Tcp, HostAddress::Any, 80, 81);
        reserve(&ports, &key, PortSpec::Held).unwrap();
        let whole = super::key(Protocol::Tcp, HostAddress::Any, 82, 82);
        reserve(&ports, &whole, PortSpec::Held).unwrap();
        drop(ports);
        let mut connection =
            Connection::open(fixture.0.path(), &fixture.command(), &mut None).unwrap();
        let half = name::of_reservation(&key, 81);
        connection.remove(&[half]).unwrap();
        drop(connection);
        let ports = fixture.open();
        assert_eq!(ports.held(), [(whole, PortSpec::Held)]);
        drop(bind(Protocol::Tcp, ip("::"), 80, &[], false).unwrap());
    });
}

#[test]
fn answers_that_nobody_waits_for_are_in_nobodys_way_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let mut connection =
            Connection::open(fixture.0.path(), &fixture.command(), &mut None).unwrap();
        let names: Vec<Vec<u8>> = (0..=255).map(|number| vec![b'k', number]).collect();
        let entry = |name: &Vec<u8>| Entry {
            name: name.clone(),
            tag: 0,
            socket: None,
        };
        connection
            .put(&names.iter().map(entry).collect::<Vec<_>>())
            .unwrap();
        for round in 0..20 {
            for name in &names[..255] {
                connection.remove_soon(std::slice::from_ref(name)).unwrap();
            }
            if round % 5 == 4 {
                let left = connection.list().unwrap();
                assert_eq!(
                    left.iter().map(|item| &item.name).collect::<Vec<_>>(),
                    [&names[255]]
                );
            }
        }
        connection.hang_up();
        eventually("the keeper ends", || fixture.has_ended());
    });
}

#[test]
fn what_is_said_last_is_done_although_the_answers_are_not_read_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        for round in 0..20 {
            let mut connection =
                Connection::open(fixture.0.path(), &fixture.command(), &mut None).unwrap();
            let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
            let entry = Entry {
                name: b"p".to_vec(),
                tag: 1,
                socket: Some(socket),
            };
            connection.put(&[entry]).unwrap();
            for number in 0..50 {
                let other = vec![b'k', number];
                connection
                    .remove_soon(std::slice::from_ref(&other))
                    .unwrap();
            }
            connection.remove_soon(&[b"p".to_vec()]).unwrap();
            drop(connection);
            let ended = format!("the keeper ends in round {round}");
            eventually(&ended, || fixture.has_ended());
        }
    });
}

#[test]
fn two_owners_do_not_share_a_keeper_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let first = fixture.open();
        let web = key(Protocol::Tcp, HostAddress::Any, 80, 80);
        reserve(&first, &web, PortSpec::Held).unwrap();
        let second = fixture.open();
        assert_eq!(second.held(), []);
        let refused = reserve(&second, &web, PortSpec::Held).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("taken by tombolo-keeper (pid "),
            "{refused}"
        );
        assert_eq!(first.held(), [(web, PortSpec::Held)]);
    });
}

#[test]
fn ten_thousand_ports_are_held_netns() {
    in_netns(|| {
        let fixture = Fixture::new();
        let ports = fixture.open();
        let keys = |first: u16, count: u16| -> Vec<PortKey> {
            (first..first + count)
                .map(|port| {
                    let protocol = if port % 2 == 0 {
                        Protocol::Tcp
                    } else {
                        Protocol::Udp
                    };
                    key(protocol, HostAddress::Any, port, port)
                })
                .collect()
        };
        for (first, count) in [(1000, 1), (2000, 100), (10_000, 10_000), (2500, 100)] {
            let keys = keys(first, count);
            let wishes: Vec<_> = keys.iter().map(|key| (key, PortSpec::Held)).collect();
            let begin = Instant::now();
            assert!(ports.reserve_all(&wishes).iter().all(Result::is_ok));
            println!(
                "{count} ports: {:?} each",
                begin.elapsed() / u32::from(count)
            );
        }
        assert_eq!(ports.held().len(), 10_201);
        drop(ports);
        let begin = Instant::now();
        let ports = fixture.open();
        println!("found again: {:?}", begin.elapsed());
        let held = ports.held();
        assert_eq!(held.len(), 10_201);
        for port in [10_000, 15_001, 19_999] {
            let protocol = if port % 2 == 0 {
                Protocol::Tcp
            } else {
                Protocol::Udp
            };
            assert_refused(protocol, HostAddress::Any, port);
        }
        let begin = Instant::now();
        let keys: Vec<_> = held.iter().map(|(key, _)| key).collect();
        ports.release(&keys);
        println!("given back: {:?}", begin.elapsed());
        drop(bind(Protocol::Udp, ip("::"), 19_999, &[], false).unwrap());
    });
}
