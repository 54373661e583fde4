//! Docker's real engine on our networks: we are its plugin, for networks and for addresses.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod first;
mod scene;
