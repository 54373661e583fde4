//! Rules of ours in somebody else's chain: the permission that a firewall which drops what it does not know
//! needs for the traffic of a bridge. Our own table decides about that traffic; this only keeps a second
//! firewall from dropping what the first one let through.
//!
//! Mark: the comment in the rule's user data begins with `tombolo`.

use std::fmt;
use std::sync::Arc;

use super::nft::ruleset::Family;
use crate::name::IfName;

/// Identity: a bridge's permission in a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AcceptKey {
    /// `ip` or `ip6`.
    pub family: Family,
    /// The table that the chain is in.
    pub table: Arc<str>,
    /// The chain, of which the rules become the first.
    pub chain: Arc<str>,
    /// The bridge.
    pub bridge: IfName,
}

/// Two rules: what comes from the bridge and what goes to it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptSpec;

impl fmt::Display for AcceptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        write!(
            f,
            "{family} {} {} for {}",
            self.table, self.chain, self.bridge
        )
    }
}

impl fmt::Display for AcceptSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("accept")
    }
}
