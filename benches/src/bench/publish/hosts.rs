//! Hosts on which ports are published by our daemon.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tombolo_api::{
    Client, NetnsChoice, NetworkAttachment, PublicationSpec, Sandbox, SandboxCreate,
};

use super::super::GONE;
use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::netns::{Named, Netns};

/// Ports that each endpoint of a populated host publishes.
pub(super) const EACH: u16 = 10;
/// The first port of the host that a populated host publishes.
pub(super) const FIRST_HOST: u16 = 10_000;
/// The first port of a sandbox that is published.
pub(super) const FIRST_INSIDE: u16 = 1_000;

/// A host with our daemon and its network.
pub(super) struct Host {
    pub(super) home: Netns,
    pub(super) daemon: Daemon,
    pub(super) client: Client,
    directory: PathBuf,
    there: usize,
    /// What was attached within measured time.
    attached: Vec<Attached>,
}

/// What was attached and will be detached.
pub(super) struct Attached {
    name: String,
    pub(super) place: Named,
    pub(super) addresses: Vec<IpAddr>,
}

/// Ports of the host from `first`, each with the port that it leads to.
pub(super) fn ports(first: u16, count: u16) -> Vec<(u16, u16)> {
    (0..count).map(|n| (first + n, FIRST_INSIDE + n)).collect()
}

/// The ports of endpoint `n` of a populated host.
pub(super) fn ports_of(n: usize) -> Vec<(u16, u16)> {
    let n = u16::try_from(n).unwrap_or(u16::MAX);
    ports(FIRST_HOST.saturating_add(n.saturating_mul(EACH)), EACH)
}

/// A single port or range, published by TCP through the kernel.
pub(super) fn publication(host: String, container: String) -> PublicationSpec {
    PublicationSpec {
        host: Some(host),
        obey_host_firewall: Some(false),
        ..PublicationSpec::new(container)
    }
}

impl Host {
    /// A new host, whose daemon answers.
    pub(super) fn start(place: &Path, name: &str) -> anyhow::Result<Self> {
        let directory = place.join(name);
        let home = Netns::enter_new()?;
        let daemon = Daemon::start(&directory, Settings::DEFAULT)?;
        let mut client = daemon.client()?;
        daemon::create_network(&mut client, NETWORK)?;
        Ok(Self {
            home,
            daemon,
            client,
            directory,
            there: 0,
            attached: Vec::new(),
        })
    }

    /// Attaches sandboxes with [`EACH`] published ports until so many are there.
    pub(super) fn fill(&mut self, level: usize) -> anyhow::Result<()> {
        while self.there < level {
            let request = SandboxCreate {
                name: Some(format!("full{}", self.there)),
                publish: each(&ports_of(self.there)),
                ..on_the_network()
            };
            self.create(request)?;
            self.there += 1;
        }
        Ok(())
    }

    /// Attaches a namespace that was made before the time begins; how long it took.
    pub(super) fn attach(&mut self, ports: &[(u16, u16)]) -> anyhow::Result<Duration> {
        self.attach_with(each(ports))
    }

    /// The same with publications of any form.
    pub(super) fn attach_with(
        &mut self,
        publish: Vec<PublicationSpec>,
    ) -> anyhow::Result<Duration> {
        self.home.enter()?;
        let name = format!("measured{}", self.attached.len());
        let place = Named::create(self.directory.join(&name), &self.home)?;
        let request = SandboxCreate {
            name: Some(name.clone()),
            netns: NetnsChoice::Path {
                path: place.path.to_string_lossy().into_owned(),
            },
            publish,
            ..on_the_network()
        };
        let began = Instant::now();
        let sandbox = self.create(request)?;
        let took = began.elapsed();
        self.attached.push(Attached {
            name,
            place,
            addresses: addresses(&sandbox),
        });
        Ok(took)
    }

    /// The one that was attached last.
    pub(super) fn newest(&self) -> anyhow::Result<&Attached> {
        self.attached.last().context("nothing is attached")
    }

    /// Detaches what was attached within measured time, and waits until nothing more happens because of that.
    pub(super) fn detach(&mut self) -> anyhow::Result<()> {
        for attached in self.attached.drain(..) {
            daemon::detach(&mut self.client, &attached.name)?;
            attached.place.remove()?;
        }
        thread::sleep(GONE);
        Ok(())
    }

    /// Makes a sandbox.
    pub(super) fn create(&mut self, request: SandboxCreate) -> anyhow::Result<Sandbox> {
        let name = request.name.clone().unwrap_or_default();
        self.client
            .sandbox_create(request)
            .with_context(|| format!("sandbox {name}"))
    }
}

/// A sandbox with one endpoint.
pub(super) fn on_the_network() -> SandboxCreate {
    SandboxCreate {
        networks: vec![NetworkAttachment {
            network: NETWORK.to_owned(),
            ..NetworkAttachment::default()
        }],
        ..SandboxCreate::default()
    }
}

/// The addresses of a sandbox's endpoints.
pub(super) fn addresses(sandbox: &Sandbox) -> Vec<IpAddr> {
    let all = sandbox
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses);
    all.filter_map(|text| text.split('/').next()?.parse().ok())
        .collect()
}

fn each(ports: &[(u16, u16)]) -> Vec<PublicationSpec> {
    ports
        .iter()
        .map(|(host, inside)| publication(host.to_string(), inside.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_a_populated_host_have_ports_of_their_own() {
        assert_eq!(ports_of(0).first(), Some(&(10_000, 1_000)));
        assert_eq!(ports_of(999).last(), Some(&(19_999, 1_009)));
        let specs = each(&ports(20_000, 2));
        assert_eq!(specs[1].host.as_deref(), Some("20001"));
        assert_eq!(specs[1].container, "1001");
    }
}
