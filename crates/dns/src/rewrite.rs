//! Whether a generated file may be written again: a user's edits win.

use std::fmt;
use std::str::FromStr;

use siphasher::sip128::{Hasher128, SipHasher24};

/// What was written last, in short; tells an edited file from an untouched one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u128);

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 32 hexadecimal digits: remove the record to have the file written again")]
pub struct FingerprintReject;

/// What to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Rewrite {
    /// Leave it: it says what it should, or a user has edited it.
    Keep,
    /// Write the wanted text and remember its fingerprint.
    Write,
}

impl Fingerprint {
    /// The fingerprint of a file's content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        use std::hash::Hasher;

        let mut hasher = SipHasher24::new();
        hasher.write(content);
        Self(hasher.finish128().as_u128())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(FingerprintReject);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| FingerprintReject)
    }
}

/// Decides about a file whose content is `current` (`None`: there is no file), of which
/// `last_written` was written last (`None`: nothing was, so it is not a user's work yet).
///
/// Write in place, not by renaming: the file is usually bind-mounted into a sandbox.
pub fn rewrite(current: Option<&[u8]>, last_written: Option<Fingerprint>, wanted: &str) -> Rewrite {
    let (Some(current), Some(last_written)) = (current, last_written) else {
        return Rewrite::Write;
    };
    let is_edited = Fingerprint::of(current) != last_written;
    if is_edited || current == wanted.as_bytes() {
        Rewrite::Keep
    } else {
        Rewrite::Write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_kept_and_our_own_text_is_replaced() {
        let ours = Some(Fingerprint::of(b"ours"));
        assert_eq!(rewrite(None, None, "new"), Rewrite::Write);
        assert_eq!(rewrite(None, ours, "new"), Rewrite::Write);
        assert_eq!(
            rewrite(Some(b"from the image"), None, "new"),
            Rewrite::Write
        );
        assert_eq!(rewrite(Some(b"ours"), ours, "new"), Rewrite::Write);
        assert_eq!(rewrite(Some(b"ours"), ours, "ours"), Rewrite::Keep);
        assert_eq!(rewrite(Some(b"edited"), ours, "new"), Rewrite::Keep);
        assert_eq!(rewrite(Some(b""), ours, "new"), Rewrite::Keep);
    }

    #[test]
    fn a_fingerprint_is_the_same_in_every_build() {
        let print = Fingerprint::of(b"nameserver 127.0.0.11\n");
        assert_eq!(print.to_string().parse(), Ok(print));
        assert_ne!(print, Fingerprint::of(b"nameserver 127.0.0.11"));
        // Stored fingerprints stop matching if the algorithm or its key changes.
        assert_eq!(
            Fingerprint::of(b"").to_string(),
            "f4f2ced447ab02427de0a38047d74950"
        );
        for text in [
            "",
            "+0000000000000000000000000000001",
            "0",
            &"0".repeat(33),
            &"g".repeat(32),
        ] {
            assert_eq!(
                text.parse::<Fingerprint>(),
                Err(FingerprintReject),
                "{text:?}"
            );
        }
    }
}
