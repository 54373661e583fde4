//! What follows once from a change: connections that lead elsewhere are forgotten, and neighbours told.

use std::net::IpAddr;

use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::plan::{Edge, Flows};
use tombolo_netstate::{Key, Mac};

use super::Run;

impl Run<'_> {
    /// Sends what follows the operations; of an address that is not there nothing is told.
    pub(super) fn follow(&mut self) {
        let stale: Vec<&Flows> = self
            .plan
            .edges
            .iter()
            .filter_map(|edge| match edge {
                Edge::Forget(flows) => Some(flows),
                Edge::Announce { .. } => None,
            })
            .collect();
        self.kernel.conntrack.forget(&stale);
        for edge in &self.plan.edges {
            let Edge::Announce {
                netns,
                link: name,
                ip,
                mac,
            } = edge
            else {
                continue;
            };
            let refused = self.absent.iter().any(|key| {
                matches!(key, Key::Address(at) if at.netns == *netns && at.link == *name && at.ip == *ip)
            });
            if refused {
                continue;
            }
            let key = LinkKey {
                netns: netns.clone(),
                name: *name,
            };
            if let Err(error) = self.announce_one(&key, *ip, *mac) {
                tracing::debug!(%edge, error, "cannot announce an address");
            }
        }
    }

    fn announce_one(&mut self, key: &LinkKey, ip: IpAddr, mac: Mac) -> Result<(), String> {
        let send = |index| crate::announce::announce(index, ip, mac).map_err(|e| e.to_string());
        let file = self
            .kernel
            .namespaces
            .file(&key.netns)
            .map_err(|e| e.to_string())?;
        let Some(file) = file else {
            let index = self.index_of(self.host, key).ok_or("no such link")?;
            return send(index);
        };
        let socket = self
            .kernel
            .namespaces
            .socket(&key.netns)
            .map_err(|e| e.to_string())?;
        let index = self.index_of(&socket, key).ok_or("no such link")?;
        let sent = self
            .kernel
            .namespaces
            .within(&key.netns, &file, || send(index));
        sent.map_err(|e| e.to_string())?
    }
}
