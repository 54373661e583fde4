//! The addresses of endpoints.

use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_netstate::Mac;

use super::Controller;
use super::change::Change;
use super::state::in_subnet;
use crate::driver::names;
use crate::id::{EndpointId, Name};
use crate::ipam::{Holder, LeaseReject, LeaseRequest};
use crate::model::{EndpointSpec, Network};
use crate::reject::{Code, Reject};

impl Controller {
    /// Leases the addresses asked for, and one of each family that is not among them.
    pub(super) fn addresses(
        &mut self,
        now_ms: u64,
        id: EndpointId,
        network: &Network,
        spec: &EndpointSpec,
        change: &mut Change,
    ) -> Result<Vec<IpNet>, Reject> {
        if network.spec.ipam.is_some() {
            // A plugin is asked for them.
            return Ok(Vec::new());
        }
        let owner = id.to_string();
        let mut leased = Vec::new();
        for wanted in &spec.addresses {
            let Some(pool) = network.pool_of(*wanted) else {
                let message = format!(
                    "address {wanted} is in none of the subnets of {}",
                    network.spec.name
                );
                return Err(Reject::new(Code::InvalidAddress, wanted, message)
                    .hint("`tombolo network inspect` shows the subnets"));
            };
            if self.is_lent_for_endpoint(*wanted) && spec.engine {
                leased.push(in_subnet(*wanted, pool.subnet));
                continue;
            }
            let request = LeaseRequest {
                subnet: pool.subnet,
                address: Some(*wanted),
                owner: &owner,
            };
            let ip = self
                .state
                .lease(&request, now_ms, change)
                .map_err(|r| lease_reject(&network.spec.name, &r))?;
            leased.push(in_subnet(ip, pool.subnet));
        }
        if spec.engine && !leased.is_empty() {
            leased.sort_by_key(|net| net.addr().is_ipv6());
            return Ok(leased);
        }
        for ipv6 in [false, true] {
            let has = |nets: &[IpNet]| nets.iter().any(|net| net.addr().is_ipv6() == ipv6);
            if !has(&leased) {
                leased.extend(self.any_address(now_ms, &owner, (network, ipv6), change)?);
            }
        }
        leased.sort_by_key(|net| net.addr().is_ipv6());
        Ok(leased)
    }

    fn any_address(
        &mut self,
        now_ms: u64,
        owner: &str,
        (network, ipv6): (&Network, bool),
        change: &mut Change,
    ) -> Result<Option<IpNet>, Reject> {
        let mut refused = None;
        for pool in network
            .pools
            .iter()
            .filter(|pool| pool.subnet.addr().is_ipv6() == ipv6)
        {
            let request = LeaseRequest {
                subnet: pool.subnet,
                address: None,
                owner,
            };
            match self.state.lease(&request, now_ms, change) {
                Ok(ip) => return Ok(Some(in_subnet(ip, pool.subnet))),
                Err(reject) => refused = Some(reject),
            }
        }
        refused.map_or(Ok(None), |reject| {
            Err(lease_reject(&network.spec.name, &reject))
        })
    }
}

pub(super) fn derived_mac(network: &Network, addresses: &[IpNet]) -> [u8; 6] {
    // Made from the address, so that neighbours who remember an address find its next owner.
    let address = addresses
        .first()
        .map_or_else(Vec::new, |net| match net.addr() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        });
    names::mac(&[b"endpoint-mac", &network.id.0.to_be_bytes(), &address]).0
}

pub(super) fn checked_mac(name: &Name, mac: [u8; 6]) -> Result<[u8; 6], Reject> {
    match Mac(mac).unicast() {
        Ok(mac) => Ok(mac.0),
        Err(error) => Err(Reject::new(Code::InvalidAddress, name, error.to_string())
            .hint("give a unicast address such as 02:00:00:00:00:01")),
    }
}

pub(super) fn lease_reject(object: &impl std::fmt::Display, reject: &LeaseReject) -> Reject {
    let code = match reject {
        LeaseReject::Taken {
            holder: Holder::Network | Holder::Broadcast,
            ..
        } => Code::InvalidAddress,
        LeaseReject::Taken { .. } => Code::AddressInUse,
        LeaseReject::Exhausted { .. } => Code::PoolExhausted,
        LeaseReject::TooMany { .. } => Code::LimitReached,
        _ => Code::InvalidAddress,
    };
    Reject::advised(code, object, &reject.to_string())
}
