//! Limits of the daemon.

/// Largest plan, in operations, that is carried out at once; larger ones go to a thread of their own, so that
/// others do not wait for them.
pub(crate) const INLINE_OPS_MAX: usize = 512;

/// News from the kernel and from threads that may wait to be handled.
pub(crate) const INPUTS_MAX: usize = 4_096;

/// Largest file of the host or of a sandbox that is read, in bytes.
pub(crate) const HOST_FILE_BYTES_MAX: u64 = 4 << 20;

/// What the store's framing may add to a write, in bytes; generous.
pub(crate) const WRITE_OVERHEAD_BYTES: usize = 64;

/// Most aliases of an endpoint.
pub(crate) const ALIASES_MAX: usize = 64;

/// Most hosts that a sandbox is given besides its own.
pub(crate) const EXTRA_HOSTS_MAX: usize = 1_024;
