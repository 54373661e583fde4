//! Where subnets come from when the user names none.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::address::{self, Family};
use super::limits;

/// A block that is cut into subnets of one size. Written `base=172.20.0.0/14,size=24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultPool {
    /// The block.
    pub base: IpNet,
    /// Prefix length of each subnet.
    pub size: u8,
}

/// The blocks to choose from, in order of preference; each is known to be well formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<DefaultPool>", into = "Vec<DefaultPool>")]
pub struct DefaultPools(Vec<DefaultPool>);

/// Why a default pool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefaultsReject {
    /// The text is not `base=<subnet>,size=<prefix length>`.
    #[error("default pool {text:?} is not understood: write base=172.20.0.0/14,size=24")]
    Syntax {
        /// As written, cut to 64 characters.
        text: String,
    },
    /// The base has host bits set.
    #[error("default pool {base} has host bits set: write {}", base.trunc())]
    HostBits {
        /// As written.
        base: IpNet,
    },
    /// The size is shorter than the base or longer than the family allows.
    #[error("default pool {base} cannot be cut into /{size}: choose {} to {}", base.prefix_len(), base.max_prefix_len())]
    Size {
        /// The block.
        base: IpNet,
        /// The size asked for.
        size: u8,
    },
    /// The base touches a block with a meaning of its own.
    #[error("default pool {base} touches {meaning} ({block}): choose a unicast block")]
    SpecialBlock {
        /// The block asked for.
        base: IpNet,
        /// The block it touches.
        block: IpNet,
        /// What that block is for.
        meaning: &'static str,
    },
    /// The list is too long.
    #[error(
        "{count} default pools are more than the limit of {}: list fewer, larger ones",
        limits::DEFAULT_POOLS_MAX
    )]
    TooMany {
        /// How many were listed.
        count: usize,
    },
}

impl DefaultPool {
    fn validate(&self) -> Result<(), DefaultsReject> {
        let Self { base, size } = *self;
        if base != base.trunc() {
            return Err(DefaultsReject::HostBits { base });
        }
        if size < base.prefix_len() || size > base.max_prefix_len() {
            return Err(DefaultsReject::Size { base, size });
        }
        match address::special(&base) {
            Some((block, meaning)) => Err(DefaultsReject::SpecialBlock {
                base,
                block,
                meaning,
            }),
            None => Ok(()),
        }
    }
}

impl FromStr for DefaultPool {
    type Err = DefaultsReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || DefaultsReject::Syntax {
            text: text.chars().take(64).collect(),
        };
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match part.trim().split_once('=').ok_or_else(syntax)? {
                ("base", value) if base.is_none() => base = value.parse::<IpNet>().ok(),
                ("size", value) if size.is_none() => size = value.parse::<u8>().ok(),
                _ => return Err(syntax()),
            }
        }
        let (base, size) = base.zip(size).ok_or_else(syntax)?;
        let pool = Self { base, size };
        pool.validate().map(|()| pool)
    }
}

impl fmt::Display for DefaultPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base={},size={}", self.base, self.size)
    }
}

impl DefaultPools {
    /// The list in this order of preference.
    ///
    /// # Errors
    /// The first entry that is malformed, or too many of them.
    pub fn new(pools: Vec<DefaultPool>) -> Result<Self, DefaultsReject> {
        if pools.len() > limits::DEFAULT_POOLS_MAX {
            return Err(DefaultsReject::TooMany { count: pools.len() });
        }
        pools.iter().try_for_each(DefaultPool::validate)?;
        Ok(Self(pools))
    }

    /// The same list, ending with a node's own /48 of unique local addresses cut into /64.
    ///
    /// # Errors
    /// [`DefaultsReject::TooMany`] if the list is full.
    pub fn with_ula(self, node_hash: &[u8; 8]) -> Result<Self, DefaultsReject> {
        let mut pools = self.0;
        pools.push(DefaultPool {
            base: IpNet::V6(ula_base(node_hash)),
            size: 64,
        });
        Self::new(pools)
    }

    /// The pools in order of preference.
    #[must_use]
    pub fn as_slice(&self) -> &[DefaultPool] {
        &self.0
    }
}

impl Default for DefaultPools {
    /// 7,744 IPv4 networks of 254 hosts.
    ///
    /// They lie beside 172.17.0.0/16 and 10.88.0.0/15 (where other engines put their first
    /// networks), 10.42.0.0/15, 10.244.0.0/16 and 10.96.0.0/12 (Kubernetes distributions), the
    /// low half of 192.168.0.0/16 (home routers) and 10.128.0.0/9 (clouds).
    fn default() -> Self {
        let pool = |a, b, prefix_len| DefaultPool {
            base: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix_len)),
            size: 24,
        };
        let home = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 192, 0), 18);
        Self(vec![
            pool(172, 18, 15),
            pool(172, 20, 14),
            pool(172, 24, 13),
            DefaultPool {
                base: IpNet::V4(home),
                size: 24,
            },
            pool(10, 64, 12),
        ])
    }
}

impl TryFrom<Vec<DefaultPool>> for DefaultPools {
    type Error = DefaultsReject;

    fn try_from(pools: Vec<DefaultPool>) -> Result<Self, Self::Error> {
        Self::new(pools)
    }
}

impl From<DefaultPools> for Vec<DefaultPool> {
    fn from(pools: DefaultPools) -> Self {
        pools.0
    }
}

/// A node's own /48 of unique local addresses.
///
/// The global id is the low 40 bits of a hash of what makes the node unique, as RFC 4193,
/// section 3.2.2 has it.
#[must_use]
pub fn ula_base(node_hash: &[u8; 8]) -> Ipv6Net {
    let global_id = u64::from_be_bytes(*node_hash) & 0xff_ffff_ffff;
    let number = (0xfd_u128 << 120) | (u128::from(global_id) << 80);
    Ipv6Net::new_assert(Ipv6Addr::from_bits(number), 48)
}

/// What a user says about a subnet: exactly this one, or any of a family and size.
///
/// `0.0.0.0/24` and `::/96` mean "any of that size", as Docker has it; `0.0.0.0/0` and `::/0`
/// mean "any of the usual size".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubnetWish {
    /// Exactly this subnet.
    Exact(IpNet),
    /// Any free subnet out of the default pools.
    Any {
        /// Of this family.
        family: Family,
        /// Of this prefix length; `None` for the size the default pool gives.
        size: Option<u8>,
    },
}

/// Why the text of a subnet is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "subnet {text:?} is not understood: write an address and prefix length as 172.20.0.0/24 or fd00::/64"
)]
pub struct WishReject {
    /// As written, cut to 64 characters.
    pub text: String,
}

impl FromStr for SubnetWish {
    type Err = WishReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text.parse().map_err(|_| WishReject {
            text: text.chars().take(64).collect(),
        })?;
        if !net.addr().is_unspecified() {
            return Ok(Self::Exact(net));
        }
        let size = Some(net.prefix_len()).filter(|&len| len > 0);
        Ok(Self::Any {
            family: Family::of_net(&net),
            size,
        })
    }
}

impl fmt::Display for SubnetWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exact(net) => net.fmt(f),
            Self::Any { family, size } => {
                let zero = if family == Family::V4 {
                    "0.0.0.0"
                } else {
                    "::"
                };
                write!(f, "{zero}/{}", size.unwrap_or(0))
            }
        }
    }
}
