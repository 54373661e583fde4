//! Who asks, and what is the same for all who ask.

use std::net::IpAddr;

use crate::name::HostName;
use crate::names::{OwnerId, ZoneId};

/// What one asker, a sandbox, sees of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Its networks: the first that knows a name wins. The first [`crate::limits::VIEW_ZONES_MAX`]
    /// count.
    pub zones: Vec<ZoneId>,
    /// Names that it alone has for others. They stand for the addresses of the other on the
    /// networks that both are on. The first [`crate::limits::VIEW_LINKS_MAX`] count.
    pub links: Vec<(HostName, OwnerId)>,
    /// Where it reaches its host, for `host.DOMAIN`.
    pub host: Vec<IpAddr>,
    /// Whether it has IPv6; without, its host has no IPv6 address for it.
    pub ipv6: bool,
    /// Whether it may ask for names of the world outside.
    pub forwards: bool,
    /// Whether whom it asks for other names knows some of one label, whatever the settings say.
    pub single_labels: bool,
}

/// What is the same for every asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long an answer may be kept.
    pub ttl_seconds: u32,
    /// The domain below which all own names are found too.
    pub domain: HostName,
    /// Whether names of one label are asked for in the world outside.
    pub single_labels: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl_seconds: 10,
            domain: HostName::of_ours("tombolo.internal"),
            single_labels: false,
        }
    }
}
