//! Sandboxes: from the API's words to a spec.

use std::path::{Path, PathBuf};

use tombolo_api::types::{NetnsChoice, SandboxCreate};
use tombolo_core::model::{SandboxNetns, SandboxSpec};
use tombolo_core::{Code, Command, Reject};
use tombolo_dns::hosts::ExtraHost;
use tombolo_dns::name::HostName;

use super::names::dns_settings;
use super::{attachment, name, publication, shown};
use crate::limits::EXTRA_HOSTS_MAX;

/// Answers which namespace a path leads to.
pub(crate) trait NetnsLookup {
    /// The inode of the network namespace at `path`; an error says why there is none.
    fn inode(&self, path: &Path) -> Result<u64, String>;
}

/// The daemon's own namespace, which is the host's.
const HOST: &str = "/proc/self/ns/net";

/// The command that makes a sandbox with its endpoints.
pub(crate) fn sandbox_create(
    create: SandboxCreate,
    namespaces: &dyn NetnsLookup,
) -> Result<Command, Reject> {
    if create.extra_hosts.len() > EXTRA_HOSTS_MAX {
        let message = format!("a sandbox takes {EXTRA_HOSTS_MAX} extra hosts");
        return Err(Reject::new(Code::LimitReached, "extra_hosts", message).hint("give fewer"));
    }
    let publications = publication::publications(&create)?;
    let hostname = create.hostname.map(|text| hostname(&text)).transpose()?;
    let dns = create.dns;
    let spec = SandboxSpec {
        publications,
        exposed: publication::exposed(&create.expose)?,
        links: publication::links(&create.links)?,
        name: create.name.as_deref().map(name).transpose()?,
        hostname,
        netns: netns(create.netns, namespaces)?,
        dns: dns_settings(&dns.servers, dns.searches, dns.options)?,
        extra_hosts: create
            .extra_hosts
            .iter()
            .map(|line| extra_host(line))
            .collect::<Result<_, _>>()?,
        labels: create.labels,
    };
    let networks: Result<Vec<_>, Reject> = create.networks.into_iter().map(attachment).collect();
    Ok(Command::CreateSandbox {
        spec: Box::new(spec),
        networks: networks?,
    })
}

fn hostname(text: &str) -> Result<String, Reject> {
    let name: HostName = text
        .parse()
        .map_err(|reject| Reject::new(Code::InvalidName, shown(text), format!("{reject}")))?;
    if text.len() > 64 {
        return Err(Reject::new(
            Code::InvalidName,
            shown(text),
            "a host name has at most 64 bytes",
        ));
    }
    Ok(name.as_str().to_owned())
}

fn extra_host(line: &str) -> Result<(String, String), Reject> {
    let bad = |why: String| Reject::new(Code::InvalidName, shown(line), why);
    line.parse::<ExtraHost>()
        .map_err(|reject| bad(reject.to_string()))?;
    let (name, target) = line
        .split_once([':', '='])
        .ok_or_else(|| bad("write it as NAME:ADDRESS".to_owned()))?;
    Ok((name.to_owned(), target.to_owned()))
}

fn netns(choice: NetnsChoice, namespaces: &dyn NetnsLookup) -> Result<SandboxNetns, Reject> {
    let path = match choice {
        NetnsChoice::New => return Ok(SandboxNetns::New),
        NetnsChoice::Host => return Ok(SandboxNetns::Host),
        NetnsChoice::Path { path } => PathBuf::from(path),
        NetnsChoice::Pid { pid } => PathBuf::from(format!("/proc/{pid}/ns/net")),
    };
    if !path.is_absolute() {
        return Err(Reject::new(
            Code::MissingNamespace,
            path.display(),
            "the path is not absolute",
        ));
    }
    match namespaces.inode(&path) {
        Ok(inode) if namespaces.inode(Path::new(HOST)) == Ok(inode) => Err(Reject::new(
            Code::InvalidCombination,
            path.display(),
            "this is the host's own namespace",
        )
        .hint("ask for a sandbox in the host's namespace instead")),
        Ok(inode) => Ok(SandboxNetns::Adopted { path, inode }),
        Err(why) => Err(
            Reject::new(Code::MissingNamespace, path.display(), why).hint(
                "give the path of a network namespace, such as /run/netns/NAME or /proc/PID/ns/net",
            ),
        ),
    }
}
