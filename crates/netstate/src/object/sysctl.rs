//! Kernel settings of the host's namespace (Documentation/networking/ip-sysctl.rst).
//!
//! Mark: the value found before ours is remembered in the store and written back on removal.

use std::fmt;
use std::sync::Arc;

/// Identity: the path below `/proc/sys`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlKey {
    /// For instance `net/ipv4/ip_forward`.
    pub path: Arc<str>,
}

/// The value we want and the one to write back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlSpec {
    /// The value, without the final newline.
    pub value: Arc<str>,
    /// What was there before us.
    pub restore: Arc<str>,
}

impl fmt::Display for SysctlSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "= {}, before us {}", self.value, self.restore)
    }
}
