//! Every limit of the store. All back ends keep the same ones, so that a host can move between them.

/// Longest key or prefix, in bytes.
pub const KEY_BYTES: usize = 255;

/// Largest value, in bytes.
pub const VALUE_BYTES: usize = 1 << 20;

/// Most writes in one commit (Consul takes 64 operations in a transaction, etcd 128).
pub const COMMIT_WRITES: usize = 64;

/// Most bytes of keys and values in one commit (etcd takes requests of 1.5 MiB).
pub const COMMIT_BYTES: usize = 5 << 18;

/// Most bytes of live keys and values, with the framing of each; all of them are kept in memory.
pub const LIVE_BYTES: u64 = 512 << 20;

/// Most watches open at the same time.
pub const WATCHES: usize = 256;

/// Most changes that wait for one watcher before it counts as lagging.
pub const WATCH_QUEUE: usize = 1024;

/// Most past changes that are kept for watches that start in the past.
pub const HISTORY_CHANGES: usize = 4096;

/// Most bytes of past changes that are kept for watches that start in the past.
pub const HISTORY_BYTES: usize = 4 << 20;

/// Size in bytes that the log must exceed before it is compacted.
pub const COMPACT_BYTES: u64 = 1 << 20;

/// How many times the live size the log must exceed before it is compacted.
pub const COMPACT_FACTOR: u64 = 4;

/// Bytes by which the log grows between two attempts when a compaction fails.
pub const COMPACT_RETRY_BYTES: u64 = 1 << 20;

/// Bytes of entries gathered into one record of a snapshot; the last entry may exceed it.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Largest payload of one record of the log, in bytes; a longer one is damage.
pub const RECORD_BYTES: usize = 2 << 20;

/// Most places behind an unreadable record that are tried as the start of a later one.
pub const SCAN_CANDIDATES: usize = 4096;
