//! The record of the user's own rules: what stands in the chain `tombolo-user` survives a flush of all rules
//! and a reboot.

use tombolo_kernel::{Kernel, UserRules};
use tombolo_store::{Durability, Key, Store};

use crate::engine::store_write;

/// The record, in the form that the kernel crate gives it.
const RECORD: &str = "user/rules";

/// Tells the kernel what to put back when our table is made. Called once, before anything is applied.
pub(crate) fn recall(store: &dyn Store, kernel: &Kernel) -> anyhow::Result<()> {
    let Some(found) = store.get(&Key::new(RECORD)?)? else {
        return Ok(());
    };
    match UserRules::from_bytes(&found.value) {
        Some(rules) => kernel.remember_user_rules(rules),
        None => tracing::warn!(
            record = RECORD,
            "the user's own rules were stored by a later program, or are damaged: not put back"
        ),
    }
    Ok(())
}

/// Learns what the user has changed, and stores it. Called when the daemon starts, after [`recall`], and when
/// somebody else has changed rules; before what is missing is made again.
pub(crate) fn learn(store: &dyn Store, kernel: &Kernel) {
    let rules = match kernel.read_user_rules() {
        Ok(Some(rules)) if rules != kernel.user_rules() => rules,
        // Nothing new, or nothing to be learnt.
        Ok(_) => return,
        Err(error) => {
            tracing::warn!(%error, "the user's own rules cannot be read; a flush would lose changes");
            return;
        }
    };
    let write = if rules.is_empty() {
        None
    } else {
        Some(rules.to_bytes())
    };
    tracing::info!(rules = rules.count(), "the user's own rules are remembered");
    kernel.remember_user_rules(rules);
    let stored = store_write(RECORD, write).and_then(|write| {
        let committed = store.commit(vec![write], Durability::Process);
        committed.map(|_| ()).map_err(|error| error.to_string())
    });
    if let Err(error) = stored {
        tracing::error!(error, "the user's own rules cannot be stored");
    }
}
