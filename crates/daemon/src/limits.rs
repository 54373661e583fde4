//! Limits of the daemon.

use std::time::Duration;

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

/// Longest that answers about sandboxes may be kept, in seconds: a day.
pub(crate) const DNS_TTL_SECONDS_MAX: u32 = 86_400;

/// Most memory that answers of other resolvers take, in bytes.
pub(crate) const DNS_CACHE_BYTES_MAX: u64 = 1 << 30;

/// Most addresses at which the host asks for the names of sandboxes.
pub(crate) const DNS_LISTEN_MAX: usize = 16;

/// Most files that are laid over the configuration file.
pub(crate) const CONFIG_DROP_INS_MAX: usize = 64;

/// Most engines of Docker's that use the plugin.
pub(crate) const DOCKER_ENGINES_MAX: usize = 8;

/// Most hosts that a sandbox is given besides its own.
pub(crate) const EXTRA_HOSTS_MAX: usize = 1_024;

/// Most TCP connections that the relay carries at once; a busy one holds up to two `RELAY_BUFFER_BYTES`.
pub(crate) const RELAY_CONNECTIONS_MAX: usize = 4_096;

/// Most UDP sessions of the relay at once; beyond it the one that was silent longest gives way.
pub(crate) const RELAY_SESSIONS_MAX: usize = 4_096;

/// Longest that the relay waits for a sandbox to take a connection.
pub(crate) const RELAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a UDP session that was answered lives without a datagram.
pub(crate) const RELAY_SESSION_IDLE: Duration = Duration::from_secs(90);

/// How long a UDP session that was never answered lives without a datagram.
pub(crate) const RELAY_SESSION_UNANSWERED: Duration = Duration::from_secs(30);

/// Silence after which a UDP client's destination is looked up again: its connection tracking entry may have
/// ended (30 s by default, `nf_conntrack_udp_timeout`) and its port may be used for another.
pub(crate) const RELAY_SESSION_RECHECK: Duration = Duration::from_secs(5);

/// Largest piece that the relay carries at once, in bytes; every datagram fits (RFC 768).
pub(crate) const RELAY_BUFFER_BYTES: usize = 64 << 10;

/// Datagrams of one UDP session that the relay carries before it looks after others.
pub(crate) const RELAY_DATAGRAMS_AT_ONCE: usize = 32;

/// Connections that may wait at a Unix socket of the relay.
pub(crate) const RELAY_BACKLOG: i32 = 1_024;

/// Longest rest after a socket refused to give what arrived, as when descriptors run out.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Silence after which a relayed TCP connection is probed, by `TCP_KEEPIDLE` (tcp(7)).
pub(crate) const RELAY_KEEPALIVE: Duration = Duration::from_secs(120);

/// Changes that may wait for the relay; who makes more of them waits.
pub(crate) const RELAY_COMMANDS_MAX: usize = 1_024;

/// Longest that the relay is waited for when it is to close sockets.
pub(crate) const RELAY_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Ports that the relay's sockets may have, tried in order: below the ports that the kernel chooses from
/// (`ip_local_port_range`), and assigned to nobody (IANA).
pub(crate) const RELAY_PORTS: std::ops::RangeInclusive<u16> = 27_880..=27_899;

/// Largest request of an engine to its plugin, in bytes: room for some ten thousand published ports.
pub(crate) const PLUGIN_REQUEST_BYTES_MAX: usize = 4 << 20;

/// Longest time until an engine is answered: it waits without an end of its own.
pub(crate) const PLUGIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time until an engine's own API answers: it may start a container meanwhile.
pub(crate) const DOCKER_API_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an engine that cannot be asked is left alone.
pub(crate) const DOCKER_API_PAUSE: Duration = Duration::from_secs(1);

/// How often an engine is asked what it has.
pub(crate) const DOCKER_LOOK_EVERY: Duration = Duration::from_secs(10);

/// What an engine had longer ago than this says nothing of what it has.
pub(crate) const DOCKER_VIEW_AGE_MAX: Duration = Duration::from_secs(25);

/// How long an endpoint waits for an address that another one is giving up, and how often it asks.
pub(crate) const ADDRESS_WAIT: Duration = Duration::from_secs(2);
pub(crate) const ADDRESS_PAUSE: Duration = Duration::from_millis(20);

/// How long no engine must have something until it is removed.
pub(crate) const DOCKER_FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// How long a container may take from its first endpoint to its namespace. Engines before 28 tell of it only
/// thereafter, so until then its endpoints are not missed.
pub(crate) const DOCKER_START_MAX: Duration = Duration::from_secs(180);

/// Most containers that an engine is asked about at once.
pub(crate) const DOCKER_API_CALLS_MAX: usize = 8;

/// Most containers that wait until their engine is asked about them; the others are asked about at the next look.
pub(crate) const DOCKER_INQUIRIES_MAX: usize = 4_096;

/// Longest run of published ports that is made of parts which sockets can hold.
pub(crate) const PLUGIN_RUN_MAX: u32 = 1_024;

/// Most publications, exposed ranges or links in one request.
pub(crate) const SPECS_MAX: usize = 1_024;

/// Longest path of a Unix socket in bytes (`sun_path` of unix(7), without its end).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bytes that the store must have room for before an intent is stored, besides twice its own: for what becomes of
/// it and of those under way.
pub(crate) const OUTCOME_BYTES: u64 = 48 * 1024;

/// Questions for names that are taken, and answers sent, together.
pub(crate) const NAMES_BATCH: usize = 64;

/// Largest question for a name, in bytes: a name, EDNS and room for options; longer ones are passed over.
pub(crate) const NAMES_QUERY_BYTES_MAX: usize = 1_232;

/// Largest datagram that is taken from another server, in bytes; we offer to take less.
pub(crate) const NAMES_ANSWER_BYTES_MAX: usize = 4_096;

/// Most connections with questions for names at once of one client at a listener.
pub(crate) const NAMES_CONNECTIONS_EACH_MAX: usize = 64;

/// Most connections with questions for names at once at one listener, of all who ask there.
pub(crate) const NAMES_CONNECTIONS_MAX: usize = 1_024;

/// Bytes of answers that wait for the client of one connection, to which one more may be added; then nothing more is
/// read, and answers of other servers are lost to it.
pub(crate) const NAMES_WAITING_BYTES_MAX: usize = 32 << 10;

/// How long a connection may be silent between two questions (RFC 7766, section 6.2.3).
pub(crate) const NAMES_CONNECTION_IDLE: Duration = Duration::from_secs(10);

/// Longest time for the rest of a question that has begun, and for a client to take an answer.
pub(crate) const NAMES_STALL: Duration = Duration::from_secs(5);

/// Longest time that an ending daemon waits for answers of other servers.
pub(crate) const NAMES_DRAIN: Duration = Duration::from_secs(2);

/// How often it looks whether they have come.
pub(crate) const NAMES_DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Bytes that are read from a connection with questions at once: many questions where a client sends many.
pub(crate) const NAMES_READ_BYTES: usize = 4_096;

/// Longest name of a plugin, in bytes: file names are at most 255 long, and an ending follows.
pub(crate) const PLUGIN_NAME_BYTES_MAX: usize = 250;

/// Largest file that says where a plugin is, in bytes.
pub(crate) const PLUGIN_FILE_BYTES_MAX: u64 = 64 << 10;

/// Longest that a plugin may take for one call, from the request until the whole answer is there; also for one
/// connection to come about.
pub(crate) const PLUGIN_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that a plugin which does not listen is tried again, unless the caller has another mind.
pub(crate) const PLUGIN_PATIENCE: Duration = Duration::from_secs(2);

/// Rest before a plugin that does not listen is tried again the first time; doubled each time.
pub(crate) const PLUGIN_PAUSE_MIN: Duration = Duration::from_millis(25);

/// Longest of these rests.
pub(crate) const PLUGIN_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Most names of plugins' hosts that are looked up at once.
pub(crate) const PLUGIN_LOOKUPS_MAX: usize = 4;

/// Largest answer of a plugin, in bytes.
pub(crate) const PLUGIN_ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is kept of a plugin's reason for a failure, in bytes.
pub(crate) const PLUGIN_REASON_BYTES_MAX: usize = 1_024;

/// Longest that may be configured for it, in seconds: an hour.
pub(crate) const PLUGIN_CALL_SECONDS_MAX: u32 = 3_600;

/// Most directories in which plugins are looked for, of each kind.
pub(crate) const PLUGIN_PLACES_MAX: usize = 16;

/// Most plugins of which it is remembered how they are.
pub(crate) const PLUGINS_KNOWN_MAX: usize = 256;

/// Requests that may wait for others that ask plugins; the next one is refused.
pub(crate) const PLUGIN_WAITING_MAX: usize = 1_024;

/// How often a plugin is asked for another pool when it offers one that overlaps what is there.
pub(crate) const PLUGIN_POOLS_TRIED: usize = 8;

/// How long what an earlier daemon left is kept for a plugin that does not answer, to be told of it.
pub(crate) const PLUGIN_LEFT_PATIENCE: Duration = Duration::from_secs(600);

/// Longest rest until it is asked again whether it is there.
pub(crate) const PLUGIN_LEFT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Most of such things that are worked on at once.
pub(crate) const PLUGIN_LEFT_TOGETHER_MAX: usize = 16;

/// Longest that a plugin is waited for when it is only looked whether it is there.
pub(crate) const PLUGIN_PROBE_TIMEOUT: Duration = Duration::from_secs(2);
