//! A small language for constant rules: what our own table needs, no more.
//!
//! `Display` writes the text that `nft -f` reads (nft(8)), so that a person can see the rules and a test can
//! compare them with what the kernel was given.

use std::fmt;

use super::{SetName, TABLE};

/// The constant rules of our table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Declared before the chains that name them.
    pub sets: Vec<Set>,
    /// In the order in which they are made.
    pub chains: Vec<Chain>,
}

/// A named set, or a map when it has `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// The type of an element's key; several are a concatenation.
    pub key: &'static [Type],
    /// What a map's element leads to.
    pub data: Option<Type>,
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
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, which is the hook's by habit.
    pub name: &'static str,
    /// Filter or nat.
    pub kind: ChainKind,
    /// Where packets enter it.
    pub hook: Hook,
    /// Its place among the chains of the hook.
    pub priority: i32,
    /// Tried in order.
    pub rules: Vec<Rule>,
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
    /// `ct state established,related`.
    Established,
    /// `ct status dnat`.
    Published,
    /// `meta nfproto`.
    Family(Family),
    /// An ICMP message type, of either version.
    Icmp(Family, u8),
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
}

/// A version of the Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        const NAME: &[Type] = &[Type::Interface];
        let (key, data, interval) = match name {
            SetName::Bridges | SetName::Internal | SetName::Leaves => (NAME, None, false),
            SetName::Intra => (&[Type::Interface, Type::Interface][..], None, false),
            SetName::Masquerade4 => (&[Type::Ipv4][..], None, true),
            SetName::Masquerade6 => (&[Type::Ipv6][..], None, true),
            SetName::Snat4 => (&[Type::Ipv4][..], Some(Type::Ipv4), true),
            SetName::Snat6 => (&[Type::Ipv6][..], Some(Type::Ipv6), true),
        };
        Self {
            name,
            key,
            data,
            interval,
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
        }
    }

    /// Bytes of a value in the kernel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Interface | Self::Ipv6 => 16,
            Self::Ipv4 => 4,
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
        let word = if self.data.is_some() { "map" } else { "set" };
        let key: Vec<&str> = self.key.iter().map(|part| part.as_str()).collect();
        write!(
            f,
            "  {word} {} {{ type {}",
            self.name.as_str(),
            key.join(" . ")
        )?;
        if let Some(data) = self.data {
            write!(f, " : {}", data.as_str())?;
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
        writeln!(
            f,
            "  chain {} {{\n    type {} hook {} priority {}; policy accept;",
            self.name,
            self.kind.as_str(),
            self.hook.as_str(),
            self.priority
        )?;
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
            Self::Established => f.write_str("ct state established,related"),
            Self::Published => f.write_str("ct status dnat"),
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Icmp(Family::V4, kind) => write!(f, "icmp type {kind}"),
            Self::Icmp(Family::V6, kind) => write!(f, "icmpv6 type {kind}"),
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
            Self::SnatBySource(Family::V4, map) => {
                write!(f, "snat ip to ip saddr map @{}", map.as_str())
            }
            Self::SnatBySource(Family::V6, map) => {
                write!(f, "snat ip6 to ip6 saddr map @{}", map.as_str())
            }
        }
    }
}
