//! A small language for constant rules: what our own table needs, no more.
//!
//! `Display` writes the text that `nft -f` reads (nft(8)), so that a person can see the rules and a test can
//! compare them with what the kernel was given.

use std::fmt;

use ipnet::IpNet;

use super::{SetName, TABLE};

/// The constant rules of our table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Declared before the chains that name them.
    pub sets: Vec<Set>,
    /// In the order in which they are made.
    pub chains: Vec<Chain>,
}

/// A named set, or a map when it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// The type of an element's key; several are a concatenation.
    pub key: &'static [Type],
    /// What a map's element leads to; empty for a set.
    pub data: &'static [Type],
    /// Whether an element may stand for a range.
    pub interval: bool,
}

/// The type of a part of an element (nft(8), DATA TYPES).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `ifname`.
    Interface,
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where packets enter it; none is the chain that is the user's: rules only jump to it, its own are never
    /// part of the constant ones.
    pub base: Option<Base>,
    /// Tried in order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Filter or nat.
    pub kind: ChainKind,
    /// The hook.
    pub hook: Hook,
    /// Its place among the chains of the hook.
    pub priority: i32,
}

/// What a base chain may do (nft(8), CHAINS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate the first packet of a connection.
    Nat,
}

/// A netfilter hook (linux/netfilter.h, `enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// To the host itself.
    Input,
    /// Through the host.
    Forward,
    /// From the host itself.
    Output,
    /// Before leaving.
    Postrouting,
}

/// Conditions, then what is done when all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub when: Vec<Condition>,
    /// Done then.
    pub verdict: Verdict,
}

/// Something a packet is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Whether these fields together are in a set.
    In(Vec<Selector>, SetName),
    /// Whether they are not.
    NotIn(Vec<Selector>, SetName),
    /// Whether these fields together are a key of a map, whatever it says of them.
    Holds(Vec<Selector>, SetName),
    /// `ct state established,related`.
    Established,
    /// `ct status dnat`.
    Published,
    /// `meta nfproto`.
    Family(Family),
    /// An ICMP message type, of either version.
    Icmp(Family, u8),
    /// `fib daddr type` is not `local`: the packet is not for an address of this host.
    Elsewhere,
    /// `iifname` is not `lo`: the packet came from outside of this host's own stack.
    Arrived,
    /// An address is in a subnet.
    Within(Selector, IpNet),
    /// `th dport`: of every protocol that begins with its ports.
    ToPort(u16),
    /// `meta mark` is another.
    Unmarked(u32),
}

/// A field of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// `iifname`.
    InputInterface,
    /// `oifname`.
    OutputInterface,
    /// `ip saddr` or `ip6 saddr`; the rule must ask for the family first.
    Source(Family),
    /// `ip daddr` or `ip6 daddr`; the rule must ask for the family first.
    Destination(Family),
    /// `meta l4proto`.
    Protocol,
    /// `th dport`: of every protocol that begins with its ports.
    DestinationPort,
}

/// A version of the Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is done with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it through this chain.
    Accept,
    /// Throw it away.
    Drop,
    /// Leave the chain, to its policy.
    Return,
    /// Connection tracking, and with it translation, does not see it.
    Untracked,
    /// The address of the link it leaves by becomes its source.
    Masquerade,
    /// Go through the rules of a chain, then on with the next one.
    Jump(&'static str),
    /// Its destination becomes what the map says of these fields: an address and a port; or an address, a least
    /// and a greatest port, between which the new port lies as far behind the least as the packet's port behind
    /// a multiple of their count (`NF_NAT_RANGE_PROTO_OFFSET` from base 0). What the map does not know goes on
    /// to the next rule.
    Dnat(Family, Vec<Selector>, SetName),
    /// It goes to this host, to the port that the map says twice of these fields. What the map does not know goes
    /// on to the next rule.
    Redirect(Vec<Selector>, SetName),
    /// Its source becomes what the map says of its source; a source that the map does not know goes on to the
    /// next rule.
    SnatBySource(Family, SetName),
}

impl Ruleset {
    /// A number that changes with the text of the rules and with nothing else (FNV-1a, 64 bits).
    pub fn digest(&self) -> u64 {
        self.to_string()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }

    /// The declaration of a set, if the rules have it.
    pub fn set(&self, name: SetName) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// How many rules there are in all chains.
    pub fn rule_count(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }
}

impl Set {
    /// The declaration of the set of that name: what its elements are made of never varies.
    pub fn of(name: SetName) -> Self {
        use Type::{Interface, Ipv4, Ipv6, Port, Protocol};
        const INTERVAL: bool = true;
        const PORTS: &[Type] = &[Port, Port];
        const TARGET4: &[Type] = &[Ipv4, Port];
        const TARGET6: &[Type] = &[Ipv6, Port];
        const SHIFTED4: &[Type] = &[Ipv4, Port, Port];
        const SHIFTED6: &[Type] = &[Ipv6, Port, Port];
        let (key, data, interval): (&[Type], &[Type], bool) = match name {
            SetName::Bridges
            | SetName::Internal
            | SetName::Leaves
            | SetName::Others
            | SetName::Echo4
            | SetName::Echo6
            | SetName::Open4
            | SetName::Open6 => (&[Interface], &[], false),
            SetName::Intra | SetName::Apart => (&[Interface, Interface], &[], false),
            SetName::Masquerade4 => (&[Ipv4], &[], INTERVAL),
            SetName::Masquerade6 => (&[Ipv6], &[], INTERVAL),
            SetName::Snat4 => (&[Ipv4], &[Ipv4], INTERVAL),
            SetName::Snat6 => (&[Ipv6], &[Ipv6], INTERVAL),
            SetName::PublishAny4 => (&[Protocol, Port], TARGET4, false),
            SetName::PublishAny6 => (&[Protocol, Port], TARGET6, false),
            SetName::PublishAt4 => (&[Protocol, Ipv4, Port], TARGET4, false),
            SetName::PublishAt6 => (&[Protocol, Ipv6, Port], TARGET6, false),
            SetName::PublishRange4 => (&[Ipv4, Protocol, Ipv4, Port], SHIFTED4, INTERVAL),
            SetName::PublishRange6 => (&[Ipv6, Protocol, Ipv6, Port], SHIFTED6, INTERVAL),
            SetName::Relay => (&[Protocol], PORTS, false),
            SetName::RelayAny6 => (&[Protocol, Port], &[], false),
            SetName::RelayRange6 => (&[Ipv6, Protocol, Ipv6, Port], &[], INTERVAL),
            SetName::Hairpin4 => (&[Ipv4, Ipv4], &[], false),
            SetName::Hairpin6 => (&[Ipv6, Ipv6], &[], false),
            SetName::Plain4 => (&[Ipv4, Ipv4], &[], INTERVAL),
            SetName::Plain6 => (&[Ipv6, Ipv6], &[], INTERVAL),
            SetName::Links4 | SetName::RoutedRange4 => {
                (&[Ipv4, Ipv4, Protocol, Port], &[], INTERVAL)
            }
            SetName::Links6 | SetName::RoutedRange6 => {
                (&[Ipv6, Ipv6, Protocol, Port], &[], INTERVAL)
            }
            SetName::Routed4 => (&[Ipv4, Protocol, Port], &[], false),
            SetName::Routed6 => (&[Ipv6, Protocol, Port], &[], false),
        };
        Self {
            name,
            key,
            data,
            interval,
        }
    }
}

impl Verdict {
    /// Whether nft(8) can read and write it. It knows no offsets of ports, and no map to a port where it cannot
    /// see that the packet has ports.
    pub fn has_words(&self) -> bool {
        match self {
            Self::Dnat(_, _, map) => Set::of(*map).data.len() == 2,
            Self::Redirect(..) => false,
            _ => true,
        }
    }
}

impl Type {
    /// The name in nft(8).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interface => "ifname",
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
        }
    }

    /// Bytes of a value in the kernel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Interface | Self::Ipv6 => 16,
            Self::Ipv4 => 4,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

impl Hook {
    /// The name in nft(8).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

impl ChainKind {
    /// The name in nft(8) and in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.data.is_empty() { "set" } else { "map" };
        let joined = |types: &[Type]| {
            let words: Vec<&str> = types.iter().map(|part| part.as_str()).collect();
            words.join(" . ")
        };
        write!(
            f,
            "  {word} {} {{ type {}",
            self.name.as_str(),
            joined(self.key)
        )?;
        if !self.data.is_empty() {
            write!(f, " : {}", joined(self.data))?;
        }
        f.write_str(if self.interval {
            "; flags interval; }\n"
        } else {
            "; }\n"
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  chain {} {{", self.name)?;
        if let Some(base) = &self.base {
            writeln!(
                f,
                "    type {} hook {} priority {}; policy accept;",
                base.kind.as_str(),
                base.hook.as_str(),
                base.priority
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "    {rule}")?;
        }
        f.write_str("  }\n")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.when {
            write!(f, "{condition} ")?;
        }
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(selectors, set) => {
                write_selectors(f, selectors)?;
                write!(f, " @{}", set.as_str())
            }
            Self::NotIn(selectors, set) => {
                write_selectors(f, selectors)?;
                write!(f, " != @{}", set.as_str())
            }
            // nft(8) has no words for asking a map without using its answer.
            Self::Holds(selectors, map) => {
                write_selectors(f, selectors)?;
                write!(f, " in map @{}", map.as_str())
            }
            Self::Established => f.write_str("ct state established,related"),
            Self::Published => f.write_str("ct status dnat"),
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Icmp(Family::V4, kind) => write!(f, "icmp type {kind}"),
            Self::Icmp(Family::V6, kind) => write!(f, "icmpv6 type {kind}"),
            Self::Elsewhere => f.write_str("fib daddr type != local"),
            Self::Arrived => f.write_str("iifname != \"lo\""),
            Self::Within(selector, net) => {
                write_selectors(f, &[*selector])?;
                write!(f, " {net}")
            }
            Self::ToPort(port) => write!(f, "th dport {port}"),
            Self::Unmarked(mark) => write!(f, "meta mark != {mark:#010x}"),
        }
    }
}

fn write_selectors(f: &mut fmt::Formatter<'_>, selectors: &[Selector]) -> fmt::Result {
    for (n, selector) in selectors.iter().enumerate() {
        if n > 0 {
            f.write_str(" . ")?;
        }
        f.write_str(match selector {
            Selector::InputInterface => "iifname",
            Selector::OutputInterface => "oifname",
            Selector::Source(Family::V4) => "ip saddr",
            Selector::Source(Family::V6) => "ip6 saddr",
            Selector::Destination(Family::V4) => "ip daddr",
            Selector::Destination(Family::V6) => "ip6 daddr",
            Selector::Protocol => "meta l4proto",
            Selector::DestinationPort => "th dport",
        })?;
    }
    Ok(())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Untracked => f.write_str("notrack"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Dnat(family, selectors, map) => {
                f.write_str(match family {
                    Family::V4 => "dnat ip to ",
                    Family::V6 => "dnat ip6 to ",
                })?;
                write_selectors(f, selectors)?;
                write!(f, " map @{}", map.as_str())
            }
            Self::Redirect(selectors, map) => {
                f.write_str("redirect to :")?;
                write_selectors(f, selectors)?;
                write!(f, " map @{}", map.as_str())
            }
            Self::SnatBySource(Family::V4, map) => {
                write!(f, "snat ip to ip saddr map @{}", map.as_str())
            }
            Self::SnatBySource(Family::V6, map) => {
                write!(f, "snat ip6 to ip6 saddr map @{}", map.as_str())
            }
        }
    }
}
