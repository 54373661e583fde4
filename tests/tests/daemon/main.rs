//! The daemon as a service: its configuration, where it listens, how it starts and ends, and the network that
//! it makes by itself.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod config;
mod default_network;
mod life;
mod sockets;
mod tcp;
