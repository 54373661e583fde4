//! What names cost: memory, and the time until one more is known or gone.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::super::{BLOCK, GONE, PAUSE};
use super::aardvark::{self, Aardvark};
use super::message::Answer;
use super::ours::{Ours, ipv4};
use super::server::{Server, ask, ask_until};
use crate::samples::Samples;
use crate::table::{Amount, Row, Target};
use crate::{machine, say};

/// Sandboxes of a large host.
const SANDBOXES: u32 = 1_000;
/// Names of each sandbox.
const EACH: u32 = 10;
/// Most names that are added and removed again.
const ROUNDS: usize = 50;
/// Pause after which the daemon has written and freed what it had to.
const REST: Duration = Duration::from_secs(3);
/// Longest wait for a quiet machine.
const STORM: Duration = Duration::from_secs(15);
/// Memory of all names, in MiB.
const MEMORY: Target = Target::Most(20.0);
/// At most so many times what it costs beside few names.
const FLAT: Target = Target::Ratio(1.25);

/// What one more name costs on a host.
#[derive(Default)]
struct Cost {
    /// Until it is answered.
    add: Samples,
    /// Of ours: until the reply. Of others: until it is not answered any more.
    remove: Samples,
}

/// A host of ours.
struct Host {
    ours: Ours,
    /// Whether its resolver answers.
    is_asked: bool,
    cost: Cost,
}

/// Measures memory and times.
pub(super) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut few = Host::start(place, "few-names", 1, true)?;
    let mut many = Host::start(place, "many-names", SANDBOXES, true)?;
    let mut bare = Host::start(place, "no-names", SANDBOXES, false)?;
    thread::sleep(REST);
    let busy = machine::await_quiet(STORM)?;
    say(&format!("names: growth ({:.0} % busy)", busy * 100.0));
    let memory = [many.memory()?, bare.memory()?];
    let mut left = rounds.min(ROUNDS);
    while left > 0 {
        let count = left.min(BLOCK);
        Host::take_turns(&mut [&mut few, &mut many, &mut bare], count)?;
        left -= count;
    }
    let mut rows = own_rows([&few.cost, &many.cost, &bare.cost], memory);
    match aardvark::find() {
        Ok(program) => {
            rows.extend(aardvark_rows(
                place,
                &program,
                rounds,
                (&many.cost, memory),
            )?);
        }
        Err(error) => say(&format!("names: its rows are left out: {error:#}")),
    }
    Ok(rows)
}

impl Host {
    fn start(place: &Path, name: &str, sandboxes: u32, is_asked: bool) -> anyhow::Result<Self> {
        let mut ours = Ours::start(place, name, (!is_asked).then_some("off"))?;
        for n in 0..sandboxes {
            let aliases = if is_asked { aliases(n) } else { Vec::new() };
            if n == 0 {
                ours.add_asker(&own_name(n), aliases)?;
                continue;
            }
            let last = aliases.last().cloned();
            let (sandbox, _) = ours.add(&own_name(n), aliases)?;
            if let (Some(alias), true) = (last, n % 100 == 99) {
                expect(&ours, &alias, ipv4(&sandbox)?)?;
            }
        }
        Ok(Self {
            ours,
            is_asked,
            cost: Cost::default(),
        })
    }

    /// Of the daemon and of the process that keeps its sockets.
    fn memory(&self) -> anyhow::Result<f64> {
        machine::memory_of_program(self.ours.pid(), self.ours.home.number()?, "VmRSS")
    }

    /// On each host in turn sandboxes with a further name, then all of them away again.
    fn take_turns(hosts: &mut [&mut Self], count: usize) -> anyhow::Result<()> {
        for n in 0..count {
            for host in &mut *hosts {
                host.add(n)?;
                thread::sleep(PAUSE);
            }
        }
        for n in 0..count {
            for host in &mut *hosts {
                let took = host.ours.remove(&format!("measured{n}"))?;
                host.cost.remove.push(took);
                thread::sleep(PAUSE);
            }
        }
        for host in hosts.iter().filter(|host| host.is_asked) {
            expect_none(&host.ours, "added0")?;
        }
        thread::sleep(GONE);
        Ok(())
    }

    fn add(&mut self, n: usize) -> anyhow::Result<()> {
        let alias = format!("added{n}");
        let (sandbox, mut took) = self
            .ours
            .add(&format!("measured{n}"), vec![alias.clone()])?;
        if self.is_asked {
            took += expect(&self.ours, &alias, ipv4(&sandbox)?)?;
        }
        self.cost.add.push(took);
        Ok(())
    }
}

fn own_name(n: u32) -> String {
    format!("s{n}")
}

/// The names that a sandbox has besides its own.
fn aliases(n: u32) -> Vec<String> {
    (1..EACH).map(|k| format!("a{n}-{k}")).collect()
}

/// How long it takes to ask for a name and to hear what is right.
fn expect(ours: &Ours, name: &str, address: Ipv4Addr) -> anyhow::Result<Duration> {
    let socket = ours.spots().first().context("nobody asks")?.udp()?;
    let began = Instant::now();
    let answer = ask(&socket, name).with_context(|| name.to_owned())?;
    let took = began.elapsed();
    if answer.code != 0 || answer.address != Some(address) {
        bail!("{name}: it says {answer:?}, not {address}");
    }
    Ok(took)
}

/// A name that is gone must not be answered; that nothing at all is heard would do, too.
fn expect_none(ours: &Ours, name: &str) -> anyhow::Result<()> {
    let socket = ours.spots().first().context("nobody asks")?.udp()?;
    match ask(&socket, name) {
        Ok(answer) if answer.address.is_some() => bail!("{name}: it still says {answer:?}"),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn own_rows([few, many, bare]: [&Cost; 3], [with, without]: [f64; 2]) -> Vec<Row> {
    let names = SANDBOXES * EACH;
    let flat = |what: &str, samples: &Samples, beside: &str, other: &Samples| {
        Row::of(format!("{what}, beside {names} names"), samples)
            .beside(beside, Amount::Micros(other.median()))
            .target(FLAT)
    };
    let beside_few = format!("{EACH} names, 1 sandbox");
    let beside_bare = format!("{SANDBOXES} sandboxes without names");
    let mut rows = vec![
        Row::new(
            format!("daemon and keeper, memory, {SANDBOXES} sandboxes with {names} names"),
            Amount::Mebibytes(with),
        )
        .beside("without names and resolver", Amount::Mebibytes(without)),
        Row::new("... of which for names", Amount::Mebibytes(with - without)).target(MEMORY),
    ];
    let (add, remove) = (
        "attach with one more name until it is answered",
        "detach with a name",
    );
    rows.push(flat(add, &many.add, &beside_few, &few.add));
    rows.push(flat(add, &many.add, &beside_bare, &bare.add));
    rows.push(flat(remove, &many.remove, &beside_few, &few.remove));
    rows.push(flat(remove, &many.remove, &beside_bare, &bare.remove));
    rows
}

/// The same of aardvark-dns, which is told of a name while its container is attached by another program: no
/// attach is in its times.
fn aardvark_rows(
    place: &Path,
    program: &Path,
    rounds: usize,
    (ours, [with, without]): (&Cost, [f64; 2]),
) -> anyhow::Result<Vec<Row>> {
    let start = |name: &str, containers: u32| {
        let names: Vec<String> = (0..containers)
            .map(|n| format!("{},{}", own_name(n), aliases(n).join(",")))
            .collect();
        Aardvark::start(program, &place.join(name), 1, &names)
    };
    let few = start("few-aardvark", 1)?;
    let many = start("many-aardvark", SANDBOXES)?;
    let memory = machine::memory(many.pid(), "VmRSS")?;
    let (mut beside_few, mut beside_many) = (Cost::default(), Cost::default());
    for n in 0..rounds.min(ROUNDS) {
        let number = SANDBOXES + 100 + u32::try_from(n)?;
        beside_few.of_aardvark(&few, number)?;
        beside_many.of_aardvark(&many, number)?;
    }
    let names = SANDBOXES * EACH;
    let name = many.name();
    let flat = |what: &str, samples: &Samples, other: &Samples| {
        let few = Amount::Micros(other.median());
        Row::of(format!("{name}: {what}, beside {names} names"), samples)
            .beside(format!("{EACH} names"), few)
    };
    let ours = Row::of(
        format!("attach with one more name until it is answered, beside {names} names"),
        &ours.add,
    );
    let theirs = Amount::Micros(beside_many.add.median());
    Ok(vec![
        Row::new("memory for names", Amount::Mebibytes(with - without)).beside(
            format!("all of {name} with {names} names"),
            Amount::Mebibytes(memory),
        ),
        flat(
            "one more name until it is answered",
            &beside_many.add,
            &beside_few.add,
        ),
        flat(
            "a name less until it is gone",
            &beside_many.remove,
            &beside_few.remove,
        ),
        ours.beside(format!("{name}, the name alone"), theirs),
    ])
}

impl Cost {
    /// A name comes and goes again.
    fn of_aardvark(&mut self, server: &Aardvark, number: u32) -> anyhow::Result<()> {
        let socket = server.spots().first().context("nobody asks")?.udp()?;
        let name = format!("added{number}");
        let began = Instant::now();
        let address = server.add(number, &name)?;
        ask_until(&socket, &name, |answer| answer.address == Some(address))?;
        self.add.push(began.elapsed());
        thread::sleep(PAUSE);
        let began = Instant::now();
        server.remove(number)?;
        ask_until(&socket, &name, |answer| answer.code == Answer::NO_SUCH_NAME)?;
        self.remove.push(began.elapsed());
        thread::sleep(PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sandbox_has_as_many_names_as_are_counted() {
        let own = aliases(7);
        assert_eq!(own.len() + 1, usize::try_from(EACH).unwrap());
        assert!(own.iter().all(|alias| alias.starts_with("a7-")));
    }
}
