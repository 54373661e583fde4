//! Networks of plugins: the plugin makes the link of an endpoint and says what belongs on it; here is what that means in
//! the sandbox. Everything on the host's side is the plugin's own and no object of ours.

use std::net::IpAddr;

use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::link::{KEPT_MAC, KEPT_MTU, LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::{Key, Mac, Netns, Objects, Spec};

use super::{names, route};
use crate::model::{Attachment, Endpoint, Joined, Network};
use crate::reject::{Code, Reject};

/// What interfaces in sandboxes are named after where a plugin does not say.
const PREFIX: &str = "eth";

/// What the plugin said when an endpoint joined its sandbox.
pub fn joined(endpoint: &Endpoint) -> Option<&Joined> {
    endpoint.plugin.as_ref()?.joined.as_ref()
}

/// Whether the plugin was told that an endpoint is its sandbox's way out.
pub fn is_told_way_out(endpoint: &Endpoint) -> bool {
    endpoint
        .plugin
        .as_ref()
        .is_some_and(|plugin| plugin.way_out)
}

/// The plugin's link in the sandbox, its addresses, and the plugin's routes.
pub fn endpoint_objects(
    network: &Network,
    endpoint: &Endpoint,
    attachment: &Attachment,
    netns: &Netns,
) -> Result<Objects, Reject> {
    let Some(joined) = joined(endpoint) else {
        return Ok(Objects::new());
    };
    let name = names::interface(&attachment.interface)?;
    let from = names::interface(&joined.source)?;
    let mac = endpoint.chosen_mac().map(Mac);
    let at = LinkKey {
        netns: netns.clone(),
        name,
    };
    let link = LinkSpec {
        kind: LinkKind::Taken { from },
        mac: mac.unwrap_or(KEPT_MAC),
        mtu: KEPT_MTU,
        port: None,
        ipv6: true,
        link_local: network.spec.ipv6,
        alias: format!("endpoint/{}", endpoint.id).into(),
    };
    let mut objects = Objects::from([(Key::Link(at), Spec::Link(Box::new(link)))]);
    for address in &endpoint.addresses {
        let key = AddressKey {
            netns: netns.clone(),
            link: name,
            ip: address.addr(),
        };
        let spec = AddressSpec {
            prefix_len: address.prefix_len(),
            prefix_route: address.prefix_len() != address.max_prefix_len(),
            announce: mac,
        };
        objects.insert(Key::Address(key), Spec::Address(spec));
    }
    let wanted = joined.routes.iter().chain(&network.spec.routes);
    for wanted in wanted {
        let ipv6 = wanted.destination.addr().is_ipv6();
        let has = |address: &ipnet::IpNet| address.addr().is_ipv6() == ipv6;
        if endpoint.addresses.iter().any(has) {
            objects.extend([route(netns, wanted.destination, name, wanted.via)]);
        }
    }
    Ok(objects)
}

/// Where a sandbox sends what is for the outside, if it goes through this endpoint.
pub fn default_gateway(endpoint: &Endpoint, ipv6: bool) -> Option<IpAddr> {
    joined(endpoint)?.gateway(ipv6)
}

/// What interfaces of an endpoint are named after.
pub fn interface_prefix(endpoint: &Endpoint) -> &str {
    let prefix = joined(endpoint).map(|joined| joined.prefix.as_str());
    prefix.filter(|prefix| !prefix.is_empty()).unwrap_or(PREFIX)
}

/// Refuses an answer of a plugin that cannot be carried out.
pub fn check_joined(plugin: &str, joined: &Joined) -> Result<(), Reject> {
    let refuse = |message: String| {
        Err(Reject::new(Code::PluginRefused, plugin, message)
            .hint("its maker can say what is wrong with it"))
    };
    let name = if joined.prefix.is_empty() {
        PREFIX
    } else {
        &joined.prefix
    };
    for (what, name) in [
        ("link", joined.source.clone()),
        ("prefix of interfaces", format!("{name}0")),
    ] {
        if names::interface(&name).is_err() {
            return refuse(format!(
                "the plugin names a {what} that cannot be: {name:?}"
            ));
        }
    }
    let wrong = |ip: Option<IpAddr>, ipv6: bool| ip.is_some_and(|ip| ip.is_ipv6() != ipv6);
    if wrong(joined.gateway4, false) || wrong(joined.gateway6, true) {
        return refuse("the plugin names a gateway of another family".to_owned());
    }
    for route in &joined.routes {
        if wrong(route.via, route.destination.addr().is_ipv6()) {
            let destination = route.destination;
            return refuse(format!("the router of {destination} is of another family"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
