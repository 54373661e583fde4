//! How names are resolved in a sandbox: what was asked for it, for its networks, in the configuration and on the
//! host, put together.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tombolo_core::Controller;
use tombolo_core::driver::resolver::{IN_SANDBOX, Place, place};
use tombolo_core::model::{Sandbox, SandboxNetns};
use tombolo_dns::resolv_conf::{
    Nameserver, Origin, Overrides, ResolvConf, SandboxFacts, SandboxResolvConf, Stub,
};

use crate::config::Dns;
use crate::files::read;

/// The host's settings.
const HOST_FILE: &str = "/etc/resolv.conf";

/// What tells one version of a file from another; none for a file that is not there.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// The host's settings and the daemon's.
#[derive(Debug)]
pub(crate) struct Resolution {
    daemon: Overrides,
    host: ResolvConf,
    stamps: [Stamp; 3],
}

impl Resolution {
    /// Reads the host's settings; the daemon's were checked with its configuration.
    pub(crate) fn new(defaults: &Dns) -> Self {
        Self {
            daemon: overrides(&defaults.servers, &defaults.searches, &defaults.options),
            host: host_settings(),
            stamps: stamps(),
        }
    }

    /// Reads the host's settings again if their files have changed; whether they mean something else now.
    pub(crate) fn refresh(&mut self) -> bool {
        let stamps = stamps();
        if self.stamps == stamps {
            return false;
        }
        self.stamps = stamps;
        let host = host_settings();
        let changed = self.host != host;
        self.host = host;
        changed
    }

    /// What holds for those who are asked for nothing of their own.
    pub(crate) fn shared(&self) -> SandboxResolvConf {
        let layers = [(Origin::Daemon, &self.daemon)];
        self.host.for_resolver(&layers, &[IN_SANDBOX], &[])
    }

    /// What holds in a sandbox.
    pub(crate) fn of(&self, controller: &Controller, sandbox: &Sandbox) -> SandboxResolvConf {
        let joined = controller.endpoints_of_sandbox(sandbox.id);
        let dns = &sandbox.spec.dns;
        let own = overrides(&dns.servers, &dns.searches, &dns.options);
        let networks: Vec<(String, Overrides)> = joined
            .iter()
            .map(|(network, _)| {
                let dns = &network.spec.dns;
                let asked = overrides(&dns.servers, &dns.searches, &dns.options);
                (network.spec.name.to_string(), asked)
            })
            .collect();
        let mut layers = vec![(Origin::Sandbox, &own)];
        for (name, asked) in &networks {
            layers.push((Origin::Network(name.clone()), asked));
        }
        layers.push((Origin::Daemon, &self.daemon));
        match place(sandbox, &joined) {
            Place::Sandbox => self.host.for_resolver(&layers, &[IN_SANDBOX], &[]),
            Place::Gateway(addresses) => self.host.for_resolver(&layers, &addresses, &[]),
            Place::Off => {
                let facts = SandboxFacts {
                    ipv6: joined.iter().any(|(network, _)| network.spec.ipv6),
                    own_netns: sandbox.spec.netns != SandboxNetns::Host,
                    fallback: vec![],
                };
                self.host.for_sandbox(&layers, &facts)
            }
        }
    }
}

/// The addresses that the host asks for names.
pub(crate) fn host_servers() -> Vec<IpAddr> {
    let host = host_settings();
    host.servers.iter().map(Nameserver::address).collect()
}

/// Wishes that were checked when they were made.
fn overrides(servers: &[IpAddr], searches: &[String], options: &[String]) -> Overrides {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    Overrides::parse(&servers, searches, options).unwrap_or_default()
}

/// The files that the host's settings may come from.
fn stamps() -> [Stamp; 3] {
    [
        HOST_FILE,
        Stub::SystemdResolved.real_file(),
        Stub::Local.real_file(),
    ]
    .map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.mtime(),
            found.mtime_nsec(),
            found.size(),
        ))
    })
}

/// The host's resolv.conf; where that only names a stub on loopback, the real one behind it.
fn host_settings() -> ResolvConf {
    let parse = |path: &str| {
        let content = read(Path::new(path)).ok().flatten()?;
        Some(ResolvConf::parse(&content))
    };
    let conf = parse(HOST_FILE).unwrap_or_default();
    match conf.stub().and_then(|stub| parse(stub.real_file())) {
        Some(real) => real,
        None => conf,
    }
}
