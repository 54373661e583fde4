//! `tombolo network connect` and `tombolo network disconnect`.

use clap::Args;
use tombolo_api::{NetworkConnect, NetworkDisconnect};

use crate::args::flags::EndpointFlags;
use crate::commands::world;
use crate::context::Context;
use crate::error::CommandError;

/// Which sandbox to tie to which network, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    endpoint: EndpointFlags,
    /// Name or id of the network
    pub(crate) network: String,
    /// Name or id of the sandbox
    pub(crate) sandbox: String,
}

/// Which sandbox to untie from which network.
#[derive(Debug, Clone, Args)]
pub(crate) struct DisconnectArgs {
    /// Forget the endpoint even when its namespace cannot be reached
    #[arg(short, long)]
    force: bool,
    /// Name or id of the network
    pub(crate) network: String,
    /// Name or id of the sandbox
    sandbox: String,
}

impl ConnectArgs {
    /// The request that travels to the daemon.
    pub(crate) fn into_request(self) -> NetworkConnect {
        NetworkConnect {
            sandbox: self.sandbox,
            attachment: self.endpoint.into_settings(),
        }
    }
}

impl DisconnectArgs {
    /// The request that travels to the daemon.
    pub(crate) fn to_request(&self) -> NetworkDisconnect {
        NetworkDisconnect {
            sandbox: self.sandbox.clone(),
            force: self.force,
        }
    }
}

/// Ties a sandbox to a network.
pub(super) fn connect(args: ConnectArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    world::refuse_sharer(&args.sandbox, context)?;
    let network = args.network.clone();
    context
        .client()?
        .network_connect(&network, args.into_request())?;
    Ok(())
}

/// Unties a sandbox from a network.
pub(super) fn disconnect(
    args: &DisconnectArgs,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    world::refuse_sharer(&args.sandbox, context)?;
    Ok(context
        .client()?
        .network_disconnect(&args.network, args.to_request())?)
}
