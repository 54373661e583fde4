//! What becomes of listeners while the daemon is away, or the keeper.

use super::*;

fn held(kernel: &Kernel) -> Vec<ListenerKey> {
    kernel.listeners.held(&kernel.namespaces, kernel.ports())
}

/// Asks and calls from within a namespace, without waiting for an answer.
fn wait_in(file: Option<&std::fs::File>, key: &ListenerKey) -> (UdpSocket, TcpStream) {
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            if let Some(file) = file {
                sys::enter_netns(file.as_fd()).unwrap();
            }
            let to = SocketAddr::new(key.address, key.port);
            let socket = UdpSocket::bind(SocketAddr::new(key.address, 0)).unwrap();
            socket.send_to(b"still there?", to).unwrap();
            let patience = Some(Duration::from_secs(10));
            socket.set_read_timeout(patience).unwrap();
            (socket, TcpStream::connect(to).unwrap())
        });
        asked.join()
    });
    asked.unwrap()
}

/// The listeners that are open, as a subscriber is told.
fn all_opened(kernel: &Kernel) -> BTreeMap<ListenerKey, Listener> {
    let opened = changes(kernel);
    let pair = |change| match change {
        ListenerChange::Opened { key, udp, tcp } => (key, Listener { udp, tcp }),
        closed @ ListenerChange::Closed { .. } => panic!("{closed:?}"),
    };
    opened.try_iter().map(pair).collect()
}

/// A namespace of somebody else, under a name in the fixture's directory.
fn foreign(fixture: &Fixture, name: &str) -> Netns {
    let file = fixture.directory().join(name);
    std::fs::write(&file, "").unwrap();
    let netns = format!("--net={}", file.display());
    run("unshare", &[&netns, "ip", "link", "set", "lo", "up"]);
    Netns::Adopted {
        inode: crate::netns_inode(&file).unwrap(),
        path: file.into(),
    }
}

#[test]
fn questions_wait_for_the_next_daemon_netns() {
    on_host(|fixture| {
        let mut kernel = open(fixture);
        let foreign = foreign(fixture, "foreign");
        let keys = [
            key(&owned("sb1"), RESOLVER),
            key(&owned("sb1"), "::1"),
            key(&foreign, RESOLVER),
            key(&Netns::Host, "127.0.0.1"),
        ];
        let mut wanted = Objects::new();
        keys.iter().for_each(|key| put(&mut wanted, key));
        must_apply(&kernel, &wanted, &Objects::new());
        let pid = fixture.pid();
        for round in 0..2 {
            let files = keys
                .each_ref()
                .map(|key| kernel.namespaces.file(&key.netns).unwrap());
            drop(kernel);
            let waiting: Vec<_> = keys
                .iter()
                .zip(&files)
                .map(|(key, file)| (key, wait_in(file.as_ref(), key)))
                .collect();
            kernel = open(fixture);
            assert_eq!(fixture.pid(), pid, "round {round}");
            assert_eq!(observe(&kernel), wanted);
            let changes = all_opened(&kernel);
            for (key, (asker, mut caller)) in waiting {
                let sockets = &changes[key];
                assert_answered(sockets, &asker, "still there?");
                drop(sockets.tcp.accept().unwrap());
                assert_eq!(caller.read(&mut [0]).unwrap(), 0);
                assert_answers(&kernel, key, sockets);
            }
            // What is wanted and there already is no work.
            assert!(plan(&wanted, &observe(&kernel)).is_empty());
        }
        must_apply(&kernel, &Objects::new(), &wanted);
        drop(kernel);
        eventually("the keeper ends", || fixture.has_ended());
    });
}

#[test]
fn what_lost_its_namespace_meanwhile_is_closed_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let (gone, other) = (
            key(&owned("gone"), RESOLVER),
            key(&owned("other"), RESOLVER),
        );
        let mut wanted = Objects::new();
        put(&mut wanted, &gone);
        put(&mut wanted, &other);
        must_apply(&kernel, &wanted, &Objects::new());
        kernel.namespaces.delete("gone").unwrap();
        drop(kernel);
        let directory = fixture.directory().join("netns");
        let namespaces = Namespaces::open(directory, 0).unwrap();
        namespaces.delete("other").unwrap();
        namespaces.create("other").unwrap();
        let kernel = open(fixture);
        assert_eq!(held(&kernel), []);
        must_apply(&kernel, &wanted, &observe(&kernel));
        for (key, sockets) in all_opened(&kernel) {
            assert_answers(&kernel, &key, &sockets);
        }
        assert_eq!(observe(&kernel), wanted);
    });
}

#[test]
fn another_keeper_has_them_again_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let keys = [key(&owned("sb1"), RESOLVER), key(&Netns::Host, "127.0.0.1")];
        let mut wanted = Objects::new();
        keys.iter().for_each(|key| put(&mut wanted, key));
        must_apply(&kernel, &wanted, &Objects::new());
        let changes = changes(&kernel);
        let waiting = ask(&kernel, &keys[0], "who?");
        for _ in 0..2 {
            let pid = fixture.kill();
            eventually("another serves", || {
                fixture.pid().is_some_and(|other| other != pid) && {
                    let path = format!("/proc/{}/fd", fixture.pid().unwrap_or_default());
                    // Standard streams, lock, listening socket, caller, and four of ours.
                    std::fs::read_dir(path).is_ok_and(|files| files.count() >= 10)
                }
            });
            assert_eq!(observe(&kernel), wanted);
        }
        drop((kernel, changes));
        let kernel = open(fixture);
        assert_eq!(observe(&kernel), wanted);
        assert_answered(&all_opened(&kernel)[&keys[0]], &waiting, "who?");
    });
}

#[test]
fn without_a_keeper_they_end_with_the_daemon_netns() {
    on_host(|fixture| {
        let config = KernelConfig {
            run_dir: fixture.directory().to_owned(),
            instance: "test".into(),
            pool: 0,
            ports: None,
        };
        let kernel = Kernel::open(config.clone()).unwrap();
        let key = key(&owned("sb1"), RESOLVER);
        let mut wanted = Objects::new();
        put(&mut wanted, &key);
        must_apply(&kernel, &wanted, &Objects::new());
        let changes = changes(&kernel);
        assert_answers(&kernel, &key, &next_opened(&changes, &key));
        drop((kernel, changes));
        let kernel = Kernel::open(config).unwrap();
        assert_eq!(held(&kernel), []);
        must_apply(&kernel, &wanted, &observe(&kernel));
    });
}

#[test]
fn one_whose_name_is_too_long_is_not_kept_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let foreign = foreign(fixture, &"x".repeat(250));
        let keys = [key(&foreign, RESOLVER), key(&Netns::Host, RESOLVER)];
        let mut wanted = Objects::new();
        keys.iter().for_each(|key| put(&mut wanted, key));
        must_apply(&kernel, &wanted, &Objects::new());
        assert_eq!(held(&kernel).len(), 2);
        drop(kernel);
        let kernel = open(fixture);
        assert_eq!(held(&kernel), [keys[1].clone()]);
        must_apply(&kernel, &wanted, &observe(&kernel));
        must_apply(&kernel, &Objects::new(), &wanted);
    });
}
