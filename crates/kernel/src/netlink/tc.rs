//! Traffic control (rtnetlink(7), linux/pkt_sched.h, linux/pkt_cls.h): what arrives at a port is handed to
//! another device, past bridging.
//!
//! All ports that lead to one device share one block of filters (`TCA_INGRESS_BLOCK`), whose number is that of
//! the device: a port costs one message, the one filter of the block says where it leads, and one dump tells
//! of all ports. The block goes with its last port.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;

use super::attribute::{Attributes, Writer, read_text, read_u32};
use super::batch::Pardon;
use super::{Batch, ReadBuffer, Socket};

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`.
const EXCLUSIVE: u16 = 0x200;
/// Bytes of `struct tcmsg`.
const HEAD: usize = 20;
/// `TC_H_CLSACT`: the parent of such a queueing discipline.
const CLSACT: u32 = 0xffff_fff1;
/// The handle that it bears.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `TCM_IFINDEX_MAGIC_BLOCK`: the message is about a block and not about a device.
const BLOCK: u32 = u32::MAX;
/// `TCA_KIND`, `TCA_OPTIONS`, `TCA_INGRESS_BLOCK`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const INGRESS_BLOCK: u16 = 13;
/// `TCA_BPF_FD`, `TCA_BPF_NAME`, `TCA_BPF_FLAGS`.
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is done.
const ACT_DIRECT: u32 = 1;
/// Our filter is the first of its block.
const PRIORITY: u32 = 1;
/// The number that it bears there.
const FILTER_HANDLE: u32 = 1;

/// Where a port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Number of the device.
    pub(crate) index: u32,
    /// The program that leads there.
    pub(crate) program: RawFd,
}

/// Hands what arrives at `port` to the target. A port that is new finds the filter of others in place; else it
/// is written anew, for somebody may have spoilt it.
pub(crate) fn lead(batch: &mut Batch, port: u32, target: &Target, new: bool) -> Vec<Pardon> {
    let mut pardons = Vec::new();
    if !new {
        pardons.push(stop(batch, port));
    }
    let mut qdisc = head(port, CLSACT_HANDLE, CLSACT, 0);
    qdisc
        .put_text(KIND, "clsact")
        .put(INGRESS_BLOCK, &target.index.to_ne_bytes());
    batch.push_bytes(NEW_QDISC, CREATE | EXCLUSIVE, &qdisc.0);
    let protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    let mut filter = head(
        BLOCK,
        FILTER_HANDLE,
        target.index,
        PRIORITY << 16 | protocol,
    );
    filter.put_text(KIND, "bpf").nest(OPTIONS, |options| {
        options
            .put(BPF_FD, &(target.program as u32).to_ne_bytes())
            .put_text(BPF_NAME, &filter_name(target.index))
            .put(BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
    });
    let exclusive = if new { EXCLUSIVE } else { 0 };
    let place = batch.push_bytes(NEW_FILTER, CREATE | exclusive, &filter.0);
    if new {
        let errors = &[libc::EEXIST];
        pardons.push(Pardon { place, errors });
    }
    pardons
}

/// What arrives at `port` stays there.
pub(crate) fn stop(batch: &mut Batch, port: u32) -> Pardon {
    let mut qdisc = head(port, CLSACT_HANDLE, CLSACT, 0);
    qdisc.put_text(KIND, "clsact");
    let place = batch.push_bytes(DELETE_QDISC, 0, &qdisc.0);
    // A port without one; a kernel that has no such thing.
    let errors = &[libc::ENOENT, libc::EINVAL, libc::EOPNOTSUPP];
    Pardon { place, errors }
}

/// The ports that lead elsewhere, each with the number of the device that it leads to.
pub(crate) fn dump(socket: &Socket, buffer: &mut ReadBuffer) -> io::Result<BTreeMap<u32, u32>> {
    let mut ports = BTreeMap::new();
    let read = socket.dump(GET_QDISC, &[0; HEAD], buffer, |message| match message {
        None => ports.clear(),
        Some(message) => ports.extend(read_port(message.body)),
    });
    match read {
        // No traffic control at all.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(BTreeMap::new()),
        other => other?,
    }
    let blocks: BTreeSet<u32> = ports.values().copied().collect();
    let mut led = BTreeSet::new();
    for block in blocks {
        if leads(socket, block, buffer)? {
            led.insert(block);
        }
    }
    ports.retain(|_, block| led.contains(block));
    Ok(ports)
}

/// The port of a queueing discipline and its block; none for one of another kind or with filters of its own.
fn read_port(body: &[u8]) -> Option<(u32, u32)> {
    let attributes = Attributes::after(body, HEAD);
    if attributes.find(KIND).and_then(read_text) != Some("clsact") {
        return None;
    }
    let block = attributes.find(INGRESS_BLOCK).and_then(read_u32)?;
    Some((read_u32(body.get(4..)?)?, block))
}

/// Whether our filter is the first of that block.
fn leads(socket: &Socket, block: u32, buffer: &mut ReadBuffer) -> io::Result<bool> {
    let request = head(BLOCK, 0, block, 0);
    let mut first = None;
    let wanted = filter_name(block);
    socket.dump(GET_FILTER, &request.0, buffer, |message| match message {
        None => first = None,
        Some(message) => {
            // The head of a list of filters is shown without a handle.
            let handle = message.body.get(8..).and_then(read_u32);
            if first.is_none() && handle.is_some_and(|handle| handle != 0) {
                first = Some(is_ours(message.body, &wanted));
            }
        }
    })?;
    Ok(first == Some(true))
}

fn is_ours(body: &[u8], wanted: &str) -> bool {
    let attributes = Attributes::after(body, HEAD);
    let options = attributes.find(OPTIONS).map(Attributes::of);
    attributes.find(KIND).and_then(read_text) == Some("bpf")
        && options.is_some_and(|options| {
            options.find(BPF_NAME).and_then(read_text) == Some(wanted)
                && options.find(BPF_FLAGS).and_then(read_u32) == Some(ACT_DIRECT)
        })
}

fn filter_name(target: u32) -> String {
    format!("tombolo-{target}")
}

/// A `struct tcmsg`.
fn head(index: u32, handle: u32, parent: u32, info: u32) -> Writer {
    let mut body = vec![0; 4];
    for part in [index, handle, parent, info] {
        body.extend_from_slice(&part.to_ne_bytes());
    }
    Writer(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::batch::messages;

    const TARGET: Target = Target {
        index: 65538,
        program: 9,
    };

    #[test]
    fn a_new_port_takes_two_messages_and_a_former_one_is_freed_first() {
        let mut batch = Batch::default();
        let pardons = lead(&mut batch, 65540, &TARGET, true);
        let sent = messages(&batch);
        let kinds: Vec<u16> = sent.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [NEW_QDISC, NEW_FILTER]);
        assert_eq!((pardons.len(), pardons[0].place), (1, 1));
        assert_eq!(read_port(&sent[0].2), Some((65540, 65538)));
        assert!(is_ours(&sent[1].2, "tombolo-65538"));
        assert!(!is_ours(&sent[1].2, "tombolo-65539"));

        let mut batch = Batch::default();
        let pardons = lead(&mut batch, 65540, &TARGET, false);
        let sent = messages(&batch);
        let kinds: Vec<u16> = sent.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [DELETE_QDISC, NEW_QDISC, NEW_FILTER]);
        assert_eq!((pardons.len(), pardons[0].place), (1, 0));
        assert_eq!(sent[2].1 & EXCLUSIVE, 0, "a spoilt filter is replaced");
    }
}
