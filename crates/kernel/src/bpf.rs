//! The one BPF program that we load (bpf(2), bpf-helpers(7)): it hands a packet to another device of the host
//! as if that device had received it.
//!
//! A few instructions and no maps: nothing of it depends on the kernel's version, and there is nothing to
//! compile, to pin or to clean up. A program lives as long as a filter or an open file refers to it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use tombolo_netstate::Mac;

use crate::kernel::lock;
use crate::limits::PROGRAMS_MAX;
use crate::sys;

/// `BPF_ALU64 | BPF_MOV | BPF_K` (linux/bpf.h).
const MOVE: u8 = 0xb7;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const COPY: u8 = 0xbf;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
const ADD: u8 = 0x07;
/// `BPF_LDX | BPF_MEM` of a word and of half a word.
const LOAD_WORD: u8 = 0x61;
const LOAD_HALF: u8 = 0x69;
/// `BPF_JMP32 | BPF_JNE | BPF_K`.
const UNLESS: u8 = 0x56;
/// `BPF_FUNC_redirect`.
const REDIRECT: u32 = 23;
/// `BPF_FUNC_skb_load_bytes`.
const LOAD_BYTES: u32 = 26;
/// `TC_ACT_UNSPEC`: the packet goes on as if nobody had asked.
const GO_ON: u32 = u32::MAX;
/// The register that points to the end of the stack.
const STACK: u8 = 10;
/// `BPF_F_INGRESS`: the packet is received by the other device, which sorts it anew by its own address.
const INGRESS: u32 = 1;

/// The programs that are loaded, each by the number of the device to which it leads. Numbers are not given out
/// twice, so that one of a device that is gone is merely of no use; they all go when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<BTreeMap<Target, Arc<OwnedFd>>>);

/// Number of a device, and the only hardware address whose frames go there.
type Target = (u32, Option<Mac>);

impl Programs {
    /// The program that leads to that device, loaded at first use; with a hardware address, only what is sent
    /// there.
    ///
    /// # Errors
    /// When the kernel has no BPF, or we may not load it.
    pub(crate) fn leading_to(&self, index: u32, only: Option<Mac>) -> io::Result<Arc<OwnedFd>> {
        let mut loaded = lock(&self.0);
        if let Some(program) = loaded.get(&(index, only)) {
            return Ok(Arc::clone(program));
        }
        let program = match only {
            None => redirect(index).to_vec(),
            Some(mac) => redirect_only(index, mac),
        };
        let program = Arc::new(sys::load_classifier(&program)?);
        if loaded.len() >= PROGRAMS_MAX {
            loaded.clear();
        }
        loaded.insert((index, only), Arc::clone(&program));
        Ok(program)
    }
}

/// `return bpf_redirect(index, BPF_F_INGRESS)`.
fn redirect(index: u32) -> [u64; 4] {
    [
        instruction(MOVE, 1, index),
        instruction(MOVE, 2, INGRESS),
        instruction(CALL, 0, REDIRECT),
        instruction(EXIT, 0, 0),
    ]
}

/// The same for frames to one address; others go on.
fn redirect_only(index: u32, mac: Mac) -> Vec<u64> {
    let [a, b, c, d, e, f] = mac.0;
    let (front, back) = (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
    let mut program = vec![
        // The first argument is the packet already; its beginning is copied to the stack.
        instruction(MOVE, 2, 0),
        with_source(COPY, 3, STACK, 0),
        instruction(ADD, 3, 8_u32.wrapping_neg()),
        instruction(MOVE, 4, 6),
        instruction(CALL, 0, LOAD_BYTES),
        with_source(LOAD_WORD, 0, STACK, -8),
        jump(0, front, 6),
        with_source(LOAD_HALF, 0, STACK, -4),
        jump(0, u32::from(back), 4),
    ];
    program.extend(redirect(index));
    program.extend([instruction(MOVE, 0, GO_ON), instruction(EXIT, 0, 0)]);
    program
}

/// A `struct bpf_insn`: operation, destination register, immediate value.
fn instruction(operation: u8, register: u8, value: u32) -> u64 {
    whole(operation, (register, 0), 0, value)
}

/// One that reads another register, with an offset from where it points to.
fn with_source(operation: u8, register: u8, source: u8, offset: i16) -> u64 {
    whole(operation, (register, source), offset, 0)
}

/// Passes over so many instructions unless the register holds that value.
fn jump(register: u8, value: u32, over: i16) -> u64 {
    whole(UNLESS, (register, 0), over, value)
}

fn whole(operation: u8, (register, source): (u8, u8), offset: i16, value: u32) -> u64 {
    // The two registers share a byte; which half is which follows the byte order.
    let registers = if cfg!(target_endian = "big") {
        register << 4 | source
    } else {
        source << 4 | register
    };
    let [a, b, c, d] = value.to_ne_bytes();
    let [e, f] = offset.to_ne_bytes();
    u64::from_ne_bytes([operation, registers, e, f, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_program_is_taken_by_the_kernel_and_kept_while_there_is_room() {
        let programs = Programs::default();
        let first = programs.leading_to(7, None).unwrap();
        let again = programs.leading_to(7, None).unwrap();
        assert_eq!(first.as_raw_fd(), again.as_raw_fd(), "loaded once");
        for index in 8..8 + PROGRAMS_MAX as u32 {
            programs.leading_to(index, Some(Mac([2; 6]))).unwrap();
            assert!(lock(&programs.0).len() <= PROGRAMS_MAX);
        }
        assert!(
            !lock(&programs.0).contains_key(&(7, None)),
            "the oldest went"
        );
    }
}
