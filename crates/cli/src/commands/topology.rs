//! `tombolo topology`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use serde_json::json;
use tombolo_api::{Endpoint, EndpointFilter, Network, NetworkFilter, Sandbox, SandboxFilter};

use super::sandbox::list::state;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{joined, printable, write_json};

/// How the tree is written.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints networks with their endpoints, and the sandboxes at the end of each.
pub(super) fn execute(args: &TopologyArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let client = context.client()?;
    let networks = client.network_list(NetworkFilter::default())?;
    let endpoints = client.endpoint_list(EndpointFilter::default())?;
    let sandboxes = client.sandbox_list(SandboxFilter::default())?;
    if args.json {
        let value = json!({ "networks": networks, "endpoints": endpoints, "sandboxes": sandboxes });
        return Ok(write_json(context.out, &value)?);
    }
    let by_id: BTreeMap<&str, &Sandbox> = sandboxes
        .iter()
        .map(|sandbox| (sandbox.id.as_str(), sandbox))
        .collect();
    for network in &networks {
        writeln!(context.out, "{}", printable(&network_line(network)))?;
        let tied: Vec<&Endpoint> = endpoints
            .iter()
            .filter(|endpoint| endpoint.network.id == network.id)
            .collect();
        write_branches(
            context.out,
            tied.iter().map(|tied| endpoint_line(tied, &by_id)),
        )?;
    }
    let alone: Vec<&Sandbox> = sandboxes
        .iter()
        .filter(|sandbox| sandbox.endpoints.is_empty())
        .collect();
    if !alone.is_empty() {
        writeln!(context.out, "(on no network)")?;
        let line =
            |sandbox: &&Sandbox| format!("sandbox {} ({})", sandbox.name, state(sandbox.state));
        write_branches(context.out, alone.iter().map(line))?;
    }
    Ok(())
}

fn write_branches(
    out: &mut dyn Write,
    lines: impl ExactSizeIterator<Item = String>,
) -> io::Result<()> {
    let count = lines.len();
    for (index, line) in lines.enumerate() {
        let branch = if index + 1 == count {
            "└─"
        } else {
            "├─"
        };
        writeln!(out, "{branch} {}", printable(&line))?;
    }
    Ok(())
}

/// A network, its addresses, its interface, and how it is cut off or let out.
fn network_line(network: &Network) -> String {
    let mut words = vec![format!("{} ({})", network.name, network.driver)];
    for subnet in &network.subnets {
        words.push(match &subnet.gateway {
            Some(gateway) => format!("{} via {gateway}", subnet.subnet),
            None => subnet.subnet.clone(),
        });
    }
    words.extend(
        network
            .device
            .as_ref()
            .map(|device| format!("device {device}")),
    );
    if network.device.is_some() || !network.subnets.is_empty() {
        words.push(format!("mtu {}", network.mtu));
        words.push(way_out(network));
        if !network.icc {
            words.push("endpoints isolated from each other".to_owned());
        }
    }
    words.join("  ")
}

fn way_out(network: &Network) -> String {
    if network.internal {
        return "internal".to_owned();
    }
    if !network.masquerade {
        return "uplink: routed".to_owned();
    }
    let sources = [&network.snat_ipv4, &network.snat_ipv6];
    match joined(sources.into_iter().flatten()).as_str() {
        "-" => "uplink: masqueraded".to_owned(),
        addresses => format!("uplink: as {addresses}"),
    }
}

fn endpoint_line(endpoint: &Endpoint, sandboxes: &BTreeMap<&str, &Sandbox>) -> String {
    let mut words = vec![endpoint.name.clone(), joined(&endpoint.addresses)];
    match (&endpoint.interface, &endpoint.host_interface) {
        (Some(inside), Some(outside)) => words.push(format!("{inside} <- {outside}")),
        (Some(inside), None) => words.push(inside.clone()),
        (None, _) => {}
    }
    words.push(match &endpoint.sandbox {
        None => "joined to nothing".to_owned(),
        Some(named) => {
            let known = sandboxes.get(named.id.as_str());
            let state = known.map_or("unknown", |sandbox| state(sandbox.state));
            format!("sandbox {} ({state})", named.name)
        }
    });
    words.join("  ")
}
