//! `tombolo endpoint create`.

use clap::Args;
use tombolo_api::{EndpointCreate, EndpointSettings};

use crate::args::flags::{EndpointFlags, LabelFlags};
use crate::context::Context;
use crate::error::CommandError;

/// An endpoint to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// Name or id of its network
    network: String,
    /// Its name; chosen when left out
    #[arg(long)]
    name: Option<String>,
    /// Sandbox to join at once
    #[arg(long)]
    sandbox: Option<String>,
    #[command(flatten)]
    endpoint: EndpointFlags,
    #[command(flatten)]
    labels: LabelFlags,
}

impl CreateArgs {
    /// The request that travels to the daemon.
    pub(crate) fn into_request(self) -> EndpointCreate {
        let settings = EndpointSettings {
            name: self.name,
            labels: self.labels.into_map(),
            ..self.endpoint.into_settings()
        };
        settings.on_network(self.network, self.sandbox)
    }
}

/// Makes an endpoint and prints its id.
pub(super) fn execute(args: CreateArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let endpoint = context.client()?.endpoint_create(args.into_request())?;
    Ok(writeln!(context.out, "{}", endpoint.id)?)
}
