//! From flags to requests. Nothing here does I/O.

pub(crate) mod attachment;
pub(crate) mod filter;
pub(crate) mod mode;
pub(crate) mod publish;
pub(crate) mod subnets;
