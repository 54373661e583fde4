//! Observe and apply: the one crate that speaks netlink and nf_tables, and the only one with `unsafe` code.
//! No runtime and no child processes: blocking calls on the caller's thread.

mod netlink;
mod sys;
pub mod limits;
