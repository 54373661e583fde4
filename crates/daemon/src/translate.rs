//! Between the words of the API and those of the core: pure, in both directions.

mod endpoint;
pub(crate) mod names;
mod network;
mod publication;
mod sandbox;
pub(crate) mod view;

pub(crate) use endpoint::{attachment, endpoint_create, settings};
pub(crate) use network::{is_plugin, mode_word, network_spec};
pub(crate) use sandbox::{NetnsLookup, sandbox_create};

use std::net::IpAddr;

use tombolo_api::{ApiError, ErrorCode, Request, types};
use tombolo_core::id::Name;
use tombolo_core::{Code, Command, Reference, Reject};

/// A refusal as the API tells it. Both crates name the same reasons; a test compares them.
pub(crate) fn api_error(reject: &Reject) -> ApiError {
    let code = error_code(reject.code.as_str()).unwrap_or(ErrorCode::Internal);
    let error = ApiError::new(code, format!("{}: {}", reject.object, reject.message));
    let error = error.on(reject.object.clone());
    if reject.hint.is_empty() {
        error
    } else {
        error.hint(reject.hint.clone())
    }
}

fn error_code(word: &str) -> Option<ErrorCode> {
    ErrorCode::ALL
        .iter()
        .copied()
        .find(|code| code.as_str() == word)
}

/// The command that a request stands for; `None` for one that only looks at what the daemon knows.
pub(crate) fn command(
    request: Request,
    namespaces: &dyn NetnsLookup,
) -> Result<Option<Command>, Reject> {
    let command = match request {
        Request::NetworkCreate(create) => Command::CreateNetwork {
            spec: Box::new(network_spec(create)?),
            predefined: false,
        },
        Request::NetworkPrune => Command::PruneNetworks,
        Request::NetworkDelete { reference } => Command::DeleteNetwork(Reference(reference)),
        Request::NetworkConnect { reference, connect } => connect_command(reference, connect)?,
        Request::NetworkDisconnect {
            reference,
            disconnect,
        } => Command::Disconnect {
            network: Reference(reference),
            sandbox: Reference(disconnect.sandbox),
        },
        Request::EndpointCreate(create) => endpoint_create(create)?,
        Request::EndpointDelete { reference } => Command::DeleteEndpoint(Reference(reference)),
        Request::EndpointJoin { reference, join } => Command::Join {
            endpoint: Reference(reference),
            sandbox: Reference(join.sandbox),
        },
        Request::EndpointLeave { reference } => Command::Leave(Reference(reference)),
        Request::SandboxCreate(create) => sandbox_create(create, namespaces)?,
        Request::SandboxDelete {
            reference,
            keep_endpoints,
        } => Command::DeleteSandbox {
            sandbox: Reference(reference),
            keep_endpoints,
        },
        Request::SandboxStop { reference } => Command::StopSandbox(Reference(reference)),
        Request::SandboxStart { reference } => Command::StartSandbox {
            sandbox: Reference(reference),
            picked: Vec::new(),
        },
        Request::PublicationsAdd { reference, add } => Command::Publish {
            sandbox: Reference(reference),
            publications: publication::publication_list(&add.publications)?,
        },
        Request::Drift => Command::Drift,
        Request::Repair => Command::Repair,
        Request::Prune => Command::Prune,
        Request::Version
        | Request::Info
        | Request::NetworkList(_)
        | Request::NetworkInspect { .. }
        | Request::EndpointList(_)
        | Request::EndpointInspect { .. }
        | Request::SandboxList(_)
        | Request::SandboxInspect { .. }
        | Request::SandboxPublications { .. }
        | Request::PublicationList
        | Request::DnsNames(_)
        | Request::DnsResolve(_)
        // What the words mean depends on what exists.
        | Request::PublicationsRemove { .. }
        | Request::Plan(_)
        | Request::Explain { .. }
        | Request::Doctor => return Ok(None),
    };
    Ok(Some(command))
}

/// The request that is to be tried out.
pub(crate) fn planned_request(command: types::Command) -> Request {
    match command {
        types::Command::NetworkCreate(create) => Request::NetworkCreate(create),
        types::Command::NetworkDelete { reference } => Request::NetworkDelete { reference },
        types::Command::NetworkConnect { reference, connect } => {
            Request::NetworkConnect { reference, connect }
        }
        types::Command::NetworkDisconnect {
            reference,
            disconnect,
        } => Request::NetworkDisconnect {
            reference,
            disconnect,
        },
        types::Command::EndpointCreate(create) => Request::EndpointCreate(create),
        types::Command::EndpointDelete { reference } => Request::EndpointDelete { reference },
        types::Command::EndpointJoin { reference, sandbox } => Request::EndpointJoin {
            reference,
            join: types::EndpointJoin { sandbox },
        },
        types::Command::EndpointLeave { reference } => Request::EndpointLeave { reference },
        types::Command::SandboxCreate(create) => Request::SandboxCreate(create),
        types::Command::SandboxDelete {
            reference,
            keep_endpoints,
        } => Request::SandboxDelete {
            reference,
            keep_endpoints,
        },
        types::Command::SandboxStop { reference } => Request::SandboxStop { reference },
        types::Command::SandboxStart { reference } => Request::SandboxStart { reference },
        types::Command::PublicationsAdd { reference, add } => {
            Request::PublicationsAdd { reference, add }
        }
        types::Command::PublicationsRemove { reference, remove } => {
            Request::PublicationsRemove { reference, remove }
        }
    }
}

fn connect_command(reference: String, connect: types::NetworkConnect) -> Result<Command, Reject> {
    Ok(Command::CreateEndpoint {
        network: Reference(reference),
        sandbox: Some(Reference(connect.sandbox)),
        spec: Box::new(settings(connect.attachment)?),
    })
}

fn name(text: &str) -> Result<Name, Reject> {
    text.parse()
        .map_err(|error: String| Reject::new(Code::InvalidName, shown(text), error))
}

fn address(text: &str, what: &str) -> Result<IpAddr, Reject> {
    text.parse().map_err(|_| {
        Reject::new(
            Code::InvalidAddress,
            shown(text),
            format!("{what} is not an IP address"),
        )
        .hint("write it as 172.20.0.2 or fd00::2")
    })
}

/// Foreign text, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
