//! What a process sees, and what it must not.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use tombolo_cli::run::{Bind, ExecSpec, ProcessSpec, StartError};

use crate::world::{World, busybox_root, json, text};

#[test]
fn a_process_is_pid_1_with_its_own_host_name_ipc_and_interfaces() {
    let world = World::new();
    let script = "hostname; echo pid $$; readlink /proc/self/ns/ipc; readlink /proc/self/ns/net; ls /sys/class/net";
    let spec = ProcessSpec {
        hostname: "web-1".into(),
        ..world.shell("a", script)
    };
    let (code, log) = world.finish(&spec);
    let lines: Vec<&str> = log.lines().collect();
    let link = |path: &str| fs::read_link(path).unwrap().display().to_string();
    assert_eq!((code, lines[0], lines[1]), (Some(0), "web-1", "pid 1"));
    assert_ne!(lines[2], link("/proc/self/ns/ipc"));
    assert_eq!(lines[3], link(world.netns().to_str().unwrap()));
    assert_eq!(lines[4..], ["lo"]);
}

#[test]
fn capabilities_are_dockers_and_privileges_cannot_grow() {
    let world = World::new();
    let script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status";
    let (_, log) = world.finish(&world.shell("a", script));
    for (name, mask) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a80425fb"),
        ("CapEff", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ] {
        assert!(log.contains(&format!("{name}:\t{mask}")), "{name} in {log}");
    }
    let spec = ProcessSpec {
        cap_add: vec!["NET_ADMIN".into()],
        cap_drop: vec!["ALL".into()],
        user: Some("65534:65533".into()),
        ..world.shell("b", &format!("id -u; id -g; {script}"))
    };
    let (_, log) = world.finish(&spec);
    assert!(log.starts_with("65534\n65533\n"), "{log}");
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
    assert!(log.contains("CapBnd:\t0000000000001000"), "{log}");
}

#[test]
fn nothing_of_the_callers_environment_and_files_leaks() {
    let world = World::new();
    let leak = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    assert!(leak.as_raw_fd() > 2);
    let script = "env; ls /proc/1/fd; grep Sig /proc/self/status";
    let spec = ProcessSpec {
        env: vec!["OWN=1".into()],
        ..world.shell("a", script)
    };
    // A job put in the background by a shell ignores SIGINT; the process must not.
    let quoted = format!("trap '' INT; exec \"$0\" \"$1\" run '{}'", json(&spec));
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &quoted])
        .arg(crate::world::runtime())
        .arg(world.states.root());
    let output = command
        .env("SECRET_OF_CALLER", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let seen = text(&output.stdout);
    assert!(
        seen.contains("OWN=1") && seen.contains("HOME=/root"),
        "{seen}{}",
        text(&output.stderr)
    );
    assert!(
        !seen.contains("SECRET_OF_CALLER") && !seen.contains("CARGO"),
        "{seen}"
    );
    let fds: Vec<&str> = seen
        .lines()
        .filter(|line| line.parse::<u32>().is_ok())
        .collect();
    assert_eq!(fds, ["0", "1", "2"]);
    let masks = ["SigIgn:\t", "SigBlk:\t"].map(|name| {
        let mask = seen
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        u64::from_str_radix(mask, 16).unwrap()
    });
    // Signals 32 and 33 belong to the C library.
    assert_eq!(masks.map(|mask| mask & 0x7fff_ffff), [0, 0], "{seen}");
}

#[test]
fn sysctls_hold_inside_only_and_proc_sys_is_read_only() {
    let world = World::new();
    let path = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = fs::read_to_string(path).unwrap();
    let script = format!("cat {path}; echo 1 > {path} || echo refused");
    let mut spec = world.shell("a", &script);
    spec.sysctls
        .insert("net.ipv4.ip_default_ttl".into(), "77".into());
    let (_, log) = world.finish(&spec);
    assert!(log.starts_with("77\nrefused\n"), "{log}");
    assert_eq!(fs::read_to_string(path).unwrap(), before);
    let mut wrong = world.shell("b", "true");
    wrong.sysctls.insert("net.ipv4.no_such".into(), "1".into());
    world.states.create(&wrong).unwrap();
    let error = world.states.start("b").unwrap_err();
    assert!(matches!(&error, StartError::Failure(failure) if failure.code == 125));
    assert!(
        error
            .to_string()
            .contains("cannot set sysctl net.ipv4.no_such"),
        "{error}"
    );
}

#[test]
fn files_for_etc_are_shown_on_the_hosts_root_without_touching_it() {
    let world = World::new();
    let before = fs::read_to_string("/etc/hosts").unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    fs::write(world.temp.path().join("hosts"), "127.0.0.1 shown\n").unwrap();
    let spec = ProcessSpec {
        files: Some(world.temp.path().into()),
        ..world.shell("a", "cat /etc/hosts; echo 127.0.0.2 added >> /etc/hosts")
    };
    assert_eq!(world.finish(&spec), (Some(0), "127.0.0.1 shown\n".into()));
    let written = fs::read_to_string(world.temp.path().join("hosts")).unwrap();
    assert_eq!(written, "127.0.0.1 shown\n127.0.0.2 added\n");
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), before);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

#[test]
fn a_root_directory_has_its_own_devices_and_no_way_to_the_host() {
    let world = World::new();
    let root = busybox_root(world.temp.path());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "ann:x:1000:1001::/home/ann:/bin/sh\n",
    )
    .unwrap();
    // More steps up than there are directories: they end at the new root, not at the host's.
    std::os::unix::fs::symlink(
        "../../run/tombolo-test/resolv.conf",
        root.join("etc/resolv.conf"),
    )
    .unwrap();
    fs::write(
        world.temp.path().join("resolv.conf"),
        "nameserver 127.0.0.11\n",
    )
    .unwrap();
    let script = "id; pwd; ls /; cat /etc/resolv.conf; echo x > /dev/null && echo /dev/*; \
        ls /sys/class/net; cat < /dev/urandom 2>&1 | (read -r x; echo random)";
    let spec = ProcessSpec {
        rootfs: Some(root.clone()),
        files: Some(world.temp.path().into()),
        user: Some("ann".into()),
        cwd: Some("/work/here".into()),
        ..world.shell("a", script)
    };
    let (code, log) = world.finish(&spec);
    assert!(log.starts_with("uid=1000(ann) gid=1001"), "{log}");
    let expected = "/work/here\nbin\ndev\netc\nproc\nrun\nsys\nwork\nnameserver 127.0.0.11\n\
        /dev/fd /dev/full /dev/mqueue /dev/null /dev/ptmx /dev/pts /dev/random /dev/shm \
        /dev/stderr /dev/stdin /dev/stdout /dev/tty /dev/urandom /dev/zero\n\
        lo\nrandom\n";
    assert!(log.ends_with(expected), "{log}");
    assert!(root.join("run/tombolo-test/resolv.conf").exists());
    assert!(!std::path::Path::new("/run/tombolo-test").exists());
    assert_eq!(code, Some(0));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

#[test]
fn device_nodes_made_in_a_root_directory_do_not_work() {
    let world = World::new();
    let root = busybox_root(world.temp.path());
    let script = "for node in /made /dev/made; do mknod $node c 1 3 && [ -c $node ] && echo there; \
        echo x > $node || echo refused; done";
    let spec = ProcessSpec {
        rootfs: Some(root),
        ..world.shell("a", script)
    };
    let (_, log) = world.finish(&spec);
    let count = |word: &str| log.lines().filter(|line| *line == word).count();
    assert_eq!((count("there"), count("refused")), (2, 2), "{log}");
}

#[test]
fn two_processes_meet_in_a_bound_directory() {
    let world = World::new();
    let shared = world.temp.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let listener = UnixListener::bind(shared.join("sock")).unwrap();
    let bind = |read_only| Bind {
        host: shared.clone(),
        container: "/meet".into(),
        read_only,
    };
    let first = world.temp.path().join("1");
    let second = world.temp.path().join("2");
    let write = ProcessSpec {
        rootfs: Some(busybox_root(&first)),
        binds: vec![bind(false)],
        ..world.shell("a", "[ -S /meet/sock ] && echo hello > /meet/note")
    };
    assert_eq!(world.finish(&write).0, Some(0));
    let read = ProcessSpec {
        rootfs: Some(busybox_root(&second)),
        binds: vec![bind(true)],
        ..world.shell(
            "b",
            "[ -S /meet/sock ] && cat /meet/note; echo x > /meet/note || echo refused",
        )
    };
    let (_, log) = world.finish(&read);
    assert!(log.starts_with("hello\nrefused"), "{log}");
    drop(listener);
    let nowhere = ProcessSpec {
        binds: vec![bind(false)],
        ..world.shell("c", "true")
    };
    world.states.create(&nowhere).unwrap();
    let error = world.states.start("c").unwrap_err().to_string();
    assert!(
        error.contains("/meet does not exist on the host's root"),
        "{error}"
    );
}

#[test]
fn exec_sees_the_root_directory_and_its_users() {
    let world = World::new();
    let root = busybox_root(world.temp.path());
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "ann:x:1000:1001::/home/ann:/bin/sh\n",
    )
    .unwrap();
    let spec = ProcessSpec {
        rootfs: Some(root),
        tty: true,
        init: true,
        ..world.shell("a", "[ -c /dev/console ] && echo up; sleep 100")
    };
    world.start(&spec);
    world.await_log("a", "up");
    let argv = ["sh", "-c", "id -u; echo $HOME; ls /; echo x > /dev/stderr"].map(String::from);
    let spec = ExecSpec {
        argv: argv.to_vec(),
        user: Some("ann".into()),
        ..ExecSpec::default()
    };
    let output = world.exec_spec("a", &spec);
    let expected = "1000\n/home/ann\nbin\ndev\netc\nproc\nsys\n";
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        (expected.into(), "x\n".into())
    );
}

#[test]
fn a_privileged_process_may_do_everything() {
    let world = World::new();
    let path = "/proc/sys/net/ipv4/ip_default_ttl";
    let script = format!(
        "echo 77 > {path} && cat {path}; grep NoNew /proc/self/status; ip addr add 192.0.2.1/32 dev lo && echo added"
    );
    let spec = ProcessSpec {
        privileged: true,
        ..world.shell("a", &script)
    };
    assert_eq!(
        world.finish(&spec),
        (Some(0), "77\nNoNewPrivs:\t0\nadded\n".into())
    );
}
