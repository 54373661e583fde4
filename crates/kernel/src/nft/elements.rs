//! Elements of sets and maps: transactions that find their culprit, and reading back.

use tombolo_netstate::object::nft::ruleset::Set;
use tombolo_netstate::object::nft::{ElementKey, ElementSpec, Field, SetName, TABLE};

use super::field;
use super::{CREATE, FAMILY_INET, HEAD, NftSocket, Transaction, kind};
use crate::limits::TRANSACTION_ELEMENTS_MAX;
use crate::netlink::attribute::{Attributes, Writer, read_be32, read_text};
use crate::netlink::batch::Refusal;
use crate::sys::Errno;

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_SET_ELEM_KEY`.
const KEY: u16 = 1;
/// `NFTA_SET_ELEM_DATA`.
const DATA: u16 = 2;
/// `NFTA_SET_ELEM_FLAGS`.
const FLAGS: u16 = 3;
/// `NFTA_SET_ELEM_KEY_END`.
const KEY_END: u16 = 10;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;

/// A change of one element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElementChange<'a> {
    pub(crate) key: &'a ElementKey,
    pub(crate) spec: &'a ElementSpec,
    /// Removed rather than added.
    pub(crate) remove: bool,
}

/// Carries out the changes in one transaction, or several when there are very many. When the kernel refuses
/// some, the others are carried out without them.
pub(crate) fn change_elements(
    nft: &NftSocket,
    changes: &[ElementChange<'_>],
) -> Vec<Result<(), Refusal>> {
    changes
        .chunks(TRANSACTION_ELEMENTS_MAX)
        .flat_map(|chunk| change_chunk(nft, chunk))
        .collect()
}

/// A change that the kernel can be asked for, and its place among those that were wanted.
#[derive(Debug)]
struct Request {
    place: usize,
    remove: bool,
    attributes: Writer,
}

fn change_chunk(nft: &NftSocket, changes: &[ElementChange<'_>]) -> Vec<Result<(), Refusal>> {
    let mut results = vec![Ok(()); changes.len()];
    let mut requests = Vec::with_capacity(changes.len());
    for (place, change) in changes.iter().enumerate() {
        match encode(change) {
            Some(attributes) => requests.push(Request {
                place,
                remove: change.remove,
                attributes,
            }),
            None => results[place] = Err(unfit()),
        }
    }
    let Err(blame) = try_together(nft, &requests) else {
        return results;
    };
    let found_some = !blame.is_empty();
    for (place, refusal) in blame {
        results[place] = Err(refusal);
    }
    requests.retain(|request| results[request.place].is_ok());
    if found_some && try_together(nft, &requests).is_ok() {
        return results;
    }
    for request in requests {
        let place = request.place;
        if let Err(mut blame) = try_together(nft, &[request]) {
            results[place] = Err(blame.pop().map_or_else(unfit, |(_, refusal)| refusal));
        }
    }
    results
}

fn unfit() -> Refusal {
    Refusal {
        errno: Errno(libc::EINVAL),
        reason: Some("the fields are not those of the set".into()),
    }
}

/// The places that the kernel blames; a single one is to blame in any case.
fn try_together(nft: &NftSocket, requests: &[Request]) -> Result<(), Vec<(usize, Refusal)>> {
    if requests.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    for request in requests {
        let (kind, flags) = if request.remove {
            (kind::DELETE_ELEMENT, 0)
        } else {
            (kind::NEW_ELEMENT, CREATE)
        };
        transaction.push(kind, flags, &request.attributes);
    }
    let committed = transaction.commit(nft);
    let mut blame: Vec<(usize, Refusal)> = requests
        .iter()
        .zip(committed.requests)
        .filter_map(|(request, result)| Some((request.place, result.err()?)))
        .collect();
    match committed.whole {
        Some(refusal) if requests.len() == 1 && blame.is_empty() => {
            blame.push((requests[0].place, refusal));
        }
        None if blame.is_empty() => return Ok(()),
        _ => {}
    }
    Err(blame)
}

/// The request's attributes; none when the fields are not of the set's types.
fn encode(change: &ElementChange<'_>) -> Option<Writer> {
    let set = Set::of(change.key.set);
    let (first, last) = field::key(&set, &change.key.fields)?;
    let data = match set.data {
        [] => None,
        types => Some(field::value(types, &change.spec.data)?),
    };
    let (range_end, after) = match last {
        Some(last) if set.key.len() > 1 => (Some(last), None),
        Some(last) => (None, next(last)),
        None => (None, None),
    };
    let mut attributes = Writer::default();
    attributes
        .put_text(1, TABLE)
        .put_text(2, set.name.as_str())
        .nest(3, |list| {
            list.nest(LIST_ELEMENT, |element| {
                put_value(element, KEY, &first);
                if let Some(end) = &range_end {
                    put_value(element, KEY_END, end);
                }
                if let Some(data) = &data {
                    put_value(element, DATA, data);
                }
            });
            if let Some(after) = &after {
                list.nest(LIST_ELEMENT, |element| {
                    put_value(element, KEY, after);
                    element.put_be32(FLAGS, INTERVAL_END);
                });
            }
        });
    Some(attributes)
}

fn put_value(element: &mut Writer, kind: u16, value: &[u8]) {
    element.nest(kind, |data| {
        data.put(1, value);
    });
}

/// The number after `bytes`; none after the last.
fn next(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        let (more, carried) = byte.overflowing_add(1);
        *byte = more;
        if !carried {
            return Some(bytes);
        }
    }
    None
}

/// The number before `bytes`; none before the first.
fn previous(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            return Some(bytes);
        }
    }
    None
}

/// An element as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Raw {
    key: Vec<u8>,
    /// At one key, the end of an interval comes before the start of the next.
    starts: bool,
    /// The last key of a concatenation's interval.
    last: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
}

/// All elements of a set; those that no field of ours can express are left out and counted.
pub(crate) fn dump_elements(
    nft: &NftSocket,
    name: SetName,
) -> std::io::Result<(Vec<(ElementKey, ElementSpec)>, usize)> {
    let mut asked = Writer::default();
    asked.put_text(1, TABLE).put_text(2, name.as_str());
    let mut raw = Vec::new();
    nft.dump(kind::GET_ELEMENT, FAMILY_INET, &asked, |body| match body {
        None => raw.clear(),
        Some(body) => read_elements(body, name, &mut raw),
    })?;
    raw.sort();
    Ok(decode(&Set::of(name), &raw))
}

fn read_elements(body: &[u8], name: SetName, raw: &mut Vec<Raw>) {
    let attributes = Attributes::after(body, HEAD);
    if attributes.find(2).and_then(read_text) != Some(name.as_str()) {
        return;
    }
    let value = |nested: &[u8]| Attributes::of(nested).find(1).map(<[u8]>::to_vec);
    for (_, element) in Attributes::of(attributes.find(3).unwrap_or_default()) {
        let element = Attributes::of(element);
        let Some(key) = element.find(KEY).and_then(value) else {
            continue;
        };
        let flags = element.find(FLAGS).and_then(read_be32).unwrap_or(0);
        raw.push(Raw {
            key,
            starts: flags & INTERVAL_END == 0,
            last: element.find(KEY_END).and_then(value),
            data: element.find(DATA).and_then(value),
        });
    }
}

/// The elements that `raw`, which is sorted, is made of, and the number of those that we have no words for.
fn decode(set: &Set, raw: &[Raw]) -> (Vec<(ElementKey, ElementSpec)>, usize) {
    let (mut elements, mut strange) = (Vec::with_capacity(raw.len()), 0);
    for (place, element) in raw.iter().enumerate().filter(|(_, element)| element.starts) {
        let data = match (set.data, &element.data) {
            ([], _) => Some(Vec::new()),
            (types, Some(bytes)) => field::read(types, bytes),
            (_, None) => None,
        };
        match (fields(set, element, raw.get(place + 1)), data) {
            (Some(fields), Some(data)) => {
                let key = ElementKey::new(set.name, fields);
                elements.push((key, ElementSpec::new(data)));
            }
            _ => strange += 1,
        }
    }
    (elements, strange)
}

fn fields(set: &Set, element: &Raw, following: Option<&Raw>) -> Option<Vec<Field>> {
    if !set.interval {
        return field::read(set.key, &element.key);
    }
    let last = match (&element.last, following) {
        (Some(last), _) => last.clone(),
        (None, _) if set.key.len() > 1 => element.key.clone(),
        (None, Some(end)) if !end.starts => previous(end.key.clone())?,
        // Without an end it is the last of all intervals.
        (None, _) => vec![u8::MAX; element.key.len()],
    };
    field::read_interval(set.key, &element.key, &last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_subnets_stay_two() {
        let raw = |last: u8, starts| Raw {
            key: vec![10, 0, last, 0],
            starts,
            last: None,
            data: None,
        };
        let mut all = vec![raw(0, true), raw(1, true), raw(1, false), raw(2, false)];
        all.sort();
        let (read, strange) = decode(&Set::of(SetName::Masquerade4), &all);
        assert_eq!((read.len(), strange), (2, 0), "{read:?}");
    }

    #[test]
    fn an_end_is_the_number_before_the_next_one() {
        assert_eq!(next(vec![10, 0, 255, 255]), Some(vec![10, 1, 0, 0]));
        assert_eq!(previous(vec![10, 1, 0, 0]), Some(vec![10, 0, 255, 255]));
        assert_eq!(next(vec![255; 4]), None);
        assert_eq!(previous(vec![0; 4]), None);
    }
}
