//! The flags of `tombolo network create` for names.

use std::net::IpAddr;

use clap::Args;
use tombolo_api::NetworkDnsConfig;

/// Where the resolver answers.
const PLACES: [&str; 3] = ["sandbox", "gateway", "off"];
/// When other servers are asked.
const FORWARD: [&str; 3] = ["auto", "always", "never"];

/// How names are resolved in its sandboxes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Names")]
pub(super) struct NamesArgs {
    /// DNS server for foreign names, of sandboxes that name none; may be repeated
    #[arg(long = "dns", value_name = "ADDRESS")]
    dns_servers: Vec<IpAddr>,
    /// Domain tried after a short name, in sandboxes that name none; `.` for none; may be repeated
    #[arg(long = "dns-search", value_name = "DOMAIN")]
    dns_searches: Vec<String>,
    /// Option of resolv.conf(5), in sandboxes that name none; may be repeated
    #[arg(long = "dns-option", alias = "dns-opt", value_name = "OPTION")]
    dns_options: Vec<String>,
    /// Where the resolver of Tombolo answers: inside each sandbox unless said otherwise
    #[arg(long, value_name = "PLACE", value_parser = PLACES)]
    resolver: Option<String>,
    /// Whether it asks DNS servers for foreign names; auto does unless the network is internal
    #[arg(long = "dns-forward", value_name = "WHEN", value_parser = FORWARD)]
    forward: Option<String>,
    /// Whether it answers for names below .local by asking the network
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mdns: Option<bool>,
}

impl NamesArgs {
    /// What travels to the daemon.
    pub(super) fn into_config(self) -> NetworkDnsConfig {
        NetworkDnsConfig {
            servers: self.dns_servers.iter().map(ToString::to_string).collect(),
            searches: self.dns_searches,
            options: self.dns_options,
            resolver: self.resolver,
            forward: self.forward,
            mdns: self.mdns.unwrap_or(false),
        }
    }
}
