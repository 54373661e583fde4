//! aardvark-dns, told of names as netavark tells it: one file for each network, and a signal.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NAME;
use super::server::{PORT, Server, Spot};
use crate::floor::{Floor, Source, Style};
use crate::netns::Netns;
use crate::peer::{installed, run};

/// Environment variable with the path of the program.
const VARIABLE: &str = "TOMBOLO_AARDVARK";
/// The version that is compared with.
const VERSION: &str = "2.1.0";
/// The network's file. By its ending foreign names are not asked for elsewhere.
const NETWORK: &str = "bench%int";
/// Where it says which process it is.
const PID: &str = "aardvark.pid";

/// A host with aardvark-dns, and containers on a bridge that ask at its address.
pub(super) struct Aardvark {
    home: Netns,
    floor: Floor,
    directory: PathBuf,
    pid: u32,
    gateway: SocketAddrV4,
    spots: Vec<Spot>,
}

/// The program, when it is on this machine.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => installed("aardvark-dns").with_context(|| {
            format!(
                "no aardvark-dns: install it with `cargo install aardvark-dns --version {VERSION} --locked`, \
                 or name one in {VARIABLE}"
            )
        })?,
    };
    let output = run(Command::new(&program).arg("--version"), "")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.trim().ends_with(VERSION) {
        bail!("{} is {}, not {VERSION}", program.display(), said.trim());
    }
    Ok(program)
}

impl Aardvark {
    /// A new host with so many containers that ask. It knows them, `web`, which is the first, and those whose
    /// names are given, which are nowhere but in its file.
    pub(super) fn start(
        program: &Path,
        place: &Path,
        askers: u32,
        others: &[String],
    ) -> anyhow::Result<Self> {
        let mut floor = Floor::open(&place.join("floor"), Style::Plain)?;
        let home = Netns::current()?;
        let [gateway, gateway6] = floor.gateways();
        let mut text = format!("{gateway},{gateway6}\n{}", line(&floor, 0, NAME));
        let server = SocketAddrV4::new(ipv4(gateway)?, PORT);
        floor.attach(Source::Fresh)?;
        let mut spots = Vec::new();
        for n in 1..=askers {
            floor.attach(Source::Fresh)?;
            text.push_str(&line(&floor, n, &format!("asker{n}")));
            spots.push(Spot {
                netns: Netns::open(&floor.endpoint(n).0)?,
                server,
            });
        }
        for (n, names) in (askers + 1..).zip(others) {
            text.push_str(&line(&floor, n, names));
        }
        let directory = place.join("aardvark");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(NETWORK), text)?;
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(&directory)
            .args(["-p", &PORT.to_string(), "run"])
            .env("RUST_LOG", "error")
            .env_remove("AARDVARK_NO_PROXY");
        // What was started ends when the server, another process, is ready.
        run(&mut command, "")?;
        let pid = fs::read_to_string(directory.join(PID)).context("it does not say who it is")?;
        Ok(Self {
            home,
            floor,
            directory,
            pid: pid.trim().parse()?,
            gateway: server,
            spots,
        })
    }

    /// The same server asked on its own host, so without the way through a bridge.
    pub(super) fn on_its_host(&self) -> anyhow::Result<OnHost<'_>> {
        let netns = self.home.inside(Netns::current)?;
        Ok(OnHost {
            server: self,
            spot: [Spot {
                netns,
                server: self.gateway,
            }],
        })
    }

    /// Tells it of one more container, as netavark does: a line at the end of the file, and a signal.
    pub(super) fn add(&self, number: u32, name: &str) -> anyhow::Result<Ipv4Addr> {
        let path = self.directory.join(NETWORK);
        let mut file = OpenOptions::new().append(true).open(path)?;
        file.write_all(line(&self.floor, number, name).as_bytes())?;
        drop(file);
        self.signal(Signal::SIGHUP)?;
        let [address, _] = self.floor.endpoint(number).1;
        ipv4(address)
    }

    /// Tells it that a container is gone, as netavark does: the file without its line, and a signal.
    pub(super) fn remove(&self, number: u32) -> anyhow::Result<()> {
        let path = self.directory.join(NETWORK);
        let text = fs::read_to_string(&path)?;
        let gone = id(number);
        let left = text.lines().filter(|line| !line.starts_with(&gone));
        let left: String = left.flat_map(|line| [line, "\n"]).collect();
        File::create(&path)?.write_all(left.as_bytes())?;
        self.signal(Signal::SIGHUP)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid)?), signal)?)
    }
}

impl Drop for Aardvark {
    fn drop(&mut self) {
        // What survives goes with the process namespace.
        drop(self.signal(Signal::SIGKILL));
    }
}

impl Server for Aardvark {
    fn name(&self) -> &'static str {
        "aardvark-dns 2.1.0"
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn spots(&self) -> &[Spot] {
        &self.spots
    }

    fn home(&self) -> Option<&Netns> {
        Some(&self.home)
    }

    fn address(&self) -> Ipv4Addr {
        // Endpoints have both families, in this order.
        ipv4(self.floor.endpoint(0).1[0]).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }
}

/// aardvark-dns, asked on its host.
pub(super) struct OnHost<'a> {
    server: &'a Aardvark,
    spot: [Spot; 1],
}

impl Server for OnHost<'_> {
    fn name(&self) -> &'static str {
        "aardvark-dns 2.1.0 asked on its host, past the bridge"
    }

    fn pid(&self) -> u32 {
        self.server.pid
    }

    fn spots(&self) -> &[Spot] {
        &self.spot
    }

    fn home(&self) -> Option<&Netns> {
        self.server.home()
    }

    fn address(&self) -> Ipv4Addr {
        self.server.address()
    }
}

/// A container's line in the network's file.
fn line(floor: &Floor, number: u32, names: &str) -> String {
    let [ipv4, ipv6] = floor.endpoint(number).1;
    format!("{} {ipv4} {ipv6} {names}\n", id(number))
}

fn id(number: u32) -> String {
    format!("{:064x}", number + 1)
}

fn ipv4(address: IpAddr) -> anyhow::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => bail!("{address} is not IPv4"),
    }
}
