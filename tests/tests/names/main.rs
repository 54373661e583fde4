//! Names: what clients in sandboxes are answered, about our own names and all others, and what nobody can spoil.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]
#![expect(
    clippy::print_stdout,
    reason = "times and counts are told beside what is asserted of them"
)]

mod askers;
mod clients;
mod coming;
mod files;
mod foreign;
mod gateway;
mod held;
mod host;
mod hostile;
mod life;
mod multicast;
mod own;
mod refused;
mod remembered;
mod scene;
mod services;
mod several;
mod upstream;
mod wire;
