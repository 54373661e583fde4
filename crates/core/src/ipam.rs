//! Addresses: which subnets a node's networks hold and which endpoint holds which address.
//!
//! Pure bookkeeping: the time comes in as milliseconds, nothing is read from the host. A pool
//! costs memory for its leases only, so a /8 or a /64 is as cheap as a /24.

mod address;
mod defaults;
mod intervals;
pub mod limits;
mod pool;
mod space;
mod spec;

pub use address::Family;
pub use defaults::{DefaultPool, DefaultPools, DefaultsReject, SubnetWish, WishReject, ula_base};
pub use pool::{Holder, Lease, LeaseReject, LeaseState, Pool, ReturnReject, Usage};
pub use space::{LeaseRecord, LeaseRequest, PickReject, RemoveReject, Space, Surroundings};
pub use spec::{PoolReject, PoolSpec};

#[cfg(test)]
mod tests;
