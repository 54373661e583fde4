//! Observe and apply: the one crate that speaks netlink and nf_tables, and the only one with `unsafe` code.
//! No runtime, and no child process but the keeper of published ports: blocking calls on the caller's thread.
//!
//! [`Kernel::apply`] carries out a [`Plan`](tombolo_netstate::Plan) and reports what became of each operation;
//! [`Kernel::observe`] reads everything of ours back as the specs that would have made it.

mod alias;
mod announce;
mod apply;
mod bpf;
mod conntrack;
pub mod datagrams;
mod facts;
mod kernel;
pub mod limits;
mod listeners;
mod netlink;
mod netns;
mod nft;
mod observe;
mod ports;
mod reaper;
mod sockets;
#[expect(unsafe_code, reason = "system calls that the standard library lacks")]
mod sys;
#[cfg(test)]
mod tests;
mod watch;

pub use facts::{
    BaseChain, Diagnosis, FactsError, Features, ForeignChain, HostAddress, HostFacts, HostLink,
    HostRoute, Uplink,
};
pub use kernel::{Kernel, KernelConfig, OpenError};
pub use listeners::ListenerChange;
pub use netns::{netns_inode, netns_of_pid};
pub use nft::user::UserRules;
pub use observe::{ObserveError, Observed, Scope};
pub use ports::{KeeperCommand, Pick, PortError, Ports, PortsConfig, keep_sockets};
pub use sockets::{SocketError, SocketKind};
pub use watch::{Change, Stopper, Watch, WatchError};
