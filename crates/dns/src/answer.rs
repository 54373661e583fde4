//! What becomes of a query to the embedded resolver: an answer of its own, or a question for others.
//!
//! Rules, the first that fits:
//!
//! 1. Responses and scraps are not answered at all; what is no query with one question of class IN
//!    is answered with an error; a transfer of a zone is refused.
//! 2. `localhost`, `invalid` and `host.DOMAIN` are the same for everyone (RFC 6761).
//! 3. Link aliases, then names on the asker's networks in their order: `NAME` and `NAME.NETWORK`,
//!    each also below `DOMAIN`. A known name is never asked for elsewhere, whatever the type.
//! 4. Services (`_http._tcp.NAME`) and addresses (`in-addr.arpa`, `ip6.arpa`) of the same sandboxes.
//! 5. Names that nobody has, below `DOMAIN`, on the asker's networks or of one label, do not exist.
//! 6. Everything else is forwarded if the asker may and wants to, else refused.
//!
//! `ANY` is answered with one record (RFC 8482) and never forwarded.

mod own;
mod place;
mod query;
mod question;
pub(crate) mod reverse;
mod service;
#[cfg(test)]
mod tests;
mod writer;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RecordType};

use crate::names::Names;
use crate::view::{Settings, View};
use own::{Own, minimal_any};
use place::{Lookup, What};
use query::{Fault, Query};
use writer::{Writer, extended};

pub use query::ClientEdns;
pub use question::Question;

/// How a query came, and so how its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// UDP: the answer is cut to what the client takes.
    Datagram,
    /// TCP: the answer may be as long as a message can be.
    Stream,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Others have to be asked.
    Forward(Question),
    /// There is no answer.
    Ignore,
}

/// Decides about the bytes of a query. `turn` says which of several records comes first: count it
/// up from query to query.
///
/// No answer is longer than the client takes over its carrier.
#[must_use]
pub fn decide(
    names: &Names,
    view: &View,
    settings: &Settings,
    query: &[u8],
    carrier: Carrier,
    turn: u32,
) -> Decision {
    let query = match Query::read(query, carrier) {
        Ok(query) => query,
        Err(Fault::NoQuery) => return Decision::Ignore,
        Err(Fault::Told(asked, code)) => {
            return Decision::Answer(Writer::new(&asked, &[], code).finish());
        }
    };
    if query.asked.edns.is_some_and(|edns| edns.version > 0) {
        return error(&query, ResponseCode::BADVERS, None);
    }
    if query.class != DNSClass::IN || is_no_data(query.record_type) {
        return error(&query, ResponseCode::Refused, None);
    }
    let lookup = Lookup {
        names,
        view,
        settings,
    };
    let is_alone = || is_unqualified(&query) && !(settings.single_labels || view.single_labels);
    let place = lookup.place(query.name.as_str());
    match place.or_else(|| is_alone().then(|| What::Missing.at(0))) {
        Some(place) => {
            let query = &query;
            let own = Own {
                lookup,
                query,
                turn,
            };
            Decision::Answer(own.answer(&place))
        }
        None => foreign(&query, lookup),
    }
}

/// What becomes of a query for a name of the world outside.
fn foreign(query: &Query<'_>, lookup: Lookup<'_>) -> Decision {
    if !lookup.view.forwards {
        return error(query, ResponseCode::Refused, Some(extended::PROHIBITED));
    }
    if !query.asked.recursion_desired {
        let why = Some(extended::NOT_AUTHORITATIVE);
        return error(query, ResponseCode::Refused, why);
    }
    if query.record_type == RecordType::ANY {
        let mut writer = Writer::new(&query.asked, query.wire, ResponseCode::NoError);
        minimal_any(&mut writer, lookup.settings.ttl_seconds);
        return Decision::Answer(writer.finish());
    }
    match Question::new(query) {
        Some(question) => Decision::Forward(question),
        None => error(query, ResponseCode::FormErr, None),
    }
}

fn error(query: &Query<'_>, code: ResponseCode, why: Option<u16>) -> Decision {
    let writer = Writer::new(&query.asked, query.wire, code).because(why);
    Decision::Answer(writer.finish())
}

/// Types of queries that no record has: transfers of zones and parts of the protocol itself
/// (RFC 6895, section 3.1). `ANY` is the exception.
fn is_no_data(record_type: RecordType) -> bool {
    matches!(u16::from(record_type), 0 | 41 | 128..=254)
}

/// Whether a query is for a host under a name of one label. The world has no such hosts, and to ask
/// it would tell it names of ours that were mistyped or are gone. What is asked of top-level domains
/// themselves goes on.
fn is_unqualified(query: &Query<'_>) -> bool {
    let name = query.name.as_str();
    let is_of_domains = matches!(
        query.record_type,
        RecordType::NS | RecordType::SOA | RecordType::DS | RecordType::DNSKEY | RecordType::ANY
    );
    !is_of_domains && !name.is_empty() && !name.contains('.')
}
