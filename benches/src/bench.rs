//! What is measured.

pub(crate) mod attach;
pub(crate) mod burst;
pub(crate) mod daemon;
pub(crate) mod detach;
pub(crate) mod docker;
pub(crate) mod flat;
pub(crate) mod names;
pub(crate) mod publish;

use std::path::Path;
use std::time::Duration;

use tombolo_api::Client;

use crate::daemon::detach;
use crate::table::Row;

/// A bench: plays at a place in memory and says what it measured, from that many samples.
pub(crate) type Bench = fn(&Path, usize) -> anyhow::Result<Vec<Row>>;

/// Endpoints that are there at most while single ones are measured on an empty network.
const BLOCK: usize = 25;
/// Pause between two samples, in which background work of the one before comes to its end.
const PAUSE: Duration = Duration::from_millis(4);
/// How long removed links may take to be gone, generously.
const GONE: Duration = Duration::from_millis(250);

/// Removes sandboxes and waits until nothing more happens because of that.
fn detach_all(client: &mut Client, names: &mut Vec<String>) -> anyhow::Result<()> {
    for name in names.drain(..) {
        detach(client, &name)?;
    }
    Ok(())
}
