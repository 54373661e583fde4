//! A machine with our daemon and Docker's engine, each of which knows the other.

use std::net::IpAddr;
use std::ops::Deref;

use tombolo_lab::node::{Outcome, wait_until};
use tombolo_tests::peers::{CLIENT, Dockerd};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

/// Flags of our daemon.
pub(crate) const FLAGS: &[&str] = &[
    "--docker-plugin",
    "/run/docker/plugins/tombolo.sock",
    "--docker-engine",
    "/var/run/docker.sock",
];

/// A machine with both.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) docker: Dockerd,
}

impl Scene {
    /// None where this machine cannot have it, which is then told.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(FLAGS)
    }

    /// The same with other flags of our daemon.
    #[track_caller]
    pub(crate) fn start_with(flags: &[&str]) -> Option<Self> {
        let stage = Stage::start_with(flags)?;
        let docker = Dockerd::start(&stage)?;
        Some(Self { stage, docker })
    }

    /// What `docker` prints when given these words, which must succeed.
    #[track_caller]
    pub(crate) fn docker(&self, line: &str) -> String {
        self.docker.ok(&self.stage, line)
    }

    /// How `docker` ends when given these words.
    #[track_caller]
    pub(crate) fn docker_tries(&self, line: &str) -> Outcome {
        self.docker.tries(&self.stage, line)
    }

    /// A network of Docker's with our driver and our addresses.
    #[track_caller]
    pub(crate) fn network(&self, name: &str, flags: &str) -> String {
        let id = self.docker(&format!(
            "network create --driver tombolo --ipam-driver tombolo {flags} {name}"
        ));
        self.await_network(name);
        id
    }

    /// Waits until our daemon has heard what a network is called.
    #[track_caller]
    pub(crate) fn await_network(&self, name: &str) {
        let line = format!("network inspect {name}");
        let heard = wait_until(PATIENCE, || self.tries(&line).success());
        assert!(heard, "{:?}", self.tries("network ls"));
    }

    /// Asserts that a name means an address to the programs of a sandbox.
    #[track_caller]
    pub(crate) fn assert_found(&self, from: &Place, name: &str, address: &str) {
        let line = format!("dig +short +tries=1 +time=2 @127.0.0.11 {name}");
        let found = wait_until(PATIENCE, || from.run(&line).stdout.contains(address));
        assert!(found, "{name}: {:?}", from.run(&line));
    }

    /// A container that does nothing, and where it is on a network.
    #[track_caller]
    pub(crate) fn container(&self, name: &str, network: &str, flags: &str) -> Place {
        self.docker(&format!(
            "run --detach --name {name} --network {network} {flags} box /bin/busybox sleep 100000"
        ));
        self.place(name, network)
    }

    /// Where a running container is on a network.
    #[track_caller]
    pub(crate) fn place(&self, name: &str, network: &str) -> Place {
        let format = format!(
            "{{{{.State.Pid}}}}/{{{{with(index.NetworkSettings.Networks\"{network}\")}}}}{{{{.IPAddress}}}}/{{{{.GlobalIPv6Address}}}}{{{{end}}}}"
        );
        let format = format.replace(
            "(index.NetworkSettings.Networks",
            "(index .NetworkSettings.Networks ",
        );
        let format = format.replace("{{with(", "{{with (");
        let words = [
            "timeout", "30", CLIENT, "inspect", "--format", &format, name,
        ];
        let told = self.stage.run(&words).expect("nsenter(1) starts");
        assert!(told.success(), "{told:?}");
        let parts: Vec<&str> = told.stdout.trim().split('/').collect();
        let addresses = parts[1..].iter().filter(|text| !text.is_empty());
        Place {
            netns: self.stage.path(format!("/proc/{}/ns/net", parts[0])),
            addresses: addresses.map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// What a container's own program prints, which must succeed.
    #[track_caller]
    pub(crate) fn inside(&self, container: &str, line: &str) -> String {
        self.docker(&format!("exec {container} /bin/busybox {line}"))
    }

    /// Asserts that a name means an address to a container's own programs.
    #[track_caller]
    pub(crate) fn assert_resolves(&self, container: &str, name: &str, address: &str) {
        let line = format!("exec {container} /bin/busybox nslookup {name}");
        let resolves = || {
            let outcome = self.docker_tries(&line);
            outcome.stdout.contains(address)
        };
        assert!(
            wait_until(PATIENCE, resolves),
            "{name} in {container}: {:?}",
            self.docker_tries(&line)
        );
    }

    /// The outside, over IPv4 alone.
    pub(crate) fn far_v4(&self) -> Place {
        let mut far = self.far();
        far.addresses.retain(IpAddr::is_ipv4);
        far
    }

    /// Ends the engine in order.
    #[track_caller]
    pub(crate) fn stop(self) {
        let Self { stage, docker } = self;
        docker.stop(&stage);
    }
}

impl Deref for Scene {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}
