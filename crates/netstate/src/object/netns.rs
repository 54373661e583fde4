//! Network namespaces that we make and name by a file in our run directory (namespaces(7)).
//!
//! Mark: the file lies in our run directory. Deleting one removes the name; the kernel destroys the
//! namespace with everything in it once the last process has left it.

use std::fmt;
use std::sync::Arc;

/// Identity: the file's name in the run directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsKey {
    /// File name, without directory.
    pub name: Arc<str>,
}

/// A namespace has no settings; its loopback interface is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsSpec;

impl fmt::Display for NetnsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loopback up")
    }
}
