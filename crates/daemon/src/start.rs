//! What happens before the daemon serves: records are read, the kernel is brought in line with them, and the
//! daemon's own networks are made.

use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, bail};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tombolo_api::types::{NetworkCreate, SubnetConfig};
use tombolo_core::driver::detour;
use tombolo_core::ipam::{DefaultPools, ula_base};
use tombolo_core::model::Network;
use tombolo_core::{Command, Controller, record};
use tombolo_dns::view::Settings;
use tombolo_kernel::Kernel;
use tombolo_netstate::Netns;
use tombolo_netstate::object::port::Protocol;
use tombolo_store::{Durability, Key, Prefix, Store};

use crate::config::{Config, DefaultNetwork};
use crate::engine::{Engine, Input, commit_in_parts, random, store_write, with_sources};
use crate::facts;
use crate::outside;
use crate::relay::{Relay, Sockets};
use crate::resolution::Resolution;
use crate::resolver::{Resolver, shared_upstreams};
use crate::translate::network_spec;

/// Record of this node's identity.
const NODE_ID: &str = "node/id";
/// Record of the boot in which the daemon last ran.
const NODE_BOOT: &str = "node/boot";

/// Which node this is, and whether it was started anew since the daemon last ran.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: [u8; 16],
    boot: Vec<u8>,
    rebooted: bool,
}

impl Node {
    /// A word that tells this daemon's links from another's.
    pub(crate) fn instance(&self) -> String {
        self.id[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Reads or makes the node's identity.
pub(crate) fn node(store: &dyn Store) -> anyhow::Result<Node> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim().as_bytes().to_vec();
    let found = store.get(&Key::new(NODE_ID)?)?;
    let before = store.get(&Key::new(NODE_BOOT)?)?;
    let known: Option<[u8; 16]> = found
        .as_ref()
        .and_then(|found| (*found.value).try_into().ok());
    let id = match known {
        Some(id) => id,
        None if found.is_some() => bail!("record {NODE_ID} of the store has not 16 bytes"),
        None => random()?.to_be_bytes(),
    };
    let rebooted = before.as_ref().is_some_and(|before| *before.value != *boot);
    if known.is_none() {
        commit(store, [store_write(NODE_ID, Some(id.to_vec()))])
            .context("the node's identity cannot be stored")?;
    }
    Ok(Node { id, boot, rebooted })
}

fn commit(
    store: &dyn Store,
    writes: impl IntoIterator<Item = Result<tombolo_store::Write, String>>,
) -> anyhow::Result<()> {
    let writes = writes
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(anyhow::Error::msg)?;
    commit_in_parts(store, writes, Durability::Power).map_err(anyhow::Error::msg)
}

/// Reads all records into a controller.
pub(crate) fn controller(
    config: &Config,
    node: &Node,
    (store, kernel): (&dyn Store, &Kernel),
    relay_port: Option<u16>,
) -> anyhow::Result<Controller> {
    let known = facts::Known {
        node: node.id,
        relay_port,
        settings_changed: 0,
    };
    let facts = facts::read(kernel, known).map_err(anyhow::Error::msg)?;
    let pools = DefaultPools::new(config.default_address_pools.clone())?;
    let [.., a, b, c, d, e, f, g, h] = node.id;
    let seed = [a, b, c, d, e, f, g, h];
    let ula_known = pools
        .as_slice()
        .iter()
        .any(|pool| pool.base.addr().is_ipv6());
    let pools = if ula_known {
        pools
    } else {
        pools.with_ula(&seed)?
    };
    tracing::debug!(ula = %ula_base(&seed), "default pools");
    let mut controller = Controller::new(config.settings(), pools, facts);
    let (records, _) = store.list(&Prefix::all())?;
    let replaced = replaced_default(config, &records)?;
    let kept: Vec<_> = records
        .iter()
        .filter(|(key, _)| replaced.as_deref() != Some(key.as_str()))
        .map(|(key, found)| (key.as_str(), &*found.value))
        .collect();
    let restored = controller.restore(kept, node.rebooted)?;
    for note in &restored.notes {
        tracing::warn!(note, "restored");
    }
    let erased = replaced.map(|key| store_write(&key, None));
    let writes = restored
        .writes
        .into_iter()
        .map(|write| store_write(&write.key, write.value));
    commit(store, erased.into_iter().chain(writes))?;
    // Last: a start that fails before this must see the reboot again.
    commit(store, [store_write(NODE_BOOT, Some(node.boot.clone()))])?;
    Ok(controller)
}

/// Names by which the keeper knows the relay's sockets.
const RELAY_SOCKETS: [&str; 2] = ["relay-tcp", "relay-udp"];

/// The relay's sockets, those of the daemon before us where they are still held.
pub(crate) fn relay_sockets(kernel: &Kernel) -> anyhow::Result<Option<Sockets>> {
    let [tcp, udp] = RELAY_SOCKETS.map(|name| kernel.ports().kept(name));
    if let Some(kept) = tcp.zip(udp).and_then(|(tcp, udp)| Sockets::kept(tcp, udp)) {
        return Ok(Some(kept));
    }
    let sockets = Sockets::bind().context("the relay has no sockets")?;
    if let Some(sockets) = &sockets {
        let [tcp, udp] = RELAY_SOCKETS;
        for (name, socket) in [(tcp, sockets.tcp.as_fd()), (udp, sockets.udp.as_fd())] {
            if let Err(error) = kernel.ports().keep(name, socket) {
                tracing::warn!(%error, "relayed connections will not outlast the daemon");
            }
        }
    }
    Ok(sockets)
}

/// Starts the relay with what the records say.
pub(crate) fn relay(
    kernel: &Arc<Kernel>,
    sockets: Option<Sockets>,
    controller: &Controller,
) -> anyhow::Result<Relay> {
    let looker = Arc::clone(kernel);
    let lookup = move |client, local| looker.original_destination(Protocol::Udp, client, local);
    Ok(Relay::start(sockets, outside::routes(controller), lookup)?)
}

/// Starts the resolver, which knows no names yet and takes no questions.
pub(crate) fn resolver(
    kernel: &Arc<Kernel>,
    config: &Config,
) -> anyhow::Result<(Resolution, Resolver)> {
    let dns = &config.dns;
    let resolution = Resolution::new(dns);
    let defaults = Settings::default();
    let domain = dns.domain.as_ref().and_then(|domain| domain.parse().ok());
    let settings = Settings {
        ttl_seconds: dns.ttl_seconds,
        domain: domain.unwrap_or(defaults.domain),
        single_labels: dns.forward_single_labels,
    };
    let upstreams = shared_upstreams(&resolution.shared());
    let maker = Arc::clone(kernel);
    let make_socket = move |netns: &Netns, kind, ipv6| {
        // An engine may lead what is sent to its own resolver: only what we ask it bears this mark.
        let mark = matches!(netns, Netns::Adopted { .. }).then_some(detour::MARK);
        let socket = maker.socket_within(netns, kind, ipv6, mark);
        socket.map_err(std::io::Error::other)
    };
    let cache_bytes = usize::try_from(dns.cache_bytes)?;
    let resolver = Resolver::start(settings, upstreams, Box::new(make_socket), cache_bytes)?;
    Ok((resolution, resolver))
}

/// Lets the resolver take questions, now that it knows all names: also those that waited since the daemon before
/// us.
pub(crate) fn answer_names(engine: &Engine, config: &Config) {
    let resolver = engine.outside.resolver();
    engine.kernel.on_listeners(Box::new(resolver.subscriber()));
    for address in &config.dns.listen {
        if let Err(error) = resolver.listen(address.0) {
            tracing::error!(
                error = with_sources(&error),
                "the host cannot ask for names"
            );
        }
    }
}

/// Brings the kernel in line with the records and makes the daemon's own networks.
pub(crate) async fn settle(
    engine: &mut Engine,
    arriving: &mut mpsc::Receiver<Input>,
    config: &Config,
) -> anyhow::Result<()> {
    engine.own_command(Command::Repair);
    idle(engine, arriving).await?;
    let mut own = vec![predefined("none", "null"), predefined("host", "host")];
    if config.bridge.enabled {
        own.push(default_network(&config.bridge));
    }
    for create in own {
        let spec = network_spec(create).map_err(|reject| anyhow::Error::msg(reject.to_string()))?;
        if !engine
            .controller
            .networks()
            .any(|network| network.spec.name == spec.name)
        {
            engine.own_command(Command::CreateNetwork {
                spec: Box::new(spec),
                predefined: true,
            });
            idle(engine, arriving).await?;
        }
    }
    engine.refresh_files();
    Ok(())
}

async fn idle(engine: &mut Engine, arriving: &mut mpsc::Receiver<Input>) -> anyhow::Result<()> {
    while !engine.controller.is_idle() {
        match arriving.recv().await {
            Some(Input::Event(event)) => engine.arrived(*event),
            // The facts were read a moment ago.
            Some(Input::HostChanged) => {}
            None => bail!("the threads that work for the daemon ended"),
        }
    }
    Ok(())
}

/// The record of the default network, if the configuration now asks for another one and nobody uses it.
fn replaced_default(
    config: &Config,
    records: &[(Key, tombolo_store::Versioned)],
) -> anyhow::Result<Option<String>> {
    let wanted = network_spec(default_network(&config.bridge))
        .map_err(|reject| anyhow::Error::msg(reject.to_string()))?;
    for (key, found) in records
        .iter()
        .filter(|(key, _)| key.as_str().starts_with(record::NETWORK))
    {
        let network: Network = record::get(key.as_str(), &found.value)?;
        if !network.predefined || network.spec.name != wanted.name {
            continue;
        }
        let mut spec = wanted;
        spec.multicast = network.spec.multicast;
        if config.bridge.enabled && network.spec == spec {
            return Ok(None);
        }
        let mut endpoints = records
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(record::ENDPOINT));
        let used = endpoints.any(|(key, found)| {
            record::get::<tombolo_core::model::Endpoint>(key.as_str(), &found.value)
                .is_ok_and(|endpoint| endpoint.network == network.id)
        });
        if used {
            tracing::warn!(
                "the default network has endpoints: its new configuration waits for them"
            );
            return Ok(None);
        }
        return Ok(Some(key.as_str().to_owned()));
    }
    Ok(None)
}

fn predefined(name: &str, driver: &str) -> NetworkCreate {
    NetworkCreate {
        driver: driver.to_owned(),
        ..NetworkCreate::new(name)
    }
}

/// The default network as the configuration asks for it.
fn default_network(config: &DefaultNetwork) -> NetworkCreate {
    let families = [
        (
            config.bip,
            config.fixed_cidr,
            config.default_gateway,
            "DefaultGatewayIPv4",
        ),
        (
            config.bip6,
            config.fixed_cidr_v6,
            config.default_gateway_v6,
            "DefaultGatewayIPv6",
        ),
    ];
    let subnets = families
        .into_iter()
        .filter_map(|(bip, range, router, name)| {
            let subnet = bip.or(range).as_ref().map(IpNet::trunc)?;
            Some(SubnetConfig {
                subnet: Some(subnet.to_string()),
                ip_range: range.iter().map(ToString::to_string).collect(),
                gateway: bip.map(|net| net.addr().to_string()),
                aux_addresses: router
                    .iter()
                    .map(|ip| (name.to_owned(), ip.to_string()))
                    .collect(),
            })
        });
    NetworkCreate {
        device: Some(config.device.clone()),
        subnets: subnets.collect(),
        ipv6: Some(config.ipv6 || config.bip6.is_some() || config.fixed_cidr_v6.is_some()),
        icc: Some(config.icc),
        masquerade: Some(config.ip_masq),
        ..NetworkCreate::new("bridge")
    }
}
