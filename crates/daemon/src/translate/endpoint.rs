//! Endpoints: from the API's words to a spec.

use tombolo_api::types::{EndpointCreate, EndpointSettings, NetworkAttachment};
use tombolo_core::model::EndpointSpec;
use tombolo_core::{Code, Command, Reference, Reject};
use tombolo_dns::name::HostName;
use tombolo_netstate::Mac;

use super::{address, name, shown};
use crate::limits::ALIASES_MAX;

/// The command that makes an endpoint.
pub(crate) fn endpoint_create(mut create: EndpointCreate) -> Result<Command, Reject> {
    let network = Reference(std::mem::take(&mut create.network));
    let sandbox = create.sandbox.take().map(Reference);
    Ok(Command::CreateEndpoint {
        network,
        sandbox,
        spec: Box::new(settings(create.into_settings())?),
    })
}

/// A network of a new sandbox, and what the endpoint in it should be.
pub(crate) fn attachment(
    attachment: NetworkAttachment,
) -> Result<(Reference, EndpointSpec), Reject> {
    let create = attachment.into_endpoint(None);
    let network = Reference(create.network.clone());
    Ok((network, settings(create.into_settings())?))
}

/// What an endpoint should be, whatever its network.
pub(crate) fn settings(settings: EndpointSettings) -> Result<EndpointSpec, Reject> {
    let mut addresses = Vec::new();
    for (text, ipv6) in [
        (settings.ipv4_address, false),
        (settings.ipv6_address, true),
    ] {
        let Some(text) = text else { continue };
        let ip = address(&text, "the endpoint's address")?;
        if ip.is_ipv6() != ipv6 {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            return Err(Reject::new(
                Code::InvalidAddress,
                ip,
                format!("it is not an {family} address"),
            ));
        }
        addresses.push(ip);
    }
    let mac = settings.mac_address.map(|text| mac(&text)).transpose()?;
    if settings.aliases.len() > ALIASES_MAX {
        let message = format!("an endpoint takes {ALIASES_MAX} aliases");
        return Err(Reject::new(Code::LimitReached, "aliases", message).hint("give fewer"));
    }
    let aliases: Result<Vec<String>, Reject> = settings.aliases.iter().map(|a| alias(a)).collect();
    Ok(EndpointSpec {
        name: settings.name.as_deref().map(name).transpose()?,
        addresses,
        mac,
        interface: settings.interface_name,
        gateway_priority: settings.gateway_priority.unwrap_or(0),
        aliases: aliases?,
        labels: settings.labels,
        engine: false,
    })
}

fn alias(text: &str) -> Result<String, Reject> {
    let name: Result<HostName, _> = text.parse();
    name.map(|name| name.as_str().to_owned())
        .map_err(|reject| Reject::advised(Code::InvalidName, shown(text), &reject.to_string()))
}

fn mac(text: &str) -> Result<[u8; 6], Reject> {
    let mac = text.parse::<Mac>().and_then(Mac::unicast);
    mac.map(|mac| mac.0)
        .map_err(|error| Reject::new(Code::InvalidAddress, shown(text), error.to_string()))
}
