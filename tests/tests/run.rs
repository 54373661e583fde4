//! Programs in networks of their own: `run`, `exec`, `ps`, `logs`, `stop`, `start`, `rm`, and what they see.

use std::process::Stdio;

use tombolo_lab::node::{Outcome, wait_until};
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

/// What a shell inside a running program's namespaces prints.
#[track_caller]
fn inside(stage: &Stage, name: &str, script: &str) -> String {
    stage.ok_words(&["exec", name, "sh", "-c", script])
}

#[test]
fn a_program_lives_stops_keeps_its_address_starts_again_and_goes() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    stage.ok("network create n --ipv6");
    let id = stage.ok_words(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "n",
        "--label",
        "a=b",
        "sh",
        "-c",
        "echo up; echo bad >&2; exec sleep 1000",
    ]);
    assert_eq!(id.len(), 32, "{id}");
    let logs = || stage.ok("logs web");
    assert!(wait_until(PATIENCE, || logs().contains("up")), "{}", logs());
    let listed = stage.ok("ps");
    assert!(
        listed.contains("web") && listed.contains("echo up") && listed.contains(&id[..12]),
        "{listed}"
    );
    let addresses = stage.place("web").addresses;
    stage.place("web").assert_reaches(&stage.far());
    stage.here().assert_reaches(&stage.place("web"));
    stage.ok("stop -t 1 web");
    assert!(!stage.ok("ps").contains("web"));
    assert!(stage.ok("ps --all").contains("web"));
    let other = stage.sandbox("other", "--network n");
    assert!(!addresses.contains(&other.v4()));
    stage.ok("start web");
    assert!(wait_until(PATIENCE, || stage
        .inspect("web")
        .netns
        .is_some()));
    assert_eq!(stage.place("web").addresses, addresses);
    other.assert_reaches(&stage.place("web"));
    let busy = stage.tries("rm web");
    assert_eq!(busy.code, Some(3), "{busy:?}");
    stage.ok("rm -f web");
    assert_eq!(stage.tries("sandbox inspect web").code, Some(5));
    stage.ok("sandbox rm other");
    stage.ok("network rm n");
    stage.assert_traces(&before);
}

#[test]
fn exit_codes_are_the_programs_own_and_rm_leaves_nothing() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    let run = |words: &[&str]| -> Outcome {
        let line = [&["run", "--rm"], words].concat();
        stage.node_tombolo(&line)
    };
    assert_eq!(run(&["sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(run(&["--init", "sh", "-c", "kill -9 $$"]).code, Some(137));
    assert_eq!(run(&["no-such-program"]).code, Some(127));
    assert_eq!(run(&["/etc/passwd"]).code, Some(126));
    assert_eq!(run(&["--network", "nowhere", "true"]).code, Some(125));
    let said = run(&[
        "-e",
        "WORD=hello",
        "-w",
        "/usr",
        "sh",
        "-c",
        "echo $WORD $(pwd); echo e >&2",
    ]);
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (Some(0), "hello /usr\n", "e\n")
    );
    assert_eq!(stage.ok("ps --all --quiet"), "");
    stage.assert_in_place();
    stage.assert_traces(&before);
}

#[test]
fn none_host_and_container_are_what_they_say() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("run -d --name lone --network none sleep 1000");
    stage.ok("run -d --name wide --network host sleep 1000");
    stage.ok("run -d --name first --network n sleep 1000");
    stage.ok("run -d --name second --network container:first sleep 1000");
    assert_eq!(
        inside(&stage, "lone", "ip -br link | grep -vc '^lo '; true"),
        "0"
    );
    assert_eq!(
        inside(
            &stage,
            "lone",
            "ip -4 -o address show lo | awk '{print $4}'"
        ),
        "127.0.0.1/8"
    );
    let node = stage.shell("readlink /proc/self/ns/net");
    assert_eq!(inside(&stage, "wide", "readlink /proc/self/ns/net"), node);
    assert_eq!(inside(&stage, "wide", "hostname"), stage.shell("hostname"));
    let first = inside(&stage, "first", "readlink /proc/self/ns/net");
    assert_ne!(first, node);
    assert_eq!(
        inside(&stage, "second", "readlink /proc/self/ns/net"),
        first
    );
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        let read = format!("cat {file}");
        assert_eq!(
            inside(&stage, "second", &read),
            inside(&stage, "first", &read),
            "{file}"
        );
    }
    // A server of one is on the other's loopback.
    let serve = "from socket import *; s = create_server(('127.0.0.1', 8000)); \
                 c = s.accept()[0]; c.sendall(b'loop'); c.close()";
    stage.ok_words(&["exec", "-d", "first", "/usr/bin/python3", "-c", serve]);
    let ask =
        "from socket import *; print(create_connection(('127.0.0.1', 8000)).recv(9).decode())";
    let asked = || stage.node_tombolo(&["exec", "second", "/usr/bin/python3", "-c", ask]);
    let mut answer = asked();
    wait_until(PATIENCE, || {
        answer = if answer.success() {
            answer.clone()
        } else {
            asked()
        };
        answer.success()
    });
    assert_eq!(answer.stdout.trim(), "loop", "{answer:?}");
    let refused = stage.tries("network connect bridge second");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    for wrong in [
        "--network none --ip 10.0.0.2",
        "--network host --network n",
        "--network container:nobody",
    ] {
        let refused = stage.tries(&format!("run -d --name x {wrong} true"));
        assert_eq!(refused.code, Some(125), "{wrong}: {refused:?}");
    }
    stage.ok("rm -f lone wide second first");
    stage.assert_in_place();
}

#[test]
fn the_files_tell_names_and_resolvers_and_follow_changes_but_not_over_a_users_edit() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --subnet 10.90.0.0/24 --subnet fd90::/64");
    stage.ok("network create m --subnet 10.91.0.0/24");
    stage.ok(
        "run -d --name web --hostname front --network n --ip 10.90.0.50 --dns 192.0.2.53 \
         --dns-search example.org --dns-option ndots:2 --add-host db:198.51.100.9 \
         --add-host gw:host-gateway sleep 1000",
    );
    let read = |file: &str| inside(&stage, "web", &format!("cat /etc/{file}"));
    assert_eq!(read("hostname"), "front");
    assert_eq!(inside(&stage, "web", "hostname"), "front");
    let hosts = read("hosts");
    let line = |address: &str, name: &str| {
        hosts.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(address) && words.any(|word| word == name)
        })
    };
    assert!(
        line("127.0.0.1", "localhost") && line("::1", "localhost"),
        "{hosts}"
    );
    assert!(
        line("10.90.0.50", "front") && line("fd90::2", "front"),
        "{hosts}"
    );
    assert!(
        line("198.51.100.9", "db") && line("10.90.0.1", "gw"),
        "{hosts}"
    );
    let resolv = read("resolv.conf");
    for wanted in [
        "nameserver 127.0.0.11",
        "# Forwards to: 192.0.2.53, from this network.",
        "search example.org",
        "ndots:2",
    ] {
        assert!(resolv.contains(wanted), "no {wanted} in {resolv}");
    }
    assert_eq!(
        inside(&stage, "web", "getent hosts db | awk '{print $1}'"),
        "198.51.100.9"
    );
    stage.ok("network connect m web --ip 10.91.0.60");
    assert!(
        wait_until(PATIENCE, || read("hosts").contains("10.91.0.60")),
        "{}",
        read("hosts")
    );
    stage.ok("network disconnect m web");
    assert!(
        wait_until(PATIENCE, || !read("hosts").contains("10.91.0.60")),
        "{}",
        read("hosts")
    );
    inside(&stage, "web", "echo '192.0.2.9 mine' >>/etc/hosts");
    let edited = read("hosts");
    stage.ok("network connect m web --ip 10.91.0.61");
    assert_eq!(read("hosts"), edited);
    assert!(inside(&stage, "web", "ip -o address").contains("10.91.0.61"));
}

#[test]
fn what_networks_say_of_names_stands_after_the_sandbox_and_before_the_daemon() {
    let daemon = [
        "--dns=192.0.2.9",
        "--dns-search=daemon.example",
        "--dns-option=attempts:1",
    ];
    let Some(stage) = Stage::start_with(&daemon) else {
        return;
    };
    stage.ok("network create one --resolver off --dns 192.0.2.1 --dns 192.0.2.2");
    stage.ok("network create two --resolver off --dns 192.0.2.3 --dns-search two.example");
    let read = |name: &str| inside(&stage, name, "cat /etc/resolv.conf");
    let has =
        |text: &str, wanted: &[&str]| wanted.iter().all(|line| text.lines().any(|l| l == *line));
    stage.ok("run -d --name both --network one --network two sleep 1000");
    let text = read("both");
    let wanted = [
        "nameserver 192.0.2.1",
        "nameserver 192.0.2.2",
        "search two.example",
    ];
    assert!(has(&text, &wanted), "{text}");
    assert!(has(&text, &["options attempts:1"]), "{text}");
    assert!(!text.contains("192.0.2.3"), "{text}");
    stage.ok("run -d --name own --network two --dns 192.0.2.4 --dns-search . sleep 1000");
    let text = read("own");
    assert!(has(&text, &["nameserver 192.0.2.4"]), "{text}");
    assert!(!text.contains("example"), "{text}");
    stage.ok("network connect one own");
    stage.ok("network disconnect one both");
    assert!(
        wait_until(PATIENCE, || read("both").contains("nameserver 192.0.2.3")),
        "{}",
        read("both")
    );
    let names = stage.ok("dns ls --network two");
    assert_eq!(names.lines().count(), 3, "{names}");
    let shown = stage.ok("network inspect two");
    for word in [
        "two.example",
        "192.0.2.3",
        "\"resolver\": \"off\"",
        "\"forward\": \"auto\"",
    ] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    let refused =
        stage.tries("network create x --internal --gateway-mode isolated --resolver gateway");
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn two_programs_share_a_directory_with_a_unix_socket() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create a");
    stage.ok("network create b");
    stage.shell("mkdir /run/shared");
    let serve = "from socket import *; s = socket(AF_UNIX); s.bind('/srv/s'); s.listen(); \
                 c = s.accept()[0]; c.sendall(c.recv(99).upper()); c.close()";
    stage.ok_words(&[
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "a",
        "-v",
        "/run/shared:/srv",
        "/usr/bin/python3",
        "-c",
        serve,
    ]);
    assert!(
        wait_until(PATIENCE, || stage.path("/run/shared/s").exists()),
        "{}",
        stage.ok("logs server")
    );
    let ask = "import time\nfrom socket import *\ns = socket(AF_UNIX)\nfor n in range(99):\n  try:\n    \
               s.connect('/mnt/s'); break\n  except OSError: time.sleep(0.05)\n\
               s.sendall(b'hello'); print(s.recv(99).decode())";
    let client = [
        "run",
        "--rm",
        "--network",
        "b",
        "-v",
        "/run/shared:/mnt",
        "/usr/bin/python3",
        "-c",
        ask,
    ];
    assert_eq!(stage.ok_words(&client), "HELLO");
    let write = [
        "run",
        "--rm",
        "-v",
        "/run/shared:/mnt:ro",
        "touch",
        "/mnt/x",
    ];
    assert_ne!(stage.node_tombolo(&write).code, Some(0));
    stage.ok("rm -f server");
}

#[test]
fn sysctls_addresses_capabilities_and_init_are_as_told() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --subnet 10.92.0.0/24 --subnet fd92::/64");
    stage.ok(
        "run -d --name p --init --network n --ip 10.92.0.77 --ip6 fd92::77 --mac-address 02:00:00:00:00:07 \
         --sysctl net.ipv4.ip_forward=1 --sysctl net.ipv4.tcp_keepalive_time=77 -e A=b sleep 1000",
    );
    assert_eq!(
        inside(&stage, "p", "cat /proc/sys/net/ipv4/ip_forward"),
        "1"
    );
    let link = inside(
        &stage,
        "p",
        "ip -o address show dev eth0; ip link show dev eth0",
    );
    for wanted in ["10.92.0.77/24", "fd92::77/64", "02:00:00:00:00:07"] {
        assert!(link.contains(wanted), "no {wanted} in {link}");
    }
    let status = inside(&stage, "p", "cat /proc/self/status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapBnd:\t00000000a80425fb"), "{status}");
    let refused = inside(&stage, "p", "ip link set eth0 down 2>&1; true");
    assert!(refused.contains("not permitted"), "{refused}");
    assert!(inside(&stage, "p", "readlink /proc/1/exe; cat /proc/1/cmdline").len() > 1);
    assert_ne!(
        inside(&stage, "p", "readlink /proc/self/ns/mnt"),
        stage.shell("readlink /proc/self/ns/mnt")
    );
    stage.ok("rm -f p");
}

#[test]
fn programs_do_not_notice_that_the_daemon_dies_and_their_end_is_noticed_later() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n --ipv6");
    stage.ok("run -d --name a --network n sleep 1000");
    stage.ok_words(&[
        "run",
        "-d",
        "--name",
        "b",
        "--network",
        "n",
        "sh",
        "-c",
        "sleep 1000; exit 3",
    ]);
    let (a, b) = (stage.place("a"), stage.place("b"));
    a.assert_reaches(&b);
    stage.kill().unwrap();
    a.assert_reaches(&b);
    assert!(
        stage
            .ok_words(&["exec", "a", "echo", "still here"])
            .contains("still here")
    );
    let killed = stage.node_tombolo(&["kill", "b"]);
    assert!(killed.success(), "{killed:?}");
    stage.start_again();
    stage.place("a").assert_reaches(&stage.far());
    assert!(wait_until(PATIENCE, || !stage.ok("ps").contains(" b ")));
    stage.ok("rm -f a b");
    stage.ok("network rm n");
    stage.assert_in_place();
}

#[test]
fn foreground_standard_input_and_signals_pass_through() {
    let Some(stage) = Stage::start() else { return };
    let mut command = stage.tombolo_command();
    command.args([
        "run",
        "-i",
        "--rm",
        "--network",
        "none",
        "sh",
        "-c",
        "read x; echo got $x; exit 5",
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"words\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got words\n");
    assert_eq!(output.status.code(), Some(5));
}
