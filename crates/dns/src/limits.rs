//! Every size that a file or a caller can drive up, and where it stops.

use std::time::Duration;

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

/// Bytes that the answers kept may take, unless another size is asked for.
pub const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes in an answer that is kept; a larger one is passed on only.
pub const CACHE_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long an answer is kept, whatever its records allow.
pub const CACHE_ANSWER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it is remembered that there is nothing (RFC 2308, section 5).
pub const CACHE_NOTHING_MAX: Duration = Duration::from_secs(3 * 60 * 60);
/// How long an answer may serve after its end while no server answers (RFC 8767).
pub const CACHE_STALE_MAX: Duration = Duration::from_secs(60 * 60);
/// The time to live that such an answer is given (RFC 8767, section 5).
pub const CACHE_STALE_TTL: Duration = Duration::from_secs(30);
/// How long the first failure to resolve is kept (RFC 9520, section 3.2).
pub const CACHE_FAILURE_MIN: Duration = Duration::from_secs(1);
/// How long a failure is kept at most; each in a row is kept twice as long.
pub const CACHE_FAILURE_MAX: Duration = Duration::from_secs(30);
/// Servers whose times and failures are remembered.
pub const UPSTREAMS_MAX: usize = 256;
/// Servers asked for one question.
pub const QUESTION_SERVERS_MAX: usize = 8;
/// How long a question is worked on; resolvers in sandboxes wait five seconds.
pub const QUESTION_PATIENCE: Duration = Duration::from_millis(4_500);
/// When the last query of a question is sent, so that there is time to answer it.
pub const QUESTION_LAST_STEP: Duration = Duration::from_millis(3_500);
/// How long a server has before it is asked the same again.
pub const QUESTION_RETRY: Duration = Duration::from_secs(1);
/// How soon at the earliest the next server is asked as well.
pub const HEDGE_MIN: Duration = Duration::from_millis(50);
/// How soon at the latest the next server is asked as well.
pub const HEDGE_MAX: Duration = Duration::from_millis(400);
/// How long a server is left alone when it stops answering.
pub const DEAD_MIN: Duration = Duration::from_secs(1);
/// How long it is left alone at most; each time in a row is twice as long.
pub const DEAD_MAX: Duration = Duration::from_secs(30);
/// How long a server is asked in a simpler form because of a quirk; then it may have been mended.
pub const QUIRK_MAX: Duration = Duration::from_secs(60 * 60);
/// Different questions that are worked on at a time.
pub const FLIGHTS_MAX: usize = 2_048;
/// Askers that wait for them.
pub const FLIGHT_WAITERS_MAX: usize = 8_192;
/// Records in an answer of another server that is read.
pub const READ_RECORDS_MAX: usize = 4_096;
/// Aliases that are followed from one name.
pub const ANSWER_ALIASES_MAX: usize = 16;
/// Letters in a name whose random case alone tells our own query.
pub const FINGERPRINT_LETTERS_MIN: usize = 12;
/// Networks of an asker whose names it sees.
pub const VIEW_ZONES_MAX: usize = 4_096;
/// Link aliases of an asker.
pub const VIEW_LINKS_MAX: usize = 256;
/// Networks on which one owner has names.
pub const OWNER_REGISTRATIONS_MAX: usize = 64;
/// Names of one owner on one network beside the canonical one: its aliases, and those that it has anyway.
pub const REGISTRATION_NAMES_MAX: usize = 68;
/// Addresses of one owner on one network.
pub const REGISTRATION_ADDRESSES_MAX: usize = 64;
/// Ranges of ports that one owner serves on one network.
pub const REGISTRATION_SERVICES_MAX: usize = 256;
/// Subnets of one network.
pub const ZONE_SUBNETS_MAX: usize = 64;
/// Addresses, services or names of one kind in one answer; the next turn brings others.
pub const ANSWER_RECORDS_MAX: usize = 64;
/// Bytes of an answer in a datagram to a client that does not say more (RFC 1035, section 4.2.1).
pub const DATAGRAM_BYTES: u16 = 512;
/// Bytes of a datagram to any client and from any server: more is often lost on the way (DNS flag day 2020).
pub const DATAGRAM_BYTES_MAX: u16 = 1_232;
/// Bytes of a message in a stream (RFC 1035, section 4.2.2).
pub const STREAM_BYTES_MAX: u16 = u16::MAX;
/// Questions in a multicast query that is answered.
pub const MDNS_QUESTIONS_MAX: usize = 32;
/// Records in a multicast response, and answers in a query that are taken as known.
pub const MDNS_RECORDS_MAX: usize = 64;
