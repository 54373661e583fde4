//! Names that are safe to write into a file.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::limits;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameReject {
    /// The name or one of its labels is empty.
    #[error("name {name:?} is empty or has an empty label: write labels joined by single dots")]
    Empty {
        /// As written, cut to 64 characters.
        name: String,
    },
    /// The name or one of its labels is too long.
    #[error(
        "name {name:?} is too long: keep labels to {} and the name to {} characters",
        limits::LABEL_BYTES_MAX,
        limits::NAME_BYTES_MAX
    )]
    TooLong {
        /// As written, cut to 64 characters.
        name: String,
    },
    /// A character is not allowed.
    #[error(
        "name {name:?} has a character other than letters, digits, hyphen and underscore: remove it"
    )]
    Character {
        /// As written, cut to 64 characters.
        name: String,
    },
    /// A label begins or ends with a hyphen.
    #[error("name {name:?} has a label that begins or ends with a hyphen: remove it")]
    Hyphen {
        /// As written, cut to 64 characters.
        name: String,
    },
    /// The name is an address.
    #[error("name {name:?} is an address: choose a name")]
    Address {
        /// As written, cut to 64 characters.
        name: String,
    },
}

/// A host name after RFC 1123, section 2.1, as written but without a final dot.
///
/// Underscores are allowed as well: engines put them into the names of containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// A domain to complete short names with, as written but without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchDomain(String);

impl HostName {
    /// A name that is written in the program.
    pub(crate) fn of_ours(name: &'static str) -> Self {
        debug_assert_eq!(check_labels(name), Ok(name));
        Self(name.to_owned())
    }

    /// The name as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label.
    #[must_use]
    pub fn short(&self) -> Self {
        Self(self.0.split('.').next().unwrap_or_default().to_owned())
    }

    /// Whether there is more than one label.
    #[must_use]
    pub fn is_qualified(&self) -> bool {
        self.0.contains('.')
    }

    /// The name within `domain`.
    ///
    /// # Errors
    /// If the two together are too long.
    pub fn within(&self, domain: &Self) -> Result<Self, NameReject> {
        format!("{self}.{domain}").parse()
    }
}

impl FromStr for HostName {
    type Err = NameReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = check_labels(text)?;
        if name.parse::<IpAddr>().is_ok() {
            return Err(NameReject::Address { name: shown(text) });
        }
        if name
            .split('.')
            .any(|label| label.starts_with('-') || label.ends_with('-'))
        {
            return Err(NameReject::Hyphen { name: shown(text) });
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SearchDomain {
    /// The domain as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SearchDomain {
    type Err = NameReject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_labels(text).map(|name| Self(name.to_owned()))
    }
}

impl fmt::Display for SearchDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks lengths and characters, and cuts the final dot off.
fn check_labels(text: &str) -> Result<&str, NameReject> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > limits::NAME_BYTES_MAX {
        return Err(NameReject::TooLong { name: shown(text) });
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(NameReject::Empty { name: shown(text) });
        }
        if label.len() > limits::LABEL_BYTES_MAX {
            return Err(NameReject::TooLong { name: shown(text) });
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(NameReject::Character { name: shown(text) });
        }
    }
    Ok(name)
}

/// As much of a refused text as a message should repeat.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_hosts_and_containers_are_accepted() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(longest.len(), limits::NAME_BYTES_MAX);
        for name in [
            "a",
            "web-1",
            "my_app_web_1",
            "3com.example",
            "1234",
            "app.1",
            &longest,
        ] {
            assert_eq!(name.parse::<HostName>().unwrap().as_str(), name);
        }
        assert_eq!(
            "a.example.".parse::<HostName>().unwrap().as_str(),
            "a.example"
        );
    }

    #[test]
    fn each_fault_is_told() {
        let reject = |name: &str| name.parse::<HostName>().unwrap_err();
        for name in ["", ".", "a..b", ".a", "a.."] {
            assert!(matches!(reject(name), NameReject::Empty { .. }), "{name:?}");
        }
        for name in [
            "a b",
            "a\nb",
            "a\tb",
            "a\0",
            "a#b",
            "näme",
            "a\u{2028}b",
            "a\n",
        ] {
            assert!(
                matches!(reject(name), NameReject::Character { .. }),
                "{name:?}"
            );
        }
        for name in ["-a", "a-", "a.-b", "a-.b"] {
            assert!(
                matches!(reject(name), NameReject::Hyphen { .. }),
                "{name:?}"
            );
        }
        for name in ["10.0.0.1", "10.0.0.1."] {
            assert!(
                matches!(reject(name), NameReject::Address { .. }),
                "{name:?}"
            );
        }
        let label = "a".repeat(limits::LABEL_BYTES_MAX + 1);
        let name = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(62));
        for name in [label, name] {
            assert!(
                matches!(reject(&name), NameReject::TooLong { .. }),
                "{name:?}"
            );
        }
        assert_eq!(
            reject("evil\n1.2.3.4 bank").to_string(),
            "name \"evil\\n1.2.3.4 bank\" has a character other than letters, digits, hyphen and \
             underscore: remove it"
        );
    }

    proptest! {
        #[test]
        fn an_accepted_name_can_be_written_anywhere(text in "\\PC{0,8}|[a-z0-9._\\-\\n ]{0,12}") {
            if let Ok(name) = text.parse::<HostName>() {
                prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
                prop_assert_eq!(name.to_string().parse::<HostName>(), Ok(name.clone()));
                prop_assert_eq!(name.short().as_str().parse::<HostName>(), Ok(name.short()));
            }
        }
    }
}
