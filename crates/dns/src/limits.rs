//! Every size that a file or a caller can drive up, and where it stops.

/// Bytes of a file that are read; what follows is ignored.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a line that is read; a longer one is ignored.
pub const LINE_BYTES_MAX: usize = 32 * 1024;
/// Name servers kept; resolvers in sandboxes use the first three.
pub const SERVERS_MAX: usize = 32;
/// Search domains kept; there is no such limit in glibc since 2.26.
pub const SEARCH_MAX: usize = 64;
/// Resolver options kept.
pub const OPTIONS_MAX: usize = 64;
/// Bytes in one resolver option.
pub const OPTION_BYTES_MAX: usize = 64;
/// Characters in the zone of a link-local address: an interface name (`IFNAMSIZ`).
pub const ZONE_BYTES_MAX: usize = 15;
/// Bytes in a domain name without its final dot (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 253;
/// Bytes in a label of a domain name (RFC 1035, section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;
/// Bytes in the host name of a UTS namespace (`__NEW_UTS_LEN`).
pub const HOSTNAME_BYTES_MAX: usize = 64;
/// Lines with an address in a hosts file.
pub const HOSTS_ENTRIES_MAX: usize = 4_096;
/// Names on one line of a hosts file.
pub const HOSTS_NAMES_MAX: usize = 64;

/// Records in an answer that is read.
pub const ANSWER_RECORDS_MAX: usize = 4_096;
/// Aliases that are followed from one name.
pub const ANSWER_ALIASES_MAX: usize = 16;
/// Bytes of a datagram that we offer to receive (DNS flag day 2020).
pub const DATAGRAM_BYTES_MAX: u16 = 1_232;
/// Letters in a name whose random case alone tells our own query.
pub const FINGERPRINT_LETTERS_MIN: usize = 12;
