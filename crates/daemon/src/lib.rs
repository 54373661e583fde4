//! placeholder

pub mod http;
pub mod listen;
