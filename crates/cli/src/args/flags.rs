//! Flags that several commands have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use tombolo_api::{LinkSpec, PublicationSpec};

use super::value;
use crate::translate::attachment::NetworkFlag;
use crate::translate::publish;

/// How a list is written.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ListFlags {
    /// Print ids only
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which networks something new is tied to.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetworkFlags {
    /// Network to join: NAME, name=NET,ip=..,ip6=..,mac=..,alias=..,ifname=..,gw-priority=.., none, host or container:NAME
    #[arg(long = "network", visible_alias = "net", value_name = "NETWORK")]
    pub(crate) networks: Vec<NetworkFlag>,
    /// IPv4 address on the first network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address on the first network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// MAC address on the first network
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// Further name on the first network
    #[arg(long = "network-alias", alias = "net-alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
}

impl NetworkFlags {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty()
            && self.ip.is_none()
            && self.ip6.is_none()
            && self.mac_address.is_none()
            && self.aliases.is_empty()
    }
}

/// Which of its ports others reach, and whose it reaches.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PortFlags {
    /// Publish on the host: [[ADDRESS:][HOST]:]PORT[/PROTOCOL], unix:PATH:PORT or target=..,published=..,protocol=..,host_ip=..; add ,from=PREFIX to admit some only; may be repeated
    #[arg(short, long, value_name = "PORT", value_parser = publish::publication)]
    pub(crate) publish: Vec<PublicationSpec>,
    /// Publish each exposed port at a free port of the host
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Port or range at which its programs serve; may be repeated
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = publish::exposed)]
    pub(crate) expose: Vec<String>,
    /// Reach the exposed ports of another, and know it by its name and ALIAS; may be repeated
    #[arg(long = "link", value_name = "NAME[:ALIAS]", value_parser = publish::link)]
    pub(crate) links: Vec<LinkSpec>,
}

/// How something new resolves names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NameFlags {
    /// DNS server for foreign names
    #[arg(long = "dns", value_name = "ADDRESS")]
    pub(crate) servers: Vec<IpAddr>,
    /// Domain tried after a short name; `.` for none
    #[arg(long = "dns-search", value_name = "DOMAIN")]
    pub(crate) searches: Vec<String>,
    /// Option of resolv.conf(5), such as ndots:1
    #[arg(long = "dns-option", alias = "dns-opt", value_name = "OPTION")]
    pub(crate) options: Vec<String>,
    /// Line for the hosts file, NAME:ADDRESS; the address may be host-gateway
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = value::extra_host)]
    pub(crate) hosts: Vec<String>,
}

impl NameFlags {
    /// The settings that travel to the daemon.
    pub(crate) fn dns(&self) -> tombolo_api::DnsConfig {
        tombolo_api::DnsConfig {
            servers: self.servers.iter().map(ToString::to_string).collect(),
            searches: self.searches.clone(),
            options: self.options.clone(),
        }
    }
}

/// What one endpoint is to be like.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct EndpointFlags {
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// MAC address
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// Further name on the network
    #[arg(long = "alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
    /// Name of the interface inside the sandbox
    #[arg(long, value_name = "NAME")]
    pub(crate) ifname: Option<String>,
    /// Which endpoint gives the default route: the highest wins
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) gw_priority: Option<i32>,
}

impl EndpointFlags {
    /// The settings that travel to the daemon.
    pub(crate) fn into_settings(self) -> tombolo_api::EndpointSettings {
        tombolo_api::EndpointSettings {
            ipv4_address: self.ip.map(|address| address.to_string()),
            ipv6_address: self.ip6.map(|address| address.to_string()),
            mac_address: self.mac_address,
            interface_name: self.ifname,
            gateway_priority: self.gw_priority,
            aliases: self.aliases,
            ..tombolo_api::EndpointSettings::default()
        }
    }
}

/// Free words of the caller.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LabelFlags {
    /// Label, KEY or KEY=VALUE
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = value::key_value)]
    pub(crate) labels: Vec<value::KeyValue>,
}

impl LabelFlags {
    /// The labels by key; the last of a key wins.
    pub(crate) fn into_map(self) -> std::collections::BTreeMap<String, String> {
        value::into_map(self.labels)
    }
}

/// The environment of a process.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct EnvFlags {
    /// Environment entry NAME=VALUE, or NAME to pass the caller's value on
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub(crate) entries: Vec<String>,
    /// File of environment entries, one on each line
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

impl EnvFlags {
    /// The entries, those of files first.
    pub(crate) fn resolve(&self) -> Result<Vec<String>, value::EnvError> {
        value::environment(&self.files, &self.entries, |name| std::env::var(name).ok())
    }
}
