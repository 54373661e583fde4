//! Behaviour of the whole program in network namespaces: what its tests share.

pub mod peers;
pub mod stage;

pub use stage::{Place, Stage};
