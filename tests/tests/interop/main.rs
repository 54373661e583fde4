//! Beside others that rule the same host: the real dockerd, the real firewalld, rules written by hand, and
//! those who flush everything.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod dockerd;
mod firewalld;
mod hand;
mod plugin;
mod traffic;
