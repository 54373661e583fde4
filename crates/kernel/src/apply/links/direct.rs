//! Ports that lead past bridging.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tombolo_netstate::object::link::{LinkKey, LinkSpec};
use tombolo_netstate::{IfName, Key};

use super::Standing;
use crate::apply::Run;
use crate::apply::failure::Failure;
use crate::netlink::batch::{Pardon, Refusal};
use crate::netlink::tc::{self, Target};
use crate::netlink::{Batch, Socket};

/// What the kernel must have been built with.
const NEEDS: &str = "the kernel needs CONFIG_NET_CLS_ACT, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF and \
                     CONFIG_BPF_SYSCALL for ports of networks without bridging";

/// Settings of several links, to be sent together.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) batch: Batch,
    pub(super) pardons: Vec<Pardon>,
    /// What the messages refer to and must be open until they are sent.
    pub(super) programs: Vec<Arc<OwnedFd>>,
}

/// The bridge to which a port leads past bridging.
pub(crate) fn direct_of(spec: &LinkSpec) -> Option<IfName> {
    spec.port.as_ref()?.direct
}

impl<'a> Run<'a> {
    /// Where the port of a link leads; the places of the messages about that.
    pub(super) fn push_direct(
        &mut self,
        socket: &Socket,
        link: &Standing<'a>,
        settings: &mut Settings,
    ) -> Result<Range<usize>, Failure> {
        let start = settings.batch.len();
        let before = link.before.as_ref().map(|before| before.direct);
        match (before, direct_of(link.spec)) {
            (None, None) => {}
            (Some(before), wanted) if before == wanted => {}
            (Some(_), None) => {
                let pardon = tc::stop(&mut settings.batch, link.index);
                settings.pardons.push(pardon);
            }
            (before, Some(bridge)) => {
                // On a plain link layer, frames to others are none of the host's business.
                let all = link.spec.port.as_ref().is_none_or(|port| !port.flood);
                let (target, program) = self.target(socket, link.key, (bridge, all))?;
                let new = before.is_none();
                let pardons = tc::lead(&mut settings.batch, link.index, &target, new);
                settings.pardons.extend(pardons);
                settings.programs.push(program);
            }
        }
        Ok(start..settings.batch.len())
    }

    fn target(
        &mut self,
        socket: &Socket,
        key: &LinkKey,
        (bridge, all): (IfName, bool),
    ) -> Result<(Target, Arc<OwnedFd>), Failure> {
        let whole = Key::Link(key.clone());
        let device = LinkKey {
            netns: key.netns.clone(),
            name: bridge,
        };
        let absent = || Failure::because("set up", &whole, format!("there is no bridge {bridge}"));
        let (index, only) = if all {
            (self.index_of(socket, &device).ok_or_else(absent)?, None)
        } else {
            let record = self.look_up(socket, &device).ok_or_else(absent)?;
            (record.index, record.mac)
        };
        let program = self
            .kernel
            .programs
            .leading_to(index, only)
            .map_err(|error| failed(key, &Refusal::from_io(&error)))?;
        let target = Target {
            index,
            program: program.as_raw_fd(),
        };
        Ok((target, program))
    }
}

/// Why a port cannot lead past bridging.
pub(super) fn failed(key: &LinkKey, refusal: &Refusal) -> Failure {
    let whole = Key::Link(key.clone());
    let lacking = [libc::ENOENT, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS];
    if lacking.contains(&refusal.errno.0) {
        Failure::because("set up", &whole, format!("{refusal}; {NEEDS}"))
    } else {
        Failure::refusal("set up", &whole, refusal)
    }
}

#[cfg(test)]
mod tests {
    use tombolo_netstate::Netns;

    use super::*;
    use crate::sys::Errno;

    #[test]
    fn a_kernel_without_the_means_is_told_what_it_lacks() {
        let key = LinkKey {
            netns: Netns::Host,
            name: IfName::new("tv1").unwrap(),
        };
        let text = |errno| {
            let reason = None;
            let errno = Errno(errno);
            format!("{:?}", failed(&key, &Refusal { errno, reason }).outcome())
        };
        for errno in [libc::ENOENT, libc::EOPNOTSUPP, libc::ENOSYS] {
            assert!(text(errno).contains("CONFIG_NET_CLS_BPF"), "{errno}");
        }
        let refused = text(libc::EPERM);
        assert!(!refused.contains("CONFIG"), "{refused}");
        assert!(refused.contains("CAP_NET_ADMIN"), "{refused}");
    }
}
