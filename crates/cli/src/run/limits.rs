//! Every bound of the runtime in one place.

use std::time::Duration;

/// Longest name or id of a process, in bytes.
pub const NAME_BYTES: usize = 128;
/// Most argv words, environment entries, binds or sysctls in one spec.
pub const SPEC_ITEMS: usize = 4096;
/// Default size at which a log file is rotated, in bytes. One older file is kept.
pub const LOG_BYTES: u64 = 10 << 20;
/// Longest text in one log entry, in bytes; a longer line is split, as in Docker's json-file.
pub const LOG_TEXT_BYTES: usize = 16 << 10;
/// Most clients attached to one process at a time.
pub const ATTACHED_CLIENTS: usize = 16;
/// Largest payload of one attach frame, in bytes.
pub const FRAME_BYTES: usize = 64 << 10;
/// Input held for a process that does not read, in bytes; beyond it clients are not read.
pub const STDIN_BYTES: usize = 256 << 10;
/// How long a shim started for a foreground run waits for its client.
pub const ATTACH_WAIT: Duration = Duration::from_secs(10);
/// How long output may be silent, after the process ended, before its pipes are given up.
pub const DRAIN_IDLE: Duration = Duration::from_millis(500);
/// Attempts of the exit hook.
pub const HOOK_ATTEMPTS: u32 = 5;
/// How long one attempt of the exit hook may take.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the second attempt of the exit hook; it doubles each time.
pub const HOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long a killed process may take to disappear and be recorded.
pub const KILL_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks at a state or log file.
pub const POLL_PAUSE: Duration = Duration::from_millis(20);
/// Most bytes of keys typed into a terminal at once; well below what a terminal takes without being read.
pub const TYPED_BYTES: usize = 1 << 10;
