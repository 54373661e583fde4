//! The model of the kernel, on which most tests stand, behaves as the kernel does: after the same plans and
//! the same faults both read back the same.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod fault;
mod host;
mod planner;
mod scenes;
mod twin;
