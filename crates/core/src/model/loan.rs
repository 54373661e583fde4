//! What engines of others hold of ours: pools and addresses that they asked for, and networks of theirs that are
//! ours.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, stable_hash};

/// Identity of what is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoanKey {
    /// A pool, by its subnet.
    Pool(IpNet),
    /// An address.
    Address(IpAddr),
    /// A network, by its id in the engine.
    Network(NetworkId),
}

/// Something that an engine asked for and has not given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loan {
    /// A subnet to make networks of.
    Pool {
        /// Which.
        subnet: IpNet,
        /// Automatic choice is limited to these.
        ranges: Vec<IpNet>,
        /// Milliseconds since 1970.
        since_ms: u64,
    },
    /// An address out of a pool.
    Address {
        /// Which.
        address: IpAddr,
        /// Of which pool.
        subnet: IpNet,
        /// For a router, not for an endpoint.
        gateway: bool,
        /// Milliseconds since 1970.
        since_ms: u64,
    },
    /// A network that was ours before the engine had one in its place.
    Network {
        /// Its id in the engine, the first half of it.
        id: NetworkId,
        /// The whole of it.
        engine_id: String,
        /// Which.
        network: NetworkId,
    },
}

impl Loan {
    /// Its identity.
    pub fn key(&self) -> LoanKey {
        match self {
            Self::Pool { subnet, .. } => LoanKey::Pool(*subnet),
            Self::Address { address, .. } => LoanKey::Address(*address),
            Self::Network { id, .. } => LoanKey::Network(*id),
        }
    }
}

impl LoanKey {
    /// The same in the characters that keys of stores take.
    pub fn record_id(&self) -> String {
        let (kind, text) = match self {
            Self::Pool(subnet) => ("pool", subnet.to_string()),
            Self::Address(ip) => ("address", ip.to_string()),
            Self::Network(id) => return format!("network-{id}"),
        };
        format!("{kind}-{:016x}", stable_hash(&[text.as_bytes()]))
    }
}
