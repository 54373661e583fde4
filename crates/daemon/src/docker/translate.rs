//! From the engine's words to ours: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_api::types::{NetworkCreate, SubnetConfig};
use tombolo_core::driver::bridge::OTHER_ROUTER;
use tombolo_core::limits::{EXPOSED_PER_SANDBOX_MAX, RANGE_SOCKETS_MAX};
use tombolo_core::model::{EndpointSpec, Exposed, Publication};
use tombolo_core::{Code, Reject};
use tombolo_netstate::Mac;
use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

use crate::limits::PLUGIN_RUN_MAX;
use crate::plugin::wire::network::{EndpointInterface, IpamData};
use crate::plugin::wire::options::{NetworkOptions, PortBinding, TransportPort};

/// Digits of an engine's ids.
const ID_DIGITS: usize = 64;
/// The driver's option that names a network of ours.
pub(super) const NETWORK: &str = "network";
/// The driver's option that names one of our drivers.
const DRIVER: &str = "driver";
/// The driver's option for the name that the network has here, which engines do not tell.
const NAME: &str = "name";
/// What people write for an endpoint and the engine itself carries out, though it tells us of it.
const ENGINES_OPTIONS: [&str; 1] = ["com.docker.network.endpoint.sysctls"];

/// What an engine wants of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One that is there.
    Existing {
        /// Its name or id.
        name: String,
        /// The pools that the engine has for it.
        pools: Vec<IpNet>,
    },
    /// A new one.
    New(Box<NetworkCreate>),
}

/// The first half of an engine's id, which is as good as the whole.
pub(super) fn id(text: &str) -> Result<u128, Reject> {
    let is_id = text.len() == ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    let half = text.get(..ID_DIGITS / 2).filter(|_| is_id);
    half.and_then(|half| u128::from_str_radix(half, 16).ok())
        .ok_or_else(|| {
            let shown: String = text.chars().take(ID_DIGITS).collect();
            Reject::new(
                Code::InvalidName,
                shown,
                format!("an id of an engine has {ID_DIGITS} hexadecimal digits"),
            )
        })
}

/// What a network is to be. `is_ours` says of a pool whether it is of our addresses, and not of the engine's own.
pub(super) fn network(
    engine_id: &str,
    options: NetworkOptions,
    pools: &[IpamData],
    is_ours: impl Fn(&IpamData) -> bool,
) -> Result<Wanted, Reject> {
    let mut generic = options.generic;
    let nets: Vec<IpNet> = pools
        .iter()
        .filter_map(|data| subnet(&data.pool).transpose())
        .collect::<Result<_, _>>()?;
    if let Some(name) = generic.remove(NETWORK) {
        if let Some(other) = generic.keys().next() {
            let message = format!("the option does nothing for the network {name}, which is there");
            return Err(Reject::new(Code::UnknownOption, other, message)
                .hint("leave it out, or change the network itself"));
        }
        must_be_ours(&name, pools, &is_ours)?;
        return Ok(Wanted::Existing { name, pools: nets });
    }
    let name = generic.remove(NAME);
    let mut create = NetworkCreate::new(name.unwrap_or_else(|| usual_name(engine_id)));
    if let Some(driver) = generic.remove(DRIVER) {
        create.driver = driver;
    }
    if create.driver != "bridge" {
        let message = "engines can have no network of this driver";
        return Err(
            Reject::new(Code::UnknownOption, &create.driver, message).hint("the driver is bridge")
        );
    }
    create.ipv4 = Some(options.enable_ipv4.unwrap_or(true));
    create.ipv6 = Some(options.enable_ipv6.unwrap_or(false));
    create.internal = options.internal.unwrap_or(false);
    let lent = pools.iter().all(|data| is_empty(data) || is_ours(data));
    for data in pools {
        create.subnets.extend(subnet_config(data, &is_ours)?);
    }
    plain_unless_lent(&mut create, &generic, lent)?;
    create.options = generic;
    Ok(Wanted::New(Box::new(create)))
}

/// Refuses to let a network of ours stand for one of which the engine's own allocator gives out the addresses.
fn must_be_ours(
    name: &str,
    pools: &[IpamData],
    is_ours: &impl Fn(&IpamData) -> bool,
) -> Result<(), Reject> {
    let mut pools = pools.iter();
    match pools.find(|data| !is_empty(data) && !is_ours(data)) {
        None => Ok(()),
        Some(data) => {
            let pool: String = data.pool.chars().take(64).collect();
            let message = format!("the engine itself gives out the addresses of {pool}");
            let hint = format!(
                "let the engine ask for the network's subnets: `--ipam-driver tombolo --ipam-opt network={name}`"
            );
            Err(Reject::new(Code::InvalidCombination, name, message).hint(hint))
        }
    }
}

/// Whether an allocator that has none gave the pool.
fn is_empty(data: &IpamData) -> bool {
    matches!(subnet(&data.pool), Ok(None))
}

/// An engine that allocates addresses itself gives its endpoints a route to the whole subnet, so that they ask for
/// their neighbours: they need a plain link layer.
fn plain_unless_lent(
    create: &mut NetworkCreate,
    generic: &BTreeMap<String, String>,
    lent: bool,
) -> Result<(), Reject> {
    if lent {
        return Ok(());
    }
    if generic
        .get("multicast")
        .is_some_and(|value| value == "false")
    {
        let message = "with addresses of Docker's own the network must be a plain link layer";
        return Err(Reject::new(Code::InvalidCombination, &create.name, message)
            .hint("add `--ipam-driver tombolo`, or leave the option out"));
    }
    create.multicast = Some(true);
    Ok(())
}

/// What a network is called until its engine says more.
pub(super) fn usual_name(engine_id: &str) -> String {
    format!("docker-{}", engine_id.get(..12).unwrap_or(engine_id))
}

/// The subnet of a pool; none for the empty pool of an allocator that has none.
fn subnet(pool: &str) -> Result<Option<IpNet>, Reject> {
    if pool.is_empty() {
        return Ok(None);
    }
    let net: IpNet = parsed(pool, "the pool")?;
    Ok((net.prefix_len() > 0).then_some(net))
}

fn subnet_config(
    data: &IpamData,
    is_ours: &impl Fn(&IpamData) -> bool,
) -> Result<Option<SubnetConfig>, Reject> {
    let Some(net) = subnet(&data.pool)? else {
        return Ok(None);
    };
    let gateway = match data.gateway.as_str() {
        "" => None,
        text => Some(host_of(text, "the gateway")?.to_string()),
    };
    let is_ours = is_ours(data);
    let aux = data.aux_addresses.iter();
    // What we lent is kept out as such; only a router of the network's own means more.
    let aux = aux.filter(|(name, _)| !is_ours || OTHER_ROUTER.contains(&name.as_str()));
    let aux: Result<BTreeMap<String, String>, Reject> = aux
        .map(|(name, text)| {
            let ip = host_of(text, "the auxiliary address")?;
            Ok((name.clone(), ip.to_string()))
        })
        .collect();
    // The engine takes the lowest free address of its own pool: others begin in the middle.
    let range = match is_ours {
        true => Vec::new(),
        false => upper_half(net).iter().map(ToString::to_string).collect(),
    };
    Ok(Some(SubnetConfig {
        subnet: Some(net.to_string()),
        ip_range: range,
        gateway,
        aux_addresses: aux?,
    }))
}

fn upper_half(net: IpNet) -> Option<IpNet> {
    let halves = net.subnets(net.prefix_len().checked_add(1)?).ok()?;
    halves
        .last()
        .filter(|_| net.prefix_len() + 2 < net.max_prefix_len())
}

/// What an endpoint is to be.
pub(super) fn endpoint(interface: &EndpointInterface) -> Result<EndpointSpec, Reject> {
    let mut addresses = Vec::new();
    for (text, ipv6) in [(&interface.address, false), (&interface.address_ipv6, true)] {
        if text.is_empty() {
            continue;
        }
        let ip = host_of(text, "the endpoint's address")?;
        if ip.is_ipv6() != ipv6 {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            let message = format!("it is not an {family} address");
            return Err(Reject::new(Code::InvalidAddress, ip, message));
        }
        addresses.push(ip);
    }
    let mac = match interface.mac_address.as_str() {
        "" => None,
        text => Some(mac(text)?),
    };
    Ok(EndpointSpec {
        addresses,
        mac,
        engine: true,
        ..EndpointSpec::default()
    })
}

fn mac(text: &str) -> Result<[u8; 6], Reject> {
    let mac = text.parse::<Mac>().and_then(Mac::unicast);
    mac.map(|mac| mac.0)
        .map_err(|error| Reject::new(Code::InvalidAddress, text, error.to_string()))
}

/// Refuses what people wrote for an endpoint: we have no such options.
pub(super) fn refuse_options<'a>(
    options: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), Reject> {
    let mut strange = options.filter(|(key, _)| !ENGINES_OPTIONS.contains(key));
    match strange.next() {
        None => Ok(()),
        Some((key, _)) => Err(Reject::new(
            Code::UnknownOption,
            key.chars().take(64).collect::<String>(),
            "no endpoint has this option",
        )
        .hint("leave it out")),
    }
}

/// The ports that an engine wants published. Those that follow each other become one.
pub(super) fn publications(bindings: &[PortBinding]) -> Result<Vec<Publication>, Reject> {
    let mut single: Vec<Publication> = Vec::with_capacity(bindings.len());
    for binding in bindings {
        single.push(publication(binding)?);
    }
    single.sort_by_key(|p| (p.protocol, p.address, p.automatic, p.ports, p.container));
    single.dedup_by(|a, b| !a.automatic && a == b);
    let mut runs: Vec<Publication> = Vec::new();
    for next in single {
        match runs.last_mut() {
            Some(run) if follows(run, &next) => join(run, &next),
            _ => runs.push(next),
        }
    }
    Ok(runs.into_iter().flat_map(in_parts).collect())
}

fn publication(binding: &PortBinding) -> Result<Publication, Reject> {
    let address = match binding.host_ip.as_str() {
        "" => None,
        text => match parsed::<IpAddr>(text, "the host's address")? {
            IpAddr::V4(ip) if ip.is_unspecified() => Some(HostAddress::AnyV4),
            IpAddr::V6(ip) if ip.is_unspecified() => Some(HostAddress::AnyV6),
            ip => Some(HostAddress::One(ip)),
        },
    };
    let last = binding.host_port_end.max(binding.host_port);
    let named = match binding.host_port {
        0 => None,
        first => Some(range(first, last)?),
    };
    let fixed = named.filter(|ports| ports.is_one());
    Ok(Publication {
        protocol: protocol(binding.proto)?,
        address,
        ports: fixed,
        automatic: fixed.is_none(),
        within: named.filter(|ports| !ports.is_one()),
        container: range(binding.port, binding.port)?,
        from: Vec::new(),
        socket: None,
        obey_host_firewall: None,
        by_engine: true,
    })
}

fn follows(run: &Publication, next: &Publication) -> bool {
    let (Some(ports), Some(more)) = (run.ports, next.ports) else {
        return false;
    };
    let same = (run.protocol, run.address) == (next.protocol, next.address);
    let after = |a: PortRange, b: PortRange| a.last().checked_add(1) == Some(b.first());
    same && after(ports, more) && after(run.container, next.container)
}

fn join(run: &mut Publication, next: &Publication) {
    let longer = |a: PortRange, b: PortRange| PortRange::new(a.first(), b.last()).unwrap_or(a);
    run.ports = run.ports.zip(next.ports).map(|(a, b)| longer(a, b));
    run.container = longer(run.container, next.container);
}

/// A run of moderate length in parts that sockets can hold: such ports nobody else can take, and a firewall of the
/// host can be asked about them. A longer one stays whole.
fn in_parts(run: Publication) -> Vec<Publication> {
    let count = run.count();
    let (Some(ports), true) = (
        run.ports,
        count > RANGE_SOCKETS_MAX && count <= PLUGIN_RUN_MAX,
    ) else {
        return vec![run];
    };
    let part = |of: PortRange, from: u32| {
        let first = u32::from(of.first()) + from;
        let last = (first + RANGE_SOCKETS_MAX - 1).min(of.last().into());
        let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        PortRange::new(port(first), port(last)).unwrap_or(of)
    };
    let starts = (0..count).step_by(RANGE_SOCKETS_MAX as usize);
    starts
        .map(|from| Publication {
            ports: Some(part(ports, from)),
            container: part(run.container, from),
            ..run.clone()
        })
        .collect()
}

/// The ports that a sandbox says it serves.
pub(super) fn exposed(ports: &[TransportPort]) -> Result<Vec<Exposed>, Reject> {
    let read = |port: &TransportPort| {
        range(port.port, port.port)?;
        Ok((protocol(port.proto)?, port.port))
    };
    let ports: Vec<(Protocol, u16)> = ports.iter().map(read).collect::<Result<_, Reject>>()?;
    Ok(exposed_ranges(ports))
}

/// Single ports as the fewest ranges: an engine lists every port of a range. Of more ranges than a sandbox takes the
/// lowest stay, since no container is to fail for what its image says.
pub(super) fn exposed_ranges(mut ports: Vec<(Protocol, u16)>) -> Vec<Exposed> {
    ports.sort_unstable();
    ports.dedup();
    let follows = |a: &(Protocol, u16), b: &(Protocol, u16)| a.0 == b.0 && a.1 + 1 == b.1;
    let ranges = ports.chunk_by(follows).filter_map(|run| {
        let ((protocol, first), (_, last)) = (run.first()?, run.last()?);
        Some(Exposed {
            protocol: *protocol,
            ports: PortRange::new(*first, *last).ok()?,
        })
    });
    ranges.take(EXPOSED_PER_SANDBOX_MAX).collect()
}

fn range(first: u16, last: u16) -> Result<PortRange, Reject> {
    PortRange::new(first, last).map_err(|error| {
        Reject::new(
            Code::InvalidPort,
            format!("{first}-{last}"),
            error.to_string(),
        )
    })
}

/// A protocol by its number (IANA).
fn protocol(number: u8) -> Result<Protocol, Reject> {
    match number {
        6 => Ok(Protocol::Tcp),
        17 => Ok(Protocol::Udp),
        132 => Ok(Protocol::Sctp),
        _ => Err(Reject::new(
            Code::InvalidPort,
            number,
            "no port has the protocol of this number",
        )
        .hint("it is 6 (TCP), 17 (UDP) or 132 (SCTP)")),
    }
}

/// An address that may be written with a prefix length.
pub(super) fn host_of(text: &str, what: &str) -> Result<IpAddr, Reject> {
    match text.split_once('/') {
        Some(_) => parsed::<IpNet>(text, what).map(|net| net.addr()),
        None => parsed(text, what),
    }
}

pub(super) fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Reject> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        let message = format!("{what} cannot be read");
        Reject::new(Code::InvalidAddress, shown, message)
    })
}
