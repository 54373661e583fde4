//! A table of ours in a namespace that an engine of others has made: what asks for names there reaches our
//! listener, although the engine has rules that lead it to the engine's own resolver.
//!
//! Mark: the table is ours alone (`inet tombolo` of that namespace).

use crate::name::Netns;

/// Identity: there is one in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DetourKey {
    /// The namespace.
    pub netns: Netns,
}
