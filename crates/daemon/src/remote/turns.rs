//! Who may work on what: a request that asks plugins keeps its objects until it is done, however long they take.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tombolo_core::{Code, Reject, Subject};

use crate::limits::PLUGIN_WAITING_MAX;

/// What is worked on.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<BTreeSet<Subject>>,
    ended: Notify,
    waiting: AtomicUsize,
}

/// Leave to work on some objects; ends with this.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    subjects: BTreeSet<Subject>,
}

impl Turns {
    /// Waits until nobody else works on any of these.
    pub(crate) async fn take(
        self: &Arc<Self>,
        subjects: BTreeSet<Subject>,
    ) -> Result<Turn, Reject> {
        if let Some(turn) = self.try_take(&subjects) {
            return Ok(turn);
        }
        let _counted = Counted::new(&self.waiting)?;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            if let Some(turn) = self.try_take(&subjects) {
                return Ok(turn);
            }
            ended.await;
        }
    }

    /// Leave to work on these, if nobody else does.
    pub(crate) fn try_take(self: &Arc<Self>, subjects: &BTreeSet<Subject>) -> Option<Turn> {
        let mut taken = self.lock();
        if !taken.is_disjoint(subjects) {
            return None;
        }
        taken.extend(subjects);
        Some(Turn {
            turns: Arc::clone(self),
            subjects: subjects.clone(),
        })
    }

    /// Whether somebody works on it.
    pub(crate) fn is_taken(&self, subject: Subject) -> bool {
        self.lock().contains(&subject)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Subject>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns
            .lock()
            .retain(|subject| !self.subjects.contains(subject));
        self.turns.ended.notify_waiters();
    }
}

/// One of those who wait.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(waiting: &'a AtomicUsize) -> Result<Self, Reject> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= PLUGIN_WAITING_MAX {
            waiting.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{PLUGIN_WAITING_MAX} requests wait for plugins already");
            return Err(Reject::new(Code::Busy, "daemon", message).hint("try again in a moment"));
        }
        Ok(Self(waiting))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use tombolo_core::id::NetworkId;

    use super::*;

    fn of(number: u128) -> BTreeSet<Subject> {
        BTreeSet::from([Subject::Network(NetworkId(number))])
    }

    #[tokio::test]
    async fn only_one_works_on_a_thing_at_a_time() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(of(1)).await.unwrap();
        let other = turns.take(of(2)).await.unwrap();
        assert!(turns.is_taken(Subject::Network(NetworkId(1))));
        let second = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(of(1)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop((first, other));
        let waited = timeout(Duration::from_secs(5), second).await;
        waited.unwrap().unwrap().unwrap();
        assert!(!turns.is_taken(Subject::Network(NetworkId(1))));
    }

    #[tokio::test]
    async fn those_who_wait_have_a_limit() {
        let turns = Arc::new(Turns::default());
        let _first = turns.take(of(1)).await.unwrap();
        turns.waiting.store(PLUGIN_WAITING_MAX, Ordering::Relaxed);
        let refused = turns.take(of(1)).await.unwrap_err();
        assert_eq!(refused.code, Code::Busy);
        turns.take(of(2)).await.unwrap();
        turns
            .waiting
            .store(PLUGIN_WAITING_MAX - 1, Ordering::Relaxed);
        let waits = timeout(Duration::from_millis(50), turns.take(of(1))).await;
        assert!(waits.is_err());
    }
}
