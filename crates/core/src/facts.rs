//! What is given: the node, its uplinks, its kernel. Nobody stores it and no planner changes it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_netstate::object::nft::ruleset::Family;

/// The world around us, as it was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interfaces with a default route.
    pub uplinks: Vec<Uplink>,
    /// Destinations of the host's routes that are not ours, without the default ones.
    pub routes: Vec<IpNet>,
    /// Addresses that the host asks for names.
    pub resolvers: Vec<IpAddr>,
    /// The host's interfaces by name.
    pub links: BTreeMap<String, LinkFact>,
    /// The kernel has IPv6 and it is on.
    pub ipv6: bool,
    /// Values of the sysctls that we may set, as found.
    pub sysctls: BTreeMap<String, String>,
    /// How many of them we had changed when they were read ([`crate::Controller::settings_changed`]): values from
    /// before a change of ours say nothing about what was there before us.
    pub settings_changed: u64,
    /// Identity of this node, from which its unique local addresses are made.
    pub node: [u8; 16],
    /// Chains of others that drop forwarded packets which they do not know: where our bridges need a permission.
    pub forward_chains: Vec<ForwardChain>,
    /// Somebody else's rules drop or refuse some packets for the host itself.
    pub input_filtered: bool,
    /// Packets that merely cross a bridge pass the rules of IPv4 or IPv6 as well (`net.bridge.bridge-nf-call-*`).
    pub bridge_nf: bool,
    /// Where the daemon's relay takes what the kernel cannot translate; `None` while there is no relay.
    pub relay_port: Option<u16>,
}

/// A chain of somebody else in which an accept of ours is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardChain {
    /// Of the table.
    pub family: Family,
    /// The table that the chain is in.
    pub table: String,
    /// The chain's name.
    pub chain: String,
}

/// An interface through which the host reaches the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// An interface of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkFact {
    /// It is a bridge.
    pub bridge: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// We made it.
    pub ours: bool,
    /// It is a bridge that joins links which are neither veths nor taps: machines may be behind it.
    pub outward: bool,
}

/// Choices of the administrator that planners depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Switch forwarding on where a network needs it.
    pub ip_forward: bool,
    /// MTU of networks that do not say; `None` follows the uplink.
    pub mtu: Option<u32>,
    /// Milliseconds before a released address is given out again.
    pub cooldown_ms: u64,
    /// Whether the host's own firewall decides about published ports where nobody said.
    pub obey_host_firewall: Obedience,
    /// Whether other engines can ask us. What they have is not people's to remove then; without, they are gone.
    pub engines: bool,
}

/// Whether the host's own firewall decides about published ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Obedience {
    /// Where it has rules that could refuse something.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ip_forward: true,
            mtu: None,
            cooldown_ms: 30_000,
            obey_host_firewall: Obedience::Auto,
            engines: true,
        }
    }
}

impl Facts {
    /// Bridges of other engines, whose endpoints are kept apart from ours where our traffic has leave to pass
    /// their chains.
    pub fn other_bridges(&self) -> impl Iterator<Item = &str> {
        let uplink = |name: &str| self.uplinks.iter().any(|uplink| uplink.name == name);
        let concerned = !self.forward_chains.is_empty();
        let others = self.links.iter().filter(move |(name, link)| {
            concerned && link.bridge && !link.ours && !link.outward && !uplink(name)
        });
        others.map(|(name, _)| name.as_str())
    }

    /// The MTU that networks follow: the smallest of the uplinks, 1,500 where there is none.
    pub fn uplink_mtu(&self) -> u32 {
        self.uplinks
            .iter()
            .map(|uplink| uplink.mtu)
            .min()
            .unwrap_or(1_500)
    }
}
