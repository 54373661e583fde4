//! What `ifalias` says of a link of ours after the mark: whose it is, and of a veth whose other end is lent, under
//! which name. A daemon with no memory cannot see the other end any more.

use tombolo_netstate::IfName;
use tombolo_netstate::object::link::{LinkKind, LinkSpec};

/// Between whose a link is and the name under which its other end was lent.
const LENT: &str = " lent ";
/// What the alias of an end that is lent begins with, after the mark.
const LENT_END: &str = "lent ";

/// The whole alias of a link.
pub(crate) fn of(mark: &str, spec: &LinkSpec) -> String {
    match spec.kind {
        LinkKind::Lent { name } => format!("{mark}{}{LENT}{name}", spec.alias),
        _ => format!("{mark}{}", spec.alias),
    }
}

/// The whole alias of the end that is lent with a link.
pub(crate) fn of_lent_end(mark: &str, spec: &LinkSpec) -> String {
    format!("{mark}{LENT_END}{}", spec.alias)
}

/// Whose a link is by its alias without the mark, and the name under which its other end was lent.
pub(crate) fn read(alias: &str) -> (&str, Option<IfName>) {
    match alias.split_once(LENT) {
        Some((whose, name)) => (whose, IfName::new(name).ok()),
        None => (alias, None),
    }
}

/// Whether a link is the end that was lent, by its alias without the mark: no object of ours.
pub(crate) fn is_lent_end(alias: &str) -> bool {
    alias.starts_with(LENT_END)
}
