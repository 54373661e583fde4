//! What is stored and how a change of it is asked for.

use std::fmt;
use std::sync::Arc;

use crate::Key;

/// The number of a commit; later commits have greater ones. Zero is the empty store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value and the commit that wrote it. Values may be secrets: `Debug` shows their length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes as they were put.
    pub value: Arc<[u8]>,
    /// The commit that put them.
    pub revision: Revision,
}

/// What a key must be for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// There is no such key.
    Absent,
    /// The key is there and was last put by this commit.
    At(Revision),
}

/// One change that is asked for. `Debug` does not show the value.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Key,
        /// Its value from now on.
        value: Vec<u8>,
        /// What the key must be before.
        expect: Expect,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Key,
        /// What the key must be before.
        expect: Expect,
    },
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// What the key must be before.
    #[must_use]
    pub fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } => *expect,
        }
    }

    /// Length of the value in bytes; none for a removal.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

/// What a commit must survive before it is acknowledged. A replicated store gives `Power` always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of this process; a flush makes it survive a loss of power.
    Process,
    /// A loss of power.
    Power,
}

/// One key as a commit left it. `Debug` does not show the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Its value, or `None` when it was removed.
    pub value: Option<Arc<[u8]>>,
    /// The commit.
    pub revision: Revision,
}

impl Change {
    /// Bytes that the change keeps alive.
    pub(crate) fn bytes(&self) -> usize {
        self.key.as_str().len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}

impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.value.len(), self.revision)
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value, expect } => {
                write!(f, "put {key} ({} bytes) if {expect:?}", value.len())
            }
            Self::Delete { key, expect } => write!(f, "delete {key} if {expect:?}"),
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => {
                write!(
                    f,
                    "{} has {} bytes at {}",
                    self.key,
                    value.len(),
                    self.revision
                )
            }
            None => write!(f, "{} removed at {}", self.key, self.revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_a_value() {
        let key = Key::new("mesh/key").unwrap();
        let value: Arc<[u8]> = b"zq9".as_slice().into();
        let shown = [
            format!(
                "{:?}",
                Versioned {
                    value: value.clone(),
                    revision: Revision(1)
                }
            ),
            format!(
                "{:?}",
                Write::Put {
                    key: key.clone(),
                    value: value.to_vec(),
                    expect: Expect::Any
                }
            ),
            format!(
                "{:?}",
                Change {
                    key,
                    value: Some(value),
                    revision: Revision(1)
                }
            ),
        ];
        for text in shown {
            assert!(!text.contains("zq9") && !text.contains("122"), "{text}");
        }
    }
}
