//! Processes: run, joined, listed, stopped, started again and removed, with the daemon told at each turn.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tombolo_api::{
    ApiError, ErrorCode, NetnsChoice, Request, Response, Sandbox, SandboxFiles, SandboxState,
};

use crate::fake::{Host, refusal};
use crate::samples::{endpoint, link, network, publication, sandbox};

/// Network namespaces held by processes, so that nothing is mounted for them.
struct Namespaces(Vec<Child>);

impl Namespaces {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| holder()).collect())
    }

    fn paths(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|holder| format!("/proc/{}/ns/net", holder.id()))
            .collect()
    }

    fn inode(&self, index: usize) -> String {
        let link = std::fs::read_link(&self.paths()[index]).unwrap();
        link.display().to_string()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn holder() -> Child {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    holder
}

/// What a daemon that keeps sandboxes knows. Each start takes the next of the namespaces.
struct Daemon {
    sandboxes: BTreeMap<String, Sandbox>,
    namespaces: Vec<String>,
    files: String,
}

impl Daemon {
    fn create(&mut self, request: &tombolo_api::SandboxCreate) -> Result<Sandbox, ApiError> {
        let name = request.name.clone().unwrap_or_else(|| "chosen".into());
        if self.sandboxes.values().any(|other| other.name == name) {
            return Err(refusal(ErrorCode::NameTaken, "the name is taken"));
        }
        let tied = request
            .networks
            .iter()
            .map(|attachment| endpoint(&network(&attachment.network), &name, "10.1.0.2/24"));
        let mut made = sandbox(&name, tied.collect());
        if let Some(hostname) = &request.hostname {
            made.hostname = Some(hostname.clone());
        }
        let links = request.links.iter().map(|spec| {
            let alias = spec.alias.as_ref().unwrap_or(&spec.sandbox);
            link(&spec.sandbox, alias, "10.1.0.9")
        });
        made.links = links.collect();
        let publications = request.publish.iter().map(|spec| {
            let host = spec.host.as_deref().unwrap_or("32768");
            publication(&name, host, &spec.container)
        });
        made.publications = publications.collect();
        made.expose.clone_from(&request.expose);
        made.files = Some(SandboxFiles {
            directory: self.files.clone(),
            hosts: format!("{}/hosts", self.files),
            hostname: format!("{}/hostname", self.files),
            resolv_conf: format!("{}/resolv.conf", self.files),
        });
        made.netns = (request.netns == NetnsChoice::New).then(|| self.namespaces.remove(0));
        self.sandboxes.insert(made.id.clone(), made.clone());
        Ok(made)
    }

    fn find(&mut self, reference: &str) -> Result<&mut Sandbox, ApiError> {
        let found = self
            .sandboxes
            .values_mut()
            .find(|one| one.id == reference || one.name == reference);
        found.ok_or_else(|| refusal(ErrorCode::UnknownSandbox, "no such sandbox"))
    }

    fn answer(&mut self, request: Request) -> Result<Response, ApiError> {
        Ok(match request {
            Request::SandboxCreate(create) => Response::Sandbox(self.create(&create)?),
            Request::SandboxList(_) => {
                Response::Sandboxes(self.sandboxes.values().cloned().collect())
            }
            Request::SandboxInspect { reference } => {
                Response::Sandbox(self.find(&reference)?.clone())
            }
            Request::SandboxPublications { reference } => {
                Response::Publications(self.find(&reference)?.publications.clone())
            }
            Request::SandboxStop { reference } => {
                let found = self.find(&reference)?;
                (found.state, found.netns) = (SandboxState::Stopped, None);
                found
                    .publications
                    .iter_mut()
                    .for_each(|one| one.active = false);
                Response::Sandbox(found.clone())
            }
            Request::SandboxStart { reference } => {
                let next = self.namespaces.first().cloned();
                let found = self.find(&reference)?;
                if found.state == SandboxState::Running {
                    return Err(refusal(ErrorCode::Internal, "it runs"));
                }
                (found.state, found.netns) = (SandboxState::Running, next);
                // Whoever is linked to may have another address by now.
                for old in &mut found.links {
                    *old = link(&old.sandbox.name, &old.alias, "10.1.0.10");
                }
                let started = found.clone();
                self.namespaces.remove(0);
                Response::Sandbox(started)
            }
            Request::SandboxDelete { reference, .. } => {
                let id = self.find(&reference)?.id.clone();
                self.sandboxes.remove(&id);
                Response::Done
            }
            other => panic!("{other:?}"),
        })
    }
}

/// A host with a daemon that keeps sandboxes. What still runs at its end is removed.
struct Fixture {
    host: Host,
    namespaces: Namespaces,
}

impl Fixture {
    fn new(count: usize) -> Self {
        let namespaces = Namespaces::new(count);
        let host = Host::silent();
        let files = host.temp.path().join("files");
        std::fs::create_dir(&files).unwrap();
        for (name, text) in [
            ("hosts", "10.1.0.2 web\n"),
            ("hostname", "web\n"),
            ("resolv.conf", ""),
        ] {
            std::fs::write(files.join(name), text).unwrap();
        }
        let mut daemon = Daemon {
            sandboxes: BTreeMap::new(),
            namespaces: namespaces.paths(),
            files: files.display().to_string(),
        };
        host.answer(move |request| daemon.answer(request));
        Self { host, namespaces }
    }

    fn sandboxes(&self) -> usize {
        self.host.output(&["sandbox", "ls", "-q"]).lines().count()
    }

    fn processes(&self) -> usize {
        self.host.output(&["ps", "-aq"]).lines().count()
    }

    fn await_processes(&self, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self
            .host
            .output(&["ps", "-a", "--json"])
            .contains(&format!("\"status\": \"{status}\""))
        {
            assert!(Instant::now() < deadline, "no process ever was {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let listed = self.host.command(&["ps", "-aq"]).output().unwrap();
        for id in String::from_utf8_lossy(&listed.stdout).lines() {
            let _ = self.host.command(&["rm", "-f", id]).output();
        }
    }
}

#[test]
fn a_foreground_run_sees_its_network_and_ends_with_its_own_code() {
    let fixture = Fixture::new(1);
    let script = "readlink /proc/self/ns/net; hostname; cat /etc/hosts; echo oops >&2; exit 7";
    let words = [
        "run", "--rm", "--name", "web", "-h", "inside", "sh", "-c", script,
    ];
    let (code, out, err) = fixture.host.tombolo(&words);
    let expected = format!("{}\ninside\n10.1.0.2 web\n", fixture.namespaces.inode(0));
    assert_eq!((code, out, err.as_str()), (7, expected, "oops\n"));
    assert_eq!((fixture.processes(), fixture.sandboxes()), (0, 0));
    let asked = fixture.host.asked();
    let Request::SandboxCreate(create) = &asked[0] else {
        panic!("{asked:?}")
    };
    assert_eq!(create.networks[0].network, "bridge");
    assert_eq!(create.hostname.as_deref(), Some("inside"));
    assert!(
        matches!(
            &asked[1],
            Request::SandboxDelete {
                keep_endpoints: false,
                ..
            }
        ),
        "{asked:?}"
    );
}

#[test]
fn a_program_that_cannot_run_leaves_nothing() {
    let fixture = Fixture::new(4);
    for (words, code) in [
        (&["run", "no-such-program"][..], 127),
        (&["run", "-d", "no-such-program"], 127),
        (&["run", "--rm", "/etc/passwd"], 126),
        (&["run", "-d", "-u", "nobody-at-all", "true"], 125),
    ] {
        let (found, out, err) = fixture.host.tombolo(words);
        assert_eq!((found, out.as_str()), (code, ""), "{words:?}: {err}");
        assert!(err.starts_with("tombolo: "), "{err}");
        assert_eq!(
            (fixture.processes(), fixture.sandboxes()),
            (0, 0),
            "{words:?}"
        );
    }
}

#[test]
fn a_detached_run_is_listed_joined_stopped_started_and_removed() {
    let fixture = Fixture::new(2);
    let host = &fixture.host;
    let script = "readlink /proc/self/ns/net; exec sleep 600";
    let id = host.output(&[
        "run", "-d", "--init", "--name", "web", "--net", "blue", "sh", "-c", script,
    ]);
    assert_eq!(id.trim(), format!("{:0<32}", "776562"));
    let table = host.output(&["ps"]);
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.starts_with("776562000000   web    sh -c readlink"),
        "{table}"
    );
    assert!(
        row.contains("Up ") && row.ends_with("blue 10.1.0.2"),
        "{table}"
    );
    let exec = host.tombolo(&["exec", "-e", "A=b", "web", "sh", "-c", "echo $A; exit 3"]);
    assert_eq!(exec, (3, "b\n".into(), String::new()));
    host.asked();
    assert_eq!(host.output(&["stop", "-t", "5", "web"]), "web\n");
    let asked = host.asked();
    assert!(
        matches!(asked.last(), Some(Request::SandboxStop { .. })),
        "{asked:?}"
    );
    assert_eq!(host.output(&["ps", "-q"]), "");
    assert!(host.output(&["ps", "-a"]).contains("Exited (143)"));
    assert_eq!(host.output(&["start", "web"]), "web\n");
    let logged = format!(
        "{}\n{}\n",
        fixture.namespaces.inode(0),
        fixture.namespaces.inode(1)
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while host.output(&["logs", "web"]) != logged {
        assert!(
            Instant::now() < deadline,
            "{}",
            host.output(&["logs", "web"])
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        host.output(&["logs", "--tail", "1", "web"]).lines().count(),
        1
    );
    let (code, _, err) = host.tombolo(&["rm", "web"]);
    assert_eq!(code, 3);
    assert!(err.contains("process web is running"), "{err}");
    assert_eq!(host.output(&["rm", "-f", "web", "nobody"]), "web\nnobody\n");
    assert_eq!((fixture.processes(), fixture.sandboxes()), (0, 0));
    assert_eq!(host.tombolo(&["logs", "web"]).0, 5);
}

#[test]
fn a_restart_keeps_the_name_and_the_sandbox() {
    let fixture = Fixture::new(2);
    let host = &fixture.host;
    host.output(&["run", "-d", "--name", "web", "sleep", "600"]);
    host.output(&["restart", "-t", "0", "web"]);
    let shown: serde_json::Value = serde_json::from_str(&host.output(&["inspect", "web"])).unwrap();
    assert_eq!(shown[0]["state"]["status"], "running");
    assert_eq!(
        shown[0]["sandbox"]["netns"],
        fixture.namespaces.paths()[1].as_str()
    );
    host.output(&["kill", "-s", "KILL", "web"]);
    assert_eq!(host.output(&["wait", "web"]), "137\n");
    fixture.await_processes("exited");
}

#[test]
fn links_are_in_the_environment_of_each_start_below_what_was_asked_for() {
    let fixture = Fixture::new(2);
    let host = &fixture.host;
    let script = "echo $DB_PORT_5432_TCP_ADDR $CACHE_PORT_5432_TCP_ADDR; exec sleep 600";
    let words = "run -d --init --name web --link db --link /redis:cache -e CACHE_PORT_5432_TCP_ADDR=mine sh -c";
    host.output(&words.split_whitespace().chain([script]).collect::<Vec<_>>());
    let asked = host.asked();
    let Request::SandboxCreate(create) = &asked[0] else {
        panic!("{asked:?}")
    };
    let links: Vec<_> = create
        .links
        .iter()
        .map(|link| (link.sandbox.as_str(), link.alias.as_deref()))
        .collect();
    assert_eq!(links, [("db", None), ("redis", Some("cache"))]);
    let await_log = |expected: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while host.output(&["logs", "web"]) != expected {
            let found = host.output(&["logs", "web"]);
            assert!(Instant::now() < deadline, "{found}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    await_log("10.1.0.9 mine\n");
    let beside = ["exec", "web", "sh", "-c", "echo $DB_PORT_5432_TCP_ADDR"];
    assert_eq!(host.output(&beside), "10.1.0.9\n");
    host.output(&["stop", "-t", "5", "web"]);
    host.output(&["start", "web"]);
    assert_eq!(host.output(&beside), "10.1.0.10\n");
    await_log("10.1.0.9 mine\n10.1.0.10 mine\n");
}

#[test]
fn processes_are_listed_with_their_ports() {
    let fixture = Fixture::new(1);
    let host = &fixture.host;
    let words = "run -d --name web -p 8080:80 --expose 80 --expose 53/udp sleep 600";
    host.output(&words.split_whitespace().collect::<Vec<_>>());
    let share = "run -d --name side --net container:web sleep 600";
    host.output(&share.split_whitespace().collect::<Vec<_>>());
    let table = host.output(&["ps"]);
    assert!(
        table
            .lines()
            .nth(2)
            .unwrap()
            .ends_with("   *:8080->80/tcp, 53/udp   bridge 10.1.0.2"),
        "{table}"
    );
    assert!(
        table
            .lines()
            .nth(1)
            .unwrap()
            .ends_with("   -                        container:web"),
        "{table}"
    );
    let rows: serde_json::Value = serde_json::from_str(&host.output(&["ps", "--json"])).unwrap();
    assert_eq!(rows[1]["publications"][0]["host"], "8080");
    let shown: serde_json::Value = serde_json::from_str(&host.output(&["inspect", "web"])).unwrap();
    assert_eq!(shown[0]["sandbox"]["publications"][0]["ipv6"], "relay");
    host.asked();
    // Its ports are those of whose network it shares, and only that one can change them.
    let (code, _, err) = host.tombolo(&["publish", "add", "side", "81"]);
    assert_eq!(code, 3);
    assert!(err.contains("side has no networks of its own"), "{err}");
    assert!(host.asked().is_empty());
    assert_eq!(
        host.output(&["port", "side", "80"]),
        "0.0.0.0:8080\n[::]:8080\n"
    );
    host.output(&["stop", "-t", "0", "side", "web"]);
    let table = host.output(&["ps", "-a"]);
    assert!(
        !table.contains("8080") && !table.contains("53/udp"),
        "{table}"
    );
}

#[test]
fn a_process_that_ends_by_itself_stops_or_removes_its_sandbox() {
    let fixture = Fixture::new(2);
    let host = &fixture.host;
    host.output(&["run", "--name", "kept", "true"]);
    assert_eq!((fixture.processes(), fixture.sandboxes()), (1, 1));
    let asked = host.asked();
    assert!(
        asked
            .iter()
            .any(|request| matches!(request, Request::SandboxStop { .. })),
        "{asked:?}"
    );
    host.output(&["rm", "kept"]);
    host.output(&["run", "-d", "--rm", "--name", "gone", "true"]);
    let records = host.temp.path().join("run");
    let remains = || {
        let names = std::fs::read_dir(&records).unwrap().flatten();
        names.filter(|name| name.path().is_dir()).count()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while remains() > 0 {
        assert!(Instant::now() < deadline, "it never removed itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((fixture.processes(), fixture.sandboxes()), (0, 0));
}

#[test]
fn a_process_shares_the_network_names_and_host_name_of_another() {
    let fixture = Fixture::new(1);
    let host = &fixture.host;
    let script = "readlink /proc/self/ns/net; hostname; cat /etc/hosts";
    let share = ["run", "--rm", "--net", "container:web", "sh", "-c", script];
    let (code, _, err) = host.tombolo(&share);
    assert_eq!(code, 125);
    assert!(err.contains("no such sandbox"), "{err}");
    host.output(&["run", "-d", "--name", "web", "sleep", "600"]);
    let expected = format!("{}\nweb-host\n10.1.0.2 web\n", fixture.namespaces.inode(0));
    assert_eq!(host.output(&share), expected);
    host.output(&[
        "run",
        "-d",
        "--name",
        "side",
        "--net",
        "container:web",
        "sleep",
        "600",
    ]);
    // Who shares with one that shares ends up in the same place.
    assert_eq!(
        host.output(&["run", "--rm", "--net", "container:side", "sh", "-c", script]),
        expected
    );
    assert!(host.output(&["ps"]).contains("container:web\n"));
    let (code, _, err) = host.tombolo(&["network", "connect", "blue", "side"]);
    assert_eq!(code, 3);
    assert!(err.contains("side has no networks of its own"), "{err}");
    host.output(&["stop", "-t", "0", "side", "web"]);
    let (code, _, err) = host.tombolo(&["start", "side"]);
    assert_eq!(code, 3);
    assert!(
        err.contains("is not running, so its network cannot be shared"),
        "{err}"
    );
    assert_eq!(fixture.sandboxes(), 1);
}

#[test]
fn several_processes_are_stopped_at_the_same_time() {
    let fixture = Fixture::new(1);
    let host = &fixture.host;
    // Without an init a program that ignores the signal is only ended by the timeout.
    let stubborn = [
        "sh",
        "-c",
        "trap '' TERM; echo ready; sleep 600 & wait; wait",
    ];
    let names = ["a", "b", "c"];
    host.output(&["run", "-d", "--name", "web", "sleep", "600"]);
    for name in names {
        let run = ["run", "-d", "--name", name, "--net", "container:web"];
        host.output(&[&run[..], &stubborn].concat());
        while host.output(&["logs", name]) != "ready\n" {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let started = Instant::now();
    let (code, out, err) = host.tombolo(&["stop", "-t", "1", "a", "nobody", "b", "c"]);
    assert_eq!((code, out.as_str()), (5, "a\nb\nc\n"), "{err}");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_millis(2500),
        "{took:?}"
    );
}

#[test]
fn the_hosts_namespace_is_the_callers() {
    let fixture = Fixture::new(0);
    let host = &fixture.host;
    let inside = host.output(&[
        "run",
        "--rm",
        "--network",
        "host",
        "readlink",
        "/proc/self/ns/net",
    ]);
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(inside.trim(), ours.display().to_string());
    let asked = host.asked();
    let Request::SandboxCreate(create) = &asked[0] else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (&create.netns, create.networks[0].network.as_str()),
        (&NetnsChoice::Host, "host")
    );
}

#[test]
fn a_taken_name_is_refused_and_costs_the_owner_nothing() {
    let fixture = Fixture::new(2);
    let host = &fixture.host;
    host.output(&["run", "-d", "--name", "web", "sleep", "600"]);
    let (code, _, err) = host.tombolo(&["run", "-d", "--name", "web", "sleep", "600"]);
    assert_eq!(code, 125);
    assert!(err.contains("the name is taken"), "{err}");
    // A process without a sandbox has a name too.
    host.output(&[
        "run",
        "-d",
        "--name",
        "side",
        "--net",
        "container:web",
        "sleep",
        "600",
    ]);
    let (code, _, err) = host.tombolo(&["run", "-d", "--name", "side", "sleep", "600"]);
    assert_eq!(code, 125);
    assert!(err.contains("name side is taken"), "{err}");
    assert_eq!((fixture.processes(), fixture.sandboxes()), (2, 1));
    assert_eq!(host.output(&["ps", "-q"]).lines().count(), 2);
}
