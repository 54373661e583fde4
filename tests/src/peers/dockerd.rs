//! The real dockerd, with containerd and runc.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tombolo_lab::node::{Outcome, skip, wait_until};

use super::{Log, is_missing};
use crate::stage::{PATIENCE, Place, Stage};

/// Longest time for dockerd to answer or to end, with all that it starts.
const LONG: Duration = Duration::from_secs(40);
/// The image.
const IMAGE: &str = "box";
/// Debian's client: a newer one on the path may ask for more than this engine has.
pub const CLIENT: &str = "/usr/bin/docker";
/// Where control groups are mounted on the node.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A running dockerd. Its containers, containerd and shims live in a control group that goes with it.
#[derive(Debug)]
pub struct Dockerd {
    /// The control group of everything, as this test finds it.
    group: Group,
    name: String,
    places: Places,
    log: Log,
}

/// What several of them on one node must not share.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// Where it listens; Docker's own settings in the environment count for nothing.
    socket: &'static str,
    /// What the paths of everything else of it begin with.
    home: &'static str,
    /// The flags about its own bridge, of which a node has one.
    bridge: &'static str,
}

const FIRST: Places = Places {
    socket: "unix:///var/run/docker.sock",
    home: "/run/docker",
    bridge: "--bip 10.201.0.1/24 --default-address-pool base=10.202.0.0/16,size=24",
};

const SECOND: Places = Places {
    socket: "unix:///run/second.sock",
    home: "/run/second",
    bridge: "--bridge none --default-address-pool base=10.203.0.0/16,size=24",
};

/// A control group, removed on drop with every process in it.
#[derive(Debug)]
struct Group(PathBuf);

impl Dockerd {
    /// A dockerd that answers, and its image; none, after the test was declared skipped, where there cannot be
    /// one.
    #[track_caller]
    pub fn start(stage: &Stage) -> Option<Self> {
        Self::start_at(stage, FIRST)
    }

    /// Another one beside it, which listens at `/run/second.sock` and has no bridge of its own.
    #[track_caller]
    pub fn start_second(stage: &Stage) -> Option<Self> {
        Self::start_at(stage, SECOND)
    }

    #[track_caller]
    fn start_at(stage: &Stage, places: Places) -> Option<Self> {
        let programs = [
            ("dockerd", "docker.io"),
            ("docker", "docker.io"),
            ("containerd", "containerd"),
            ("runc", "runc"),
            ("iptables", "iptables"),
            ("busybox", "busybox-static"),
        ];
        if is_missing(stage, &programs) {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tombolo-test-{}-{count}", std::process::id());
        let made = stage
            .run(&["sh", "-c", &groups(&name, places.home)])
            .expect("nsenter(1) starts");
        if !made.success() {
            skip(&format!("no control groups for dockerd: {}", made.stderr));
            return None;
        }
        let docker = Self {
            group: Group(stage.path(format!("{CGROUPS}/{name}"))),
            name,
            places,
            log: Log(stage.path(format!("{}.log", places.home))),
        };
        docker.launch(stage);
        stage.shell(&format!(
            "mkdir -p /run/image/bin && cp \"$(command -v busybox)\" /run/image/bin/busybox \
             && tar -C /run/image -c . | timeout 30 {CLIENT} --host {socket} import - {IMAGE}",
            socket = places.socket,
        ));
        Some(docker)
    }

    /// Runs `docker` with these words to its end.
    #[track_caller]
    pub fn tries(&self, stage: &Stage, line: &str) -> Outcome {
        let words = ["timeout", "30", CLIENT, "--host", self.places.socket]
            .into_iter()
            .chain(line.split_whitespace());
        let words: Vec<&str> = words.collect();
        stage.run(&words).expect("nsenter(1) starts")
    }

    /// What `docker` prints when given these words, which must succeed.
    #[track_caller]
    pub fn ok(&self, stage: &Stage, line: &str) -> String {
        let outcome = self.tries(stage, line);
        assert!(outcome.success(), "docker {line}: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// A container that does nothing, started with these flags of `docker run`.
    #[track_caller]
    pub fn run(&self, stage: &Stage, name: &str, flags: &str) -> Place {
        self.ok(
            stage,
            &format!("run --detach --name {name} {flags} {IMAGE} /bin/busybox sleep 100000"),
        );
        self.place(stage, name)
    }

    /// Where a running container is.
    #[track_caller]
    pub fn place(&self, stage: &Stage, name: &str) -> Place {
        let format = "{{.State.Pid}}/{{.NetworkSettings.IPAddress}}";
        let told = self.ok(stage, &format!("inspect --format {format} {name}"));
        let (pid, address) = told.split_once('/').expect("what was asked for");
        Place {
            netns: stage.path(format!("/proc/{pid}/ns/net")),
            // None where it is on other networks than Docker's own.
            addresses: address.parse().into_iter().collect(),
        }
    }

    /// Name of the control group, below the root of all of them.
    pub fn control_group(&self) -> &str {
        &self.name
    }

    /// Ends dockerd as a service manager does and starts it again. Containers end with it.
    #[track_caller]
    pub fn restart(&self, stage: &Stage) {
        self.end(stage);
        self.launch(stage);
    }

    /// Ends dockerd as a service manager does, and its containers with it.
    #[track_caller]
    pub fn pause(&self, stage: &Stage) {
        self.end(stage);
    }

    /// Kills dockerd and nothing that it has started; containers go on for as long as they can. Says whether it ran.
    #[must_use]
    #[track_caller]
    pub fn kill(&self, stage: &Stage) -> bool {
        let home = self.places.home;
        let kill = format!("kill -9 \"$(cat {home}.pid)\" && echo killed; rm -f {home}.pid");
        stage.shell(&kill) == "killed"
    }

    /// Starts dockerd after it was killed.
    #[track_caller]
    pub fn again(&self, stage: &Stage) {
        self.launch(stage);
    }

    /// Removes all containers and ends dockerd; what is left of it is only its rules, as always.
    #[track_caller]
    pub fn stop(self, stage: &Stage) {
        let all = self.ok(stage, "ps --all --quiet").replace('\n', " ");
        if !all.is_empty() {
            self.ok(stage, &format!("rm --force {all}"));
        }
        self.end(stage);
    }

    #[track_caller]
    fn launch(&self, stage: &Stage) {
        let Places {
            socket,
            home,
            bridge,
        } = self.places;
        stage.shell(&format!(
            "echo $$ >{CGROUPS}/{name}/daemon/cgroup.procs
             setsid dockerd --data-root {home}-data --exec-root {home}-exec \
                 --pidfile {home}.pid --host {socket} \
                 --storage-driver vfs --iptables=true --shutdown-timeout 3 \
                 --cgroup-parent /{name}/containers {bridge} \
                 --config-file {home}.json >>{home}.log 2>&1 </dev/null &",
            name = self.name,
        ));
        let answers = wait_until(LONG, || self.tries(stage, "version").success());
        assert!(answers, "dockerd does not answer:\n{}", self.log.tail());
    }

    #[track_caller]
    fn end(&self, stage: &Stage) {
        let home = self.places.home;
        stage.shell(&format!("kill \"$(cat {home}.pid)\""));
        let ended = wait_until(LONG, || {
            let left = stage.shell(&format!("[ ! -e {home}.pid ] || echo there"));
            left.is_empty()
        });
        assert!(ended, "dockerd does not end:\n{}", self.log.tail());
        let group = self.group.0.join("daemon");
        let is_empty =
            || fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|p| p.is_empty());
        // A dockerd that was killed leaves a containerd and shims behind, of which the next one ends only those that
        // it finds again.
        if !wait_until(PATIENCE, is_empty) {
            fs::write(group.join("cgroup.kill"), "1").expect("a group can be killed");
            assert!(wait_until(PATIENCE, is_empty), "it cannot be killed");
        }
    }
}

/// Control groups of its own: one for what dockerd starts, one for its containers. The node's own mount shows
/// the whole of them, wherever the machine has it.
fn groups(name: &str, home: &str) -> String {
    format!(
        "echo '{{}}' >{home}.json; [ -e {CGROUPS}/cgroup.procs ] \
         || mount -t cgroup2 none {CGROUPS} && mkdir {CGROUPS}/{name} {CGROUPS}/{name}/daemon"
    )
}

impl Drop for Group {
    fn drop(&mut self) {
        // cgroup_kill is the kernel's own: it reaches what has been started meanwhile, too.
        drop(fs::write(self.0.join("cgroup.kill"), "1"));
        let gone = wait_until(PATIENCE, || remove(&self.0).is_ok());
        if !gone && !std::thread::panicking() {
            panic!("control group {} cannot be removed", self.0.display());
        }
    }
}

/// Removes a control group and those below it. Their files go with them.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
