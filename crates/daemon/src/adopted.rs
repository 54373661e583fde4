//! Namespaces of others that are gone. While sockets of ours are open in one it lives on, and the kernel tells of
//! nothing; so whether the way to it still leads there is looked at now and then.

use std::collections::BTreeSet;
use std::path::Path;

use tombolo_core::Controller;
use tombolo_core::driver::netns_of;
use tombolo_core::id::SandboxId;
use tombolo_core::model::{Sandbox, SandboxNetns};
use tombolo_netstate::Netns;

/// The namespaces of running sandboxes that were missing at the last look.
#[derive(Debug, Default)]
pub(crate) struct Vanished(BTreeSet<Netns>);

impl Vanished {
    /// Looks again; says whether there is one more.
    pub(crate) fn look(&mut self, controller: &Controller) -> bool {
        let adopted = namespaces(controller).into_iter();
        let missing: BTreeSet<Netns> = adopted.filter(is_missing).collect();
        let more = !missing.is_subset(&self.0);
        self.0 = missing;
        more
    }
}

/// The namespaces of others that are running sandboxes.
pub(crate) fn namespaces(controller: &Controller) -> Vec<Netns> {
    let is_adopted = |sandbox: &&Sandbox| {
        let adopted = match sandbox.spec.netns {
            SandboxNetns::Adopted { .. } => true,
            SandboxNetns::Engine { inode, .. } => inode.is_some(),
            SandboxNetns::New | SandboxNetns::Host => false,
        };
        adopted && sandbox.is_live()
    };
    let adopted = controller.sandboxes().filter(is_adopted);
    adopted.map(netns_of).collect()
}

/// Sandboxes of engines whose namespaces were not there before, with the namespaces' inodes.
pub(crate) fn appeared(controller: &Controller) -> Vec<(SandboxId, u64)> {
    let host = tombolo_kernel::netns_inode(Path::new("/proc/self/ns/net")).ok();
    let found = controller.sandboxes().filter_map(|sandbox| {
        let SandboxNetns::Engine { path, inode: None } = &sandbox.spec.netns else {
            return None;
        };
        let inode = tombolo_kernel::netns_inode(path).ok()?;
        (Some(inode) != host && sandbox.is_live()).then_some((sandbox.id, inode))
    });
    found.collect()
}

/// Whether a namespace of somebody else is gone, or another one is in its place.
pub(crate) fn is_missing(netns: &Netns) -> bool {
    match netns {
        Netns::Host | Netns::Owned(_) => false,
        Netns::Adopted { path, inode } => tombolo_kernel::netns_inode(path).ok() != Some(*inode),
    }
}
