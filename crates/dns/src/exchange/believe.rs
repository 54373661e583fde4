//! What of an answer belongs to its question.

use std::collections::BTreeSet;

use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::limits;

/// Removes every record that does not answer the question of the message.
///
/// - Answers: those of the name asked for and of its aliases, and the DNAME records that make them.
/// - Authority: the SOA of a zone the names are in; its NS only if there is nothing else, as in a
///   referral; what proves signatures only if it was asked for.
/// - Additional: addresses of names that a record kept above names.
pub(super) fn keep_believable(message: &mut Message, dnssec_ok: bool) {
    let Some(query) = message.queries.first().cloned() else {
        return;
    };
    let class = query.query_class;
    let is_in_class = |record: &Record| class == DNSClass::ANY || record.dns_class == class;
    for section in [
        &mut message.answers,
        &mut message.authorities,
        &mut message.additionals,
    ] {
        section.retain(is_in_class);
    }
    let names = aliases(&message.answers, &query.name, query.query_type);
    let rewriters: BTreeSet<Name> = message
        .answers
        .iter()
        .filter(|record| record.record_type() == RecordType::DNAME)
        .filter(|record| names.iter().any(|name| record.name.zone_of(name)))
        .map(|record| record.name.clone())
        .collect();
    message.answers.retain(|record| {
        let is_rewriter = matches!(record.record_type(), RecordType::DNAME | RecordType::RRSIG);
        names.contains(&record.name) || (is_rewriter && rewriters.contains(&record.name))
    });
    keep_authorities(message, &names, dnssec_ok);
    keep_additionals(message, dnssec_ok);
}

/// The name asked for, and the names it is an alias of, in the order they are reached.
fn aliases(answers: &[Record], name: &Name, kind: RecordType) -> Vec<Name> {
    let mut names = vec![name.clone()];
    if kind.is_cname() || kind.is_any() {
        return names;
    }
    while names.len() <= limits::ANSWER_ALIASES_MAX {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if names.last() == Some(&record.name) => Some(&target.0),
            _ => None,
        });
        match next {
            Some(target) if !names.contains(target) => names.push(target.clone()),
            _ => break,
        }
    }
    names
}

fn keep_authorities(message: &mut Message, names: &[Name], dnssec_ok: bool) {
    let is_above = |record: &Record| names.iter().any(|name| record.name.zone_of(name));
    let is_soa = |record: &Record| record.record_type().is_soa() && is_above(record);
    let is_referral = message.answers.is_empty() && !message.authorities.iter().any(is_soa);
    message
        .authorities
        .retain(|record| match record.record_type() {
            RecordType::SOA => is_above(record),
            RecordType::NS => is_referral && is_above(record),
            RecordType::DS => dnssec_ok && is_above(record),
            // Who asks for these checks them.
            RecordType::NSEC | RecordType::NSEC3 | RecordType::RRSIG => dnssec_ok,
            _ => false,
        });
}

fn keep_additionals(message: &mut Message, dnssec_ok: bool) {
    let kept = message.answers.iter().chain(&message.authorities);
    let named: BTreeSet<&Name> = kept.filter_map(named).collect();
    message.additionals.retain(|record| {
        let is_wanted = match record.record_type() {
            RecordType::A | RecordType::AAAA => true,
            RecordType::RRSIG => dnssec_ok,
            _ => false,
        };
        is_wanted && named.contains(&record.name)
    });
}

/// The host that a record names, whose addresses its reader will want next.
fn named(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::MX(mx) => Some(&mx.exchange),
        RData::NS(ns) => Some(&ns.0),
        RData::SRV(srv) => Some(&srv.target),
        RData::HTTPS(https) if https.0.target_name.is_root() => Some(&record.name),
        RData::HTTPS(https) => Some(&https.0.target_name),
        RData::SVCB(svcb) if svcb.target_name.is_root() => Some(&record.name),
        RData::SVCB(svcb) => Some(&svcb.target_name),
        _ => None,
    }
}
