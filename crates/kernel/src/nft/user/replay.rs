//! The user's rules as requests that make them again, as bytes that can be stored, and how an expression that
//! was read becomes one that can be sent.

use crate::netlink::align;
use crate::netlink::attribute::{Attributes, Writer, read_text, read_u16, read_u32};
use crate::nft::kind;

/// What the stored form begins with; the last byte is its version.
const MARK: [u8; 4] = *b"tur\x01";
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Without the two flag bits.
const TYPE_MASK: u16 = 0x3fff;

/// The user's own rules, with the sets that they need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserRules {
    pub(super) groups: Vec<Group>,
}

/// Requests that belong together: a named set, or a rule with its sets without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) requests: Vec<Request>,
}

/// One request of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: u16,
    pub(super) attributes: Vec<u8>,
}

impl UserRules {
    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.groups.iter().filter(|group| group.is_rule()).count()
    }

    /// Whether there are no rules, and so no sets either.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// A form to be stored, for hosts of the same byte order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        for group in &self.groups {
            put_length(&mut bytes, group.requests.len());
            for request in &group.requests {
                bytes.extend_from_slice(&request.kind.to_ne_bytes());
                put_length(&mut bytes, request.attributes.len());
                bytes.extend_from_slice(&request.attributes);
            }
        }
        bytes
    }

    /// Reads the stored form back; none when it is damaged or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MARK)?;
        let mut groups = Vec::new();
        while !rest.is_empty() {
            let mut requests = Vec::new();
            for _ in 0..take_length(&mut rest)? {
                let kind = read_u16(rest)?;
                rest = rest.get(2..)?;
                let length = take_length(&mut rest)?;
                let (attributes, others) = rest.split_at_checked(length)?;
                requests.push(Request {
                    kind: known_kind(kind)?,
                    attributes: attributes.to_vec(),
                });
                rest = others;
            }
            groups.push(Group { requests });
        }
        Some(Self { groups })
    }

    /// Size of the stored form.
    pub(super) fn len_bytes(&self) -> usize {
        let requests = self.groups.iter().flat_map(|group| &group.requests);
        MARK.len() + 4 * self.groups.len() + requests.map(|r| 6 + r.attributes.len()).sum::<usize>()
    }
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let length = read_u32(rest)?;
    *rest = rest.get(4..)?;
    usize::try_from(length).ok()
}

/// Only these are ever sent, whatever was stored.
fn known_kind(kind: u16) -> Option<u16> {
    matches!(kind, kind::NEW_SET | kind::NEW_ELEMENT | kind::NEW_RULE).then_some(kind)
}

impl Group {
    fn is_rule(&self) -> bool {
        self.requests.iter().any(|r| r.kind == kind::NEW_RULE)
    }

    /// What it is, for the log.
    pub(super) fn name(&self) -> String {
        let first = self.requests.first().filter(|_| !self.is_rule());
        let set = first.and_then(|request| Attributes::of(&request.attributes).find(2));
        match set.and_then(read_text) {
            Some(name) => format!("set {name}"),
            None => "rule".to_owned(),
        }
    }
}

impl Request {
    pub(super) fn new(kind: u16, attributes: Writer) -> Self {
        Self {
            kind,
            attributes: attributes.0,
        }
    }
}

/// An expression as the kernel tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expression<'a> {
    name: &'a str,
    data: Option<&'a [u8]>,
}

impl<'a> Expression<'a> {
    pub(super) fn read(element: &'a [u8]) -> Self {
        let attributes = Attributes::of(element);
        Self {
            name: attributes.find(1).and_then(read_text).unwrap_or_default(),
            data: attributes.find(2),
        }
    }

    /// The set that it asks or fills.
    pub(super) fn set(&self) -> Option<&'a str> {
        let data = self
            .data
            .filter(|_| matches!(self.name, "lookup" | "dynset"))?;
        Attributes::of(data).find(1).and_then(read_text)
    }
}

/// Appends the expression as it is to be sent; `set` is the number of its set without a name.
pub(super) fn rewrite(list: &mut Writer, expression: &Expression<'_>, set: Option<u32>) {
    list.nest(1, |element| {
        element.put_text(1, expression.name);
        let Some(data) = expression.data else {
            return;
        };
        element.nest(2, |inner| match (expression.name, set, expression.set()) {
            ("lookup", Some(id), Some(name)) => {
                inner.put_text(1, &anonymous_name(name));
                copy(inner, data, |kind| !matches!(kind, 1 | 4));
                inner.put_be32(4, id);
            }
            // How much was counted, and when.
            ("counter" | "last", ..) => {}
            ("quota", ..) => copy(inner, data, |kind| kind != 4),
            _ => inner.0.extend_from_slice(data),
        });
    });
}

/// Whether the kernel chose the name of a set, for a rule alone.
pub(super) fn is_anonymous(name: &str) -> bool {
    name.starts_with("__set") || name.starts_with("__map")
}

/// The pattern from which the kernel makes such a name.
pub(super) fn anonymous_name(name: &str) -> String {
    format!("{}%d", name.trim_end_matches(|c: char| c.is_ascii_digit()))
}

/// Copies the attributes whose type `wanted` holds.
pub(super) fn copy(to: &mut Writer, from: &[u8], wanted: impl Fn(u16) -> bool) {
    for (kind, value) in raw(from) {
        if wanted(kind & TYPE_MASK) {
            to.put(kind & (TYPE_MASK | NESTED), value);
        }
    }
}

/// The attributes in `bytes`, each with its type and flags.
pub(super) fn raw(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes)?);
        let kind = read_u16(bytes.get(2..)?)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_rules() -> UserRules {
        let request = |kind, fill: u8, length| Request {
            kind,
            attributes: vec![fill; length],
        };
        let set = vec![
            request(kind::NEW_SET, 1, 8),
            request(kind::NEW_ELEMENT, 2, 0),
        ];
        let rule = vec![request(kind::NEW_RULE, 3, 400)];
        UserRules {
            groups: vec![Group { requests: set }, Group { requests: rule }],
        }
    }

    #[test]
    fn the_stored_form_is_read_back_and_damage_is_noticed() {
        let rules = some_rules();
        let bytes = rules.to_bytes();
        assert_eq!(bytes.len(), rules.len_bytes());
        assert_eq!(UserRules::from_bytes(&bytes), Some(rules.clone()));
        assert_eq!(rules.count(), 1);
        let whole = [MARK.len(), bytes.len() - 4 - 6 - 400];
        for length in (0..bytes.len()).filter(|length| !whole.contains(length)) {
            assert_eq!(
                UserRules::from_bytes(&bytes[..length]),
                None,
                "{length} bytes"
            );
        }
        let empty = UserRules::from_bytes(&MARK).unwrap();
        assert!(empty.is_empty() && empty.to_bytes() == MARK);
    }

    #[test]
    fn nothing_but_sets_elements_and_rules_is_ever_read() {
        let mut rules = some_rules();
        rules.groups[0].requests[0].kind = kind::DELETE_TABLE;
        assert_eq!(UserRules::from_bytes(&rules.to_bytes()), None);
    }

    #[test]
    fn a_look_up_in_a_set_without_a_name_is_told_by_number_and_counts_are_forgotten() {
        let mut read = Writer::default();
        read.put_text(1, "lookup").nest(2, |data| {
            data.put_text(1, "__set12").put_be32(2, 1).put_be32(5, 1);
        });
        let expression = Expression::read(&read.0);
        assert_eq!(expression.set(), Some("__set12"));
        let mut list = Writer::default();
        rewrite(&mut list, &expression, Some(7));
        let (_, written) = raw(&list.0).next().unwrap();
        let data = Attributes::of(Attributes::of(written).find(2).unwrap());
        assert_eq!(data.find(1).and_then(read_text), Some("__set%d"));
        assert_eq!(data.find(4), Some(&7_u32.to_be_bytes()[..]));
        assert_eq!(data.find(5), Some(&1_u32.to_be_bytes()[..]));

        let mut read = Writer::default();
        read.put_text(1, "counter").nest(2, |data| {
            data.put(1, &[9; 8]).put(2, &[9; 8]);
        });
        let mut list = Writer::default();
        rewrite(&mut list, &Expression::read(&read.0), None);
        let (_, written) = raw(&list.0).next().unwrap();
        assert_eq!(Attributes::of(written).find(2), Some(&[][..]));
    }
}
