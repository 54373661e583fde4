//! `tombolo network ls`.

use clap::Args;
use tombolo_api::Network;

use crate::args::flags::ListFlags;
use crate::args::value::{KeyValue, key_with_value};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Table, joined, short_id, write_json};
use crate::translate::filter::network_filter;

/// Which networks to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Only those with name=TEXT, driver=NAME or label=KEY[=VALUE]; may be repeated
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = key_with_value)]
    filters: Vec<KeyValue>,
}

/// Prints a table of networks.
pub(super) fn execute(args: ListArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let networks = context
        .client()?
        .network_list(network_filter(args.filters)?)?;
    if args.list.json {
        return Ok(write_json(context.out, &networks)?);
    }
    if args.list.quiet {
        for network in &networks {
            writeln!(context.out, "{}", short_id(&network.id))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "DRIVER",
        "SUBNETS",
        "GATEWAYS",
        "DEVICE",
        "ENDPOINTS",
        "STATE",
    ]);
    for network in &networks {
        table.row([
            short_id(&network.id),
            network.name.clone(),
            network.driver.clone(),
            joined(network.subnets.iter().map(|subnet| &subnet.subnet)),
            joined(
                network
                    .subnets
                    .iter()
                    .filter_map(|subnet| subnet.gateway.as_ref()),
            ),
            joined(network.device.as_ref()),
            network.endpoints.len().to_string(),
            state(network),
        ]);
    }
    Ok(table.write(context.out)?)
}

fn state(network: &Network) -> String {
    use tombolo_api::NetworkState;
    match network.state {
        NetworkState::Ready => "ready",
        NetworkState::Degraded => "degraded",
        NetworkState::Leaving => "leaving",
        _ => "unknown",
    }
    .to_owned()
}
