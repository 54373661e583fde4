//! Networks of plugins, endpoints in them, and sandboxes to which such endpoints come: each request in parts, between
//! which the daemon asks the plugins. The answers are facts in the records.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{derived_mac, lease_reject};
use super::change::{Change, Undo};
use super::engine::recorded;
use super::job::Done;
use super::network::pool_reject;
use super::state::pool_spec;
use super::{Controller, Draft, Halt};
use crate::command::{PluginCommand, Reference};
use crate::driver::{gateway_endpoint, remote};
use crate::event::Reply;
use crate::id::{EndpointId, NetworkId, SandboxId, Seed};
use crate::ipam::LeaseRequest;
use crate::model::{
    Driver, Endpoint, EndpointPlugin, EndpointSpec, Network, NetworkSpec, NetworkState, Pool,
    SandboxSpec,
};
use crate::reject::{Code, Reject};
use crate::subject::Subject;

impl Controller {
    pub(super) fn plugin_command(
        &mut self,
        now_ms: u64,
        seed: u128,
        command: PluginCommand,
    ) -> Result<Draft, Halt> {
        match command {
            PluginCommand::ReserveNetwork(spec) => self.reserve_network(now_ms, seed, *spec),
            PluginCommand::NotePool(network, pool) => self.note_pool(network, *pool),
            PluginCommand::TellNetwork(network) => self.tell_network(network),
            PluginCommand::FinishNetwork(network) => self.finish_network(network),
            PluginCommand::RetireNetwork(reference) => self.retire_network(&reference),
            PluginCommand::DropNetwork(network) => self.drop_network(network),
            PluginCommand::ReserveEndpoint {
                network,
                sandbox,
                spec,
            } => self.reserve_endpoint(now_ms, seed, (&network, sandbox.as_ref()), *spec),
            PluginCommand::ReserveJoin { endpoint, sandbox } => {
                self.join(&endpoint, &sandbox).map(held)
            }
            PluginCommand::NoteAddress(endpoint, address) => {
                self.note_address(now_ms, endpoint, address)
            }
            PluginCommand::NoteGivenBack(endpoint, ip) => self.note_given_back(endpoint, ip),
            PluginCommand::NotePlugin(endpoint, plugin) => {
                self.note_plugin(now_ms, endpoint, plugin.map(|plugin| *plugin))
            }
            PluginCommand::Attach(endpoint) => self.attach_plugin(endpoint),
            PluginCommand::Detach(endpoint) => self.detach_plugin(endpoint),
            PluginCommand::FinishEndpoint(endpoint) => self.finish_endpoint(endpoint),
            PluginCommand::RetireEndpoint(endpoint) => self.retire_endpoint(endpoint),
            PluginCommand::DropEndpoint(endpoint) => {
                let endpoint = self.known_endpoint(endpoint)?;
                self.remove_endpoint(endpoint)
            }
            PluginCommand::HoldSandbox { spec, networks } => {
                self.hold_sandbox(now_ms, seed, *spec, networks)
            }
            PluginCommand::FinishSandbox(sandbox) => self.finish_sandbox(sandbox),
        }
    }

    fn reserve_network(
        &mut self,
        now_ms: u64,
        seed: u128,
        spec: NetworkSpec,
    ) -> Result<Draft, Halt> {
        let (mut network, mut change) = self.new_network(now_ms, seed, spec, false)?;
        network.state = NetworkState::Reserved;
        let id = network.id;
        self.state.set_network(id, Some(network), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Network(id), true),
        })
    }

    fn note_pool(&mut self, id: NetworkId, pool: Pool) -> Result<Draft, Halt> {
        let mut network = self.known_network(id)?;
        let mut change = Change::default();
        let at = network.pools.iter().position(|p| p.subnet == pool.subnet);
        if let Some(at) = at.filter(|at| pool_spec(&network.pools[*at]) == pool_spec(&pool)) {
            network.pools[at] = pool;
            self.state.set_network(id, Some(network), &mut change);
            return Ok(Draft {
                change,
                done: recorded(Reply::Network(id), false),
            });
        }
        let before = at.map(|at| network.pools.remove(at));
        if before.is_some() {
            // Fails only where no such pool is, which is what is wanted.
            drop(self.state.space.remove_pool(pool.subnet));
        }
        let host = self.surroundings(network.existing);
        let owner = network.spec.name.to_string();
        let added = self.state.space.add_pool(&owner, pool_spec(&pool), &host);
        if let Err(reject) = added {
            let back = before.map(|pool| self.state.space.adopt_pool(&owner, pool_spec(&pool)));
            debug_assert!(back.is_none_or(|back| back.is_ok()));
            return Err(pool_reject(&network.spec.name, &reject).into());
        }
        if before.is_none() {
            change.undo.push(Undo::Pool(pool.subnet));
        }
        network.pools.push(pool);
        self.state.set_network(id, Some(network), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Network(id), false),
        })
    }

    fn tell_network(&mut self, id: NetworkId) -> Result<Draft, Halt> {
        let mut network = self.known_network(id)?;
        let mut change = Change::default();
        network.plugin_told = true;
        self.state.set_network(id, Some(network), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Network(id), true),
        })
    }

    fn finish_network(&mut self, id: NetworkId) -> Result<Draft, Halt> {
        let mut network = self.known_network(id)?;
        crate::driver::validate(&network, self.context())?;
        let mut change = Change::default();
        network.state = NetworkState::Creating;
        self.state.set_network(id, Some(network), &mut change);
        Ok(Draft {
            change,
            done: Done::NetworkReady(id),
        })
    }

    fn retire_network(&mut self, reference: &Reference) -> Result<Draft, Halt> {
        let draft = self.delete_network(reference)?;
        match draft.done {
            Done::NetworkGone(id) => Ok(Draft {
                change: draft.change,
                done: recorded(Reply::Network(id), true),
            }),
            done => Ok(Draft { done, ..draft }),
        }
    }

    fn drop_network(&mut self, id: NetworkId) -> Result<Draft, Halt> {
        self.known_network(id)?;
        let mut change = Change::default();
        self.mark_deleting(id, &mut change);
        Ok(Draft {
            change,
            done: Done::NetworkGone(id),
        })
    }

    fn reserve_endpoint(
        &mut self,
        now_ms: u64,
        seed: u128,
        places: (&Reference, Option<&Reference>),
        spec: EndpointSpec,
    ) -> Result<Draft, Halt> {
        self.create_endpoint(now_ms, seed, places, spec).map(held)
    }

    fn note_address(&mut self, now_ms: u64, id: EndpointId, address: IpNet) -> Result<Draft, Halt> {
        let mut endpoint = self.known_endpoint(id)?;
        let network = self.known_network(endpoint.network)?;
        let mut change = Change::default();
        self.take_address(now_ms, (&network, id), address, &mut change)?;
        endpoint.addresses.push(address);
        self.store_addresses(endpoint, &network, &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Endpoint(id), false),
        })
    }

    /// The endpoint keeps the address here until it is gone from the kernel.
    fn note_given_back(&mut self, id: EndpointId, address: IpAddr) -> Result<Draft, Halt> {
        let mut endpoint = self.known_endpoint(id)?;
        let mut change = Change::default();
        if !endpoint.given_back.contains(&address) {
            endpoint.given_back.push(address);
        }
        self.state.set_endpoint(id, Some(endpoint), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Endpoint(id), false),
        })
    }

    /// Makes an address that a plugin chose the endpoint's; one that another endpoint has is refused.
    fn take_address(
        &mut self,
        now_ms: u64,
        (network, id): (&Network, EndpointId),
        address: IpNet,
        change: &mut Change,
    ) -> Result<(), Reject> {
        if let Some(pool) = network.pool_of(address.addr()) {
            let request = LeaseRequest {
                subnet: pool.subnet,
                address: Some(address.addr()),
                owner: &id.to_string(),
            };
            let leased = self.state.lease(&request, now_ms, change);
            return leased
                .map(drop)
                .map_err(|reject| lease_reject(&network.spec.name, &reject));
        }
        let mut others = self.state.endpoints_of_network(network.id);
        let has = |other: &&Endpoint| {
            let mut addresses = other.addresses.iter();
            other.id != id && addresses.any(|net| net.addr() == address.addr())
        };
        match others.find(has) {
            None => Ok(()),
            Some(other) => {
                let message = format!("endpoint {} has this address", other.name);
                Err(Reject::new(Code::AddressInUse, address.addr(), message)
                    .hint("see what the plugin has given it to"))
            }
        }
    }

    fn store_addresses(&mut self, mut endpoint: Endpoint, network: &Network, change: &mut Change) {
        endpoint.addresses.sort_by_key(|net| net.addr().is_ipv6());
        endpoint.mac = match endpoint.chosen_mac() {
            Some(mac) => mac,
            None => derived_mac(network, &endpoint.addresses),
        };
        self.state.set_endpoint(endpoint.id, Some(endpoint), change);
    }

    fn note_plugin(
        &mut self,
        now_ms: u64,
        id: EndpointId,
        plugin: Option<EndpointPlugin>,
    ) -> Result<Draft, Halt> {
        let mut endpoint = self.known_endpoint(id)?;
        let network = self.known_network(endpoint.network)?;
        if let Some(joined) = plugin.as_ref().and_then(|plugin| plugin.joined.as_ref()) {
            let name = network.spec.plugin.as_deref().unwrap_or_default();
            remote::check_joined(name, joined)?;
            self.must_be_no_uplink(name, &joined.source)?;
        }
        let given = |plugin: &Option<EndpointPlugin>| {
            let addresses = plugin.as_ref().map(|plugin| plugin.addresses.clone());
            addresses.unwrap_or_default()
        };
        let (before, after) = (given(&endpoint.plugin), given(&plugin));
        let mut change = Change::default();
        for address in after.iter().filter(|net| !before.contains(net)) {
            let taken = self.take_address(now_ms, (&network, id), *address, &mut change);
            if let Err(reject) = taken {
                self.forget(change);
                return Err(reject.into());
            }
            endpoint.addresses.push(*address);
        }
        for address in before.iter().filter(|net| !after.contains(net)) {
            endpoint.addresses.retain(|net| net != address);
            let ip = address.addr();
            // Fails only for an address that was not ours to give.
            drop(self.state.space.release(ip, &id.to_string(), now_ms));
        }
        endpoint.plugin = plugin;
        self.store_addresses(endpoint, &network, &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Endpoint(id), false),
        })
    }

    fn retire_endpoint(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        let mut endpoint = self.known_endpoint(id)?;
        let mut change = Change::default();
        endpoint.deleting = true;
        self.state.set_endpoint(id, Some(endpoint), &mut change);
        Ok(Draft {
            change,
            done: recorded(Reply::Endpoint(id), true),
        })
    }

    /// A plugin may name any link: not the one by which the host lives.
    fn must_be_no_uplink(&self, plugin: &str, link: &str) -> Result<(), Reject> {
        if self.facts.uplinks.iter().all(|uplink| uplink.name != link) {
            return Ok(());
        }
        let message = format!("the plugin names {link}, by which the host reaches the outside");
        Err(Reject::new(Code::PluginRefused, plugin, message)
            .hint("let it make a link of its own for each endpoint"))
    }

    fn attach_plugin(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        let endpoint = self.known_endpoint(id)?;
        let mut change = Change::default();
        let attached = match endpoint.sandbox {
            Some(sandbox) => {
                self.must_be_free(Subject::Sandbox(sandbox))?;
                self.attach(id, sandbox, &mut change)
            }
            None => Err(Reject::new(
                Code::NotJoined,
                &endpoint.name,
                "the endpoint is in no sandbox",
            )
            .into()),
        };
        match attached {
            Ok(()) => Ok(Draft {
                change,
                done: Done::EndpointHeld(id),
            }),
            Err(halt) => {
                self.forget(change);
                Err(halt)
            }
        }
    }

    fn detach_plugin(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        let mut endpoint = self.known_endpoint(id)?;
        let mut change = Change::default();
        let Some(sandbox) = endpoint.sandbox else {
            return Ok(super::engine::nothing(Reply::Endpoint(id)));
        };
        self.must_be_free(Subject::Sandbox(sandbox))?;
        endpoint.attachment = None;
        self.state.set_endpoint(id, Some(endpoint), &mut change);
        change.touch(Subject::Sandbox(sandbox));
        Ok(Draft {
            change,
            done: Done::EndpointLeft(id, sandbox),
        })
    }

    fn finish_endpoint(&mut self, id: EndpointId) -> Result<Draft, Halt> {
        let endpoint = self.known_endpoint(id)?;
        if let Some(sandbox) = endpoint.sandbox {
            self.check_publications(sandbox)?;
        }
        let mut change = Change::default();
        change.touch(Subject::Endpoint(id));
        Ok(Draft {
            change,
            done: Done::EndpointReady(id),
        })
    }

    fn hold_sandbox(
        &mut self,
        now_ms: u64,
        seed: u128,
        spec: SandboxSpec,
        networks: Vec<(Reference, EndpointSpec)>,
    ) -> Result<Draft, Halt> {
        let mut seed = Seed::new(seed);
        let id = SandboxId(seed.draw());
        let change = self.new_sandbox(now_ms, (id, seed), spec, networks)?;
        Ok(Draft {
            change,
            done: Done::SandboxHeld(id),
        })
    }

    fn finish_sandbox(&mut self, id: SandboxId) -> Result<Draft, Halt> {
        self.must_be_free(Subject::Sandbox(id))?;
        self.check_publications(id)?;
        self.check_links(id)?;
        let mut change = Change::default();
        change.touch(Subject::Sandbox(id));
        Ok(Draft {
            change,
            done: Done::SandboxRunning(id),
        })
    }

    /// The endpoints through which a sandbox reaches the outside, in either family.
    pub fn ways_out(&self, sandbox: SandboxId) -> Vec<EndpointId> {
        let joined = self.joined(sandbox);
        let chosen = [false, true]
            .into_iter()
            .filter_map(|ipv6| gateway_endpoint(&joined, ipv6));
        let mut ids: Vec<EndpointId> = chosen.map(|(_, endpoint, _)| endpoint.id).collect();
        ids.dedup();
        ids
    }

    /// Whether a subnet is free for a new network: no other has a part of it, and the host does not use it.
    pub fn is_free_subnet(&self, subnet: IpNet) -> bool {
        let overlap = |a: &IpNet| {
            a.addr().is_ipv6() == subnet.addr().is_ipv6()
                && (a.contains(&subnet) || subnet.contains(a))
        };
        let host = self.surroundings(false);
        let routes = host.routes.iter().filter(|net| net.prefix_len() > 1);
        let pools = self.state.networks().flat_map(|network| &network.pools);
        !routes.chain(pools.map(|pool| &pool.subnet)).any(overlap)
            && !host.resolvers.iter().any(|ip| subnet.contains(ip))
    }

    pub(super) fn known_network(&self, id: NetworkId) -> Result<Network, Halt> {
        self.must_be_free(Subject::Network(id))?;
        let network = self.state.network(id).cloned();
        network
            .ok_or_else(|| Reject::new(Code::UnknownNetwork, id, "no network has this id").into())
    }

    fn known_endpoint(&self, id: EndpointId) -> Result<Endpoint, Halt> {
        self.must_be_free(Subject::Endpoint(id))?;
        let endpoint = self.state.endpoint(id).cloned();
        endpoint
            .ok_or_else(|| Reject::new(Code::UnknownEndpoint, id, "no endpoint has this id").into())
    }
}

/// Whether an endpoint can have its interface: everything that a plugin is to say is known.
pub(super) fn is_prepared(network: &Network, endpoint: &Endpoint) -> bool {
    match network.spec.driver {
        Driver::Bridge => network.spec.ipam.is_none() || !endpoint.addresses.is_empty(),
        Driver::Remote => remote::joined(endpoint).is_some(),
        Driver::Null | Driver::Host => false,
    }
}

/// The draft of a part that is not the last one.
fn held(draft: Draft) -> Draft {
    match draft.done {
        Done::EndpointReady(id) => Draft {
            change: draft.change,
            done: Done::EndpointHeld(id),
        },
        done => Draft { done, ..draft },
    }
}
