//! `tombolo plan`.

use clap::{Args, Subcommand};
use tombolo_api::{
    Command, Operations, PlanRequest, PublicationSpec, PublicationsAdd, PublicationsRemove,
};

use super::drift::write_operations;
use super::{endpoint, network, sandbox};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::write_json;
use crate::translate::publish;

/// The command that is planned.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Make or remove a network, or tie a sandbox to it
    #[command(subcommand)]
    Network(PlanNetwork),
    /// Make or remove an endpoint, or join it to a sandbox
    #[command(subcommand)]
    Endpoint(PlanEndpoint),
    /// Make, remove, stop or start a sandbox
    #[command(subcommand)]
    Sandbox(PlanSandbox),
    /// Publish ports, or withdraw published ones
    #[command(subcommand)]
    Publish(PlanPublish),
}

/// Flags of every plan.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlanFlags {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One object.
#[derive(Debug, Args)]
pub(crate) struct PlanReference {
    /// Name, id or unambiguous start of an id
    #[arg(value_name = "NAME")]
    reference: String,
    #[command(flatten)]
    flags: PlanFlags,
}

/// A request of the command itself, planned.
#[derive(Debug, Args)]
pub(crate) struct Planned<T: Args> {
    #[command(flatten)]
    args: T,
    #[command(flatten)]
    flags: PlanFlags,
}

/// What is planned for a network.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanNetwork {
    /// Make a network
    Create(Box<Planned<network::create::CreateArgs>>),
    /// Remove a network
    Rm(PlanReference),
    /// Tie a sandbox to a network
    Connect(Planned<network::connect::ConnectArgs>),
    /// Untie a sandbox from a network
    Disconnect(Planned<network::connect::DisconnectArgs>),
}

/// What is planned for an endpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanEndpoint {
    /// Make an endpoint
    Create(Planned<endpoint::create::CreateArgs>),
    /// Remove an endpoint
    Rm(PlanReference),
    /// Join an endpoint to a sandbox
    Join(Planned<endpoint::JoinArgs>),
    /// Take an endpoint out of its sandbox
    Leave(PlanReference),
}

/// What is planned for a sandbox.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanSandbox {
    /// Make a sandbox
    Create(Box<Planned<sandbox::create::CreateArgs>>),
    /// Remove a sandbox
    Rm {
        #[command(flatten)]
        sandbox: PlanReference,
        /// Keep its endpoints with their addresses, joined to nothing
        #[arg(long)]
        keep_endpoints: bool,
    },
    /// Stop a sandbox
    Stop(PlanReference),
    /// Start a sandbox
    Start(PlanReference),
}

/// What is planned for published ports.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanPublish {
    /// Publish ports, or change who may use them
    Add {
        #[command(flatten)]
        sandbox: PlanReference,
        /// Written as for `run --publish`
        #[arg(required = true, value_name = "PORT", value_parser = publish::publication)]
        publications: Vec<PublicationSpec>,
    },
    /// Withdraw published ports
    Rm {
        #[command(flatten)]
        sandbox: PlanReference,
        /// Written as for `publish rm`
        #[arg(required = true, value_name = "PORT")]
        publications: Vec<String>,
    },
}

/// Prints the operations that a command would carry out.
pub(super) fn execute(command: PlanCommand, context: &mut Context<'_>) -> Result<(), CommandError> {
    let (command, flags) = match command {
        PlanCommand::Network(command) => network_command(command)?,
        PlanCommand::Endpoint(command) => endpoint_command(command),
        PlanCommand::Sandbox(command) => sandbox_command(command)?,
        PlanCommand::Publish(command) => publish_command(command),
    };
    let plan: Operations = context.client()?.plan(PlanRequest { command })?;
    if flags.json {
        return Ok(write_json(context.out, &plan)?);
    }
    write_operations(&plan.operations, "nothing would be done", context)
}

fn network_command(command: PlanNetwork) -> Result<(Command, PlanFlags), CommandError> {
    Ok(match command {
        PlanNetwork::Create(planned) => (
            Command::NetworkCreate(planned.args.into_request()?),
            planned.flags,
        ),
        PlanNetwork::Rm(PlanReference { reference, flags }) => {
            (Command::NetworkDelete { reference }, flags)
        }
        PlanNetwork::Connect(Planned { args, flags }) => {
            let reference = args.network.clone();
            (
                Command::NetworkConnect {
                    reference,
                    connect: args.into_request(),
                },
                flags,
            )
        }
        PlanNetwork::Disconnect(Planned { args, flags }) => {
            let disconnect = args.to_request();
            (
                Command::NetworkDisconnect {
                    reference: args.network,
                    disconnect,
                },
                flags,
            )
        }
    })
}

fn endpoint_command(command: PlanEndpoint) -> (Command, PlanFlags) {
    match command {
        PlanEndpoint::Create(Planned { args, flags }) => {
            (Command::EndpointCreate(args.into_request()), flags)
        }
        PlanEndpoint::Rm(PlanReference { reference, flags }) => {
            (Command::EndpointDelete { reference }, flags)
        }
        PlanEndpoint::Join(Planned { args, flags }) => (
            Command::EndpointJoin {
                reference: args.endpoint,
                sandbox: args.sandbox,
            },
            flags,
        ),
        PlanEndpoint::Leave(PlanReference { reference, flags }) => {
            (Command::EndpointLeave { reference }, flags)
        }
    }
}

fn sandbox_command(command: PlanSandbox) -> Result<(Command, PlanFlags), CommandError> {
    Ok(match command {
        PlanSandbox::Create(planned) => (
            Command::SandboxCreate(planned.args.into_request()?),
            planned.flags,
        ),
        PlanSandbox::Rm {
            sandbox: PlanReference { reference, flags },
            keep_endpoints,
        } => (
            Command::SandboxDelete {
                reference,
                keep_endpoints,
            },
            flags,
        ),
        PlanSandbox::Stop(PlanReference { reference, flags }) => {
            (Command::SandboxStop { reference }, flags)
        }
        PlanSandbox::Start(PlanReference { reference, flags }) => {
            (Command::SandboxStart { reference }, flags)
        }
    })
}

fn publish_command(command: PlanPublish) -> (Command, PlanFlags) {
    match command {
        PlanPublish::Add {
            sandbox: PlanReference { reference, flags },
            publications,
        } => {
            let add = PublicationsAdd { publications };
            (Command::PublicationsAdd { reference, add }, flags)
        }
        PlanPublish::Rm {
            sandbox: PlanReference { reference, flags },
            publications,
        } => {
            let remove = PublicationsRemove { publications };
            (Command::PublicationsRemove { reference, remove }, flags)
        }
    }
}
