//! Behaviour of the process runtime, as root and in network namespaces of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod attached;
mod life;
mod sight;
mod world;
