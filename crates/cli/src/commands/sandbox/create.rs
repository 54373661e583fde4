//! `tombolo sandbox create`.

use std::path::PathBuf;

use clap::Args;
use tombolo_api::{NetnsChoice, NetworkAttachment, SandboxCreate};

use crate::args::flags::{LabelFlags, NameFlags, NetworkFlags, PortFlags};
use crate::context::Context;
use crate::error::CommandError;
use crate::translate::mode::{Companions, NetworkMode, network_mode};

/// A sandbox to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// Its name; chosen when left out
    #[arg(long)]
    name: Option<String>,
    /// Its host name
    #[arg(long)]
    hostname: Option<String>,
    /// Use the network namespace at this path
    #[arg(long, value_name = "PATH", group = "namespace")]
    netns: Option<PathBuf>,
    /// Use the network namespace of this process
    #[arg(long, value_name = "PID", group = "namespace")]
    pid: Option<u32>,
    /// Use the network namespace of the host
    #[arg(long, group = "namespace")]
    host: bool,
    #[command(flatten)]
    networks: NetworkFlags,
    #[command(flatten)]
    names: NameFlags,
    #[command(flatten)]
    ports: PortFlags,
    #[command(flatten)]
    labels: LabelFlags,
}

impl CreateArgs {
    /// The request that travels to the daemon.
    pub(crate) fn into_request(self) -> Result<SandboxCreate, CommandError> {
        let mut netns = match (self.netns, self.pid) {
            (Some(path), _) => {
                let absolute = std::path::absolute(&path)
                    .map_err(|source| CommandError::Directory { path, source })?;
                NetnsChoice::Path {
                    path: absolute.display().to_string(),
                }
            }
            (None, Some(pid)) => NetnsChoice::Pid { pid },
            (None, None) if self.host => NetnsChoice::Host,
            (None, None) => NetnsChoice::New,
        };
        let companions = Companions {
            hostname: self.hostname.is_some(),
            names: &self.names,
            ports: &self.ports,
            sysctl: false,
        };
        let networks = match network_mode(&self.networks, companions)? {
            // Without a word on networks a sandbox has none, unlike a process that is run.
            NetworkMode::Own(_) if self.networks.is_empty() => Vec::new(),
            NetworkMode::Own(networks) => networks,
            NetworkMode::Host(host) => host_networks(&mut netns, host)?,
            NetworkMode::Shared(owner) => return Err(CommandError::SandboxShares(owner)),
        };
        Ok(SandboxCreate {
            name: self.name,
            hostname: self.hostname,
            netns,
            networks,
            dns: self.names.dns(),
            extra_hosts: self.names.hosts,
            publish: self.ports.publish,
            publish_all: self.ports.publish_all,
            expose: self.ports.expose,
            links: self.ports.links,
            labels: self.labels.into_map(),
        })
    }
}

fn host_networks(
    netns: &mut NetnsChoice,
    host: NetworkAttachment,
) -> Result<Vec<NetworkAttachment>, CommandError> {
    match netns {
        NetnsChoice::New | NetnsChoice::Host => *netns = NetnsChoice::Host,
        NetnsChoice::Path { .. } | NetnsChoice::Pid { .. } => {
            return Err(CommandError::HostNamespace);
        }
    }
    Ok(vec![host])
}

/// Makes a sandbox and prints its id.
pub(super) fn execute(args: CreateArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let sandbox = context.client()?.sandbox_create(args.into_request()?)?;
    Ok(writeln!(context.out, "{}", sandbox.id)?)
}
