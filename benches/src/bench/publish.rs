//! Published ports: what they cost an attach beside other programs, and what they cost a packet.

mod attach;
mod hosts;
mod packets;
mod range;

use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::table::Row;

/// Measures all of it.
pub(crate) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    // Other programs keep locks and settings there, of which the machine's own are none of our business.
    let none = None::<&str>;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    let mut rows = attach::run(place, rounds)?;
    rows.extend(range::run(place, rounds)?);
    rows.extend(packets::run(place)?);
    Ok(rows)
}
