//! Names as a sandbox sees them: the answers to its questions, and its `resolv.conf`, `hosts` and `hostname`.
//!
//! Pure: bytes and facts come in, bytes and text come out; sockets, files and clocks are the caller's.

#![forbid(unsafe_code)]

pub mod answer;
pub mod cache;
pub mod exchange;
pub mod hosts;
pub mod limits;
pub mod mdns;
pub mod name;
pub mod names;
pub mod resolv_conf;
pub mod rewrite;
pub mod upstream;
pub mod view;

/// The crate that reads and writes messages, whose types are part of what this crate offers.
pub use hickory_proto as proto;
