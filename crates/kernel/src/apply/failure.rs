//! What is said of an operation that failed: what, on what, why, and what to do about it.

use std::io;

use tombolo_netstate::{Key, Outcome};

use crate::netlink::batch::Refusal;
use crate::netns::NetnsError;
use crate::sys::Errno;

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    text: String,
    exists: bool,
}

impl Failure {
    pub(super) fn refusal(verb: &str, key: &Key, refusal: &Refusal) -> Self {
        let hint = hint(refusal.errno, key).map_or(String::new(), |hint| format!("; {hint}"));
        Self {
            text: format!("cannot {verb} {key}: {refusal}{hint}"),
            exists: false,
        }
    }

    pub(super) fn io(verb: &str, key: &Key, error: &io::Error) -> Self {
        Self::refusal(verb, key, &Refusal::from_io(error))
    }

    pub(super) fn netns(verb: &str, key: &Key, error: &NetnsError) -> Self {
        Self::error(verb, key, error)
    }

    pub(super) fn error(verb: &str, key: &Key, error: &dyn std::error::Error) -> Self {
        let cause = error.source().map_or(String::new(), |e| format!(": {e}"));
        Self {
            text: format!("cannot {verb} {key}: {error}{cause}"),
            exists: false,
        }
    }

    pub(super) fn because(verb: &str, key: &Key, reason: impl std::fmt::Display) -> Self {
        Self {
            text: format!("cannot {verb} {key}: {reason}"),
            exists: false,
        }
    }

    /// Says whether the object is there, wholly or partly, all the same.
    pub(super) fn exists(mut self, exists: bool) -> Self {
        self.exists = exists;
        self
    }

    pub(super) fn outcome(self) -> Outcome {
        Outcome::Failed {
            error: self.text,
            exists: self.exists,
        }
    }
}

fn hint(errno: Errno, key: &Key) -> Option<&'static str> {
    Some(match (errno.0, key) {
        (libc::EPERM | libc::EACCES, Key::Netns(_)) => "it needs CAP_SYS_ADMIN",
        (libc::EPERM | libc::EACCES, _) => "it needs CAP_NET_ADMIN",
        (libc::EXFULL, Key::Link(_)) => "a bridge takes 1,023 ports at most",
        (libc::EOPNOTSUPP, Key::Link(_)) => "the kernel may lack this kind of link",
        (libc::EEXIST, Key::Address(_)) => "the link has that address from somebody else",
        (libc::EEXIST, Key::Route(_)) => "somebody else has a route to there with that metric",
        (libc::ENOENT | libc::EOPNOTSUPP, Key::NftBase) => {
            "the kernel may lack nf_tables, its inet family, its nat or its fib"
        }
        (libc::ENOENT, Key::Sysctl(_)) => "the kernel has no such setting",
        (libc::ENOENT, Key::Element(_)) => "the set is not there",
        (libc::EEXIST, Key::Element(_)) => {
            "it overlaps another element, or leads elsewhere already"
        }
        (libc::ENOENT, Key::Accept(_)) => "the chain is not there",
        (libc::EROFS, Key::Sysctl(_)) => "/proc/sys is read-only here",
        _ => return None,
    })
}
