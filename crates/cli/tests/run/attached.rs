//! Runs in the foreground: streams, signals, terminals, and callers that die.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::termios::{Winsize, tcsetwinsize};
use tombolo_cli::run::{ExecSpec, ProcessSpec, Status};

use crate::world::{World, await_true, json, runtime, text};

#[test]
fn streams_are_kept_apart_and_the_exit_code_is_passed_on() {
    let world = World::new();
    let output = world.foreground(&world.shell("a", "echo out; echo err >&2; exit 7"));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("out\n".into(), "err\n".into())
    );
    let spec = ProcessSpec {
        argv: vec!["no-such".into()],
        ..world.shell("b", "")
    };
    let output = world.foreground(&spec);
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("was not found in PATH"));
}

#[test]
fn much_input_comes_back_whole() {
    let world = World::new();
    let spec = ProcessSpec {
        stdin_open: true,
        ..world.shell("a", "exec cat")
    };
    let mut child = world
        .runtime(&["run", &json(&spec)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..3_000_000u32)
        .map(|number| b"0123456789abcde\n"[number as usize % 16])
        .collect();
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(
        output.stdout == sent,
        "{} of {} bytes",
        output.stdout.len(),
        sent.len()
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_signal_to_the_caller_reaches_the_process() {
    let world = World::new();
    let script = "trap 'echo got; exit 33' TERM; echo up; while :; do sleep 0.05; done";
    let mut child = world
        .runtime(&["run", &json(&world.shell("a", script))])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    world_up(&world, "a");
    world.await_log("a", "up");
    signal(&child, rustix::process::Signal::TERM);
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), out.as_str()),
        (Some(33), "up\ngot\n")
    );
}

#[test]
fn a_killed_caller_leaves_the_process_running() {
    let world = World::new();
    let mut child = world
        .runtime(&[
            "run",
            &json(&world.shell("a", "echo up; sleep 1; echo later")),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    world_up(&world, "a");
    world.await_log("a", "up");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(
        world
            .states
            .wait("a", Some(Duration::from_secs(10)))
            .unwrap(),
        Some(Some(0))
    );
    assert_eq!(world.log("a"), "up\nlater\n");
}

#[test]
fn a_closed_output_ends_an_endless_writer() {
    let world = World::new();
    let words = json(&world.shell("a", "exec yes"));
    let piped = format!(
        "{} {} run '{words}' | head -n 1",
        runtime().display(),
        world.states.root().display()
    );
    let output = Command::new("timeout")
        .args(["20", "sh", "-c", &piped])
        .output()
        .unwrap();
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("y\n".into(), Some(0))
    );
    await_true(
        || world.status("a") == Status::Exited,
        || "the end of yes".into(),
    );
}

#[test]
fn a_terminal_has_the_callers_size_and_follows_it() {
    let world = World::new();
    let script = "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; stty size; \
        trap 'stty size; exit 4' WINCH; echo up; while :; do sleep 0.05; done";
    let spec = ProcessSpec {
        tty: true,
        stdin_open: true,
        ..world.shell("a", script)
    };
    let (keys, mut child) = in_terminal(&world, &["run", &json(&spec)]);
    world_up(&world, "a");
    world.await_log("a", "up");
    resize(&keys, 50, 120);
    let shown = read_terminal(keys);
    assert_eq!(child.wait().unwrap().code(), Some(4), "{shown}");
    assert_eq!(shown, "/dev/pts/0\r\nall\r\n40 100\r\nup\r\n50 120\r\n");
}

#[test]
fn keys_reach_the_process_as_a_terminal_gives_them() {
    let world = World::new();
    let script = "trap 'echo interrupted; exit 5' INT; echo up; while :; do sleep 0.05; done";
    let spec = ProcessSpec {
        tty: true,
        stdin_open: true,
        ..world.shell("a", script)
    };
    let (mut keys, mut child) = in_terminal(&world, &["run", &json(&spec)]);
    world_up(&world, "a");
    world.await_log("a", "up");
    keys.write_all(b"\x03").unwrap();
    let shown = read_terminal(keys);
    assert_eq!(child.wait().unwrap().code(), Some(5), "{shown}");
    assert_eq!(shown, "up\r\n^Cinterrupted\r\n");
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let world = World::new();
    world.start(&world.shell("a", "sleep 100"));
    let argv = [
        "sh",
        "-c",
        "[ -t 1 ] && tty; stty size; read line; echo got $line",
    ];
    let spec = ExecSpec {
        argv: argv.map(String::from).to_vec(),
        tty: true,
        stdin_open: true,
        ..ExecSpec::default()
    };
    let (mut keys, mut child) = in_terminal(&world, &["exec", "a", &json(&spec)]);
    let mut shown = String::new();
    while !shown.contains("40 100") {
        let mut chunk = [0; 4096];
        let count = keys.read(&mut chunk).unwrap();
        shown += &text(&chunk[..count]);
    }
    keys.write_all(b"hello\r").unwrap();
    shown += &read_terminal(keys);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{shown}");
    assert!(shown.contains("/dev/pts/0\r\n40 100\r\n"), "{shown}");
    assert!(shown.ends_with("got hello\r\n"), "{shown}");
}

fn world_up(world: &World, id: &str) {
    let running = || {
        world
            .states
            .entry(id)
            .is_ok_and(|entry| entry.state.process.is_some())
    };
    await_true(running, || format!("process {id}"));
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Runs the runtime in a session with a terminal of 40 lines; the other side of it comes back.
fn in_terminal(world: &World, words: &[&str]) -> (File, Child) {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let keys = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())
        .or_else(|_| rustix::fs::open("/dev/ptmx", flags, Mode::empty()))
        .unwrap();
    rustix::pty::unlockpt(&keys).unwrap();
    let name = rustix::pty::ptsname(&keys, Vec::new()).unwrap();
    let screen = rustix::fs::open(
        std::ffi::OsStr::from_bytes(name.as_bytes()),
        flags,
        Mode::empty(),
    );
    let screen: OwnedFd = screen.unwrap();
    let keys = File::from(keys);
    resize(&keys, 40, 100);
    let child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(runtime())
        .arg(world.states.root())
        .args(words)
        .stdin(screen.try_clone().unwrap())
        .stdout(screen.try_clone().unwrap())
        .stderr(screen)
        .spawn()
        .unwrap();
    (keys, child)
}

fn resize(keys: &File, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(keys, size).unwrap();
}

fn read_terminal(mut keys: File) -> String {
    let mut shown = Vec::new();
    let mut chunk = [0; 4096];
    // The end of a terminal is EIO.
    while let Ok(count @ 1..) = keys.read(&mut chunk) {
        shown.extend(&chunk[..count]);
    }
    text(&shown)
}
