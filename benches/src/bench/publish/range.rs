//! A range of ports beside a single one.

use std::path::Path;
use std::thread;

use tombolo_api::{Protocol, PublicationSpec, SandboxCreate};

use super::super::PAUSE;
use super::hosts::{Host, on_the_network, publication};
use crate::machine;
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};

/// Ports of a range.
const RANGE: u16 = 10_000;
/// Ports of a short range: too many for a socket each as well. There are such ranges from 2,000 to 5,999.
const SHORT: u16 = 1_000;
/// Where ranges begin; below what the kernel hands out to clients (`net.ipv4.ip_local_port_range`).
const FIRST: [u16; 2] = [10_000, 20_000];
/// The ranges are published by each of these.
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// The port of the host that is published alone.
const SINGLE: u16 = 9_000;
/// The first port of a sandbox.
const INSIDE: u16 = 1_000;
/// At most so many times a single port.
const TARGET: Target = Target::Ratio(2.0);
/// Bytes for each further port; less than one is what an allocator does by itself.
const MEMORY_TARGET: Target = Target::Most(1.0);

/// Measures ranges.
pub(super) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut host = Host::start(place, "range")?;
    let (mut single, mut range) = (Samples::default(), Samples::default());
    for turn in 0..rounds {
        let (first, protocol) = whereabouts(turn);
        let one = publication(SINGLE.to_string(), INSIDE.to_string());
        single.push(host.attach_with(vec![PublicationSpec { protocol, ..one }])?);
        thread::sleep(PAUSE);
        let all = publication(ports(first, RANGE), ports(INSIDE, RANGE));
        range.push(host.attach_with(vec![PublicationSpec { protocol, ..all }])?);
        host.detach()?;
    }
    let growth = growth(&mut host)?;
    Ok(vec![
        Row::of(format!("attach with a range of {RANGE} ports"), &range)
            .beside("1 port", Amount::Micros(single.median()))
            .target(TARGET),
        Row::new(
            "memory for each further port of a range, all processes",
            Amount::Bytes(growth),
        )
        .target(MEMORY_TARGET),
    ])
}

fn ports(first: u16, count: u16) -> String {
    format!("{first}-{}", first + (count - 1))
}

/// Where range `n` is; there are four.
fn whereabouts(n: usize) -> (u16, Protocol) {
    (FIRST[n % 2], PROTOCOLS[n / 2 % 2])
}

/// What long ranges add to the memory of the daemon and its children beyond what as many short ones add, in
/// bytes for each further port.
fn growth(host: &mut Host) -> anyhow::Result<f64> {
    let all = FIRST.len() * PROTOCOLS.len();
    let mut grown = [0.0; 3];
    // The first round finds everything cold. All stay, as what is given back would be used again.
    for (round, grown) in grown.iter_mut().enumerate() {
        let before = memory(host)?;
        for n in 0..all {
            let (long, protocol) = whereabouts(n);
            let (first, count) = match round {
                2 => (long, RANGE),
                _ => (SHORT * u16::try_from(2 + n % 2 + 2 * round)?, SHORT),
            };
            let range = publication(ports(first, count), ports(INSIDE, count));
            host.create(SandboxCreate {
                name: Some(format!("memory{round}-{n}")),
                publish: vec![PublicationSpec { protocol, ..range }],
                ..on_the_network()
            })?;
        }
        *grown = memory(host)? - before;
    }
    #[expect(clippy::cast_precision_loss, reason = "four")]
    let further = all as f64 * f64::from(RANGE - SHORT);
    Ok((grown[2] - grown[1]).max(0.0) * 1024.0 * 1024.0 / further)
}

fn memory(host: &Host) -> anyhow::Result<f64> {
    machine::memory_of_program(host.daemon.pid(), host.home.number()?, "VmRSS")
}
