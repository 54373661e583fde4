//! Every count that a caller can drive up, and where it stops.

/// Pools in one space.
pub const POOLS_MAX: usize = 16_384;
/// Leases in one pool, whatever its prefix.
pub const LEASES_MAX: usize = 131_072;
/// Ranges for automatic choice in one pool.
pub const RANGES_MAX: usize = 64;
/// Reserved (auxiliary) addresses in one pool.
pub const RESERVED_MAX: usize = 1_024;
/// Bytes in the name of an owner or of a reserved address.
pub const NAME_BYTES_MAX: usize = 256;
/// Default pools that a configuration may list.
pub const DEFAULT_POOLS_MAX: usize = 256;
/// How long a released address stays out of automatic choice, unless configured, in milliseconds.
pub const COOLDOWN_DEFAULT_MS: u64 = 30_000;
