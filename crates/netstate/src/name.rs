//! Names and numbers by which the kernel knows things; wrong values cannot be built.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::IFNAME_BYTES_MAX;

/// Why a name or number was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than the kernel's 15 bytes.
    #[error("interface name `{0}` must have 1 to 15 bytes")]
    Length(String),
    /// A character that the kernel or common tools refuse.
    #[error(
        "interface name `{0}` may hold visible ASCII other than `/`, `:` and `%`, and not be `.` or `..`"
    )]
    Character(String),
    /// Not six hexadecimal bytes.
    #[error("`{0}` is not a MAC address such as 02:00:00:00:00:01")]
    Mac(String),
    /// A group or all-zero MAC cannot belong to an interface.
    #[error("MAC address {0} is multicast or zero and cannot belong to an interface")]
    MacKind(Mac),
}

/// An interface name of 1 to 15 bytes that `dev_valid_name` (net/core/dev.c) accepts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    bytes: [u8; IFNAME_BYTES_MAX],
    len: u8,
}

impl IfName {
    /// Sorts before every name; no interface has it.
    pub(crate) const LEAST: Self = Self {
        bytes: [0; IFNAME_BYTES_MAX],
        len: 0,
    };

    /// Checks `name`; fails with the reason when the kernel would not take it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name.len() > IFNAME_BYTES_MAX {
            return Err(NameError::Length(name.to_owned()));
        }
        let fine = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
        if !name.bytes().all(fine) || name == "." || name == ".." {
            return Err(NameError::Character(name.to_owned()));
        }
        let mut bytes = [0; IFNAME_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let len = u8::try_from(name.len()).unwrap_or(0);
        Ok(Self { bytes, len })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// A 48-bit MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address (IEEE 802 section 8.4) made of the low 46 bits of `seed`.
    pub fn local(seed: u64) -> Self {
        let b = seed.to_be_bytes();
        Self([(b[2] & 0xfc) | 0x02, b[3], b[4], b[5], b[6], b[7]])
    }

    /// Refuses group and all-zero addresses, which no interface can have.
    pub fn unicast(self) -> Result<Self, NameError> {
        if self.0[0] & 1 == 1 || self.0 == [0; 6] {
            return Err(NameError::MacKind(self));
        }
        Ok(self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NameError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(bad()),
        }
    }
}

/// A network namespace as a plan names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// The namespace in which the daemon runs.
    Host,
    /// One that we made; the name is the file's name in our run directory.
    Owned(Arc<str>),
    /// Somebody else's, recognised by its inode (`/proc/PID/ns/net`, namespaces(7)) so that a path that came
    /// to mean another namespace is noticed.
    Adopted {
        /// A path that led to the namespace when it was adopted.
        path: Arc<Path>,
        /// Inode number of the namespace in the kernel's nsfs.
        inode: u64,
    },
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Owned(name) => f.write_str(name),
            Self::Adopted { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_keep_the_kernels_rules() {
        assert_eq!(
            IfName::new("tombolo0").map(|n| n.to_string()),
            Ok("tombolo0".into())
        );
        assert!(IfName::new("123456789012345").is_ok());
        for bad in [
            "",
            "1234567890123456",
            "a b",
            "a/b",
            "a:b",
            ".",
            "..",
            "a\0b",
            "é",
        ] {
            assert!(IfName::new(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn mac_addresses_parse_and_print() {
        let mac: Mac = "02:42:AC-11-00-02".replace('-', ":").parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for bad in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "0:42:ac:11:00:02",
            "zz:42:ac:11:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?} was taken");
        }
        assert!(Mac([1, 0, 0, 0, 0, 1]).unicast().is_err());
        assert!(Mac::local(u64::MAX).unicast().is_ok());
        assert_eq!(Mac::local(0).0[0], 2);
    }
}
