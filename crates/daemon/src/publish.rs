//! Requests about published ports that need a look at the host or at what exists: free ports to choose from, and
//! what is meant by words.

use std::path::Path;

use tombolo_api::types;
use tombolo_core::command::PublicationMatch;
use tombolo_core::limits::RANGE_SOCKETS_MAX;
use tombolo_core::model::{Publication, Sandbox, SandboxState};
use tombolo_core::{Code, Command, Controller, EngineCommand, PluginCommand, Reference, Reject};
use tombolo_kernel::{Kernel, Pick, PortError, Ports};
use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

use crate::engine::with_sources;
use crate::relay::{self, UnixError};
use crate::translate::view;

/// Ports that were chosen and wait for the request that asked for them.
pub(crate) type Chosen = Vec<(Protocol, HostAddress, PortRange)>;

/// Chooses ports for the automatic publications of a command, and holds them until the command has taken them or
/// [`release`] gives them back.
pub(crate) fn choose(
    controller: &Controller,
    kernel: &Kernel,
    command: &mut Command,
) -> Result<Chosen, Reject> {
    let mut chosen = Chosen::new();
    let done = match command {
        Command::CreateSandbox { spec, .. }
        | Command::Plugin(PluginCommand::HoldSandbox { spec, .. }) => {
            check_sockets(None, &spec.publications)
                .and_then(|()| fill(kernel.ports(), &mut spec.publications, &mut chosen))
        }
        Command::Publish {
            sandbox,
            publications,
        } => check_sockets(controller.find_sandbox(sandbox).ok(), publications)
            .and_then(|()| fill(kernel.ports(), publications, &mut chosen)),
        Command::StartSandbox { sandbox, picked } => match controller.find_sandbox(sandbox) {
            Ok(found) if found.state == SandboxState::Stopped => {
                check_sockets(None, &found.spec.publications)
                    .and_then(|()| repick(kernel.ports(), found, picked, &mut chosen))
            }
            _ => Ok(()),
        },
        Command::Engine(EngineCommand::Publish { publications, .. }) => {
            fill(kernel.ports(), publications, &mut chosen)
        }
        _ => Ok(()),
    };
    match done {
        Ok(()) => Ok(chosen),
        Err(reject) => {
            release(kernel, &chosen);
            Err(reject)
        }
    }
}

/// Gives back what no request has taken.
pub(crate) fn release(kernel: &Kernel, chosen: &Chosen) {
    if !chosen.is_empty() {
        kernel.ports().release_parked(chosen);
    }
}

fn fill(
    ports: &Ports,
    publications: &mut [Publication],
    chosen: &mut Chosen,
) -> Result<(), Reject> {
    for publication in publications.iter_mut().filter(|p| p.automatic) {
        let range = pick(ports, publication, publication.within, chosen)?;
        publication.ports = Some(range);
    }
    Ok(())
}

/// The ports that a stopped sandbox had, if they are still free; others otherwise.
fn repick(
    ports: &Ports,
    sandbox: &Sandbox,
    picked: &mut Vec<(usize, PortRange)>,
    chosen: &mut Chosen,
) -> Result<(), Reject> {
    for (place, publication) in sandbox.spec.publications.iter().enumerate() {
        if !publication.automatic {
            continue;
        }
        let before = publication.ports;
        let range =
            match before.map(|ports_then| pick(ports, publication, Some(ports_then), chosen)) {
                Some(Ok(range)) => range,
                _ => pick(ports, publication, publication.within, chosen)?,
            };
        picked.push((place, range));
    }
    Ok(())
}

fn pick(
    ports: &Ports,
    publication: &Publication,
    within: Option<PortRange>,
    chosen: &mut Chosen,
) -> Result<PortRange, Reject> {
    let object = || format!("{}/{}", publication.container, publication.protocol);
    if publication.count() > RANGE_SOCKETS_MAX {
        let message = format!(
            "{} ports in a row are to be chosen; at most {RANGE_SOCKETS_MAX} can be",
            publication.count()
        );
        return Err(Reject::new(Code::LimitReached, object(), message)
            .hint("name the ports of the host for larger ranges"));
    }
    let address = publication.address.unwrap_or(HostAddress::Any);
    let wish = Pick {
        protocol: publication.protocol,
        address,
        count: u16::try_from(publication.count()).unwrap_or(u16::MAX),
        within,
    };
    let range = ports.pick(&wish).map_err(|error| {
        let code = match &error {
            PortError::Taken { .. } | PortError::NoneFree { .. } => Code::PortTaken,
            PortError::NoSuchAddress { .. } => Code::AddressNotHere,
            PortError::TooMany { .. } => Code::LimitReached,
            PortError::Look { .. } | PortError::Other { .. } => Code::Kernel,
        };
        Reject::new(code, object(), with_sources(&error)).hint("name a port of the host")
    })?;
    chosen.push((publication.protocol, address, range));
    Ok(range)
}

/// Refuses Unix sockets that cannot be made, except those that the sandbox has already.
fn check_sockets(sandbox: Option<&Sandbox>, publications: &[Publication]) -> Result<(), Reject> {
    let has = |path: &Path| {
        let mut own = sandbox.iter().flat_map(|s| &s.spec.publications);
        own.any(|p| p.socket.as_deref() == Some(path))
    };
    let paths = publications.iter().filter_map(|p| p.socket.as_deref());
    for path in paths.filter(|path| !has(path)) {
        relay::try_unix_socket(path).map_err(|error| {
            let code = match &error {
                UnixError::Occupied(_) | UnixError::InUse(_) => Code::PortTaken,
                _ => Code::InvalidName,
            };
            Reject::new(code, path.display(), with_sources(&error))
                .hint("its directory must exist, and nothing may be there")
        })?;
    }
    Ok(())
}

/// The command that takes publications back which are meant by words.
pub(crate) fn unpublish(
    controller: &Controller,
    reference: String,
    words: &types::PublicationsRemove,
) -> Result<Command, Reject> {
    let sandbox = Reference(reference);
    let found = controller.find_sandbox(&sandbox)?;
    let shown = view::publication::publications(controller, found);
    let mut publications = Vec::new();
    for text in &words.publications {
        let meant = shown.iter().zip(&found.spec.publications);
        let meant = meant.filter(|(view, _)| view.is_meant_by(text));
        let meant: Vec<PublicationMatch> = meant.map(|(_, p)| exactly(text, p)).collect();
        if meant.is_empty() {
            let message = format!("{} has no such publication", found.name);
            return Err(Reject::new(Code::UnknownPublication, text, message)
                .hint("`tombolo port` shows its publications"));
        }
        for one in meant {
            // Two words may mean the same one.
            if !publications.iter().any(|other| is_same(other, &one)) {
                publications.push(one);
            }
        }
    }
    Ok(Command::Unpublish {
        sandbox,
        publications,
    })
}

/// Whether two words were for the same publication.
fn is_same(a: &PublicationMatch, b: &PublicationMatch) -> bool {
    let text = String::new;
    PublicationMatch {
        text: text(),
        ..a.clone()
    } == PublicationMatch {
        text: text(),
        ..b.clone()
    }
}

fn exactly(text: &str, publication: &Publication) -> PublicationMatch {
    PublicationMatch {
        text: text.to_owned(),
        protocol: Some(publication.protocol),
        address: publication.address,
        ports: publication.ports,
        container: Some(publication.container),
        socket: publication.socket.clone(),
    }
}
