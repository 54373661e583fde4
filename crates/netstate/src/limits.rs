//! Limits of what one plan or one name may hold.

/// Longest interface name in bytes, without the final zero (`IFNAMSIZ - 1`, linux/if.h).
pub const IFNAME_BYTES_MAX: usize = 15;

/// Longest `ifalias` that we write, in bytes (the kernel allows 255, `IFALIASZ - 1`).
pub const ALIAS_BYTES_MAX: usize = 255;
