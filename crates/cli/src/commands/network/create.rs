//! `tombolo network create`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use ipnet::IpNet;
use tombolo_api::{NetworkCreate, RouteConfig};

use super::names::NamesArgs;
use crate::args::flags::LabelFlags;
use crate::args::value::{self, KeyValue};
use crate::context::Context;
use crate::error::CommandError;
use crate::translate::subnets::{AddressFlags, pair_with_subnets};

/// How traffic from outside can get to endpoints, as in Docker.
const GATEWAY_MODES: [&str; 4] = ["nat", "routed", "nat-unprotected", "isolated"];

/// A network to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// Its name
    pub(crate) name: String,
    /// Its driver: bridge, null, host, or the name of a plugin
    #[arg(short, long, default_value = "bridge")]
    pub(crate) driver: String,
    #[command(flatten)]
    labels: LabelFlags,
    /// Option of the driver, such as com.docker.network.bridge.name=br0
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = value::key_value)]
    options: Vec<KeyValue>,
    /// Plugin that hands out its subnets and addresses, in place of the daemon
    #[arg(long, value_name = "NAME")]
    ipam_driver: Option<String>,
    /// Option of that plugin
    #[arg(long = "ipam-opt", value_name = "KEY=VALUE", value_parser = value::key_value, requires = "ipam_driver")]
    ipam_options: Vec<KeyValue>,
    #[command(flatten)]
    addresses: AddressArgs,
    #[command(flatten)]
    behaviour: BehaviourArgs,
    #[command(flatten)]
    names: NamesArgs,
}

/// Its addresses. Ranges, gateways and reserved addresses belong to the subnet that contains them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Addresses")]
struct AddressArgs {
    /// Subnet in CIDR form; may be repeated
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<IpNet>,
    /// Range in CIDR form that automatic addresses are taken from; may be repeated
    #[arg(long = "ip-range", value_name = "CIDR")]
    ranges: Vec<IpNet>,
    /// Gateway of a subnet; may be repeated
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// Address that another uses, and that is never given away; may be repeated
    #[arg(long = "aux-address", value_name = "NAME=ADDRESS", value_parser = aux_address)]
    aux_addresses: Vec<(String, IpAddr)>,
    /// Whether endpoints have IPv4 addresses
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Whether endpoints have IPv6 addresses
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
}

/// How it treats traffic.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Behaviour")]
struct BehaviourArgs {
    /// Cut it off from everything outside itself
    #[arg(long)]
    internal: bool,
    /// Largest packet in bytes; follows the uplink when left out
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Name of its interface on the host; an interface that exists is used, never owned
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Give an existing interface the gateway addresses for as long as the network exists.
    #[arg(long, requires = "device")]
    address_device: bool,
    /// Whether it is a plain layer 2 segment with flooding
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    multicast: Option<bool>,
    /// Whether endpoints reach each other
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    icc: Option<bool>,
    /// Whether traffic that leaves takes an address of the host
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masquerade: Option<bool>,
    /// IPv4 address that leaving traffic takes
    #[arg(long, value_name = "ADDRESS")]
    snat_ipv4: Option<Ipv4Addr>,
    /// IPv6 address that leaving traffic takes
    #[arg(long, value_name = "ADDRESS")]
    snat_ipv6: Option<Ipv6Addr>,
    /// How traffic from outside gets to endpoints, for both families
    #[arg(long, value_name = "MODE", value_parser = GATEWAY_MODES)]
    gateway_mode: Option<String>,
    /// The same for IPv4 alone
    #[arg(long, value_name = "MODE", value_parser = GATEWAY_MODES)]
    gateway_mode_ipv4: Option<String>,
    /// The same for IPv6 alone
    #[arg(long, value_name = "MODE", value_parser = GATEWAY_MODES)]
    gateway_mode_ipv6: Option<String>,
    /// Whether the host's own input policy decides who reaches its published ports
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    obey_host_firewall: Option<bool>,
    /// Address of the host for its published ports that name none
    #[arg(long, value_name = "ADDRESS")]
    host_binding: Option<IpAddr>,
    /// Route that each endpoint gets, by the gateway or by VIA; may be repeated
    #[arg(long = "route", value_name = "DEST[,VIA]", value_parser = route)]
    routes: Vec<RouteConfig>,
    /// What interface names inside sandboxes begin with
    #[arg(long, value_name = "PREFIX")]
    interface_prefix: Option<String>,
}

impl CreateArgs {
    /// The request that travels to the daemon.
    pub(crate) fn into_request(self) -> Result<NetworkCreate, CommandError> {
        let (addresses, behaviour) = (self.addresses, self.behaviour);
        Ok(NetworkCreate {
            driver: self.driver,
            subnets: pair_with_subnets(AddressFlags {
                subnets: addresses.subnets,
                ranges: addresses.ranges,
                gateways: addresses.gateways,
                aux_addresses: addresses.aux_addresses,
            })?,
            ipv4: addresses.ipv4,
            ipv6: addresses.ipv6,
            internal: behaviour.internal,
            mtu: behaviour.mtu,
            device: behaviour.device,
            address_device: behaviour.address_device,
            multicast: behaviour.multicast,
            icc: behaviour.icc,
            masquerade: behaviour.masquerade,
            snat_ipv4: behaviour.snat_ipv4.map(|address| address.to_string()),
            snat_ipv6: behaviour.snat_ipv6.map(|address| address.to_string()),
            gateway_mode_ipv4: behaviour
                .gateway_mode_ipv4
                .or_else(|| behaviour.gateway_mode.clone()),
            gateway_mode_ipv6: behaviour.gateway_mode_ipv6.or(behaviour.gateway_mode),
            obey_host_firewall: behaviour.obey_host_firewall,
            host_binding: behaviour.host_binding.map(|address| address.to_string()),
            dns: self.names.into_config(),
            routes: behaviour.routes,
            interface_prefix: behaviour.interface_prefix,
            labels: self.labels.into_map(),
            options: value::into_map(self.options),
            ipam_driver: self.ipam_driver,
            ipam_options: value::into_map(self.ipam_options),
            ..NetworkCreate::new(self.name)
        })
    }
}

/// Makes a network and prints its id.
pub(super) fn execute(args: CreateArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let network = context.client()?.network_create(args.into_request()?)?;
    Ok(writeln!(context.out, "{}", network.id)?)
}

fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let KeyValue { key, value } = value::key_with_value(text)?;
    match value.parse() {
        Ok(address) => Ok((key, address)),
        Err(_) => Err(format!("`{value}` is not an IP address")),
    }
}

fn route(text: &str) -> Result<RouteConfig, String> {
    let (destination, via) = match text.split_once(',') {
        Some((destination, via)) => (destination, Some(via)),
        None => (text, None),
    };
    if destination.parse::<IpNet>().is_err() {
        return Err(format!("`{destination}` is not a destination in CIDR form"));
    }
    if let Some(via) = via.filter(|via| via.parse::<IpAddr>().is_err()) {
        return Err(format!("`{via}` is not the address of a next hop"));
    }
    Ok(RouteConfig {
        destination: destination.to_owned(),
        via: via.map(ToOwned::to_owned),
    })
}
