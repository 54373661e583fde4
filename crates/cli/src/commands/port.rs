//! `tombolo port`.

use clap::Args;
use tombolo_api::{Path, Publication};

use super::publish::{path_word, port};
use super::world;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{joined, printable, write_json};
use crate::translate::publish::{Ports, exposed};

/// Whose ports to show.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Tell how packets get there and who may send them
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name or id of the process or sandbox
    name: String,
    /// Only where this port of it is; TCP unless said otherwise
    #[arg(value_name = "PORT[/PROTOCOL]", value_parser = exposed)]
    port: Option<String>,
}

/// Prints where published ports are, one line for each family, as Docker does.
pub(super) fn execute(args: &PortArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let owner = world::ports_owner(&args.name, context)?;
    let mut found = context.client()?.sandbox_publications(&owner)?;
    let wanted = args.port.as_deref().and_then(Wanted::read);
    if let Some(wanted) = &wanted {
        found.retain(|publication| wanted.offset_in(publication).is_some());
    }
    if args.json {
        return Ok(write_json(context.out, &found)?);
    }
    let mut lines = Vec::new();
    for publication in &found {
        for (place, path) in places(publication, wanted.as_ref()) {
            let mut line = match &wanted {
                Some(_) => place,
                None => format!("{} -> {place}", port(publication)),
            };
            if args.verbose {
                line.push_str(&remarks(publication, path));
            }
            lines.push(line);
        }
    }
    if let (true, Some(port)) = (lines.is_empty(), &args.port) {
        return Err(CommandError::NotPublished {
            port: port.clone(),
            name: args.name.clone(),
        });
    }
    for line in lines {
        writeln!(context.out, "{}", printable(&line))?;
    }
    Ok(())
}

/// Ports of a sandbox that are asked for.
struct Wanted {
    ports: Ports,
    protocol: String,
}

impl Wanted {
    /// Reads a port with its protocol.
    fn read(text: &str) -> Option<Self> {
        let (ports, protocol) = text.split_once('/')?;
        Some(Self {
            ports: Ports::read(ports)?,
            protocol: protocol.to_owned(),
        })
    }

    /// How far after the first port of a publication they begin, if it holds them all.
    fn offset_in(&self, publication: &Publication) -> Option<u16> {
        let container = Ports::read(&publication.container)?;
        let is_same = publication.protocol.as_str() == self.protocol;
        is_same.then(|| self.ports.offset_in(container)).flatten()
    }
}

/// Where clients of each family find a publication, and how they get there.
fn places(publication: &Publication, wanted: Option<&Wanted>) -> Vec<(String, Option<Path>)> {
    if !publication.active {
        return Vec::new();
    }
    if let Some(path) = &publication.socket {
        return vec![(format!("unix:{path}"), Some(Path::Relay))];
    }
    let families = [
        ("0.0.0.0", false, publication.ipv4),
        ("[::]", true, publication.ipv6),
    ];
    let mut places = Vec::new();
    for (every, ipv6, path) in families {
        let Some(path) = path else { continue };
        let found = match path {
            Path::Routed => routed(publication, ipv6, wanted),
            _ => host_place(publication, every, wanted).into_iter().collect(),
        };
        places.extend(found.into_iter().map(|place| (place, Some(path))));
    }
    places
}

/// The address and port of the host; `every` stands for all addresses of the family.
fn host_place(publication: &Publication, every: &str, wanted: Option<&Wanted>) -> Option<String> {
    let host = publication.host.as_ref()?;
    let host = match wanted {
        Some(wanted) => Ports::read(host)?
            .part(wanted.offset_in(publication)?, wanted.ports)?
            .to_string(),
        None => host.clone(),
    };
    let address = match publication.address.as_str() {
        "*" => every,
        one => one,
    };
    Some(format!("{address}:{host}"))
}

/// The sandbox's own addresses of a family, with the ports that are asked for.
fn routed(publication: &Publication, ipv6: bool, wanted: Option<&Wanted>) -> Vec<String> {
    let of_family = publication
        .targets
        .iter()
        .filter_map(|target| target.rsplit_once(':'))
        .filter(|(address, _)| address.starts_with('[') == ipv6);
    of_family
        .map(|(address, ports)| match wanted {
            Some(wanted) => format!("{address}:{}", wanted.ports),
            None => format!("{address}:{ports}"),
        })
        .collect()
}

fn remarks(publication: &Publication, path: Option<Path>) -> String {
    let mut remarks = format!(" ({})", joined(path.map(path_word)));
    if !publication.from.is_empty() {
        remarks.push_str(&format!(" from {}", joined(&publication.from)));
    }
    remarks
}
