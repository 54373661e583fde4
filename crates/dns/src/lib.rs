//! Names as a sandbox sees them: `resolv.conf`, `hosts` and `hostname`.
//!
//! Pure: bytes and facts come in, text comes out; reading and writing is the caller's.

#![forbid(unsafe_code)]

pub mod cache;
pub mod exchange;
pub mod hosts;
pub mod limits;
pub mod name;
pub mod names;
pub mod resolv_conf;
pub mod rewrite;
pub mod upstream;
pub mod view;
