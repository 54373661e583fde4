//! Our own daemon, asked within its sandboxes.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use tombolo_api::{
    Client, NetworkAttachment, NetworkCreate, NetworkDnsConfig, Sandbox, SandboxCreate,
    SubnetConfig,
};

use super::NAME;
use super::server::{PORT, Server, Spot};
use crate::daemon::{self, Daemon, NETWORK, Settings};
use crate::netns::Netns;

/// Where the resolver answers within a sandbox.
const RESOLVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), PORT);

/// A host with our daemon and sandboxes on a network.
pub(super) struct Ours {
    pub(super) daemon: Daemon,
    client: Client,
    directory: PathBuf,
    pub(super) home: Netns,
    spots: Vec<Spot>,
    address: Ipv4Addr,
}

impl Ours {
    /// A new host with a network; the resolver answers in sandboxes unless it is said to be off.
    pub(super) fn start(place: &Path, name: &str, resolver: Option<&str>) -> anyhow::Result<Self> {
        let directory = place.join(name);
        let home = Netns::enter_new()?;
        let daemon = Daemon::start(&directory, Settings::DEFAULT)?;
        let mut client = daemon.client()?;
        let subnet = |text: &str| SubnetConfig {
            subnet: Some(text.to_owned()),
            ..SubnetConfig::default()
        };
        client.network_create(NetworkCreate {
            ipv6: Some(true),
            subnets: vec![subnet("10.77.0.0/16"), subnet("fd77::/64")],
            dns: NetworkDnsConfig {
                resolver: resolver.map(str::to_owned),
                ..NetworkDnsConfig::default()
            },
            ..NetworkCreate::new(NETWORK)
        })?;
        Ok(Self {
            daemon,
            client,
            directory,
            home,
            spots: Vec::new(),
            address: Ipv4Addr::UNSPECIFIED,
        })
    }

    /// One with the name that everybody is asked for, and sandboxes that ask.
    pub(super) fn with_askers(place: &Path, name: &str, askers: u32) -> anyhow::Result<Self> {
        let mut host = Self::start(place, name, None)?;
        let (web, _) = host.add(NAME, Vec::new())?;
        host.address = ipv4(&web)?;
        for n in 0..askers {
            host.add_asker(&format!("asker{n}"), Vec::new())?;
        }
        Ok(host)
    }

    /// A further sandbox; also how long that took, from the request to its reply.
    pub(super) fn add(
        &mut self,
        name: &str,
        aliases: Vec<String>,
    ) -> anyhow::Result<(Sandbox, Duration)> {
        let request = SandboxCreate {
            name: Some(name.to_owned()),
            networks: vec![NetworkAttachment {
                network: NETWORK.to_owned(),
                aliases,
                ..NetworkAttachment::default()
            }],
            ..SandboxCreate::default()
        };
        let began = Instant::now();
        let sandbox = self.client.sandbox_create(request);
        let took = began.elapsed();
        Ok((sandbox.with_context(|| format!("sandbox {name}"))?, took))
    }

    /// A further sandbox that asks.
    pub(super) fn add_asker(&mut self, name: &str, aliases: Vec<String>) -> anyhow::Result<()> {
        let (sandbox, _) = self.add(name, aliases)?;
        let path = sandbox.netns.as_ref().context("it has no namespace")?;
        self.spots.push(Spot {
            netns: Netns::open(Path::new(path))?,
            server: RESOLVER,
        });
        Ok(())
    }

    /// Removes a sandbox; how long that took, from the request to its reply.
    pub(super) fn remove(&mut self, name: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        daemon::detach(&mut self.client, name)?;
        Ok(began.elapsed())
    }

    /// Ends the daemon in one way or the other and starts it again, all else left as it is.
    pub(super) fn restart(
        self,
        end: impl FnOnce(Daemon) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        end(self.daemon)?;
        self.home.enter()?;
        let daemon = Daemon::start(&self.directory, Settings::DEFAULT)?;
        Ok(Self {
            client: daemon.client()?,
            daemon,
            ..self
        })
    }
}

impl Server for Ours {
    fn name(&self) -> &'static str {
        "tombolo"
    }

    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn spots(&self) -> &[Spot] {
        &self.spots
    }

    fn home(&self) -> Option<&Netns> {
        None
    }

    fn address(&self) -> Ipv4Addr {
        self.address
    }
}

/// The IPv4 address of a sandbox with one endpoint.
pub(super) fn ipv4(sandbox: &Sandbox) -> anyhow::Result<Ipv4Addr> {
    let all = sandbox
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses);
    all.filter_map(|text| text.split('/').next()?.parse().ok())
        .find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .context("it has no IPv4 address")
}
