//! The scratch host: a network namespace with an uplink to a second one, the world outside.
//!
//! ```text
//!   host                        outside
//!   eth0 192.0.2.10/24  <---->  eth0 192.0.2.1/24        the host's default route
//!        2001:db8::10/64             2001:db8::1/64
//!                               lo  198.51.100.1         an address beyond the router
//!                                   2001:db8:ffff::1
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// The host's own address on its uplink.
pub(crate) const HOST_V4: &str = "192.0.2.10";
/// The host's own IPv6 address on its uplink.
pub(crate) const HOST_V6: &str = "2001:db8::10";
/// The neighbour of the host, its default router.
pub(crate) const OUTSIDE_V4: &str = "192.0.2.1";
/// The neighbour of the host, its default IPv6 router.
pub(crate) const OUTSIDE_V6: &str = "2001:db8::1";
/// An address that the host reaches through its router.
pub(crate) const FAR_V4: &str = "198.51.100.1";
/// An IPv6 address that the host reaches through its router.
pub(crate) const FAR_V6: &str = "2001:db8:ffff::1";

/// The environment variable that carries the [`namespaces`] of the real host.
pub(crate) const REAL_NAMESPACES: &str = "TOMBOLO_DEMO_REAL_NAMESPACES";

const CARRIER_LIMIT: Duration = Duration::from_secs(5);
const END_LIMIT: Duration = Duration::from_secs(10);
const OUTSIDE: &str = "outside";
const PROGRAMS: &str = "/run/scratch/bin";

/// The scratch host, inside namespaces that are already our own.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: std::ffi::OsString,
}

impl Scratch {
    /// Makes this process's namespaces into the scratch host, with `binary` on its search path as
    /// `tombolo`.
    ///
    /// Refuses to work in a namespace of the real host, named by [`REAL_NAMESPACES`].
    pub(crate) fn build(binary: &Path) -> Result<Self> {
        refuse_real_host()?;
        for (kind, place) in [("tmpfs", "/run"), ("tmpfs", "/var/lib"), ("sysfs", "/sys")] {
            let mut mount = Command::new("mount");
            process::read(mount.args(["-t", kind, kind, place]))
                .with_context(|| format!("cannot put a private {kind} on {place}"))?;
        }
        fs::create_dir_all(PROGRAMS).context("cannot make the folder for programs")?;
        symlink(binary, Path::new(PROGRAMS).join("tombolo"))
            .context("cannot link the binary into the search path")?;
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let places = [
            Path::new(PROGRAMS),
            Path::new("/usr/sbin"),
            Path::new("/sbin"),
        ];
        let places = places
            .map(Path::to_path_buf)
            .into_iter()
            .chain(std::env::split_paths(&path));
        let path = std::env::join_paths(places).context("PATH holds an impossible name")?;
        let scratch = Self { path };
        scratch.lay_cable()?;
        scratch.wait_for_carrier()?;
        Ok(scratch)
    }

    fn lay_cable(&self) -> Result<()> {
        process::read(self.host("ip").args(["netns", "add", OUTSIDE]))?;
        let cable = "link add eth0 type veth peer name eth0 netns outside";
        for words in [
            "link set lo up",
            cable,
            "address add 192.0.2.10/24 dev eth0",
            "address add 2001:db8::10/64 dev eth0 nodad",
            "link set eth0 up",
        ] {
            process::read(self.host("ip").args(words.split(' ')))?;
        }
        for words in [
            "address add 192.0.2.1/24 dev eth0",
            "address add 2001:db8::1/64 dev eth0 nodad",
            "link set eth0 up",
            "link set lo up",
            "address add 198.51.100.1/32 dev lo",
            "address add 2001:db8:ffff::1/128 dev lo nodad",
        ] {
            process::read(self.outside("ip").args(words.split(' ')))?;
        }
        let routers = [("-4", OUTSIDE_V4), ("-6", OUTSIDE_V6)];
        for (family, router) in routers {
            let route = [family, "route", "add", "default", "via", router];
            process::read(self.host("ip").args(route))?;
        }
        Ok(())
    }

    /// Waits until both ends of the cable are up: before that, neighbour discovery gets no answer.
    fn wait_for_carrier(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < CARRIER_LIMIT {
            let words = ["-brief", "link", "show", "dev", "eth0", "up"];
            let ends = [self.host("ip"), self.outside("ip")];
            let states = ends.map(|mut ip| process::read(ip.args(words)).unwrap_or_default());
            if states
                .iter()
                .all(|state| state.split_whitespace().nth(1) == Some("UP"))
            {
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
        bail!("the uplink of the scratch host has no carrier after {CARRIER_LIMIT:?}")
    }

    /// `program`, to be run on the scratch host.
    pub(crate) fn host(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", &self.path);
        command
    }

    /// `program`, to be run in the world outside the scratch host.
    pub(crate) fn outside(&self, program: &str) -> Command {
        let mut command = self.host("nsenter");
        command
            .arg(format!("--net=/run/netns/{OUTSIDE}"))
            .arg(program);
        command
    }
}

impl Drop for Scratch {
    /// Removes the world outside at once; the kernel removes the rest with our last process.
    fn drop(&mut self) {
        if let Err(error) = process::read(self.host("ip").args(["netns", "delete", OUTSIDE])) {
            eprintln!("the outside namespace stays until our last process ends: {error:#}");
        }
    }
}

fn refuse_real_host() -> Result<()> {
    let real = std::env::var(REAL_NAMESPACES).unwrap_or_default();
    if is_apart(&real, &namespaces()?) {
        return Ok(());
    }
    bail!("these are not the namespaces of a scratch host: run `cargo xtask demo`")
}

/// The network and the mount namespace of this process.
pub(crate) fn namespaces() -> Result<String> {
    let name = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}"));
        let link = link.with_context(|| format!("cannot name our {kind} namespace"))?;
        Ok::<_, anyhow::Error>(link.to_string_lossy().into_owned())
    };
    Ok(format!("{} {}", name("net")?, name("mnt")?))
}

/// Whether `ours` shares neither namespace with `real`, and `real` is known.
fn is_apart(real: &str, ours: &str) -> bool {
    let real: Vec<&str> = real.split(' ').collect();
    real.len() == 2 && ours.split(' ').all(|namespace| !real.contains(&namespace))
}

/// A program that runs beside the scenario and ends with this value.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    shown: String,
}

impl Background {
    /// Starts `command` with its output in the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let shown = process::render(command);
        let file = fs::File::create(log).context("cannot make the log")?;
        let copy = file.try_clone().context("cannot share the log")?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        Ok(Self { child, shown })
    }

    /// Sends the signal of this name, and waits for the end.
    pub(crate) fn signal(mut self, name: &str) -> Result<()> {
        let id = self.child.id().to_string();
        process::read(Command::new("kill").args(["-s", name, &id]))?;
        let start = Instant::now();
        while self
            .child
            .try_wait()
            .context("cannot look at a child")?
            .is_none()
        {
            if start.elapsed() > END_LIMIT {
                bail!("`{}` goes on {END_LIMIT:?} after SIG{name}", self.shown);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits up to `limit` until `ready` holds; an early end of the program is an error.
    pub(crate) fn wait_until(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait().context("cannot look at a child")? {
                bail!("`{}` ended early: {status}", self.shown);
            }
            if start.elapsed() > limit {
                bail!("`{}` was not ready after {limit:?}", self.shown);
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_apart_from_the_real_ones_are_scratch() {
        let ours = namespaces().unwrap();
        assert!(
            ours.starts_with("net:[") && ours.contains(" mnt:["),
            "{ours}"
        );
        assert!(is_apart("net:[1] mnt:[2]", "net:[3] mnt:[4]"));
        assert!(!is_apart("net:[1] mnt:[2]", "net:[1] mnt:[4]"));
        assert!(!is_apart("net:[1] mnt:[2]", "net:[3] mnt:[2]"));
        assert!(!is_apart("", "net:[3] mnt:[4]"));
    }

    #[test]
    fn a_program_that_ends_early_is_an_error_and_a_slow_one_too() {
        let log = std::env::temp_dir().join(format!("xtask-background-{}", std::process::id()));
        let mut early = Background::start(&mut Command::new("true"), &log).unwrap();
        let error = early
            .wait_until(Duration::from_secs(9), || false)
            .unwrap_err();
        assert!(error.to_string().contains("ended early"), "{error}");
        let mut slow = Background::start(Command::new("sleep").arg("60"), &log).unwrap();
        slow.wait_until(Duration::ZERO, || true).unwrap();
        let error = slow
            .wait_until(Duration::from_millis(20), || false)
            .unwrap_err();
        assert!(error.to_string().contains("not ready"), "{error}");
        let process = format!("/proc/{}", slow.child.id());
        assert!(Path::new(&process).exists());
        drop(slow);
        assert!(!Path::new(&process).exists());
        fs::remove_file(log).unwrap();
    }
}
