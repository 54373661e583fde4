//! Choosing ports that are free.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;

use tombolo_netstate::object::port::{HostAddress, PortRange, PortSpec, Protocol};

use super::hold::is_taken;
use super::state::State;
use super::{Pick, PortError};
use crate::limits::PICK_TRIES_MAX;
use crate::sys;

/// What the kernel uses where it says nothing (Documentation/networking/ip-sysctl.rst).
const LOCAL_RANGE: (u16, u16) = (32_768, 60_999);

/// Ports in a row, each with the socket that holds it.
type Row = Vec<(u16, Option<OwnedFd>)>;

impl State {
    pub(super) fn pick(&mut self, pick: &Pick) -> Result<PortRange, PortError> {
        let chosen = match (pick.count, pick.within) {
            (1, None) => self.kernels_choice(pick)?,
            _ => None,
        };
        let row = match chosen {
            Some(row) => row,
            None => self.search(pick)?,
        };
        let ports: Vec<u16> = row.iter().map(|(port, _)| *port).collect();
        for (port, socket) in row {
            self.parked
                .insert((pick.protocol, pick.address, port), socket);
        }
        let range = match ports[..] {
            [] => None,
            [first, ..] => PortRange::new(first, first + (ports.len() - 1) as u16).ok(),
        };
        range.ok_or_else(|| none_free(pick, local_range()))
    }

    pub(super) fn release_parked(&mut self, ranges: &[(Protocol, HostAddress, PortRange)]) {
        for (protocol, address, ports) in ranges {
            for port in ports.first()..=ports.last() {
                self.parked.remove(&(*protocol, *address, port));
            }
        }
    }

    /// A port of the kernel's choice; `None` where it has no such sockets, or keeps choosing what is published
    /// as part of a range.
    fn kernels_choice(&self, pick: &Pick) -> Result<Option<Row>, PortError> {
        // Those refused stay bound until another is found: the kernel must not choose them again.
        let mut refused = Vec::new();
        for _ in 0..PICK_TRIES_MAX {
            let bound = self
                .sockets
                .bind(pick.protocol, pick.address, 0, PortSpec::Held);
            let socket = match bound {
                Ok(Some(socket)) => socket,
                Ok(None) => return Ok(None),
                Err(error) if is_taken(&error) => return Err(none_free(pick, local_range())),
                Err(error) => return Err(self.explain(pick.protocol, pick.address, 0, error)),
            };
            let port = sys::ports::local_port(&socket)
                .map_err(|error| self.explain(pick.protocol, pick.address, 0, error))?;
            if self.is_bare(pick, port) {
                refused.push(socket);
            } else {
                return Ok(Some(vec![(port, Some(socket))]));
            }
        }
        Ok(None)
    }

    /// Tries the ports from a start to the end, and then all of them.
    fn search(&self, pick: &Pick) -> Result<Row, PortError> {
        let (within, reserved, start) = match pick.within {
            Some(within) => (within, Vec::new(), within.first()),
            None => {
                let within = local_range();
                // Whoever looked last is not in the way of who looks next.
                let offset = RandomState::new().hash_one(0) % u64::from(within.count());
                (within, reserved_ports(), within.first() + offset as u16)
            }
        };
        let count = usize::from(pick.count.max(1));
        for ports in [start..=within.last(), within.first()..=within.last()] {
            let mut row = Row::with_capacity(count);
            for port in ports {
                let is_reserved = reserved.iter().any(|range| range.contains(port));
                if is_reserved || self.is_bare(pick, port) {
                    row.clear();
                    continue;
                }
                let bound = self
                    .sockets
                    .bind(pick.protocol, pick.address, port, PortSpec::Held);
                match bound {
                    Ok(socket) => row.push((port, socket)),
                    Err(error) if is_taken(&error) => row.clear(),
                    Err(error) => {
                        return Err(self.explain(pick.protocol, pick.address, port, error));
                    }
                }
                if row.len() == count {
                    return Ok(row);
                }
            }
        }
        Err(none_free(pick, within))
    }

    fn is_bare(&self, pick: &Pick, port: u16) -> bool {
        let one = PortRange::one(port).ok();
        one.is_none_or(|one| {
            self.overlaps_bare(pick.protocol, pick.address, one)
                .is_some()
        })
    }
}

fn none_free(pick: &Pick, within: PortRange) -> PortError {
    PortError::NoneFree {
        protocol: pick.protocol,
        address: pick.address,
        count: pick.count,
        within,
    }
}

/// The ports that the kernel hands out.
fn local_range() -> PortRange {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    let range = match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => PortRange::new(first, last).ok(),
        _ => None,
    };
    let usual = || PortRange::new(LOCAL_RANGE.0, LOCAL_RANGE.1);
    range
        .map_or_else(usual, Ok)
        .expect("the kernel's own range is one")
}

/// Those that it does not hand out all the same.
fn reserved_ports() -> Vec<PortRange> {
    let text = crate::facts::read_sysctl("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        PortRange::new(first.parse().ok()?, last.parse().ok()?).ok()
    };
    text.trim().split(',').filter_map(range).collect()
}
