//! Names: what clients in sandboxes are answered, about our own names and all others, and what nobody can spoil.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod clients;
mod coming;
mod files;
mod gateway;
mod host;
mod multicast;
mod own;
mod refused;
mod scene;
mod services;
