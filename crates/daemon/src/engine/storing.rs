//! Writes as the store takes them.

use tombolo_store::limits::{COMMIT_BYTES, COMMIT_WRITES};
use tombolo_store::{Durability, Expect, Store};

use super::with_sources;
use crate::limits::WRITE_OVERHEAD_BYTES;

/// Stores writes in as many commits as the store's limits on one make necessary. What a part of them left
/// behind is put right by the writes that withdraw the rest, or by a restart.
pub(crate) fn commit_in_parts(
    store: &dyn Store,
    writes: Vec<tombolo_store::Write>,
    durability: Durability,
) -> Result<(), String> {
    let mut part = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = write.key().as_str().len() + write.value_bytes() + WRITE_OVERHEAD_BYTES;
        if part.len() == COMMIT_WRITES || (bytes + size > COMMIT_BYTES && !part.is_empty()) {
            let whole = std::mem::take(&mut part);
            store
                .commit(whole, durability)
                .map_err(|error| with_sources(&error))?;
            bytes = 0;
        }
        bytes += size;
        part.push(write);
    }
    if !part.is_empty() {
        store
            .commit(part, durability)
            .map_err(|error| with_sources(&error))?;
    }
    Ok(())
}

/// A write as the store takes it.
pub(crate) fn store_write(
    key: &str,
    value: Option<Vec<u8>>,
) -> Result<tombolo_store::Write, String> {
    let key = tombolo_store::Key::new(key).map_err(|error| error.to_string())?;
    Ok(match value {
        Some(value) => tombolo_store::Write::Put {
            key,
            value,
            expect: Expect::Any,
        },
        None => tombolo_store::Write::Delete {
            key,
            expect: Expect::Any,
        },
    })
}
