//! Published ports, gateway modes and links: what reaches a sandbox, from where, and as whom it is seen.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod bulk;
mod edges;
mod forms;
mod life;
mod links;
mod matrix;
mod obeyed;
mod programs;
mod refused;
mod talk;
