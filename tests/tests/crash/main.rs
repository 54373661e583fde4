//! The daemon dies, the kernel loses what it was given, the disk is full, the machine starts anew: afterwards
//! everything that should exist exists, works, and nothing else is left.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod away;
mod disk;
mod faults;
mod lost;
mod matrix;
mod ports;
mod published;
mod reboot;
mod scene;
mod storm;
