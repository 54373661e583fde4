//! The files of a sandbox: `hosts`, `hostname` and `resolv.conf`, rewritten in place when things change.
//! A file that somebody edited is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tombolo_core::Controller;
use tombolo_core::id::SandboxId;
use tombolo_core::model::{Sandbox, SandboxNetns};
use tombolo_dns::hosts::{ExtraHost, Hosts, HostsSpec, hostname_file, own_names};
use tombolo_dns::name::HostName;
use tombolo_dns::resolv_conf::SandboxResolvConf;
use tombolo_dns::rewrite::{Fingerprint, Rewrite, rewrite};

use crate::limits::HOST_FILE_BYTES_MAX;

/// Writes the files of sandboxes below one directory.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    /// Of the sandboxes' full names.
    domain: Option<HostName>,
    written: BTreeMap<SandboxId, Marks>,
}

/// What was last written, by the file's name: how an edited file is told from ours.
type Marks = BTreeMap<String, Fingerprint>;

/// Name of the file that keeps the marks over a restart, a line for each file.
const MARKS: &str = ".written";

impl Files {
    /// Files will be made in `directory`, one folder for each sandbox.
    pub(crate) fn new(directory: PathBuf, domain: Option<HostName>) -> Self {
        Self {
            directory,
            domain,
            written: BTreeMap::new(),
        }
    }

    /// The folder that holds the folders of sandboxes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Brings the files of a sandbox up to date.
    pub(crate) fn write(
        &mut self,
        controller: &Controller,
        sandbox: &Sandbox,
        names: &SandboxResolvConf,
    ) -> io::Result<()> {
        let id = sandbox.id;
        let folder = self.directory.join(id.to_string());
        let fresh = made_anew(&folder)?;
        let hostname = sandbox.hostname().parse::<HostName>().ok();
        let hostname = hostname
            .and_then(|name| hostname_file(&name).ok())
            .unwrap_or_default();
        let wanted = [
            ("hosts", hosts(controller, sandbox, self.domain.as_ref())),
            ("hostname", hostname),
            ("resolv.conf", names.render()),
        ];
        let mut marks = match self.written.get(&id) {
            Some(marks) => marks.clone(),
            None if fresh => Marks::new(),
            None => read_marks(&folder)?,
        };
        let (mut changed, mut done) = (false, Ok(()));
        for (name, text) in wanted {
            let path = folder.join(name);
            let current = if fresh { None } else { read(&path)? };
            if rewrite(current.as_deref(), marks.get(name).copied(), &text) == Rewrite::Write {
                // In place: the file may be bind-mounted, and a renamed one would not be seen.
                done = fs::write(&path, &text);
                if done.is_err() {
                    break;
                }
                marks.insert(name.to_owned(), Fingerprint::of(text.as_bytes()));
                changed = true;
            }
        }
        let lines: Vec<String> = marks
            .iter()
            .map(|(name, mark)| format!("{name} {mark}\n"))
            .collect();
        self.written.insert(id, marks);
        if changed {
            fs::write(folder.join(MARKS), lines.concat())?;
        }
        done
    }

    /// Removes the files of a sandbox.
    pub(crate) fn remove(&mut self, id: SandboxId) -> io::Result<()> {
        self.written.remove(&id);
        match fs::remove_dir_all(self.directory.join(id.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the folders of sandboxes that do not exist.
    pub(crate) fn sweep(&mut self, controller: &Controller) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Ok(id) = SandboxId::try_from(name)
                && controller.sandbox(id).is_none()
            {
                self.remove(id)?;
            }
        }
        Ok(())
    }
}

/// Makes the folder; `false` if it was there.
fn made_anew(folder: &Path) -> io::Result<bool> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(_) => fs::create_dir_all(folder).map(|()| true),
    }
}

fn read_marks(folder: &Path) -> io::Result<Marks> {
    let text = read(&folder.join(MARKS))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let marks = text.lines().filter_map(|line| line.split_once(' '));
    Ok(marks
        .filter_map(|(name, mark)| Some((name.to_owned(), mark.parse().ok()?)))
        .collect())
}

/// A file of the host or of a sandbox; none if there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut content = Vec::new();
    file.take(HOST_FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(Some(content))
}

fn hosts(controller: &Controller, sandbox: &Sandbox, domain: Option<&HostName>) -> String {
    if sandbox.spec.netns == SandboxNetns::Host && sandbox.spec.extra_hosts.is_empty() {
        let host = read(Path::new("/etc/hosts"))
            .ok()
            .flatten()
            .unwrap_or_default();
        return String::from_utf8_lossy(&host).into_owned();
    }
    let joined = controller.endpoints_of_sandbox(sandbox.id);
    let addresses: Vec<IpAddr> = joined
        .iter()
        .flat_map(|(_, e)| e.addresses.iter().map(ipnet::IpNet::addr))
        .collect();
    let gateways: Vec<IpAddr> = joined
        .iter()
        .flat_map(|(network, _)| [false, true].map(|ipv6| network.gateway(ipv6)))
        .flatten()
        .collect();
    let host: Option<HostName> = sandbox.hostname().parse().ok();
    let container: Option<HostName> = sandbox.name.as_str().parse().ok();
    let names = host.map(|host| own_names(&host, domain, container.as_ref()));
    let names = names.unwrap_or_default();
    let extra: Vec<ExtraHost> = sandbox
        .spec
        .extra_hosts
        .iter()
        .filter_map(|(name, target)| format!("{name}={target}").parse().ok())
        .collect();
    let ipv6 = joined.iter().any(|(network, _)| network.spec.ipv6);
    let links = links(controller, sandbox);
    let spec = HostsSpec {
        links: &links,
        ipv6,
        addresses: &addresses,
        names: &names,
        extra: &extra,
        gateways: &gateways,
    };
    match Hosts::for_sandbox(&spec) {
        Ok(hosts) => hosts.render(),
        Err(reject) => {
            // Only `host-gateway` without any gateway; the rest of the file is still worth having.
            tracing::warn!(sandbox = %sandbox.name, %reject, "extra hosts are left out");
            let spec = HostsSpec { extra: &[], ..spec };
            Hosts::for_sandbox(&spec)
                .map(|hosts| hosts.render())
                .unwrap_or_default()
        }
    }
}

/// Addresses and names of the sandboxes that this one is linked to and that run.
fn links(controller: &Controller, sandbox: &Sandbox) -> Vec<(Vec<IpAddr>, Vec<HostName>)> {
    let linked = controller.linked(sandbox.id).into_iter();
    let lines = linked.filter_map(|linked| {
        let other = linked.sandbox?;
        let hostname = other.hostname();
        let names = [
            linked.link.alias.as_str(),
            hostname.as_str(),
            other.name.as_str(),
        ];
        let names = names.iter().filter_map(|name| name.parse().ok());
        Some((linked.addresses, names.collect()))
    });
    lines.collect()
}
