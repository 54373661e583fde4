//! Stopping and starting: the data plane goes on without the daemon, and a start finds nothing to do.

use tombolo_tests::Stage;

/// Numbers of operations in the plans that the daemon carried out, as its log at level `debug` tells them.
fn plans(log: &str) -> Vec<usize> {
    let applied = log.lines().filter(|line| line.contains("applied a plan"));
    let count = |line: &str| {
        line.split("operations=")
            .nth(1)?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    applied
        .map(|line| count(line).expect("a number of operations"))
        .collect()
}

const FLAGS: &[&str] = &["--log-level", "debug"];

/// A node on which two sandboxes share two networks.
fn furnished() -> Option<Stage> {
    let stage = Stage::start_with(FLAGS)?;
    stage.ok("network create one --ipv6");
    stage.ok("network create two --internal");
    stage.ok("sandbox create --name a --network one --network two");
    stage.ok("sandbox create --name b --network one");
    stage.ok("endpoint create --name spare one");
    Some(stage)
}

#[test]
fn the_data_plane_outlives_the_daemon_and_a_start_writes_nothing() {
    let Some(mut stage) = furnished() else { return };
    let (a, b, far) = (stage.place("a"), stage.place("b"), stage.far());
    let before = stage.traces().unwrap();
    assert!(
        plans(&stage.log()).iter().sum::<usize>() > 30,
        "the log tells of no plans"
    );
    for kill in [false, true] {
        if kill { stage.kill() } else { stage.stop() }.unwrap();
        assert_eq!(stage.traces().unwrap(), before);
        assert!(
            a.pings(b.v4()) && a.pings(b.v6()),
            "no echo without a daemon"
        );
        assert!(b.pings(far.v4()), "no outside without a daemon");
        let told = stage.log().len();
        stage.start_with(FLAGS, &[]).unwrap();
        stage.assert_in_place();
        let log = stage.log();
        assert_eq!(
            plans(&log[told..]).iter().sum::<usize>(),
            0,
            "killed: {kill}\n{}",
            &log[told..]
        );
        assert_eq!(stage.traces().unwrap(), before);
        assert_eq!(stage.place("a").addresses, a.addresses);
    }
}

#[test]
fn a_ping_goes_on_while_the_daemon_is_killed_and_started() {
    let Some(mut stage) = furnished() else { return };
    let (a, b) = (stage.place("a"), stage.place("b"));
    let to = b.v4();
    let pinger = std::thread::spawn(move || a.run(&format!("ping -n -q -i 0.02 -c 100 -W 1 {to}")));
    while !pinger.is_finished() {
        stage.kill().unwrap();
        stage.start_with(FLAGS, &[]).unwrap();
    }
    let told = pinger.join().unwrap();
    assert!(told.stdout.contains(" 0% packet loss"), "{told:?}");
}

#[test]
fn a_command_starts_a_daemon_where_there_is_none() {
    let Some(stage) = Stage::bare() else { return };
    let ask = || {
        stage
            .tombolo_command()
            .args(["network", "ls", "--quiet"])
            .output()
            .unwrap()
    };
    let first = ask();
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(
        first.status.success() && said.contains("starting one"),
        "{said}"
    );
    assert!(stage.path("/run/tombolo/daemon.log").exists());
    let second = ask();
    assert!(second.status.success());
    assert_eq!(String::from_utf8_lossy(&second.stderr), "");
    assert_eq!(first.stdout, second.stdout);
    stage.client().network_inspect("bridge").unwrap();
    let refused = stage
        .tombolo(&["--run-dir", "/run/other", "network", "ls"])
        .unwrap();
    assert_eq!(
        refused.code,
        Some(4),
        "another directory's daemon is not started: {refused:?}"
    );
}
