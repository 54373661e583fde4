//! Names under `local`, asked for by multicast (RFC 6762).
//!
//! A responder stands in each sandbox. To its own sandbox it speaks for everybody on the network, so that nothing
//! has to reach the others; to anybody else it speaks for its own sandbox alone, as any host does.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::answer::reverse;
use crate::limits;
use crate::names::{Held, Names, OwnerId, Table, ZoneId};

/// Where questions arrive, and where answers go (RFC 6762, section 3).
pub const PORT: u16 = 5353;
/// The bit of a class that asks for an answer to the asker alone (section 5.4), or says in an answer that there
/// are no other such records (section 10.2).
const TOP_BIT: u16 = 0x8000;
/// The domain of these names.
const DOMAIN: &str = "local";
const HEADER_BYTES: usize = 12;

/// A responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Responder {
    /// The network that it stands on.
    pub zone: ZoneId,
    /// Whose it is.
    pub owner: OwnerId,
}

/// Who has sent a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// A program of the responder's own sandbox.
    pub is_own: bool,
    /// Its port.
    pub port: u16,
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The message.
    pub bytes: Vec<u8>,
    /// Whether it is for the sender alone, not for everybody.
    pub unicast: bool,
}

/// One question of a query.
struct Asked {
    query: Query,
    unicast: bool,
}

impl Responder {
    /// The response to the bytes of a query, if there is anything to say; it holds for `ttl_seconds`.
    #[must_use]
    pub fn respond(
        &self,
        (names, ttl_seconds): (&Names, u32),
        query: &[u8],
        sender: Sender,
    ) -> Option<Response> {
        let (id, asked, known) = read(query)?;
        let table = names.table(self.zone)?;
        // A plain resolver that knows nothing of multicast (section 6.7).
        let legacy = sender.port != PORT;
        let mut records: Vec<Record> = Vec::new();
        for question in &asked {
            for data in self.data(table, &question.query, sender.is_own) {
                let record = Record::from_rdata(question.query.name.clone(), ttl_seconds, data);
                let is_known = known.iter().any(|known| suppresses(known, &record));
                if !is_known && !records.contains(&record) {
                    records.push(record);
                }
            }
        }
        records.truncate(limits::MDNS_RECORDS_MAX);
        if records.is_empty() {
            return None;
        }
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.metadata.authoritative = true;
        if legacy {
            message.metadata.id = id;
            message.add_queries(asked.iter().map(|question| question.query.clone()));
        } else {
            let unique = DNSClass::from(TOP_BIT | u16::from(DNSClass::IN));
            records.iter_mut().for_each(|one| one.dns_class = unique);
        }
        message.insert_answers(records);
        Some(Response {
            bytes: message.to_vec().ok()?,
            unicast: legacy || asked.iter().all(|question| question.unicast),
        })
    }

    fn data(&self, table: &Table, query: &Query, is_own: bool) -> Vec<RData> {
        let text = query.name.to_ascii().to_ascii_lowercase();
        let text = text.trim_end_matches('.');
        let speaks_for = |held: &&Arc<Held>| is_own || held.owner == self.owner;
        let wants = |kind| query.query_type == kind || query.query_type == RecordType::ANY;
        if let Some(reverse) = reverse::parse(text) {
            let holders = table.at(reverse.address).iter().filter(speaks_for);
            let names = holders.filter_map(|held| local_name(held.canonical()));
            return names
                .filter(|_| wants(RecordType::PTR))
                .map(|name| RData::PTR(PTR(name)))
                .collect();
        }
        let name = text
            .strip_suffix(DOMAIN)
            .and_then(|name| name.strip_suffix('.'));
        let holders = name.map_or(&[][..], |name| table.named(name));
        let addresses = holders
            .iter()
            .filter(speaks_for)
            .flat_map(|held| held.addresses.iter());
        let data = addresses.filter_map(|address| match address {
            IpAddr::V4(v4) => wants(RecordType::A).then_some(RData::A(A(*v4))),
            IpAddr::V6(v6) => wants(RecordType::AAAA).then_some(RData::AAAA(AAAA(*v6))),
        });
        data.collect()
    }
}

/// The id, questions and known answers of a query; `None` for anything else.
fn read(bytes: &[u8]) -> Option<(u16, Vec<Asked>, Vec<Record>)> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let is_query = header[2] & 0xf8 == 0;
    let (questions, answers) = (usize::from(number(4)), usize::from(number(6)));
    if !is_query || questions > limits::MDNS_QUESTIONS_MAX || answers > limits::MDNS_RECORDS_MAX {
        return None;
    }
    let mut decoder = BinDecoder::new(bytes);
    decoder.read_slice(HEADER_BYTES).ok()?;
    let mut asked = Vec::with_capacity(questions);
    for _ in 0..questions {
        let name = Name::read(&mut decoder).ok()?;
        let kind = RecordType::read(&mut decoder).ok()?;
        let class = u16::from(DNSClass::read(&mut decoder).ok()?);
        let is_internet = [DNSClass::IN, DNSClass::ANY].map(u16::from);
        if is_internet.contains(&(class & !TOP_BIT)) {
            asked.push(Asked {
                query: Query::query(name, kind),
                unicast: class & TOP_BIT != 0,
            });
        }
    }
    // What cannot be read is not known.
    let known = (0..answers).map_while(|_| Record::read(&mut decoder).ok());
    Some((number(0), asked, known.collect()))
}

/// Whether the sender knows a record, and for long enough (section 7.1).
fn suppresses(known: &Record, record: &Record) -> bool {
    known.name == record.name
        && known.data == record.data
        && u64::from(known.ttl) * 2 >= u64::from(record.ttl)
}

fn local_name(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.{DOMAIN}.")).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::{Registration, Zone};

    const ZONE: ZoneId = ZoneId(1);
    const TTL: u32 = 10;
    const OWN: Sender = Sender {
        is_own: true,
        port: PORT,
    };

    fn names() -> Names {
        let mut names = Names::default();
        let zone = |name: &str| Zone {
            name: name.parse().unwrap(),
            subnets: vec!["10.0.0.0/24".parse().unwrap()],
        };
        names.set_zone(ZONE, zone("one"));
        names.set_zone(ZoneId(2), zone("two"));
        for (owner, zone, name, addresses) in [
            (1, ZONE, "web", &["10.0.0.2", "fd00::2"][..]),
            (2, ZONE, "db", &["10.0.0.3"]),
            (3, ZoneId(2), "far", &["10.0.1.9"]),
        ] {
            let registration = Registration {
                zone,
                canonical: name.parse().unwrap(),
                names: vec!["both".parse().unwrap()],
                addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
                services: vec![],
            };
            names.set(OwnerId(owner), vec![registration]);
        }
        names
    }

    fn web() -> Responder {
        Responder {
            zone: ZONE,
            owner: OwnerId(1),
        }
    }

    fn query(questions: &[(&str, RecordType, bool)]) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        for (name, kind, unicast) in questions {
            let mut query = Query::query(Name::from_ascii(name).unwrap(), *kind);
            let top = if *unicast { TOP_BIT } else { 0 };
            query.set_query_class(DNSClass::from(top | 1));
            message.add_query(query);
        }
        message.to_vec().unwrap()
    }

    fn ask(name: &str, kind: RecordType, sender: Sender) -> Vec<String> {
        let response = web().respond((&names(), TTL), &query(&[(name, kind, false)]), sender);
        let Some(response) = response else {
            return Vec::new();
        };
        let message = Message::from_vec(&response.bytes).unwrap();
        assert_eq!(message.metadata.message_type, MessageType::Response);
        assert!(message.metadata.authoritative);
        let data = message.answers.iter().map(|record| record.data.to_string());
        data.collect()
    }

    #[test]
    fn its_own_sandbox_is_told_of_everybody_on_the_network() {
        assert_eq!(ask("db.local.", RecordType::A, OWN), ["10.0.0.3"]);
        assert_eq!(ask("WEB.Local.", RecordType::AAAA, OWN), ["fd00::2"]);
        assert_eq!(ask("both.local.", RecordType::A, OWN).len(), 2);
        assert_eq!(ask("web.local.", RecordType::ANY, OWN).len(), 2);
        let reverse = "3.0.0.10.in-addr.arpa.";
        assert_eq!(ask(reverse, RecordType::PTR, OWN), ["db.local."]);
        for name in ["far.local.", "db.one.", "db.", "local.", "x.db.local."] {
            assert!(ask(name, RecordType::A, OWN).is_empty(), "{name}");
        }
        assert!(ask("db.local.", RecordType::AAAA, OWN).is_empty());
    }

    #[test]
    fn others_are_told_of_its_own_sandbox_alone() {
        let other = Sender {
            is_own: false,
            port: PORT,
        };
        assert_eq!(ask("web.local.", RecordType::A, other), ["10.0.0.2"]);
        assert!(ask("db.local.", RecordType::A, other).is_empty());
        assert!(ask("3.0.0.10.in-addr.arpa.", RecordType::PTR, other).is_empty());
    }

    #[test]
    fn responses_go_where_the_sender_wants_them() {
        let names = names();
        let respond = |query: &[u8], port| {
            let is_own = true;
            web()
                .respond((&names, TTL), query, Sender { is_own, port })
                .unwrap()
        };
        let everybody = respond(&query(&[("web.local.", RecordType::A, false)]), PORT);
        assert!(!everybody.unicast);
        let message = Message::from_vec(&everybody.bytes).unwrap();
        assert_eq!((message.metadata.id, message.queries.len()), (0, 0));
        assert_eq!(u16::from(message.answers[0].dns_class), 0x8001);
        let alone = query(&[("web.local.", RecordType::A, true)]);
        assert!(respond(&alone, PORT).unicast);
        // A plain resolver gets a plain answer.
        let plain = respond(&query(&[("web.local.", RecordType::A, false)]), 40_000);
        assert!(plain.unicast);
        let message = Message::from_vec(&plain.bytes).unwrap();
        assert_eq!((message.metadata.id, message.queries.len()), (7, 1));
        assert_eq!(message.answers[0].dns_class, DNSClass::IN);
    }

    #[test]
    fn what_the_sender_knows_is_not_said_again() {
        let names = names();
        let known = |ttl| {
            let bytes = query(&[("web.local.", RecordType::A, false)]);
            let mut message = Message::from_vec(&bytes).unwrap();
            let name = Name::from_ascii("web.local.").unwrap();
            let data = RData::A(A("10.0.0.2".parse().unwrap()));
            message.add_answer(Record::from_rdata(name, ttl, data));
            web().respond((&names, TTL), &message.to_vec().unwrap(), OWN)
        };
        assert_eq!(known(5), None);
        assert!(known(4).is_some());
    }

    #[test]
    fn there_is_an_end_to_questions() {
        let one = ("web.local.", RecordType::A, false);
        let names = names();
        let most = query(&vec![one; limits::MDNS_QUESTIONS_MAX]);
        assert!(web().respond((&names, TTL), &most, OWN).is_some());
        let more = query(&vec![one; limits::MDNS_QUESTIONS_MAX + 1]);
        assert_eq!(web().respond((&names, TTL), &more, OWN), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200), port: u16) {
            let _ = web().respond((&names(), TTL), &bytes, Sender { is_own: true, port });
        }

        #[test]
        fn a_damaged_query_is_taken(at in 0..60_usize, byte: u8) {
            let mut bytes = query(&[("web.local.", RecordType::A, false), ("db.local.", RecordType::ANY, true)]);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Some(response) = web().respond((&names(), TTL), &bytes, OWN) {
                prop_assert!(Message::from_vec(&response.bytes).is_ok());
            }
        }
    }
}
