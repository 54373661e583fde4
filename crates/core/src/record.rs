//! The stored form of the model: JSON with a version, one key for each object.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::Write;
use crate::id::stable_hash;

/// Version of the stored form. A record with a higher one is refused.
pub const VERSION: u32 = 1;

/// Key prefix of networks.
pub const NETWORK: &str = "network/";
/// Key prefix of endpoints.
pub const ENDPOINT: &str = "endpoint/";
/// Key prefix of sandboxes.
pub const SANDBOX: &str = "sandbox/";
/// Key prefix of what engines of others hold.
pub const LOAN: &str = "loan/";
/// Key prefix of the values that sysctls had before us.
pub const SYSCTL: &str = "sysctl/";

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a later program.
    #[error(
        "record {key} has version {found}; this program reads up to {VERSION}: use the newer program"
    )]
    Version {
        /// The record.
        key: String,
        /// Its version.
        found: u32,
    },
    /// Not what was expected.
    #[error("record {key} cannot be read")]
    Form {
        /// The record.
        key: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Serialize)]
struct Out<'a, T> {
    version: u32,
    value: &'a T,
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Deserialize)]
struct In<T> {
    value: T,
}

/// The write that stores `value`.
pub fn put<T: Serialize>(prefix: &str, id: &str, value: &T) -> Write {
    let bytes = serde_json::to_vec(&Out {
        version: VERSION,
        value,
    });
    debug_assert!(
        bytes.is_ok(),
        "records have string keys and finite numbers only"
    );
    Write {
        key: format!("{prefix}{id}"),
        value: bytes.ok(),
        intent_of: None,
    }
}

/// The write that erases a record.
pub fn erase(prefix: &str, id: &str) -> Write {
    Write {
        key: format!("{prefix}{id}"),
        value: None,
        intent_of: None,
    }
}

/// The write that remembers what the sysctl `path` was before us.
pub fn put_sysctl(path: &str, value: &str) -> Write {
    put(SYSCTL, &sysctl_id(path), &(path, value))
}

/// The write that forgets it.
pub fn erase_sysctl(path: &str) -> Write {
    erase(SYSCTL, &sysctl_id(path))
}

/// Paths hold interface names, and so characters that keys of stores do not take.
fn sysctl_id(path: &str) -> String {
    format!("{:016x}", stable_hash(&[path.as_bytes()]))
}

/// Reads a record back.
pub fn get<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    let form = |source| RecordError::Form {
        key: key.to_owned(),
        source,
    };
    let head: Head = serde_json::from_slice(bytes).map_err(form)?;
    if head.version > VERSION {
        return Err(RecordError::Version {
            key: key.to_owned(),
            found: head.version,
        });
    }
    let body: In<T> = serde_json::from_slice(bytes).map_err(form)?;
    Ok(body.value)
}
