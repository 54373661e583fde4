//! The daemon's configuration: a TOML file as written, flags over it, and the resolved form.

mod dns;
mod docker;
mod files;
mod plugins;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tombolo_core::ipam::{DefaultPool, DefaultPools};
use tombolo_core::{Obedience, Settings};

pub(crate) use dns::Dns;
pub(crate) use docker::Docker;
pub(crate) use plugins::Plugins;

use crate::limits::CONFIG_DROP_INS_MAX;

/// Where the configuration is read from when no other file is named. It may be missing.
pub(crate) const FILE: &str = "/etc/tombolo/tombolo.toml";

/// Why the daemon does not start with this configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("the configuration file {path} cannot be used: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The directory of the files that are laid over it cannot be read.
    #[error("the directory {path} of configuration files cannot be read")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There are too many of these files.
    #[error("the directory {path} has more than {CONFIG_DROP_INS_MAX} configuration files")]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// A value contradicts another or cannot be.
    #[error("the setting {setting} cannot be used: {reason}")]
    Value {
        /// Which.
        setting: &'static str,
        /// Why, and what to do.
        reason: String,
    },
}

/// Flags of `tombolo daemon`. Each overrides the setting of the same name in the file.
#[derive(Debug, Default, Parser)]
#[command(
    name = "tombolo daemon",
    about = "Owns the container networks of this host",
    version
)]
pub(crate) struct Flags {
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the resolved configuration and end.
    #[arg(long)]
    pub check_config: bool,
    /// Unix socket of the API.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Group that may use the socket.
    #[arg(long)]
    pub group: Option<String>,
    /// Directory of what lasts until the next boot.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Directory of what lasts.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address and port of the API over TCP; needs TLS unless on loopback.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub tcp: Option<String>,
    /// Certificate authority of the clients.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this server.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of this server.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// error, warn, info, debug or trace.
    #[arg(long)]
    pub log_level: Option<String>,
    /// Existing bridge for the default network; `none` switches that network off.
    #[arg(short = 'b', long, value_name = "NAME")]
    pub bridge: Option<String>,
    /// Address and prefix length of the default bridge.
    #[arg(long, value_name = "CIDR")]
    pub bip: Option<IpNet>,
    /// The same for IPv6.
    #[arg(long, value_name = "CIDR")]
    pub bip6: Option<IpNet>,
    /// Range of the default network's automatic addresses.
    #[arg(long, value_name = "CIDR")]
    pub fixed_cidr: Option<IpNet>,
    /// The same for IPv6.
    #[arg(long, value_name = "CIDR")]
    pub fixed_cidr_v6: Option<IpNet>,
    /// Router of the default network's endpoints, other than this host.
    #[arg(long, value_name = "ADDRESS")]
    pub default_gateway: Option<IpAddr>,
    /// The same for IPv6.
    #[arg(long, value_name = "ADDRESS")]
    pub default_gateway_v6: Option<IpAddr>,
    /// MTU in bytes of networks that do not say.
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Switch forwarding on where a network needs it.
    #[arg(long, value_name = "BOOL")]
    pub ip_forward: Option<bool>,
    /// Masquerade what leaves the default network.
    #[arg(long, value_name = "BOOL")]
    pub ip_masq: Option<bool>,
    /// The default network's endpoints reach each other.
    #[arg(long, value_name = "BOOL")]
    pub icc: Option<bool>,
    /// The default network has IPv6.
    #[arg(long, value_name = "BOOL")]
    pub ipv6: Option<bool>,
    /// Whether the host's own firewall decides about published ports that do not say: auto, always or never.
    #[arg(long, value_name = "WHEN")]
    pub obey_host_firewall: Option<Obey>,
    /// A pool of subnets for networks that name none: `base=172.20.0.0/14,size=24` (repeatable).
    #[arg(long, value_name = "POOL")]
    pub default_address_pool: Vec<DefaultPool>,
    /// Namespaces kept ready for the next sandboxes.
    #[arg(long, value_name = "COUNT")]
    pub prepared_namespaces: Option<usize>,
    /// Seconds before a released address is given out again.
    #[arg(long, value_name = "SECONDS")]
    pub address_cooldown_seconds: Option<u32>,
    #[command(flatten)]
    pub dns: dns::DnsFlags,
    #[command(flatten)]
    pub docker: docker::DockerFlags,
    #[command(flatten)]
    pub plugins: plugins::PluginFlags,
}

/// The configuration; as a file, any part may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Unix socket of the API; default: `tombolo.sock` in the run directory.
    pub socket: Option<PathBuf>,
    /// Group that may use the socket.
    pub group: Option<String>,
    /// Directory of what lasts until the next boot.
    pub run_dir: PathBuf,
    /// Directory of what lasts.
    pub state_dir: PathBuf,
    /// error, warn, info, debug or trace.
    pub log_level: String,
    /// Namespaces kept ready for the next sandboxes.
    pub prepared_namespaces: usize,
    /// Switch forwarding on where a network needs it.
    pub ip_forward: bool,
    /// MTU in bytes of networks that do not say; without it they follow the uplink.
    pub mtu: Option<u32>,
    /// Seconds before a released address is given out again.
    pub address_cooldown_seconds: u32,
    /// Whether the host's own firewall decides about published ports that do not say.
    pub obey_host_firewall: Obey,
    /// Pools of subnets for networks that name none.
    pub default_address_pools: Vec<DefaultPool>,
    /// The API over TCP.
    pub tcp: Option<Tcp>,
    /// The default network.
    pub bridge: DefaultNetwork,
    /// How names are resolved in sandboxes that do not say.
    pub dns: Dns,
    /// Whether this daemon is a plugin of Docker's engine.
    pub docker: Docker,
    /// Plugins of others that make networks or hand out addresses.
    pub plugins: Plugins,
}

/// Whether the host's own firewall decides about published ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Obey {
    /// Where it has rules that could refuse something.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The API over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Tcp {
    /// Address and port.
    pub listen: String,
    /// Certificate authority of the clients.
    pub ca: Option<PathBuf>,
    /// Certificate of this server.
    pub cert: Option<PathBuf>,
    /// Key of this server.
    pub key: Option<PathBuf>,
}

/// The network named `bridge`, which exists from the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct DefaultNetwork {
    /// Whether it exists.
    pub enabled: bool,
    /// Its device; an existing bridge is used and stays its owner's.
    pub device: String,
    /// The device's address with its prefix length.
    pub bip: Option<IpNet>,
    /// The same for IPv6.
    pub bip6: Option<IpNet>,
    /// Range of automatic addresses.
    pub fixed_cidr: Option<IpNet>,
    /// The same for IPv6.
    pub fixed_cidr_v6: Option<IpNet>,
    /// Router of the endpoints, other than this host.
    pub default_gateway: Option<IpAddr>,
    /// The same for IPv6.
    pub default_gateway_v6: Option<IpAddr>,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Whether its endpoints reach each other.
    pub icc: bool,
    /// Masquerade what leaves it.
    pub ip_masq: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: None,
            group: None,
            run_dir: "/run/tombolo".into(),
            state_dir: "/var/lib/tombolo".into(),
            log_level: "info".to_owned(),
            prepared_namespaces: 4,
            ip_forward: true,
            mtu: None,
            address_cooldown_seconds: 30,
            obey_host_firewall: Obey::Auto,
            default_address_pools: DefaultPools::default().as_slice().to_vec(),
            tcp: None,
            bridge: DefaultNetwork::default(),
            dns: Dns::default(),
            docker: Docker::default(),
            plugins: Plugins::default(),
        }
    }
}

impl Default for DefaultNetwork {
    fn default() -> Self {
        Self {
            enabled: true,
            device: "tombolo0".to_owned(),
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_gateway_v6: None,
            ipv6: false,
            icc: true,
            ip_masq: true,
        }
    }
}

impl Config {
    /// Reads the file that `flags` name, or the usual one where it exists, and puts over it the files in the directory
    /// beside it, then the flags.
    pub(crate) fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut config = Self::read(flags.config.as_deref())?;
        config.override_with(flags);
        config.check()?;
        Ok(config)
    }

    /// The Unix socket of the API.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join("tombolo.sock"))
    }

    /// The administrator's choices that planners depend on.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            ip_forward: self.ip_forward,
            mtu: self.mtu,
            cooldown_ms: u64::from(self.address_cooldown_seconds) * 1_000,
            obey_host_firewall: match self.obey_host_firewall {
                Obey::Auto => Obedience::Auto,
                Obey::Always => Obedience::Always,
                Obey::Never => Obedience::Never,
            },
            engines: self.docker.plugin_socket.is_some(),
        }
    }

    fn override_with(&mut self, flags: &Flags) {
        some(&mut self.socket, flags.socket.as_ref());
        some(&mut self.group, flags.group.as_ref());
        set(&mut self.run_dir, flags.run_dir.as_ref());
        set(&mut self.state_dir, flags.state_dir.as_ref());
        set(&mut self.log_level, flags.log_level.as_ref());
        set(&mut self.ip_forward, flags.ip_forward.as_ref());
        set(
            &mut self.prepared_namespaces,
            flags.prepared_namespaces.as_ref(),
        );
        set(
            &mut self.address_cooldown_seconds,
            flags.address_cooldown_seconds.as_ref(),
        );
        some(&mut self.mtu, flags.mtu.as_ref());
        set(
            &mut self.obey_host_firewall,
            flags.obey_host_firewall.as_ref(),
        );
        if let Some(listen) = &flags.tcp {
            let tcp = Tcp {
                listen: listen.clone(),
                ca: None,
                cert: None,
                key: None,
            };
            self.tcp.get_or_insert(tcp).listen.clone_from(listen);
        }
        if let Some(tcp) = &mut self.tcp {
            some(&mut tcp.ca, flags.tls_ca.as_ref());
            some(&mut tcp.cert, flags.tls_cert.as_ref());
            some(&mut tcp.key, flags.tls_key.as_ref());
        }
        if !flags.default_address_pool.is_empty() {
            self.default_address_pools
                .clone_from(&flags.default_address_pool);
        }
        self.dns.override_with(&flags.dns);
        self.docker.override_with(&flags.docker);
        self.plugins.override_with(&flags.plugins);
        self.override_bridge(flags);
    }

    fn override_bridge(&mut self, flags: &Flags) {
        let bridge = &mut self.bridge;
        match flags.bridge.as_deref() {
            Some("none") => bridge.enabled = false,
            Some(name) => name.clone_into(&mut bridge.device),
            None => {}
        }
        some(&mut bridge.bip, flags.bip.as_ref());
        some(&mut bridge.bip6, flags.bip6.as_ref());
        some(&mut bridge.fixed_cidr, flags.fixed_cidr.as_ref());
        some(&mut bridge.fixed_cidr_v6, flags.fixed_cidr_v6.as_ref());
        some(&mut bridge.default_gateway, flags.default_gateway.as_ref());
        some(
            &mut bridge.default_gateway_v6,
            flags.default_gateway_v6.as_ref(),
        );
        set(&mut bridge.ip_masq, flags.ip_masq.as_ref());
        set(&mut bridge.icc, flags.icc.as_ref());
        set(&mut bridge.ipv6, flags.ipv6.as_ref());
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |setting, reason: String| Err(ConfigError::Value { setting, reason });
        for (setting, dir) in [("run-dir", &self.run_dir), ("state-dir", &self.state_dir)] {
            if !dir.is_absolute() {
                return value(
                    setting,
                    format!("{} is not an absolute path", dir.display()),
                );
            }
        }
        let most = tombolo_kernel::limits::POOL_MAX;
        if self.prepared_namespaces > most {
            return value(
                "prepared-namespaces",
                format!("at most {most} are kept ready"),
            );
        }
        if self.log_level.parse::<tracing::Level>().is_err() {
            return value(
                "log-level",
                "use error, warn, info, debug or trace".to_owned(),
            );
        }
        if let Err(reject) = DefaultPools::new(self.default_address_pools.clone()) {
            return value("default-address-pools", reject.to_string());
        }
        let families = [
            ("bridge.bip", self.bridge.bip, false),
            ("bridge.bip6", self.bridge.bip6, true),
            ("bridge.fixed-cidr", self.bridge.fixed_cidr, false),
            ("bridge.fixed-cidr-v6", self.bridge.fixed_cidr_v6, true),
        ];
        for (setting, net, ipv6) in families {
            if net.is_some_and(|net| net.addr().is_ipv6() != ipv6) {
                return value(setting, "it is of the other address family".to_owned());
            }
        }
        self.docker.check(&self.socket_path())?;
        self.plugins.check()?;
        self.dns.check()
    }
}

fn set<T: Clone>(setting: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        setting.clone_from(value);
    }
}

fn some<T: Clone>(setting: &mut Option<T>, flag: Option<&T>) {
    if flag.is_some() {
        *setting = flag.cloned();
    }
}

#[cfg(test)]
mod tests;
