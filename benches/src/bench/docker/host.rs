//! A host with our daemon and Docker's engine, and containers on a network of each.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::super::GONE;
use super::echo::Echo;
use super::engine::{self, Engine, IMAGE, Userland};
use crate::daemon::{Daemon, Settings};
use crate::netns::Netns;
use crate::reach;

/// Where engines look for a plugin of this name.
pub(super) const PLUGIN: &str = "/run/docker/plugins/tombolo.sock";
/// The first port of the host that a measured container publishes.
const FIRST: u16 = 20_000;
/// The first port of a container that is published.
const FIRST_INSIDE: u16 = 80;
/// Containers that are started at the same time to fill a host.
const FILLERS: usize = 2;

/// On what a container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// Our driver and our addresses.
    Ours,
    /// Docker's own bridge driver.
    Docker,
    /// That of the host: what a start costs without any network.
    Host,
}

/// A host with both.
pub(super) struct Host {
    // Dropped in this order: the engine is not to be told of an end of its plugin.
    engine: Engine,
    daemon: Daemon,
    home: Netns,
    echo: Echo,
}

/// A start.
pub(super) struct Started {
    /// From the request to the first packet.
    pub(super) took: Duration,
    /// What our daemon logged until the engine had answered.
    pub(super) log: String,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Docker => "theirs",
            Self::Host => "host",
        }
    }

    /// The host's address, to which the first packet goes.
    fn gateway(self) -> Ipv4Addr {
        match self {
            Self::Ours => Ipv4Addr::new(10, 210, 0, 1),
            Self::Docker => Ipv4Addr::new(10, 211, 0, 1),
            Self::Host => Ipv4Addr::LOCALHOST,
        }
    }

    fn create(self) -> Value {
        let (driver, ipam) = match self {
            Self::Ours => ("tombolo", "tombolo"),
            Self::Docker | Self::Host => ("bridge", "default"),
        };
        let gateway = self.gateway();
        let subnet = format!("{}/16", Ipv4Addr::from_bits(gateway.to_bits() & !0xffff));
        let subnet = json!({ "Subnet": subnet, "Gateway": gateway });
        json!({
            "Name": self.name(),
            "Driver": driver,
            "IPAM": { "Driver": ipam, "Config": [subnet] },
        })
    }
}

impl Host {
    /// A new host, whose engine has both networks and an image.
    pub(super) fn start(place: &Path, name: &str, userland: Userland) -> anyhow::Result<Self> {
        let home = Netns::enter_new()?;
        let directory = place.join(format!("engine-{name}"));
        let settings = Settings {
            log: "debug",
            docker: Some(PLUGIN),
            ..Settings::DEFAULT
        };
        let engines = [engine::socket(&directory)];
        let daemon = Daemon::start_beside(&place.join(name), settings, &engines)?;
        let scene = place.file_name().unwrap_or_default().to_string_lossy();
        let engine = Engine::start(&directory, &format!("{scene}-{name}"), userland)?;
        for network in [Network::Ours, Network::Docker] {
            engine.call("POST /networks/create", &network.create())?;
        }
        Ok(Self {
            engine,
            daemon,
            home,
            echo: Echo::open()?,
        })
    }

    /// Starts containers that do nothing, on both networks in turn, until so many are there on each or the time
    /// is over; how many are on each.
    pub(super) fn fill(&self, level: usize, end: Instant) -> anyhow::Result<usize> {
        let create = |network| self.create(network, 0, &["sleep", "100000"]);
        let start = |id: &str| self.engine.call(&path("POST", id, "/start"), &Value::Null);
        let mut there = 0;
        while there < level && Instant::now() < end {
            let count = (level - there).min(FILLERS);
            thread::scope(|scope| -> anyhow::Result<()> {
                let mut fillers = Vec::new();
                for _ in 0..count {
                    fillers.push(scope.spawn(|| {
                        for network in [Network::Ours, Network::Docker] {
                            start(&create(network)?)?;
                        }
                        anyhow::Ok(())
                    }));
                }
                for filler in fillers {
                    filler.join().ok().context("a thread panicked")??;
                }
                Ok(())
            })?;
            there += count;
        }
        Ok(there)
    }

    /// Starts a container on a network and removes it. The last of its ports is tried if it is to be checked.
    pub(super) fn start_one(
        &self,
        network: Network,
        ports: u16,
        is_checked: bool,
    ) -> anyhow::Result<Started> {
        let gateway = network.gateway().to_string();
        // The first echo is asked for at once, the second never.
        let id = self.create(network, ports, &["ping", "-i", "100000", &gateway])?;
        let before = self.daemon.log()?.len();
        self.echo.forget()?;
        let began = Instant::now();
        let request = self.engine.send(&path("POST", &id, "/start"))?;
        let heard = self.echo.hear(network.gateway());
        let took = began.elapsed();
        // Why there was none is told by the answer.
        request
            .answer()
            .and(heard)
            .with_context(|| self.engine.log_tail())?;
        let log = self.daemon.log()?;
        let log = log.get(before..).unwrap_or_default().to_owned();
        if is_checked && ports > 0 {
            self.check(network, ports, &id)?;
        }
        let removal = format!("DELETE /containers/{id}?force=1");
        self.engine.call(&removal, &Value::Null)?;
        thread::sleep(GONE);
        Ok(Started { took, log })
    }

    /// Makes a container; its id.
    fn create(&self, network: Network, ports: u16, words: &[&str]) -> anyhow::Result<String> {
        let command = [&["/bin/busybox"], words].concat();
        let mut exposed = serde_json::Map::new();
        let mut bound = serde_json::Map::new();
        for n in 0..ports {
            let inside = format!("{}/tcp", FIRST_INSIDE + n);
            exposed.insert(inside.clone(), json!({}));
            let outside = (FIRST + n).to_string();
            bound.insert(inside, json!([{ "HostPort": outside }]));
        }
        let wanted = json!({
            "Image": IMAGE,
            "Cmd": command,
            "ExposedPorts": exposed,
            "HostConfig": { "NetworkMode": network.name(), "PortBindings": bound },
        });
        let made = self.engine.call("POST /containers/create", &wanted)?;
        let id = made["Id"].as_str().context("a container has no id")?;
        Ok(id.to_owned())
    }

    fn check(&self, network: Network, ports: u16, id: &str) -> anyhow::Result<()> {
        let told = self.engine.call(&path("GET", id, "/json"), &Value::Null)?;
        let address = &told["NetworkSettings"]["Networks"][network.name()]["IPAddress"];
        let address: IpAddr = address.as_str().unwrap_or_default().parse()?;
        let Some(pid) = told["State"]["Pid"].as_u64().filter(|pid| *pid > 0) else {
            bail!("container {id} does not run");
        };
        let place = Netns::open(Path::new(&format!("/proc/{pid}/ns/net")))?;
        let last = ports - 1;
        let inside = (&place, &[address][..], FIRST_INSIDE + last);
        reach::published(&self.home, FIRST + last, inside)
            .with_context(|| format!("network {}", network.name()))
    }
}

fn path(method: &str, id: &str, what: &str) -> String {
    format!("{method} /containers/{id}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_a_driver_and_a_subnet_of_its_own() {
        let ours = Network::Ours.create();
        assert_eq!(ours["Driver"], "tombolo");
        assert_eq!(ours["IPAM"]["Config"][0]["Subnet"], "10.210.0.0/16");
        assert_eq!(Network::Docker.create()["Driver"], "bridge");
    }
}
