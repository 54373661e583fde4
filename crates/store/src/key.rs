//! Names of values: slash-separated segments that every back end can hold.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::KEY_BYTES;

/// A key: one to 255 bytes of `a-z 0-9 . _ -` in non-empty segments joined by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// A set of keys: everything (the empty text), or everything below whole segments (`networks/`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

/// Why a text is not a key or prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The longest is [`KEY_BYTES`].
    #[error("key has {bytes} bytes, more than {KEY_BYTES}")]
    TooLong {
        /// Length of the text in bytes.
        bytes: usize,
    },
    /// No text, a slash at either end, or two in a row.
    #[error("key `{text}` has an empty segment; write it as `a/b/c`")]
    EmptySegment {
        /// The refused text.
        text: String,
    },
    /// `.` and `..` mean something else to ZooKeeper.
    #[error("key `{text}` has a segment of dots only")]
    DotSegment {
        /// The refused text.
        text: String,
    },
    /// Only `a-z 0-9 . _ - /` are allowed.
    #[error(
        "key has {character:?} at byte {position}; only a-z, 0-9, `.`, `_`, `-` and `/` may be used"
    )]
    Character {
        /// The first refused character.
        character: char,
        /// Its place in the text.
        position: usize,
    },
    /// A prefix names whole segments.
    #[error("prefix `{text}` does not end with `/`")]
    OpenPrefix {
        /// The refused text.
        text: String,
    },
}

impl Key {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is not a key.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// Checks `text`: empty, or a key with a slash at the end.
    ///
    /// # Errors
    /// When it is neither.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if !text.is_empty() {
            let Some(segments) = text.strip_suffix('/') else {
                return Err(KeyError::OpenPrefix { text: text.into() });
            };
            check(segments)?;
            if text.len() > KEY_BYTES {
                return Err(KeyError::TooLong { bytes: text.len() });
            }
        }
        Ok(Self(text.into()))
    }

    /// The prefix of all keys.
    #[must_use]
    pub fn all() -> Self {
        Self("".into())
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` is below this prefix.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }
}

fn check(text: &str) -> Result<(), KeyError> {
    if text.len() > KEY_BYTES {
        return Err(KeyError::TooLong { bytes: text.len() });
    }
    let refused = |c: char| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/');
    if let Some((position, character)) = text.char_indices().find(|(_, c)| refused(*c)) {
        return Err(KeyError::Character {
            character,
            position,
        });
    }
    for segment in text.split('/') {
        match segment {
            "" => return Err(KeyError::EmptySegment { text: text.into() }),
            "." | ".." => return Err(KeyError::DotSegment { text: text.into() }),
            _ => {}
        }
    }
    Ok(())
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_whole_segments() {
        assert!(Key::new("networks/web-1/spec_v1.json").is_ok());
        for text in ["", "/a", "a/", "a//b"] {
            assert!(
                matches!(Key::new(text), Err(KeyError::EmptySegment { .. })),
                "{text}"
            );
        }
        for text in [".", "a/..", "./a"] {
            assert!(
                matches!(Key::new(text), Err(KeyError::DotSegment { .. })),
                "{text}"
            );
        }
        assert!(Key::new("a/...").is_ok());
    }

    #[test]
    fn the_first_bad_character_is_named() {
        let found = Key::new("net/Ä");
        assert_eq!(
            found,
            Err(KeyError::Character {
                character: 'Ä',
                position: 4
            })
        );
        assert!(matches!(
            Key::new("a b"),
            Err(KeyError::Character { character: ' ', .. })
        ));
        assert!(matches!(
            Key::new("a\0"),
            Err(KeyError::Character {
                character: '\0',
                ..
            })
        ));
    }

    #[test]
    fn a_key_of_the_limit_is_allowed_and_one_more_is_not() {
        assert!(Key::new(&"k".repeat(KEY_BYTES)).is_ok());
        let long = "k".repeat(KEY_BYTES + 1);
        assert_eq!(
            Key::new(&long),
            Err(KeyError::TooLong {
                bytes: KEY_BYTES + 1
            })
        );
        assert!(Prefix::new(&format!("{}/", "k".repeat(KEY_BYTES - 1))).is_ok());
        let long = format!("{}/", "k".repeat(KEY_BYTES));
        assert_eq!(
            Prefix::new(&long),
            Err(KeyError::TooLong {
                bytes: KEY_BYTES + 1
            })
        );
    }

    #[test]
    fn a_prefix_never_cuts_a_segment() {
        assert!(matches!(
            Prefix::new("net"),
            Err(KeyError::OpenPrefix { .. })
        ));
        assert!(matches!(
            Prefix::new("/"),
            Err(KeyError::EmptySegment { .. })
        ));
        let prefix = Prefix::new("net/").unwrap();
        assert!(prefix.holds(&Key::new("net/a").unwrap()));
        assert!(!prefix.holds(&Key::new("net").unwrap()));
        assert!(!prefix.holds(&Key::new("network/a").unwrap()));
        assert!(Prefix::all().holds(&Key::new("net").unwrap()));
    }
}
