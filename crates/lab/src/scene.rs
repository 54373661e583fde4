//! Generated networks: a few slots for bridges and endpoints, so that two scenes share names and differ in
//! what lies behind them, as two moments of one host do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tombolo_netstate::object::nft::{BaseSpec, Ruleset};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{Clash, Desired, Key, Netns, Objects, Owner, Spec};

mod objects;

/// Most bridges of a scene.
pub const BRIDGES_MAX: u8 = 4;
/// Most endpoints of a scene.
pub const ENDPOINTS_MAX: u8 = 12;

/// What a host should hold at one moment.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Stands for the text of the constant rules.
    pub digest: u64,
    /// The networks by slot.
    pub bridges: BTreeMap<u8, Bridge>,
    /// The endpoints by slot; one whose network is missing is left out.
    pub endpoints: BTreeMap<u8, Endpoint>,
}

/// A network on a bridge, which may have leaf bridges behind uplink veths.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Leaf bridges.
    pub leaves: u8,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Multicast snooping, and whether names are answered at the gateway.
    pub snooping: bool,
    /// Whether the network has IPv6.
    pub ipv6: bool,
    /// Length of the IPv4 prefix.
    pub prefix_len: u8,
    /// Whether the network is closed to the outside.
    pub internal: bool,
    /// The last byte of the source address towards the outside; `None` masquerades.
    pub snat: Option<u8>,
}

/// An endpoint: a veth from a bridge into a sandbox. Two slots share a sandbox.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The slot of its network.
    pub bridge: u8,
    /// The leaf it hangs on, counted modulo the leaves and the bridge itself.
    pub leaf: u8,
    /// Whether the two endpoints of the sandbox have exchanged their interface names.
    pub swapped: bool,
    /// Changes the hardware address.
    pub mac: u8,
    /// Changes the addresses.
    pub host: u8,
    /// A frame may leave by the port it came from.
    pub hairpin: bool,
    /// Whether the default route names its source, and whether names are answered inside the sandbox.
    pub sourced: bool,
    /// Whether the address is announced.
    pub announced: bool,
    /// Another destination to be reached through the gateway.
    pub routed: Option<u8>,
}

impl Scene {
    /// Nothing at all.
    pub fn empty() -> Self {
        Self {
            digest: 0,
            bridges: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }

    /// Scenes of 0 to 4 networks and 0 to 12 endpoints.
    pub fn any() -> impl Strategy<Value = Self> {
        let bridges = prop::collection::btree_map(0..BRIDGES_MAX, bridge(), 0..=4);
        let endpoints = prop::collection::btree_map(0..ENDPOINTS_MAX, endpoint(), 0..=12);
        (1..3_u64, bridges, endpoints, any::<[bool; 6]>()).prop_map(
            |(digest, bridges, mut endpoints, swaps)| {
                for (slot, endpoint) in &mut endpoints {
                    endpoint.swapped = swaps[usize::from(slot / 2) % swaps.len()];
                }
                Self {
                    digest,
                    bridges,
                    endpoints,
                }
            },
        )
    }

    /// This scene with the networks and endpoints of `other` in the slots that are free; nothing of this
    /// scene changes.
    #[must_use]
    pub fn joined_by(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (slot, bridge) in &other.bridges {
            joined
                .bridges
                .entry(*slot)
                .or_insert_with(|| bridge.clone());
        }
        for (slot, endpoint) in &other.endpoints {
            if self.endpoints.contains_key(slot) {
                continue;
            }
            let mut endpoint = endpoint.clone();
            if let Some(partner) = self.endpoints.get(&(slot ^ 1)) {
                endpoint.swapped = partner.swapped;
            }
            joined.endpoints.insert(*slot, endpoint);
        }
        // An endpoint that was left out for want of its network stays out.
        let idle = |slot: &u8| {
            let mine = self.endpoints.get(slot);
            mine.is_some_and(|endpoint| !self.bridges.contains_key(&endpoint.bridge))
        };
        joined.endpoints.retain(|slot, _| !idle(slot));
        joined
    }

    /// What each owner wants; all owners share the constant rules and the settings.
    pub fn owned(&self) -> BTreeMap<Owner, Objects> {
        let mut all = BTreeMap::new();
        for (slot, bridge) in &self.bridges {
            let mut objects = bridge.objects(*slot);
            self.share(&mut objects);
            all.insert(Owner(format!("network/{slot}").into()), objects);
        }
        for (slot, endpoint) in &self.endpoints {
            let Some(bridge) = self.bridges.get(&endpoint.bridge) else {
                continue;
            };
            let objects = endpoint.objects(*slot, bridge);
            all.insert(Owner(format!("endpoint/{slot}").into()), objects);
        }
        all
    }

    /// The same as one record; a clash would be a mistake of the generator.
    pub fn desired(&self) -> Result<Desired, Clash> {
        let mut desired = Desired::default();
        for (owner, objects) in self.owned() {
            desired.set(&owner, objects)?;
        }
        Ok(desired)
    }

    fn share(&self, objects: &mut Objects) {
        let base = BaseSpec {
            digest: self.digest,
            ruleset: Arc::new(Ruleset::default()),
        };
        objects.insert(Key::NftBase, Spec::NftBase(base));
        for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let spec = SysctlSpec {
                value: "1".into(),
                restore: "0".into(),
            };
            objects.insert(
                Key::Sysctl(SysctlKey { path: path.into() }),
                Spec::Sysctl(spec),
            );
        }
    }
}

/// The namespace of a sandbox: every third one is somebody else's.
pub fn sandbox(number: u8) -> Netns {
    if number % 3 == 2 {
        let path = Path::new("/proc").join(format!("{number}/ns/net"));
        return Netns::Adopted {
            path: path.into(),
            inode: u64::from(number),
        };
    }
    Netns::Owned(format!("s{number}").into())
}

/// All namespaces of scenes that are somebody else's.
pub fn adopted() -> impl Iterator<Item = Netns> {
    (0..ENDPOINTS_MAX / 2)
        .map(sandbox)
        .filter(|netns| matches!(netns, Netns::Adopted { .. }))
}

fn bridge() -> impl Strategy<Value = Bridge> {
    let flags = any::<(bool, bool, bool)>();
    let mtu = prop_oneof![Just(1500), Just(1450), Just(9000)];
    let prefix_len = prop_oneof![Just(16), Just(24)];
    (0..3_u8, mtu, flags, prefix_len, prop::option::of(1..3_u8)).prop_map(
        |(leaves, mtu, (snooping, ipv6, internal), prefix_len, snat)| Bridge {
            leaves,
            mtu,
            snooping,
            ipv6,
            prefix_len,
            internal,
            snat,
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let flags = any::<(bool, bool, bool)>();
    (
        0..BRIDGES_MAX,
        0..3_u8,
        0..2_u8,
        0..2_u8,
        flags,
        prop::option::of(0..4_u8),
    )
        .prop_map(
            |(bridge, leaf, mac, host, (hairpin, sourced, announced), routed)| Endpoint {
                bridge,
                leaf,
                swapped: false,
                mac,
                host,
                hairpin,
                sourced,
                announced,
                routed,
            },
        )
}
