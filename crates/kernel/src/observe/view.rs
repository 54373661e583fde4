//! What was dumped of one namespace.

use std::collections::BTreeMap;
use std::io;

use tombolo_netstate::Netns;

use super::ObserveError;
use crate::netlink::address::AddressRecord;
use crate::netlink::fdb::FdbRecord;
use crate::netlink::link::LinkRecord;
use crate::netlink::neighbour::NeighbourRecord;
use crate::netlink::route::{RouteRecord, Whose};
use crate::netlink::{ReadBuffer, Socket, address, fdb, link, neighbour, route, tc};

/// The raw records of a namespace.
#[derive(Debug)]
pub(super) struct View {
    pub(super) netns: Netns,
    pub(super) links: BTreeMap<u32, LinkRecord>,
    pub(super) addresses: Vec<AddressRecord>,
    pub(super) neighbours: Vec<NeighbourRecord>,
    pub(super) fdb: Vec<FdbRecord>,
    /// Ports that lead past bridging, each with the number of the device that they lead to.
    pub(super) direct: BTreeMap<u32, u32>,
    pub(super) routes: Vec<RouteRecord>,
}

impl View {
    /// Dumps everything that may be ours in the namespace of `socket`.
    pub(super) fn read(
        netns: &Netns,
        socket: &Socket,
        buffer: &mut ReadBuffer,
    ) -> Result<Self, ObserveError> {
        let failed = |what: &'static str| {
            move |source: io::Error| ObserveError::Dump {
                what,
                place: netns.clone(),
                source,
            }
        };
        let links = link::dump(socket, buffer).map_err(failed("links"))?;
        let fdb = if *netns == Netns::Host {
            fdb::dump(socket, buffer).map_err(failed("bridges' forwarding entries"))?
        } else {
            Vec::new()
        };
        let direct = if *netns == Netns::Host {
            tc::dump(socket, buffer).map_err(failed("filters of ports"))?
        } else {
            BTreeMap::new()
        };
        Ok(Self {
            netns: netns.clone(),
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            addresses: address::dump(socket, buffer).map_err(failed("addresses"))?,
            neighbours: neighbour::dump(socket, buffer).map_err(failed("neighbours"))?,
            fdb,
            direct,
            routes: route::dump(socket, Whose::Ours, buffer).map_err(failed("routes"))?,
        })
    }
}
