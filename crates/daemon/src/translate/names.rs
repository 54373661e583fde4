//! How names are resolved: from the API's words to records, and back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tombolo_api::types::{self, NetworkDnsConfig};
use tombolo_api::{ApiError, ErrorCode};
use tombolo_core::driver::resolver::has_names;
use tombolo_core::id::SandboxId;
use tombolo_core::model::{
    DnsSettings, Driver, Endpoint, Forward, Network, NetworkDns, NetworkSpec, ResolverAt, Sandbox,
    SandboxState,
};
use tombolo_core::{Code, Controller, Reference, Reject};
use tombolo_dns::proto::op::{Message, ResponseCode};
use tombolo_dns::proto::rr::{Name, RecordType};
use tombolo_dns::resolv_conf::Overrides;

use super::{address, shown};
use crate::engine::with_sources;
use crate::resolver::{Answered, Call, Source};

/// Lists as a user writes them, each word of which can stand in a resolv.conf.
pub(crate) fn dns_settings(
    servers: &[String],
    searches: Vec<String>,
    options: Vec<String>,
) -> Result<DnsSettings, Reject> {
    let addresses: Result<Vec<_>, Reject> = servers
        .iter()
        .map(|text| address(text, "the DNS server"))
        .collect();
    let addresses = addresses?;
    Overrides::parse(servers, &searches, &options).map_err(|reject| {
        Reject::advised(Code::InvalidCombination, "dns", &with_sources(&reject))
    })?;
    Ok(DnsSettings {
        servers: addresses,
        searches,
        options,
    })
}

/// What a network says of names.
pub(crate) fn network_dns(config: NetworkDnsConfig) -> Result<NetworkDns, Reject> {
    let lists = dns_settings(&config.servers, config.searches, config.options)?;
    Ok(NetworkDns {
        servers: lists.servers,
        searches: lists.searches,
        options: lists.options,
        resolver: resolver_at(config.resolver.as_deref())?,
        forward: forward(config.forward.as_deref())?,
        mdns: config.mdns,
    })
}

fn resolver_at(text: Option<&str>) -> Result<ResolverAt, Reject> {
    match text {
        None | Some("sandbox") => Ok(ResolverAt::Sandbox),
        Some("gateway") => Ok(ResolverAt::Gateway),
        Some("off") => Ok(ResolverAt::Off),
        Some(other) => Err(Reject::new(
            Code::UnknownOption,
            shown(other),
            "a resolver has no such place",
        )
        .hint("the places are sandbox, gateway and off")),
    }
}

fn forward(text: Option<&str>) -> Result<Forward, Reject> {
    match text {
        None | Some("auto") => Ok(Forward::Auto),
        Some("always") => Ok(Forward::Always),
        Some("never") => Ok(Forward::Never),
        Some(other) => Err(Reject::new(
            Code::UnknownOption,
            shown(other),
            "no rule for forwarding has this name",
        )
        .hint("the rules are auto, always and never")),
    }
}

/// What a question is to the resolver. An address stands for its reverse name.
pub(crate) fn call(controller: &Controller, question: &types::DnsQuestion) -> Result<Call, Reject> {
    let asker = asker(controller, question)?;
    let unknown = |text: &str| {
        let message = "no type of record has this name";
        Reject::new(Code::UnknownOption, shown(text), message)
            .hint("write it as A, AAAA, PTR or SRV")
    };
    let text = question.kind.as_deref();
    let kind = text.map(|text| {
        let capitals = text.to_ascii_uppercase();
        capitals.parse().map_err(|_| unknown(text))
    });
    let kind: Option<RecordType> = kind.transpose()?;
    if let (Ok(address), None | Some(RecordType::PTR)) = (question.name.parse::<IpAddr>(), kind) {
        return Ok(Call {
            asker,
            name: address.into(),
            kind: RecordType::PTR,
        });
    }
    let mut name = Name::from_ascii(&question.name).map_err(|error| {
        let message = format!("this is no name: {error}");
        Reject::new(Code::UnknownOption, shown(&question.name), message)
            .hint("write labels of up to 63 characters joined by dots")
    })?;
    name.set_fqdn(true);
    let kind = kind.unwrap_or(RecordType::A);
    Ok(Call { asker, name, kind })
}

/// The running sandbox that is to ask, if one is named.
fn asker(
    controller: &Controller,
    question: &types::DnsQuestion,
) -> Result<Option<SandboxId>, Reject> {
    let Some(reference) = &question.sandbox else {
        return Ok(None);
    };
    let sandbox = controller.find_sandbox(&Reference(reference.clone()))?;
    if sandbox.state != SandboxState::Running {
        let message = "the sandbox does not run, and so cannot ask";
        return Err(Reject::new(Code::NotRunning, &sandbox.name, message).hint("start it first"));
    }
    Ok(Some(sandbox.id))
}

/// What the resolver said, as the API shows it.
pub(crate) fn answer_view(call: &Call, answered: &Answered) -> Result<types::DnsAnswer, ApiError> {
    let message = answered.answer.as_ref().map(|a| Message::from_vec(a));
    let message = message.transpose().map_err(|error| {
        let message = format!("the answer cannot be read: {error}");
        ApiError::new(ErrorCode::Internal, message)
    })?;
    let code = message.as_ref().map_or(ResponseCode::Refused, |message| {
        message.metadata.response_code
    });
    let records = message.iter().flat_map(|message| &message.answers);
    let records = records.map(|record| types::DnsRecord {
        name: record.name.to_string(),
        kind: record.record_type().to_string(),
        ttl_seconds: record.ttl,
        data: record.data.to_string(),
    });
    let (source, server) = match answered.source {
        _ if code == ResponseCode::Refused => (types::DnsSource::Refused, None),
        Source::Own => (types::DnsSource::Own, None),
        Source::Server(server) => (types::DnsSource::Forwarded, Some(server.to_string())),
        Source::Memory => (types::DnsSource::Cache, None),
    };
    Ok(types::DnsAnswer {
        name: call.name.to_string(),
        kind: call.kind.to_string(),
        code: code_name(code),
        source,
        records: records.collect(),
        took_us: u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX),
        server,
    })
}

/// A code as the registry of DNS parameters calls it (IANA).
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

/// What a network says of names, as the API shows it.
pub(crate) fn network_view(spec: &NetworkSpec) -> types::NetworkDns {
    let dns = &spec.dns;
    let bridge = matches!(spec.driver, Driver::Bridge | Driver::Remote);
    let resolver = match dns.resolver {
        ResolverAt::Sandbox => "sandbox",
        ResolverAt::Gateway => "gateway",
        ResolverAt::Off => "off",
    };
    let forward = match dns.forward {
        Forward::Auto => "auto",
        Forward::Always => "always",
        Forward::Never => "never",
    };
    types::NetworkDns {
        servers: dns.servers.iter().map(ToString::to_string).collect(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
        resolver: bridge.then(|| resolver.to_owned()),
        forward: bridge.then(|| forward.to_owned()),
        mdns: dns.mdns,
    }
}

/// The names of running sandboxes on the network that is asked for, or on all, by network and name.
pub(crate) fn known_names(
    controller: &Controller,
    wanted: Option<&Network>,
) -> Vec<types::DnsName> {
    let running = controller
        .sandboxes()
        .filter(|sandbox| sandbox.state == SandboxState::Running);
    let mut names: Vec<types::DnsName> = running
        .flat_map(|sandbox| {
            let joined = controller.endpoints_of_sandbox(sandbox.id).into_iter();
            joined.map(move |(network, endpoint)| (sandbox, network, endpoint))
        })
        .filter(|(_, network, endpoint)| {
            endpoint.attachment.is_some()
                && has_names(network)
                && wanted.is_none_or(|wanted| wanted.id == network.id)
        })
        .map(|(sandbox, network, endpoint)| name_view(sandbox, network, endpoint))
        .collect();
    names.sort_by(|a, b| (&a.network, &a.name).cmp(&(&b.network, &b.name)));
    names
}

fn name_view(sandbox: &Sandbox, network: &Network, endpoint: &Endpoint) -> types::DnsName {
    let id = sandbox.id.to_string();
    let name = sandbox.name.to_string();
    let further = [sandbox.hostname(), sandbox.short_id()];
    let further = endpoint.spec.aliases.iter().cloned().chain(further);
    let mut seen = BTreeSet::from([name.to_ascii_lowercase()]);
    let aliases = further.filter(|alias| seen.insert(alias.to_ascii_lowercase()));
    let addresses = endpoint.addresses.iter();
    types::DnsName {
        network: network.spec.name.to_string(),
        aliases: aliases.collect(),
        addresses: addresses.map(|net| net.addr().to_string()).collect(),
        sandbox: types::Named {
            id,
            name: name.clone(),
        },
        name,
    }
}

#[cfg(test)]
mod tests;
