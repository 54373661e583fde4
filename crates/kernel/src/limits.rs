//! Limits of what is sent, received and waited for.

use std::time::Duration;

/// Most messages in one batch: their errors must fit into the socket's receive buffer.
pub const BATCH_MESSAGES_MAX: usize = 256;

/// Most bytes in one rtnetlink batch; the kernel takes up to the socket's send buffer (212,992 by default).
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Most elements in one nf_tables transaction.
pub const TRANSACTION_ELEMENTS_MAX: usize = 8192;

/// Receive buffer asked for, in bytes.
pub const RECEIVE_BUFFER_BYTES: i32 = 4 * 1024 * 1024;

/// Send buffer asked for, in bytes: an nf_tables transaction is one message to the socket.
pub const SEND_BUFFER_BYTES: i32 = 8 * 1024 * 1024;

/// Bytes read at once; the kernel fills at most 32 KiB of a dump per read.
pub const READ_BYTES: usize = 64 * 1024;

/// How often a dump that changed under our eyes, or was interrupted, is begun anew.
pub const DUMP_TRIES_MAX: usize = 10;

/// Idle rtnetlink sockets kept.
pub const IDLE_SOCKETS_MAX: usize = 8;

/// Most prepared namespaces.
pub const POOL_MAX: usize = 64;

/// Pause before another namespace is prepared while enough are ready.
pub const POOL_PAUSE: Duration = Duration::from_millis(2);

/// How long an IPv6 address may take to become usable before the plan goes on without it.
pub const ADDRESS_WAIT: Duration = Duration::from_millis(200);

/// How long removals are gathered before one message removes them all.
pub const REAP_GATHER: Duration = Duration::from_millis(4);

/// Age at which a link that was begun and never finished counts as left behind by an earlier process.
pub const NURSERY_AGE: Duration = Duration::from_secs(2);

/// First interface number that we hand out; the kernel's own counter begins at 1.
pub const IFINDEX_BASE: u32 = 0x1_0000;

/// Group of links that are being removed ("tomb"); one message removes them all.
pub const GROUP_GRAVEYARD: u32 = 0x746f_6d62;

/// Group of links that are being made ("toma") and bear no mark yet.
pub const GROUP_NURSERY: u32 = 0x746f_6d61;

/// How long the ports made by one plan are waited for, all together.
pub const PORT_WAIT: Duration = Duration::from_millis(200);

/// Pause between two looks at a port that does not let frames pass yet.
pub const PORT_LOOK_AGAIN: Duration = Duration::from_micros(300);

/// Most chains of others that are looked into for a rule that drops.
pub const FOREIGN_CHAINS_MAX: usize = 512;

/// Most bytes of the user's own rules that are kept.
pub const USER_RULES_BYTES_MAX: usize = 512 * 1024;

/// Most programs kept that hand packets to a device; there is one for each bridge with ports that lead to it.
pub const PROGRAMS_MAX: usize = 64;

/// Most tracked connections that are found before they are forgotten and the search goes on.
pub const FORGOTTEN_TOGETHER: usize = 4096;

/// How often tracked connections are searched anew because more were found than are forgotten at once.
pub const FORGET_ROUNDS_MAX: usize = 256;

/// Most ports that are held by a socket each; the rest of a host's ports can be reserved as ranges.
pub const PORTS_HELD_MAX: usize = 65_536;

/// Most pairs of sockets at which names are asked for.
pub const LISTENERS_MAX: usize = 16_384;

/// Most sockets that the keeper keeps.
pub const KEPT_SOCKETS_MAX: usize = PORTS_HELD_MAX + 2 * LISTENERS_MAX;

/// Connections that wait at a listener; the host's `somaxconn` may allow fewer.
pub const LISTENER_BACKLOG: i32 = 256;

/// Bytes of datagrams that wait at a listener, as the kernel counts them.
pub const LISTENER_BUFFER_BYTES: i32 = 1024 * 1024;

/// Open files that are left to everything else when listeners are opened.
pub const LISTENER_FILES_SPARE: u64 = 256;

/// Most datagrams that are read or sent at once (`UIO_MAXIOV`, linux/uio.h).
pub const DATAGRAMS_TOGETHER_MAX: usize = 1024;

/// Open files that the keeper of ports needs besides what it keeps.
pub const KEEPER_FILES_SPARE: u64 = 64;

/// How long the keeper of ports waits for a daemon before it lets everything go.
pub const KEEPER_PATIENCE: Duration = Duration::from_secs(600);

/// How often a keeper without a daemon looks whether its directory is still there.
pub const KEEPER_LOOK: Duration = Duration::from_secs(1);

/// How long the keeper of ports may take to start.
pub const KEEPER_START: Duration = Duration::from_secs(5);

/// How long the keeper of ports may take to answer.
pub const KEEPER_ANSWER: Duration = Duration::from_secs(2);

/// Most answers of the keeper that nobody has read: more than fit into its send buffer would hold it up.
pub const KEEPER_ANSWERS_OWED_MAX: usize = 64;

/// Pause between two looks for a keeper that is starting or ending.
pub const KEEPER_LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Sockets that are made before they are handed to the keeper together; they are open files of ours meanwhile.
pub const ENTRIES_TOGETHER: usize = 253;

/// How often ports are tried to be taken again from a keeper that has ended, and the pause between.
pub const RECLAIM_TRIES_MAX: usize = 25;

/// See [`RECLAIM_TRIES_MAX`].
pub const RECLAIM_PAUSE: Duration = Duration::from_millis(20);

/// Connections that wait for the relay at one port; the host's `somaxconn` may allow fewer.
pub const RELAY_BACKLOG: i32 = 4096;

/// How often the kernel is asked for another free port when its choice lies in a range that is published.
pub const PICK_TRIES_MAX: usize = 16;

/// Most requests to forget connections that wait for the search before them.
pub const FORGET_QUEUE_MAX: usize = 1024;

/// Longest pause between two searches among tracked connections.
pub const FORGET_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a filter for the host's own packets counts as there after it has vanished.
pub const FILTER_MEMORY: Duration = Duration::from_secs(10);

/// Bytes that are read of a kernel setting: most have a few, a list of ports has up to the second number.
pub const SYSCTL_BYTES: [usize; 2] = [4 * 1024, 512 * 1024];
