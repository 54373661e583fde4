//! How processes start, end, are stopped, joined and remembered.

use std::fs;
use std::time::{Duration, Instant};

use tombolo_cli::run::{
    ExecSpec, Hook, LogQuery, ProcessRef, ProcessSpec, RemoveError, Signal, SignalError,
    StartError, StateError, Status,
};

use crate::world::{World, await_true, text};

#[test]
fn exit_codes_are_the_process_own_or_dockers() {
    let world = World::new();
    assert_eq!(world.finish(&world.shell("a", "exit 42")).0, Some(42));
    let reaped = ProcessSpec {
        init: true,
        ..world.shell("b", "kill -KILL $$")
    };
    assert_eq!(world.finish(&reaped).0, Some(137));
    let plain = world.temp.path().join("plain");
    fs::write(&plain, "").unwrap();
    let plain = plain.display().to_string();
    for (id, init, program, code, message) in [
        ("c", false, "no-such-program", 127, "was not found in PATH"),
        ("d", false, "/no/such/program", 127, "No such file"),
        ("e", false, plain.as_str(), 126, "Permission denied"),
        ("f", true, plain.as_str(), 126, "Permission denied"),
        ("g", true, "no-such-program", 127, "was not found in PATH"),
    ] {
        let spec = ProcessSpec {
            init,
            argv: vec![program.into()],
            ..world.shell(id, "")
        };
        world.states.create(&spec).unwrap();
        let error = world.states.start(id).unwrap_err();
        assert_eq!(error.code(), code, "{program}: {error}");
        assert!(error.to_string().contains(message), "{error}");
        let state = world.states.entry(id).unwrap().state;
        assert_eq!(
            (state.status, state.exit_code),
            (Status::Exited, Some(code))
        );
    }
    let lost = ProcessSpec {
        netns: Some("/etc/passwd".into()),
        ..world.shell("h", "true")
    };
    world.states.create(&lost).unwrap();
    let error = world.states.start("h").unwrap_err();
    assert_eq!(error.code(), 125);
    assert!(
        error
            .to_string()
            .contains("cannot join namespace /etc/passwd"),
        "{error}"
    );
}

#[test]
fn a_process_that_heeds_term_ends_at_once_and_one_that_does_not_is_killed() {
    let world = World::new();
    world.start(&world.shell(
        "a",
        "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done",
    ));
    world.start(&world.shell("b", "trap '' TERM; echo up; while :; do sleep 0.05; done"));
    world.start(&ProcessSpec {
        init: true,
        ..world.shell("c", "echo up; exec sleep 100")
    });
    ["a", "b", "c"]
        .iter()
        .for_each(|id| world.await_log(id, "up"));
    let timed = |id: &str, timeout: u64| {
        let begun = Instant::now();
        world
            .states
            .stop(id, Duration::from_millis(timeout))
            .unwrap();
        (
            world.states.entry(id).unwrap().state.exit_code,
            begun.elapsed(),
        )
    };
    let (code, took) = timed("a", 10_000);
    assert_eq!(code, Some(9));
    assert!(took < Duration::from_secs(5));
    let (code, took) = timed("b", 400);
    assert_eq!(code, Some(137));
    assert!(took >= Duration::from_millis(400));
    assert_eq!(timed("c", 10_000).0, Some(143));
    world.states.stop("c", Duration::ZERO).unwrap();
    let again = world.states.kill("c", Signal::SIGTERM);
    assert!(matches!(again, Err(SignalError::NotRunning(_))));
}

#[test]
fn an_init_forwards_signals_and_reaps_orphans() {
    let world = World::new();
    let script = "trap 'echo usr1' USR1; (sleep 0.1 &) ; echo up; while :; do sleep 0.05; done";
    world.start(&ProcessSpec {
        init: true,
        ..world.shell("a", script)
    });
    world.await_log("a", "up");
    world.states.kill("a", Signal::SIGUSR1).unwrap();
    world.await_log("a", "usr1");
    // By now the orphan has ended.
    std::thread::sleep(Duration::from_millis(200));
    // Children of the shell may be dead for a moment as well: only orphans would stay so.
    let zombies = || {
        text(
            &world
                .exec("a", "grep -l 'State:.Z' /proc/[0-9]*/status")
                .stdout,
        )
    };
    await_true(|| zombies().is_empty(), zombies);
}

#[test]
fn exec_joins_every_namespace_with_the_same_privileges() {
    let world = World::new();
    let spec = ProcessSpec {
        env: vec!["OF_SPEC=1".into()],
        cwd: Some("/usr".into()),
        ..world.shell("a", "sleep 100")
    };
    world.start(&spec);
    let process = world.states.entry("a").unwrap().state.process.unwrap();
    let output = world.exec(
        "a",
        "for n in net uts ipc mnt pid; do readlink /proc/self/ns/$n; done",
    );
    for (name, seen) in ["net", "uts", "ipc", "mnt", "pid"]
        .iter()
        .zip(text(&output.stdout).lines())
    {
        let real = fs::read_link(format!("/proc/{}/ns/{name}", process.pid)).unwrap();
        assert_eq!(seen, real.to_str().unwrap());
    }
    let output = world.exec(
        "a",
        "pwd; echo $OF_SPEC; grep -E 'CapEff|NoNew' /proc/self/status; exit 5",
    );
    let expected = "/usr\n1\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\n";
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        (expected.into(), Some(5))
    );
    let missing = ExecSpec {
        argv: vec!["no-such".into()],
        ..ExecSpec::default()
    };
    let output = world.exec_spec("a", &missing);
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("was not found in PATH"));
    let files = fs::read_dir(world.states.dir("a")).unwrap().flatten();
    let left = files.filter(|file| file.file_name().to_string_lossy().starts_with("exec-"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_detached_exec_goes_on_and_is_reaped() {
    let world = World::new();
    world.start(&world.shell("a", "sleep 100"));
    let argv = ["sh", "-c", "sleep 0.2; hostname > /proc/1/cwd/dev/shm/done"].map(String::from);
    let spec = ExecSpec {
        argv: argv.to_vec(),
        detach: true,
        ..ExecSpec::default()
    };
    let begun = Instant::now();
    assert_eq!(world.states.exec("a", &spec).unwrap(), 0);
    assert!(begun.elapsed() < Duration::from_secs(2));
    let done = || text(&world.exec("a", "cat /dev/shm/done").stdout);
    await_true(|| done() == "a\n", done);
    let zombies = || {
        text(
            &world
                .exec("a", "grep -l 'State:.Z' /proc/[0-9]*/status")
                .stdout,
        )
    };
    await_true(|| zombies().is_empty(), zombies);
    let missing = ExecSpec {
        argv: vec!["no-such".into()],
        ..spec
    };
    assert_eq!(world.states.exec("a", &missing).unwrap_err().code(), 127);
}

#[test]
fn a_killed_shim_takes_its_process_along_and_is_recognised() {
    let world = World::new();
    let heard = world.temp.path().join("heard").display().to_string();
    let on_exit = ["-", "append", &heard, "ended"].map(String::from).to_vec();
    world.start(&ProcessSpec {
        on_exit,
        ..world.shell("a", "sleep 100")
    });
    let state = world.states.entry("a").unwrap().state;
    let shim = state.shim.unwrap().open().unwrap().unwrap();
    let process = state.process.unwrap().open().unwrap().unwrap();
    shim.signal(rustix::process::Signal::KILL).unwrap();
    assert!(process.wait(Duration::from_secs(10)).unwrap());
    await_true(|| world.status("a") == Status::Exited, || "exited".into());
    let state = world.states.entry("a").unwrap().state;
    assert_eq!((state.exit_code, state.hook), (None, Hook::Due));
    assert_eq!(world.states.wait("a", None).unwrap(), Some(None));
    world.states.remove("a", false).unwrap();
    assert_eq!(fs::read_to_string(heard).unwrap(), "ended\n");
}

#[test]
fn the_exit_hook_runs_once_after_success_and_after_failure() {
    let world = World::new();
    let heard = world.temp.path().join("heard").display().to_string();
    let hook = |line: &str| ["-", "append", &heard, line].map(String::from).to_vec();
    let spec = ProcessSpec {
        on_exit: hook("a"),
        auto_remove: true,
        ..world.shell("a", "exit 3")
    };
    world.states.create(&spec).unwrap();
    world.states.start("a").unwrap();
    await_true(
        || matches!(world.states.entry("a"), Err(StateError::Unknown(_))),
        || "gone".into(),
    );
    let argv = vec!["no-such".into()];
    let spec = ProcessSpec {
        on_exit: hook("b"),
        argv,
        ..world.shell("b", "")
    };
    world.states.create(&spec).unwrap();
    assert!(matches!(
        world.states.start("b"),
        Err(StartError::Failure(_))
    ));
    assert_eq!(world.states.entry("b").unwrap().state.hook, Hook::Done);
    assert_eq!(fs::read_to_string(heard).unwrap(), "a\nb\n");
    let on_exit = ["-", "fail"].map(String::from).to_vec();
    let spec = ProcessSpec {
        on_exit,
        auto_remove: true,
        ..world.shell("c", "true")
    };
    world.start(&spec);
    await_true(
        || {
            world
                .states
                .entry("c")
                .is_ok_and(|entry| entry.state.hook == Hook::Failed)
        },
        || "a failed hook".into(),
    );
    assert!(matches!(
        world.states.remove("c", false),
        Err(RemoveError::Hook { .. })
    ));
    let log = fs::read_to_string(world.states.dir("c").join("hook.log")).unwrap();
    assert!(log.contains("attempt 5"), "{log}");
}

#[test]
fn a_process_can_be_started_again_and_not_twice_at_once() {
    let world = World::new();
    let spec = world.shell("a", "echo run; sleep 0.3");
    world.start(&spec);
    assert!(matches!(
        world.states.start("a"),
        Err(StartError::Running(_))
    ));
    assert!(matches!(
        world.states.remove("a", false),
        Err(RemoveError::Running(_))
    ));
    assert_eq!(world.states.wait("a", Some(Duration::ZERO)).unwrap(), None);
    assert_eq!(world.states.wait("a", None).unwrap(), Some(Some(0)));
    // The shim itself may need another moment to leave.
    let started = || world.states.start("a").is_ok();
    await_true(started, || "a second start".into());
    world.states.wait("a", None).unwrap();
    assert_eq!(world.log("a"), "run\nrun\n");
    world.states.remove("a", false).unwrap();
    assert!(matches!(
        world.states.start("a"),
        Err(StartError::State(StateError::Unknown(_)))
    ));
}

#[test]
fn logs_keep_streams_apart_and_can_be_cut_and_followed() {
    let world = World::new();
    let script = "echo one; echo two >&2; sleep 0.3; echo three; printf end";
    world.start(&world.shell("a", script));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    world.states.logs("a", follow, &mut out, &mut err).unwrap();
    assert_eq!(
        (text(&out), text(&err)),
        ("one\nthree\nend".into(), "two\n".into())
    );
    let show = |query| {
        let mut out = Vec::new();
        world
            .states
            .logs("a", query, &mut out, &mut Vec::new())
            .unwrap();
        text(&out)
    };
    assert_eq!(
        show(LogQuery {
            tail: Some(1),
            ..LogQuery::default()
        }),
        "end"
    );
    assert_eq!(
        show(LogQuery {
            tail: Some(0),
            ..LogQuery::default()
        }),
        ""
    );
    let started = world.states.entry("a").unwrap().state.started_ms.unwrap();
    let late = LogQuery {
        since_ms: Some(started + 200),
        ..LogQuery::default()
    };
    assert_eq!(show(late), "three\nend");
    let stamped = show(LogQuery {
        timestamps: true,
        tail: Some(1),
        ..LogQuery::default()
    });
    assert!(
        stamped.starts_with("20") && stamped.ends_with("Z end"),
        "{stamped}"
    );
}

#[test]
fn a_log_stays_within_its_limit() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
    let spec = ProcessSpec {
        log_max_bytes: 20_000,
        ..world.shell("a", script)
    };
    let (_, log) = world.finish(&spec);
    assert!(log.ends_with("line 2999\n"), "{log}");
    assert!(log.lines().count() < 1000);
    let sizes = ["log", "log.1"].map(|name| {
        fs::metadata(world.states.dir("a").join(name))
            .unwrap()
            .len()
    });
    assert!(sizes.iter().all(|size| *size <= 20_000), "{sizes:?}");
}

#[test]
fn ended_processes_leave_no_process_behind() {
    let world = World::new();
    world.start(&world.shell("a", "sleep 300 & sleep 300 & echo up; wait"));
    world.await_log("a", "up");
    let state = world.states.entry("a").unwrap().state;
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", state.process.unwrap().pid)).unwrap();
    world.states.remove("a", true).unwrap();
    assert!(!state.shim.is_some_and(ProcessRef::is_alive));
    let inside = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read_link(entry.path().join("ns/pid")).is_ok_and(|found| found == namespace)
    });
    assert_eq!(inside.count(), 0);
    assert!(!world.states.dir("a").exists());
}
