//! What the tests and the demo need from Debian and from cargo, and its installation.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A Debian package and the reason why it is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    name: &'static str,
    why: &'static str,
    uses: &'static [Use],
}

/// What a package is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// `cargo xtask test`
    Test,
    /// `cargo xtask demo`
    Demo,
}

const BOTH: &[Use] = &[Use::Test, Use::Demo];
const TEST: &[Use] = &[Use::Test];

/// Every package, one line each; the only such list.
#[rustfmt::skip]
const PACKAGES: &[Package] = &[
    Package { name: "gcc", why: "links Rust programs, compiles the assembly of ring", uses: BOTH },
    Package { name: "libc6-dev", why: "headers and start files for the linker", uses: BOTH },
    Package { name: "util-linux", why: "unshare, nsenter, mount", uses: BOTH },
    Package { name: "procps", why: "ps and sysctl, to look at the scratch host", uses: BOTH },
    Package { name: "iproute2", why: "ip, bridge, ss, tc: a second opinion on the kernel", uses: BOTH },
    Package { name: "nftables", why: "nft: a second opinion on the rules", uses: BOTH },
    Package { name: "iputils-ping", why: "reachability over IPv4 and IPv6", uses: BOTH },
    Package { name: "curl", why: "asks published ports and the API socket", uses: BOTH },
    Package { name: "python3", why: "small TCP, UDP and HTTP servers", uses: BOTH },
    Package { name: "busybox-static", why: "a root file system of one file", uses: BOTH },
    Package { name: "bind9-dnsutils", why: "dig: a second opinion on answers of the resolver", uses: TEST },
    Package { name: "musl-tools", why: "a program with the C library of Alpine that asks for names", uses: TEST },
    Package { name: "iptables", why: "rules of Docker, ufw and hand beside ours", uses: TEST },
    Package { name: "conntrack", why: "a second opinion on connections", uses: TEST },
    Package { name: "docker.io", why: "the real dockerd beside ours, on a scratch host", uses: TEST },
    Package { name: "docker-compose", why: "compose files with our driver", uses: TEST },
    Package { name: "dbus-daemon", why: "the bus of firewalld, on a scratch host", uses: TEST },
    Package { name: "firewalld", why: "the real firewalld beside ours, on a scratch host", uses: TEST },
    Package { name: "unbound", why: "a real server behind our resolver, on a scratch host", uses: TEST },
    Package { name: "dnsmasq-base", why: "another, which forwards, too; the program without its service", uses: TEST },
];

/// Asked by Debian's packages before they start a service (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Refuses: 101 is "not allowed by policy".
const REFUSAL: &str = "#!/bin/sh\nexit 101\n";

/// Installs the packages wanted for `purpose` that are missing, and says so.
pub(crate) fn install(purpose: Use) -> Result<()> {
    let wanted = PACKAGES
        .iter()
        .filter(|package| package.uses.contains(&purpose));
    let missing: Vec<&Package> = wanted
        .filter(|package| !is_installed(package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        println!("missing Debian package {}: {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if process::find("apt-get").is_none() {
        bail!("no apt-get here; install by hand: {}", names.join(" "));
    }
    if !is_root()? {
        let names = names.join(" ");
        bail!("not root; run: sudo apt-get update && sudo apt-get install --yes {names}");
    }
    process::must(apt().arg("update").arg("--quiet"))?;
    let refusal = Refusal::place(Path::new(POLICY))?;
    let mut install = apt();
    install.args(["install", "--yes", "--no-install-recommends"]);
    let installed = process::must(install.args(&names));
    drop(refusal);
    installed
}

/// Keeps newly installed services from being started. A dockerd or firewalld would put rules and links on the
/// machine itself, and the tests start their own on scratch hosts. A policy that is there already stays as it
/// is: it belongs to the administrator, or to whoever built this machine's image.
#[derive(Debug)]
struct Refusal(Option<PathBuf>);

impl Refusal {
    fn place(policy: &Path) -> Result<Self> {
        let created = File::options()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(policy);
        let mut file = match created {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Self(None)),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", policy.display()));
            }
        };
        let refusal = Self(Some(policy.to_owned()));
        file.write_all(REFUSAL.as_bytes())
            .with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(refusal)
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(std::fs::remove_file) {
            println!("{POLICY} was made for this installation and is still there: {error}");
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_installed(name: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", name]);
    process::read(&mut query).is_ok_and(|status| status == "installed")
}

/// Whether we may act as root, by the effective user id in `/proc/self/status`.
pub(crate) fn is_root() -> Result<bool> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("cannot read our own status")?;
    Ok(effective_uid(&status) == Some(0))
}

fn effective_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

/// Installs the cargo tools of `cargo xtask test` that are missing, and says so.
pub(crate) fn install_cargo_tools() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !has_cargo_tool(tool) {
            println!("missing {component}: adding it to the toolchain");
            process::must(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    if !has_cargo_tool("nextest") {
        println!("missing cargo-nextest: installing it (runs each test in its own process)");
        process::must(process::cargo().args(["install", "cargo-nextest", "--locked"]))?;
    }
    Ok(())
}

fn has_cargo_tool(tool: &str) -> bool {
    process::read(process::cargo().args([tool, "--version"])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(
            effective_uid("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"),
            Some(0)
        );
        assert_eq!(effective_uid("Name:\tx\nUid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn every_package_is_listed_once_with_a_reason_and_a_use() {
        let mut names: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
        assert!(
            PACKAGES
                .iter()
                .all(|package| !package.why.is_empty() && !package.uses.is_empty())
        );
    }

    #[test]
    fn a_policy_is_refused_for_a_while_and_one_that_is_there_stays() {
        let policy = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        let refusal = Refusal::place(&policy).unwrap();
        assert_eq!(Command::new(&policy).status().unwrap().code(), Some(101));
        drop(Refusal::place(&policy).unwrap());
        assert!(policy.exists(), "the second one did not make it");
        drop(refusal);
        assert!(!policy.exists());
    }

    #[test]
    fn a_package_that_does_not_exist_is_not_installed() {
        assert!(!is_installed("tombolo-no-such-package"));
    }
}
