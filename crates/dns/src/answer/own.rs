//! Answers to queries for own names.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::place::{Lookup, Place, What};
use super::query::Query;
use super::service::Wanted;
use super::writer::{At, Section, Writer, flag};
use crate::limits;
use crate::names::Held;

/// `SOA` data after the two names: serial, refresh, retry and expire as RFC 6303 gives them.
const SOA_NUMBERS: [u32; 4] = [1, 3600, 1200, 604_800];
/// Who is responsible for own names: nobody that could be written to (RFC 6303, section 3).
const SOA_CONTACT: &str = "nobody.invalid";
/// The largest time to live (RFC 2181, section 8).
const TTL_SECONDS_MAX: u32 = i32::MAX as u32;

/// Answers queries for own names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) lookup: Lookup<'a>,
    pub(super) query: &'a Query<'a>,
    pub(super) turn: u32,
}

impl Own<'_> {
    /// The answer for the name's place.
    pub(super) fn answer(self, place: &Place<'_>) -> Vec<u8> {
        let code = match place.what {
            What::Missing => ResponseCode::NXDomain,
            _ => ResponseCode::NoError,
        };
        let Query { asked, wire, .. } = self.query;
        let mut writer = Writer::new(asked, wire, code).with(flag::AUTHORITATIVE);
        if !self.write(&mut writer, place) {
            self.soa(&mut writer, Section::Authority, place.apex);
        }
        writer.finish()
    }

    /// Writes what was asked for; says whether there is any.
    fn write(&self, writer: &mut Writer, place: &Place<'_>) -> bool {
        match (&place.what, self.query.record_type) {
            (What::Missing, _) => false,
            (_, RecordType::ANY) => minimal_any(writer, self.ttl()),
            (What::Holders(holders), _) => self.addresses(writer, &self.rotated(holders)),
            (What::Fixed(addresses), _) => self.addresses(writer, addresses),
            (What::Service(Some(wanted), holders), RecordType::SRV) => {
                self.services(writer, *wanted, holders)
            }
            (What::Address(holders), RecordType::PTR) => self.pointers(writer, holders),
            (What::Loopback, RecordType::PTR) => self.record(writer, RecordType::PTR, |data| {
                write_name(data, ["localhost"]);
            }),
            (What::Empty, RecordType::SOA) if place.apex == 0 => {
                self.soa(writer, Section::Answer, 0);
                true
            }
            _ => false,
        }
    }

    fn ttl(&self) -> u32 {
        self.lookup.settings.ttl_seconds.min(TTL_SECONDS_MAX)
    }

    /// Adds an answer of the name that was asked for; says whether there was room.
    fn record(
        &self,
        writer: &mut Writer,
        record_type: RecordType,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let record = writer.record(
            Section::Answer,
            At::question(0),
            record_type,
            self.ttl(),
            data,
        );
        record.is_some()
    }

    /// Those of the addresses that are of the type that was asked for; says whether there are any.
    fn addresses(&self, writer: &mut Writer, addresses: &[IpAddr]) -> bool {
        let record_type = self.query.record_type;
        let wanted = |address: &&IpAddr| type_of(**address) == record_type;
        let mut wanted = addresses.iter().filter(wanted).peekable();
        let found = wanted.peek().is_some();
        for &address in wanted.take(limits::ANSWER_RECORDS_MAX) {
            let written = self.record(writer, record_type, |data| write_address(data, address));
            if !written {
                break;
            }
        }
        found
    }

    /// Addresses of the type that was asked for, each once, beginning with another at each turn.
    ///
    /// The turn goes around the holders first, so that each of them comes first equally often,
    /// however many addresses it has.
    fn rotated(&self, holders: &[Arc<Held>]) -> Vec<IpAddr> {
        let record_type = self.query.record_type;
        let mut addresses = Vec::with_capacity(holders.len().min(limits::ANSWER_RECORDS_MAX));
        let turn = self.turn as usize;
        let inner_turn = turn / holders.len().max(1);
        let all = from(holders, turn).flat_map(|held| from(&held.addresses, inner_turn));
        for &address in all.filter(|address| type_of(**address) == record_type) {
            if addresses.len() == limits::ANSWER_RECORDS_MAX {
                break;
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Names of an address; there is at least one.
    fn pointers(&self, writer: &mut Writer, holders: &[Arc<Held>]) -> bool {
        for held in distinct(from(holders, self.turn as usize)) {
            let name = self.full_name(held);
            if !self.record(writer, RecordType::PTR, |data| write_name(data, name)) {
                break;
            }
        }
        true
    }

    /// Where a service is, with the addresses that go with it; says whether it is anywhere.
    fn services(&self, writer: &mut Writer, wanted: Wanted, holders: &[Arc<Held>]) -> bool {
        let serves = |held: &&Arc<Held>| {
            let mut services = held.services.iter();
            services.any(|service| service.serves(wanted.protocol, wanted.port))
        };
        let mut targets = Vec::new();
        let mut found = false;
        for held in distinct(from(holders, self.turn as usize).filter(serves)) {
            found = true;
            let name = self.full_name(held);
            let data = writer.record(
                Section::Answer,
                At::question(0),
                RecordType::SRV,
                self.ttl(),
                |data| {
                    // Priority, weight and port; the target is not compressed (RFC 2782).
                    data.extend([0, 0, 0, 0]);
                    data.extend(wanted.port.to_be_bytes());
                    write_name(data, name);
                },
            );
            let Some(data) = data else { return true };
            targets.extend(At::offset(data + 6).map(|target| (target, held)));
        }
        for (target, held) in targets {
            for &address in &held.addresses {
                let write = |data: &mut Vec<u8>| write_address(data, address);
                let kind = type_of(address);
                if (writer.record(Section::Additional, target, kind, self.ttl(), write)).is_none() {
                    return found;
                }
            }
        }
        found
    }

    /// The canonical name and, if the two are not too long, the network's.
    fn full_name<'h>(&'h self, held: &'h Held) -> [&'h str; 2] {
        let table = self.lookup.names.table(held.zone);
        let zone = table.map_or("", |table| table.name());
        let long = held.canonical().len() + 1 + zone.len() > limits::NAME_BYTES_MAX;
        [held.canonical(), if long { "" } else { zone }]
    }

    /// Says who speaks for the name and for how long its absence may be remembered (RFC 2308).
    fn soa(&self, writer: &mut Writer, section: Section, apex: usize) {
        let owner = At::question(apex);
        writer.record(section, owner, RecordType::SOA, self.ttl(), |data| {
            owner.write(data);
            write_name(data, [SOA_CONTACT]);
            for number in SOA_NUMBERS.into_iter().chain([self.ttl()]) {
                data.extend(number.to_be_bytes());
            }
        });
    }
}

/// Says that there is something, without saying all (RFC 8482, section 4.2).
pub(super) fn minimal_any(writer: &mut Writer, ttl_seconds: u32) -> bool {
    let owner = At::question(0);
    let text = b"\x07RFC8482\x00";
    let write = |data: &mut Vec<u8>| data.extend(text);
    let record = writer.record(
        Section::Answer,
        owner,
        RecordType::HINFO,
        ttl_seconds,
        write,
    );
    record.is_some()
}

/// All items, beginning with another at each turn.
fn from<T>(items: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, first) = items.split_at(turn.checked_rem(items.len()).unwrap_or(0));
    first.iter().chain(before)
}

/// At most as many holders as an answer has records, each canonical name once.
fn distinct<'h>(
    holders: impl Iterator<Item = &'h Arc<Held>>,
) -> impl Iterator<Item = &'h Arc<Held>> {
    let mut seen: Vec<&Arc<Held>> = Vec::new();
    let is_new = move |held: &&'h Arc<Held>| {
        let same =
            |other: &&Arc<Held>| other.zone == held.zone && other.canonical() == held.canonical();
        let new = !seen.iter().any(same);
        if new {
            seen.push(held);
        }
        new
    };
    holders.filter(is_new).take(limits::ANSWER_RECORDS_MAX)
}

const fn type_of(address: IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

fn write_address(data: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => data.extend(v4.octets()),
        IpAddr::V6(v6) => data.extend(v6.octets()),
    }
}

/// Writes a name without compression, given in parts that need no escapes.
fn write_name<const N: usize>(data: &mut Vec<u8>, parts: [&str; N]) {
    for label in parts.iter().flat_map(|part| part.split('.')) {
        if !label.is_empty() {
            data.push(label.len() as u8);
            data.extend(label.as_bytes());
        }
    }
    data.push(0);
}
