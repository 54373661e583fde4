//! Ways between a bridge network and the outside: gateway modes, and what the firewalls of others need.

use tombolo_netstate::object::foreign::{AcceptKey, AcceptSpec};
use tombolo_netstate::object::nft::ruleset::Family;
use tombolo_netstate::{IfName, Key, Objects, Spec};

use super::Context;
use crate::model::{GatewayMode, Network};
use crate::reject::{Code, Reject};

/// Refuses ways to and from the outside that contradict the rest of the network.
pub fn check_modes(network: &Network) -> Result<(), Reject> {
    let spec = &network.spec;
    let refuse = |message: &str, hint: &str| {
        Err(Reject::new(Code::InvalidCombination, &spec.name, message).hint(hint))
    };
    for (on, ipv6) in [(spec.ipv4, false), (spec.ipv6, true)] {
        match spec.gateway_mode(ipv6) {
            _ if !on => {}
            GatewayMode::Isolated if !spec.internal => {
                return refuse(
                    "the gateway mode `isolated` is for internal networks",
                    "make the network internal, or choose another mode",
                );
            }
            GatewayMode::Routed | GatewayMode::NatUnprotected if spec.internal => {
                return refuse(
                    "an internal network has no way in, so that its gateway mode opens nothing",
                    "leave the gateway mode out, or do not make the network internal",
                );
            }
            GatewayMode::Isolated if has_gateway(network, ipv6) => {
                return refuse(
                    "the gateway mode `isolated` gives the bridge no address, and a gateway is given",
                    "leave the gateway out, or choose another mode",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn has_gateway(network: &Network, ipv6: bool) -> bool {
    let mut subnets = network.spec.subnets.iter();
    subnets.any(|subnet| subnet.gateway.is_some_and(|ip| ip.is_ipv6() == ipv6))
}

/// Where the host may send what it asks of 127.0.0.1 (`route_localnet`).
pub fn routes_loopback(network: &Network) -> bool {
    let mode = network.spec.gateway_mode4;
    let translated = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
    network.spec.ipv4 && !network.spec.internal && translated
}

/// The setting by which a bridge that was there before us routes loopback addresses.
pub fn localnet_path(device: &str) -> String {
    format!("net/ipv4/conf/{device}/route_localnet")
}

/// Permissions in firewalls of others that drop what they do not know.
pub fn add_permissions(
    objects: &mut Objects,
    network: &Network,
    bridge: IfName,
    context: Context<'_>,
) {
    for chain in &context.facts.forward_chains {
        let wanted = match chain.family {
            Family::V4 => network.spec.ipv4,
            Family::V6 => network.spec.ipv6,
        };
        if wanted {
            let key = AcceptKey {
                family: chain.family,
                table: chain.table.as_str().into(),
                chain: chain.chain.as_str().into(),
                bridge,
            };
            objects.insert(Key::Accept(key), Spec::Accept(AcceptSpec));
        }
    }
}
