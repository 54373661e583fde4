//! What `ifalias` says of a link of ours after the mark: whose it is; of a veth whose other end is lent, under which
//! name; of a link that was taken from its maker, what it was called there. A daemon with no memory cannot see the other
//! end, or the former name, any more.

use tombolo_netstate::IfName;
use tombolo_netstate::object::link::{KEPT_MAC, LinkKind, LinkSpec};

/// Between whose a link is and the name under which its other end was lent.
const LENT: &str = " lent ";
/// What the alias of an end that is lent begins with, after the mark.
const LENT_END: &str = "lent ";
/// Between whose a link is and the name that it had on the host.
const TAKEN: &str = " taken ";
/// The same where its hardware address is of our choice, too.
const TAKEN_ADDRESSED: &str = " taken-addressed ";

/// What an alias says after the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// Whose the link is.
    pub(crate) whose: &'a str,
    /// What it is, where it cannot be seen otherwise.
    pub(crate) kind: Option<SaidKind>,
}

/// What cannot be seen of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaidKind {
    /// Its other end was lent under this name.
    Lent(IfName),
    /// It was taken.
    Taken {
        /// What it was called on the host.
        from: IfName,
        /// We gave it its hardware address.
        addressed: bool,
    },
}

/// The whole alias of a link.
pub(crate) fn of(mark: &str, spec: &LinkSpec) -> String {
    let whose = &spec.alias;
    match spec.kind {
        LinkKind::Lent { name } => format!("{mark}{whose}{LENT}{name}"),
        LinkKind::Taken { from } if spec.mac == KEPT_MAC => format!("{mark}{whose}{TAKEN}{from}"),
        LinkKind::Taken { from } => format!("{mark}{whose}{TAKEN_ADDRESSED}{from}"),
        _ => format!("{mark}{whose}"),
    }
}

/// The whole alias of the end that is lent with a link.
pub(crate) fn of_lent_end(mark: &str, spec: &LinkSpec) -> String {
    format!("{mark}{LENT_END}{}", spec.alias)
}

/// Reads an alias without its mark.
pub(crate) fn read(alias: &str) -> Said<'_> {
    let taken = |addressed| move |from| SaidKind::Taken { from, addressed };
    let said = |separator: &str, kind: &dyn Fn(IfName) -> SaidKind| {
        let (whose, name) = alias.split_once(separator)?;
        let kind = IfName::new(name).ok().map(kind);
        Some(Said { whose, kind })
    };
    said(LENT, &SaidKind::Lent)
        .or_else(|| said(TAKEN, &taken(false)))
        .or_else(|| said(TAKEN_ADDRESSED, &taken(true)))
        .unwrap_or(Said {
            whose: alias,
            kind: None,
        })
}

/// Whether a link is the end that was lent, by its alias without the mark: no object of ours.
pub(crate) fn is_lent_end(alias: &str) -> bool {
    alias.starts_with(LENT_END)
}
