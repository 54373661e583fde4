//! The kinds of kernel object, one file each: key (kernel identity), spec (only what we set), phase, and
//! what a change of the spec means.

use std::collections::BTreeMap;
use std::fmt;

use crate::name::Netns;

pub mod address;
pub mod detour;
pub mod fdb;
pub mod foreign;
pub mod link;
pub mod listener;
pub mod neighbour;
pub mod netns;
pub mod nft;
pub mod port;
pub mod route;
pub mod sysctl;

/// A set of objects by their kernel identity.
pub type Objects = BTreeMap<Key, Spec>;

/// The kernel identity of an object: two objects with one key cannot exist together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A network namespace that we make.
    Netns(netns::NetnsKey),
    /// A kernel setting of the host's namespace.
    Sysctl(sysctl::SysctlKey),
    /// Our nftables tables with their constant rules.
    NftBase,
    /// A network interface.
    Link(link::LinkKey),
    /// An address on an interface.
    Address(address::AddressKey),
    /// A permanent neighbour entry.
    Neighbour(neighbour::NeighbourKey),
    /// A static entry of a bridge's forwarding database.
    Fdb(fdb::FdbKey),
    /// A route.
    Route(route::RouteKey),
    /// Sockets of the name resolver.
    Listener(listener::ListenerKey),
    /// The way of questions for names around somebody else's resolver.
    Detour(detour::DetourKey),
    /// A reservation of ports of the host.
    Port(port::PortKey),
    /// Permission for a bridge in somebody else's chain.
    Accept(foreign::AcceptKey),
    /// An element of an nftables set or map.
    Element(nft::ElementKey),
}

/// What we set on an object; the same variant as its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// See [`netns::NetnsSpec`].
    Netns(netns::NetnsSpec),
    /// See [`sysctl::SysctlSpec`].
    Sysctl(sysctl::SysctlSpec),
    /// See [`nft::BaseSpec`].
    NftBase(nft::BaseSpec),
    /// See [`link::LinkSpec`].
    Link(Box<link::LinkSpec>),
    /// See [`address::AddressSpec`].
    Address(address::AddressSpec),
    /// See [`neighbour::NeighbourSpec`].
    Neighbour(neighbour::NeighbourSpec),
    /// See [`fdb::FdbSpec`].
    Fdb(fdb::FdbSpec),
    /// See [`route::RouteSpec`].
    Route(route::RouteSpec),
    /// See [`listener::ListenerSpec`].
    Listener(listener::ListenerSpec),
    /// See [`detour::DetourKey`].
    Detour(nft::BaseSpec),
    /// See [`port::PortSpec`].
    Port(port::PortSpec),
    /// See [`foreign::AcceptSpec`].
    Accept(foreign::AcceptSpec),
    /// See [`nft::ElementSpec`].
    Element(nft::ElementSpec),
}

/// The place of a kind in the order of creation; removal is the reverse (see the design, rule 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Namespaces.
    Netns,
    /// Kernel settings.
    Sysctl,
    /// The constant rules, which fail closed.
    NftBase,
    /// Reservations of ports: what can be refused by other programs comes before anything slow.
    Port,
    /// Bridges: masters of other links.
    Master,
    /// Other links, attached to their masters.
    Link,
    /// The other end of a veth, which exists once its pair was made.
    Peer,
    /// Addresses.
    Address,
    /// Neighbour entries.
    Neighbour,
    /// Forwarding database entries.
    Fdb,
    /// Routes.
    Route,
    /// Sockets of the name resolver: whoever may ask can also be answered.
    Listener,
    /// Ways around resolvers of others, once ours can be asked.
    Detour,
    /// Permissions in chains of others.
    Accept,
    /// Elements that admit, translate or publish.
    Element,
}

/// What a difference between two specs of one key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The kernel can change the object in place.
    Update,
    /// The object must be removed and made anew.
    Replace,
    /// The kernel changes the object in place, and what it held vanishes.
    Reset,
}

impl Key {
    /// The namespace that holds the object.
    pub fn netns(&self) -> Netns {
        match self {
            Self::Netns(key) => Netns::Owned(key.name.clone()),
            Self::Link(key) => key.netns.clone(),
            Self::Address(key) => key.netns.clone(),
            Self::Neighbour(key) => key.netns.clone(),
            Self::Route(key) => key.netns.clone(),
            Self::Listener(key) => key.netns.clone(),
            Self::Detour(key) => key.netns.clone(),
            Self::Sysctl(_)
            | Self::NftBase
            | Self::Fdb(_)
            | Self::Port(_)
            | Self::Accept(_)
            | Self::Element(_) => Netns::Host,
        }
    }

    /// A word for the kind, as in plans and reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Netns(_) => "netns",
            Self::Sysctl(_) => "sysctl",
            Self::NftBase => "nft-base",
            Self::Link(_) => "link",
            Self::Address(_) => "address",
            Self::Neighbour(_) => "neighbour",
            Self::Fdb(_) => "fdb",
            Self::Route(_) => "route",
            Self::Listener(_) => "listener",
            Self::Detour(_) => "detour",
            Self::Port(_) => "port",
            Self::Accept(_) => "accept",
            Self::Element(_) => "element",
        }
    }
}

impl Spec {
    /// The place of an object with this spec in the order of creation.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Netns(_) => Phase::Netns,
            Self::Sysctl(_) => Phase::Sysctl,
            Self::NftBase(_) => Phase::NftBase,
            Self::Link(spec) => spec.phase(),
            Self::Address(_) => Phase::Address,
            Self::Neighbour(_) => Phase::Neighbour,
            Self::Fdb(_) => Phase::Fdb,
            Self::Route(_) => Phase::Route,
            Self::Listener(_) => Phase::Listener,
            Self::Detour(_) => Phase::Detour,
            Self::Port(_) => Phase::Port,
            Self::Accept(_) => Phase::Accept,
            Self::Element(_) => Phase::Element,
        }
    }

    /// What the change from `self` to `desired` needs. Specs of different kinds never share a key.
    pub fn change(&self, desired: &Self) -> Change {
        match (self, desired) {
            (Self::Link(from), Self::Link(to)) => from.change(to),
            (Self::Address(from), Self::Address(to)) => from.change(to),
            (Self::Element(_), Self::Element(_)) => Change::Replace,
            (Self::NftBase(_), Self::NftBase(_)) => Change::Reset,
            _ => Change::Update,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(key) => write!(f, "netns {}", key.name),
            Self::Sysctl(key) => write!(f, "sysctl {}", key.path),
            Self::NftBase => f.write_str("nft-base"),
            Self::Link(key) => write!(f, "link {key}"),
            Self::Address(key) => write!(f, "address {key}"),
            Self::Neighbour(key) => write!(f, "neighbour {key}"),
            Self::Fdb(key) => write!(f, "fdb {key}"),
            Self::Route(key) => write!(f, "route {key}"),
            Self::Listener(key) => write!(f, "listener {key}"),
            Self::Detour(key) => write!(f, "detour {}", key.netns),
            Self::Port(key) => write!(f, "port {key}"),
            Self::Accept(key) => write!(f, "accept {key}"),
            Self::Element(key) => write!(f, "element {key}"),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(spec) => fmt::Display::fmt(spec, f),
            Self::Sysctl(spec) => fmt::Display::fmt(spec, f),
            Self::NftBase(spec) => fmt::Display::fmt(spec, f),
            Self::Link(spec) => fmt::Display::fmt(spec, f),
            Self::Address(spec) => fmt::Display::fmt(spec, f),
            Self::Neighbour(spec) => fmt::Display::fmt(spec, f),
            Self::Fdb(spec) => fmt::Display::fmt(spec, f),
            Self::Route(spec) => fmt::Display::fmt(spec, f),
            Self::Listener(spec) => fmt::Display::fmt(spec, f),
            Self::Detour(spec) => spec.write_as(detour::TABLE, f),
            Self::Port(spec) => fmt::Display::fmt(spec, f),
            Self::Accept(spec) => fmt::Display::fmt(spec, f),
            Self::Element(spec) => fmt::Display::fmt(spec, f),
        }
    }
}

/// Writes the place of an object: nothing for the host, the namespace's name and a colon otherwise.
pub(crate) fn write_place(f: &mut fmt::Formatter<'_>, netns: &Netns) -> fmt::Result {
    match netns {
        Netns::Host => Ok(()),
        Netns::Owned(_) | Netns::Adopted { .. } => write!(f, "{netns}:"),
    }
}
