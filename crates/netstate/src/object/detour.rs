//! A table of ours in a namespace that an engine of others has made: what asks for names there reaches our
//! listener, although the engine has rules that lead it to the engine's own resolver.
//!
//! Mark: the table is ours alone (`inet tombolo-names` of that namespace). It has another name than the table of rules,
//! since a daemon may run in such a namespace, which is then its host.

use crate::name::Netns;

/// Name of the table.
pub const TABLE: &str = "tombolo-names";

/// Identity: there is one in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DetourKey {
    /// The namespace.
    pub netns: Netns,
}
