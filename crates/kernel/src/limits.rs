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
