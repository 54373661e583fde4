//! Identities of networks, endpoints and sandboxes, and names that people give them.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                match prefix_range(&text) {
                    Some((low, _)) if text.len() == 32 => Ok(Self(low)),
                    _ => Err(format!("`{text}` is not an id of 32 hexadecimal digits")),
                }
            }
        }
    };
}

id_type!(
    /// Identity of a network.
    NetworkId
);
id_type!(
    /// Identity of an endpoint.
    EndpointId
);
id_type!(
    /// Identity of a sandbox.
    SandboxId
);

/// The lowest and highest id that begin with the hexadecimal digits `text`; `None` if it is not 1 to 32 of
/// them.
pub fn prefix_range(text: &str) -> Option<(u128, u128)> {
    if text.is_empty() || text.len() > 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = u128::from_str_radix(text, 16).ok()?;
    let shift = u32::try_from((32 - text.len()) * 4).ok()?;
    let low = digits.checked_shl(shift).unwrap_or(0);
    let rest = if shift == 0 {
        0
    } else {
        u128::MAX >> (128 - shift)
    };
    Some((low, low | rest))
}

/// A stable number made of `parts`; the same on every machine and in every version.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x746f_6d62_6f6c_6f00, 0);
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// Draws ids from one random number given with a request.
#[derive(Debug)]
pub struct Seed {
    seed: u128,
    drawn: u64,
}

impl Seed {
    /// Ids drawn from one seed differ; ids drawn from two random seeds do, too.
    pub fn new(seed: u128) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next id. The first one is the seed itself.
    pub fn draw(&mut self) -> u128 {
        let n = self.drawn;
        self.drawn += 1;
        if n == 0 {
            return self.seed;
        }
        let seed = self.seed.to_be_bytes();
        let high = stable_hash(&[&seed, &n.to_be_bytes(), b"high"]);
        let low = stable_hash(&[&seed, &n.to_be_bytes(), b"low"]);
        (u128::from(high) << 64) | u128::from(low)
    }
}

/// A name that people give: a letter or digit, then up to 127 letters, digits, `_`, `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// The name that an id makes: its digits.
    pub fn of_id(id: u128) -> Self {
        Self(format!("{id:032x}"))
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let fine = text.len() <= 128
            && text
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().all(rest);
        if fine {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(40).collect();
        Err(format!(
            "name {shown:?} must be a letter or digit followed by up to 127 letters, digits, `_`, `.` or `-`"
        ))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_span_the_ids_that_begin_with_them() {
        assert_eq!(prefix_range("f"), Some((0xf << 124, u128::MAX)));
        assert_eq!(prefix_range(&"0".repeat(32)), Some((0, 0)));
        assert_eq!(prefix_range(""), None);
        assert_eq!(prefix_range("xyz"), None);
        assert_eq!(prefix_range(&"0".repeat(33)), None);
    }

    #[test]
    fn names_refuse_what_shells_and_files_would_trip_over() {
        for good in ["a", "web-1", "9.lives_", &"x".repeat(128)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "a\n", "ä", &"x".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_seed_gives_different_ids() {
        let mut seed = Seed::new(7);
        assert_eq!(seed.draw(), 7);
        assert_ne!(seed.draw(), seed.draw());
    }
}
