//! Both ends of a watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::limits::WATCH_QUEUE;
use crate::{Change, Prefix};

/// The receiving end of a watch; dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    changes: Receiver<Change>,
    lagged: Arc<AtomicBool>,
}

/// Why no more changes will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// Changes were lost: list again and start a new watch from the revision of that list.
    #[error("watch lost changes; list again and start a new one")]
    Lagged,
    /// The store was closed, or the end was told before.
    #[error("watch is over")]
    Closed,
}

/// The sending end of a watch.
#[derive(Debug)]
pub(crate) struct Feed {
    prefix: Prefix,
    changes: SyncSender<Change>,
    lagged: Arc<AtomicBool>,
}

impl Watch {
    /// Waits for the next change.
    ///
    /// # Errors
    /// When no more will come.
    pub fn next(&self) -> Result<Change, WatchEnd> {
        self.changes.recv().map_err(|_| self.end())
    }

    /// Waits at most `timeout` for the next change; zero only looks.
    ///
    /// # Errors
    /// When no more will come.
    pub fn next_within(&self, timeout: Duration) -> Result<Option<Change>, WatchEnd> {
        match self.changes.recv_timeout(timeout) {
            Ok(change) => Ok(Some(change)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.end()),
        }
    }

    fn end(&self) -> WatchEnd {
        if self.lagged.swap(false, Ordering::AcqRel) {
            WatchEnd::Lagged
        } else {
            WatchEnd::Closed
        }
    }
}

impl Feed {
    /// A feed of changes below `prefix` and the watch it serves.
    pub(crate) fn open(prefix: Prefix) -> (Self, Watch) {
        let (sender, receiver) = sync_channel(WATCH_QUEUE);
        let lagged = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            changes: receiver,
            lagged: Arc::clone(&lagged),
        };
        (
            Self {
                prefix,
                changes: sender,
                lagged,
            },
            watch,
        )
    }

    /// Queues `change` if it is below the prefix, without waiting. False means that this feed has
    /// ended and is to be dropped.
    #[must_use]
    pub(crate) fn offer(&self, change: &Change) -> bool {
        if !self.prefix.holds(&change.key) {
            return true;
        }
        match self.changes.try_send(change.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.mark_lagged();
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Makes the watch end as lagged once the feed is dropped.
    pub(crate) fn mark_lagged(&self) {
        self.lagged.store(true, Ordering::Release);
    }

    /// Whether the watch still exists.
    pub(crate) fn is_watched(&self) -> bool {
        Arc::strong_count(&self.lagged) > 1
    }
}
