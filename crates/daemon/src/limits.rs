//! Limits of the daemon.

/// Largest plan, in operations, that is carried out at once; larger ones go to a thread of their own, so that
/// others do not wait for them.
pub(crate) const INLINE_OPS_MAX: usize = 512;

/// News from the kernel and from threads that may wait to be handled.
pub(crate) const INPUTS_MAX: usize = 4_096;

/// Largest host file that is read, in bytes.
pub(crate) const HOST_FILE_BYTES_MAX: u64 = 65_536;
