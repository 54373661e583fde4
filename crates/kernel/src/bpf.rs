//! The one BPF program that we load (bpf(2), bpf-helpers(7)): it hands a packet to another device of the host
//! as if that device had received it.
//!
//! Four instructions and no maps: nothing of it depends on the kernel's version, and there is nothing to
//! compile, to pin or to clean up. A program lives as long as a filter or an open file refers to it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use crate::kernel::lock;
use crate::limits::PROGRAMS_MAX;
use crate::sys;

/// `BPF_ALU64 | BPF_MOV | BPF_K` (linux/bpf.h).
const MOVE: u8 = 0xb7;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;
/// `BPF_FUNC_redirect`.
const REDIRECT: u32 = 23;
/// `BPF_F_INGRESS`: the packet is received by the other device, which sorts it anew by its own address.
const INGRESS: u32 = 1;

/// The programs that are loaded, each by the number of the device to which it leads. Numbers are not given out
/// twice, so that one of a device that is gone is merely of no use; they all go when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<BTreeMap<u32, Arc<OwnedFd>>>);

impl Programs {
    /// The program that leads to that device, loaded at first use.
    ///
    /// # Errors
    /// When the kernel has no BPF, or we may not load it.
    pub(crate) fn leading_to(&self, index: u32) -> io::Result<Arc<OwnedFd>> {
        let mut loaded = lock(&self.0);
        if let Some(program) = loaded.get(&index) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(sys::load_classifier(&instructions(index))?);
        if loaded.len() >= PROGRAMS_MAX {
            loaded.clear();
        }
        loaded.insert(index, Arc::clone(&program));
        Ok(program)
    }
}

/// `return bpf_redirect(index, BPF_F_INGRESS)`.
fn instructions(index: u32) -> [u64; 4] {
    [
        instruction(MOVE, 1, index),
        instruction(MOVE, 2, INGRESS),
        instruction(CALL, 0, REDIRECT),
        instruction(EXIT, 0, 0),
    ]
}

/// A `struct bpf_insn`: operation, destination register, immediate value.
fn instruction(operation: u8, register: u8, value: u32) -> u64 {
    // The two registers share a byte; which half is which follows the byte order.
    let registers = if cfg!(target_endian = "big") {
        register << 4
    } else {
        register
    };
    let [a, b, c, d] = value.to_ne_bytes();
    u64::from_ne_bytes([operation, registers, 0, 0, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_program_is_taken_by_the_kernel_and_kept_while_there_is_room() {
        let programs = Programs::default();
        let first = programs.leading_to(7).unwrap();
        let again = programs.leading_to(7).unwrap();
        assert_eq!(first.as_raw_fd(), again.as_raw_fd(), "loaded once");
        for index in 8..8 + PROGRAMS_MAX as u32 {
            programs.leading_to(index).unwrap();
            assert!(lock(&programs.0).len() <= PROGRAMS_MAX);
        }
        assert!(!lock(&programs.0).contains_key(&7), "the oldest went");
    }
}
