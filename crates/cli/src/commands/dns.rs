//! `tombolo dns`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use tombolo_api::error::EXIT_NOT_FOUND;
use tombolo_api::{DnsAnswer, DnsNameFilter, DnsQuestion, DnsSource, ErrorKind};

use super::{done, world};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Table, joined, printable, write_json};

/// What is asked about names.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// List the names of running sandboxes on their networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Ask the resolver for a name, as a sandbox would
    #[command(
        after_help = "It ends with 0 when there are such records, with 5 when there are none, with 3 when nobody was \
                      to be asked and with 4 when no answer could be had."
    )]
    Resolve(ResolveArgs),
}

/// Which names to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only those of this network
    #[arg(long)]
    network: Option<String>,
}

/// What to ask.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Type of record, such as AAAA, SRV or TXT [default: A, or PTR for an address]
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Process or sandbox that is to ask; the host itself when left out
    #[arg(long, value_name = "SANDBOX")]
    from: Option<String>,
    /// The name, or an address whose name is wanted
    name: String,
}

/// Carries out a command and returns its exit code.
pub(crate) fn execute(command: DnsCommand, context: &mut Context<'_>) -> Result<u8, CommandError> {
    match command {
        DnsCommand::Ls(args) => done(list(args, context)),
        DnsCommand::Resolve(args) => resolve(args, context),
    }
}

/// Prints a table of names.
fn list(args: ListArgs, context: &mut Context<'_>) -> Result<(), CommandError> {
    let filter = DnsNameFilter {
        network: args.network,
    };
    let names = context.client()?.dns_names(filter)?;
    if args.json {
        return Ok(write_json(context.out, &names)?);
    }
    let mut table = Table::new(&["NETWORK", "NAME", "SANDBOX", "ADDRESSES", "ALIASES"]);
    for name in &names {
        table.row([
            name.network.clone(),
            name.name.clone(),
            name.sandbox.name.clone(),
            joined(&name.addresses),
            joined(&name.aliases),
        ]);
    }
    Ok(table.write(context.out)?)
}

/// Prints the records of a name; where they come from, or why there are none, goes to standard error.
fn resolve(args: ResolveArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let sandbox = args.from.as_deref();
    let sandbox = sandbox
        .map(|name| world::ports_owner(name, context))
        .transpose()?;
    let question = question(args.name, args.kind, sandbox);
    let answer = context.client()?.dns_resolve(question)?;
    if args.json {
        write_json(context.out, &answer)?;
        return Ok(exit_code(&answer));
    }
    if !answer.records.is_empty() {
        let mut table = Table::new(&["NAME", "TYPE", "TTL", "DATA"]);
        for record in &answer.records {
            table.row([
                record.name.clone(),
                record.kind.clone(),
                record.ttl_seconds.to_string(),
                record.data.clone(),
            ]);
        }
        table.write(context.out)?;
    }
    writeln!(context.err, "tombolo: {}", printable(&remark(&answer)))?;
    Ok(exit_code(&answer))
}

/// The question that is meant; an address stands for the name under which its own name is kept.
fn question(name: String, kind: Option<String>, sandbox: Option<String>) -> DnsQuestion {
    let address: Option<IpAddr> = name.parse().ok();
    match (address, &kind) {
        (Some(address), None) => DnsQuestion {
            name: reverse(address),
            kind: Some("PTR".to_owned()),
            sandbox,
        },
        _ => DnsQuestion {
            name,
            kind,
            sandbox,
        },
    }
}

/// The name under which the name of an address is kept (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let bytes = ip.octets();
            let digits = bytes.iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: String = digits.map(|digit| format!("{digit:x}.")).collect();
            format!("{labels}ip6.arpa")
        }
    }
}

fn remark(answer: &DnsAnswer) -> String {
    let (name, kind) = (&answer.name, &answer.kind);
    let outcome = match answer.code.as_str() {
        "NOERROR" if answer.records.is_empty() => format!("{name} has no {kind} record"),
        "NOERROR" => "answered".to_owned(),
        "NXDOMAIN" => format!("there is no name {name}"),
        code => format!("{name} cannot be resolved: {code}"),
    };
    let source = match (answer.source, &answer.server) {
        (DnsSource::Own, _) => "from what is known here".to_owned(),
        (DnsSource::Forwarded, Some(server)) => format!("by {server}"),
        (DnsSource::Forwarded, None) => "by another server".to_owned(),
        (DnsSource::Cache, _) => "from memory".to_owned(),
        (DnsSource::Refused, _) => "nobody was to be asked".to_owned(),
        _ => "from elsewhere".to_owned(),
    };
    format!("{outcome} ({source}, {} us)", answer.took_us)
}

/// Whether there are such records, for scripts.
fn exit_code(answer: &DnsAnswer) -> u8 {
    match answer.code.as_str() {
        "NOERROR" if !answer.records.is_empty() => 0,
        "NOERROR" | "NXDOMAIN" => EXIT_NOT_FOUND,
        "REFUSED" => ErrorKind::Conflict.exit_code(),
        _ => ErrorKind::Unavailable.exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_its_reverse_name() {
        let names = [
            ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
            (
                "2001:db8::1",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ];
        for (address, expected) in names {
            let asked = question(address.to_owned(), None, None);
            assert_eq!(asked.name, expected);
            assert_eq!(asked.kind.as_deref(), Some("PTR"));
        }
        let asked = question("192.0.2.7".to_owned(), Some("A".to_owned()), None);
        assert_eq!(asked.name, "192.0.2.7");
        assert_eq!(question("web".to_owned(), None, None).kind, None);
    }
}
