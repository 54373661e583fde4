//! Limits of what one node holds. Each is tested at the limit.

/// Most networks of one node.
pub const NETWORKS_MAX: usize = 4_096;

/// Most endpoints of one network.
pub const ENDPOINTS_PER_NETWORK_MAX: usize = 16_384;

/// Most endpoints of one sandbox.
pub const ENDPOINTS_PER_SANDBOX_MAX: usize = 64;

/// Most sandboxes of one node.
pub const SANDBOXES_MAX: usize = 65_536;

/// Most subnets of one network.
pub const SUBNETS_PER_NETWORK_MAX: usize = 16;

/// Most static routes of one network.
pub const ROUTES_PER_NETWORK_MAX: usize = 64;

/// Most labels or options of one object.
pub const LABELS_MAX: usize = 128;

/// Longest label or option, key and value together, in bytes.
pub const LABEL_BYTES_MAX: usize = 1_024;

/// Requests that may wait for others to finish; the next one is refused.
pub const WAITING_MAX: usize = 8_192;

/// Ports of a network's own bridge before leaf bridges take over. Few, because every port added to a bridge
/// costs time with each port that is there.
pub const CORE_PORTS_MAX: u16 = 32;

/// Ports of a leaf bridge.
pub const LEAF_PORTS_MAX: u16 = 64;

/// Smallest MTU in bytes: what IPv4 asks of every link (RFC 791 section 3.2).
pub const MTU_MIN: u32 = 68;

/// Smallest MTU in bytes on a network with IPv6 (RFC 8200 section 5).
pub const MTU_IPV6_MIN: u32 = 1_280;

/// Largest MTU in bytes that a veth or bridge takes (`ETH_MAX_MTU`).
pub const MTU_MAX: u32 = 65_535;

/// Rounds of repair after one observation before the rest is left to the next one.
pub const REPAIR_ROUNDS_MAX: u32 = 3;

/// Most publications of one sandbox; a range is one.
pub const PUBLICATIONS_PER_SANDBOX_MAX: usize = 1_024;

/// Most sources that one publication names.
pub const SOURCES_PER_PUBLICATION_MAX: usize = 256;

/// Most exposed ranges of one sandbox.
pub const EXPOSED_PER_SANDBOX_MAX: usize = 1_024;

/// Most links of one sandbox.
pub const LINKS_PER_SANDBOX_MAX: usize = 64;

/// Most pools, addresses and networks that engines of others hold of ours.
pub const LOANS_MAX: usize = 65_536;

/// Ports of a range up to which each is held by a socket of its own, and the most that can be relayed.
pub const RANGE_SOCKETS_MAX: u32 = 64;
