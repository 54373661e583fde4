//! Docker's real engine on our networks: we are its plugin, for networks and for addresses.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod audit;
mod churn;
mod compose;
mod containers;
mod first;
mod killed;
mod managed;
mod networks;
mod ports;
mod scene;
mod survival;
mod two;
mod wire;
