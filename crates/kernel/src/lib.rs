//! Observe and apply: the one crate that speaks netlink and nf_tables, and the only one with `unsafe` code.
//! No runtime and no child processes: blocking calls on the caller's thread.
//!
//! [`Kernel::apply`] carries out a [`Plan`](tombolo_netstate::Plan) and reports what became of each operation;
//! [`Kernel::observe`] reads everything of ours back as the specs that would have made it.

mod announce;
mod apply;
mod facts;
mod kernel;
pub mod limits;
mod netlink;
mod netns;
mod nft;
mod observe;
mod reaper;
#[expect(unsafe_code, reason = "system calls that the standard library lacks")]
mod sys;
#[cfg(test)]
mod tests;
mod watch;

pub use facts::{
    BaseChain, Diagnosis, FactsError, Features, HostAddress, HostFacts, HostLink, HostRoute, Uplink,
};
pub use kernel::{Kernel, KernelConfig, OpenError};
pub use netns::{netns_inode, netns_of_pid};
pub use observe::{ObserveError, Observed, Scope};
pub use watch::{Change, Stopper, Watch, WatchError};
