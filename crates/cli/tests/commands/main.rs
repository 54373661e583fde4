//! Whole commands, as a program, against a daemon that answers as it is told.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod docker;
mod fake;
mod lists;
mod names;
mod ports;
mod requests;
mod runs;
mod samples;
mod seeing;
