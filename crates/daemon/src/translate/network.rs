//! Networks: from the API's and Docker's words to a spec.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use tombolo_api::types::{NetworkCreate, RouteConfig, SubnetConfig};
use tombolo_core::ipam::{Family, SubnetWish};
use tombolo_core::model::{
    Driver, GatewayMode, IpamSpec, NetworkSpec, StaticRoute, SubnetPick, SubnetSpec,
};
use tombolo_core::{Code, Reject};

use super::{address, name, names, publication, shown};

/// The spec of a network, with defaults filled in and options understood.
pub(crate) fn network_spec(mut create: NetworkCreate) -> Result<NetworkSpec, Reject> {
    let options = std::mem::take(&mut create.options);
    let plugin = is_plugin(&create.driver).then(|| create.driver.clone());
    if plugin.is_none() {
        for (key, value) in &options {
            apply_option(&mut create, key, value)?;
        }
    }
    let ipam = ipam(&mut create)?;
    let mut subnets = Vec::with_capacity(create.subnets.len());
    let (mut ipv4, mut ipv6) = (create.ipv4, create.ipv6);
    for config in create.subnets {
        let subnet = subnet_spec(config)?;
        // A subnet of a family is a wish for that family, unless it was switched off by name.
        let family = if subnet.is_ipv6() {
            &mut ipv6
        } else {
            &mut ipv4
        };
        *family = family.or(Some(true));
        subnets.push(subnet);
    }
    let snat = [(create.snat_ipv4, false), (create.snat_ipv6, true)];
    let snat: Result<Vec<IpAddr>, Reject> = snat
        .into_iter()
        .filter_map(|(text, v6)| Some((text?, v6)))
        .map(|(text, v6)| of_family(address(&text, "the source address")?, v6))
        .collect();
    let routes: Result<Vec<StaticRoute>, Reject> = create.routes.into_iter().map(route).collect();
    Ok(NetworkSpec {
        name: name(&create.name)?,
        driver: driver(&create.driver),
        subnets,
        ipv4: ipv4.unwrap_or(true),
        ipv6: ipv6.unwrap_or(false),
        internal: create.internal,
        mtu: create.mtu,
        device: create.device,
        address_device: create.address_device,
        multicast: create.multicast.unwrap_or(false),
        icc: create.icc.unwrap_or(true),
        masquerade: create.masquerade.unwrap_or(true),
        snat: snat?,
        gateway_mode4: gateway_mode(create.gateway_mode_ipv4.as_deref())?,
        gateway_mode6: gateway_mode(create.gateway_mode_ipv6.as_deref())?,
        obey_host_firewall: create.obey_host_firewall,
        host_binding: create
            .host_binding
            .as_deref()
            .map(publication::host_binding)
            .transpose()?,
        dns: names::network_dns(create.dns)?,
        routes: routes?,
        interface_prefix: create.interface_prefix.unwrap_or_else(|| "eth".to_owned()),
        labels: create.labels,
        engine: None,
        options,
        plugin,
        ipam,
    })
}

/// Docker's option names and our own mean the fields of the request; anything else is refused by name.
fn apply_option(create: &mut NetworkCreate, key: &str, value: &str) -> Result<(), Reject> {
    match key {
        "com.docker.network.bridge.name" | "device" => create.device = Some(value.to_owned()),
        "com.docker.network.bridge.enable_ip_masquerade" | "masquerade" => {
            create.masquerade = Some(flag(key, value)?);
        }
        "com.docker.network.bridge.enable_icc" | "icc" => create.icc = Some(flag(key, value)?),
        "com.docker.network.driver.mtu" | "mtu" => create.mtu = Some(parsed(key, value)?),
        "com.docker.network.container_iface_prefix" | "interface_prefix" => {
            create.interface_prefix = Some(value.to_owned());
        }
        "com.docker.network.host_ipv4" | "snat_ipv4" => create.snat_ipv4 = Some(value.to_owned()),
        "com.docker.network.host_ipv6" | "snat_ipv6" => create.snat_ipv6 = Some(value.to_owned()),
        "com.docker.network.enable_ipv4" | "ipv4" => create.ipv4 = Some(flag(key, value)?),
        "com.docker.network.enable_ipv6" | "ipv6" => create.ipv6 = Some(flag(key, value)?),
        "com.docker.network.internal" | "internal" => create.internal = flag(key, value)?,
        "com.docker.network.bridge.gateway_mode_ipv4" | "gateway_mode_ipv4" => {
            create.gateway_mode_ipv4 = Some(value.to_owned());
        }
        "com.docker.network.bridge.gateway_mode_ipv6" | "gateway_mode_ipv6" => {
            create.gateway_mode_ipv6 = Some(value.to_owned());
        }
        // In Docker this address stands for all of both families.
        "com.docker.network.bridge.host_binding_ipv4" if value == "0.0.0.0" => {}
        "com.docker.network.bridge.host_binding_ipv4" | "host_binding" => {
            create.host_binding = Some(value.to_owned());
        }
        "dns" => create.dns.servers = words(value),
        "dns_search" => create.dns.searches = words(value),
        "dns_option" => create.dns.options = words(value),
        "dns_forward" => create.dns.forward = Some(value.to_owned()),
        "resolver" => create.dns.resolver = Some(value.to_owned()),
        "mdns" => create.dns.mdns = flag(key, value)?,
        "obey_host_firewall" => create.obey_host_firewall = Some(flag(key, value)?),
        "multicast" => create.multicast = Some(flag(key, value)?),
        "address_device" => create.address_device = flag(key, value)?,
        _ => {
            return Err(Reject::new(
                Code::UnknownOption,
                shown(key),
                "no network has this option",
            )
            .hint("`tombolo network create --help` lists the options"));
        }
    }
    Ok(())
}

/// What stands between commas.
fn words(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(|word| word.trim().to_owned())
        .collect()
}

/// A truth value in any of the spellings that Docker takes.
fn flag(key: &str, value: &str) -> Result<bool, Reject> {
    match value {
        "1" | "True" | "TRUE" => Ok(true),
        "0" | "False" | "FALSE" => Ok(false),
        other => parsed(key, other),
    }
}

fn parsed<T: FromStr>(key: &str, value: &str) -> Result<T, Reject> {
    value.parse().map_err(|_| {
        let message = format!("the option does not take the value `{}`", shown(value));
        Reject::new(Code::UnknownOption, shown(key), message)
    })
}

/// A name that is none of ours is a plugin's, which is looked for when the network is made.
fn driver(text: &str) -> Driver {
    match text {
        "bridge" => Driver::Bridge,
        "null" | "none" => Driver::Null,
        "host" => Driver::Host,
        _ => Driver::Remote,
    }
}

/// Whether a driver's name means a plugin.
pub(crate) fn is_plugin(text: &str) -> bool {
    driver(text) == Driver::Remote
}

/// The plugin that hands out addresses, if one does.
fn ipam(create: &mut NetworkCreate) -> Result<Option<IpamSpec>, Reject> {
    let options = std::mem::take(&mut create.ipam_options);
    let refuse =
        |message: &str| Reject::new(Code::InvalidCombination, shown(&create.name), message);
    // Docker's word for its own addresses.
    let named = create.ipam_driver.take().filter(|name| name != "default");
    let Some(plugin) = named else {
        return match options.is_empty() {
            true => Ok(None),
            false => Err(
                refuse("options of an address plugin are given, and no plugin")
                    .hint("name the plugin with `--ipam-driver`"),
            ),
        };
    };
    if !matches!(driver(&create.driver), Driver::Bridge | Driver::Remote) {
        return Err(refuse("networks of this driver have no addresses")
            .hint("leave the address plugin out"));
    }
    let ipam = IpamSpec { plugin, options };
    if ipam.is_null() && (driver(&create.driver) == Driver::Bridge || !create.subnets.is_empty()) {
        return Err(refuse("only networks of plugins can be without addresses")
            .hint("leave `--ipam-driver null` out, or the subnets"));
    }
    Ok(Some(ipam))
}

fn gateway_mode(text: Option<&str>) -> Result<GatewayMode, Reject> {
    match text {
        None | Some("nat") => Ok(GatewayMode::Nat),
        Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
        Some("routed") => Ok(GatewayMode::Routed),
        Some("isolated") => Ok(GatewayMode::Isolated),
        Some(other) => Err(Reject::new(
            Code::UnknownOption,
            shown(other),
            "no gateway mode has this name",
        )
        .hint("the modes are nat, nat-unprotected, routed and isolated")),
    }
}

/// The word for a gateway mode.
pub(crate) fn mode_word(mode: GatewayMode) -> &'static str {
    match mode {
        GatewayMode::Nat => "nat",
        GatewayMode::NatUnprotected => "nat-unprotected",
        GatewayMode::Routed => "routed",
        GatewayMode::Isolated => "isolated",
    }
}

fn subnet_spec(config: SubnetConfig) -> Result<SubnetSpec, Reject> {
    let (subnet, pick) = match config.subnet.as_deref().map(str::parse) {
        None => (None, SubnetPick::default()),
        Some(Ok(SubnetWish::Exact(net))) => (Some(net), SubnetPick::default()),
        Some(Ok(SubnetWish::Any { family, size })) => (
            None,
            SubnetPick {
                ipv6: family == Family::V6,
                size,
            },
        ),
        Some(Err(reject)) => {
            let text = shown(config.subnet.as_deref().unwrap_or_default());
            return Err(Reject::new(Code::InvalidAddress, text, reject.to_string()));
        }
    };
    let ranges: Result<Vec<IpNet>, Reject> = config
        .ip_range
        .iter()
        .map(|text| net(text, "the range"))
        .collect();
    let reserved: Result<BTreeMap<String, IpAddr>, Reject> = config
        .aux_addresses
        .into_iter()
        .map(|(name, text)| Ok((name, address(&text, "the auxiliary address")?)))
        .collect();
    let gateway = config
        .gateway
        .map(|text| address(&text, "the gateway"))
        .transpose()?;
    Ok(SubnetSpec {
        subnet,
        pick,
        ranges: ranges?,
        gateway,
        reserved: reserved?,
    })
}

fn route(config: RouteConfig) -> Result<StaticRoute, Reject> {
    let destination = net(&config.destination, "the destination")?;
    if destination.trunc() != destination {
        let message = format!(
            "the destination has host bits set: write {}",
            destination.trunc()
        );
        return Err(Reject::new(Code::HostBitsSet, destination, message));
    }
    let via = config
        .via
        .map(|text| address(&text, "the router"))
        .transpose()?;
    if via.is_some_and(|via| via.is_ipv6() != destination.addr().is_ipv6()) {
        let message = "the router is of another family than the destination";
        return Err(Reject::new(Code::InvalidAddress, destination, message));
    }
    Ok(StaticRoute { destination, via })
}

fn net(text: &str, what: &str) -> Result<IpNet, Reject> {
    text.parse().map_err(|_| {
        let message = format!("{what} is not a subnet");
        Reject::new(Code::InvalidAddress, shown(text), message)
            .hint("write it as 172.20.0.0/24 or fd00::/64")
    })
}

fn of_family(ip: IpAddr, ipv6: bool) -> Result<IpAddr, Reject> {
    if ip.is_ipv6() == ipv6 {
        return Ok(ip);
    }
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    Err(Reject::new(
        Code::InvalidAddress,
        ip,
        format!("an {family} address is needed here"),
    ))
}
