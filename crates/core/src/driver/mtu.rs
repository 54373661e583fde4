//! The MTU of a network: what was asked, else what the administrator set, else the uplink's.

use super::Context;
use crate::limits::{MTU_IPV6_MIN, MTU_MAX, MTU_MIN};
use crate::model::Network;
use crate::reject::{Code, Reject};

/// The MTU in bytes of every link of `network`.
pub fn effective(network: &Network, context: Context<'_>) -> u32 {
    let uplink = || context.facts.uplink_mtu();
    let existing = || {
        context
            .facts
            .links
            .get(&network.device)
            .map(|link| link.mtu)
    };
    let existing = network.existing.then(existing).flatten();
    network
        .spec
        .mtu
        .or(existing)
        .or(context.settings.mtu)
        .unwrap_or_else(uplink)
}

/// Refuses an MTU that links or the network's families do not take.
pub fn validate(network: &Network) -> Result<(), Reject> {
    let least = if network.spec.ipv6 {
        MTU_IPV6_MIN
    } else {
        MTU_MIN
    };
    match network.spec.mtu {
        Some(mtu) if !(least..=MTU_MAX).contains(&mtu) => {
            let family = if network.spec.ipv6 {
                "a network with IPv6"
            } else {
                "a network"
            };
            Err(Reject::new(
                Code::MtuRange,
                &network.spec.name,
                format!("MTU {mtu} is outside {least} to {MTU_MAX} bytes, which {family} takes"),
            )
            .hint("leave the MTU out to follow the uplink's"))
        }
        _ => Ok(()),
    }
}
