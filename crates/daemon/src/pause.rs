//! Rest for whoever takes what arrives at a socket, after it refused.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::task::coop::consume_budget;

use crate::limits::PAUSE_MAX;

/// Rest after failures, longer each time.
#[derive(Debug, Default)]
pub(crate) struct Pause(Duration);

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(5);

    /// What `make` gives, however often it fails before, as while there are too many open files.
    pub(crate) async fn until_had<T>(&mut self, make: impl Fn() -> io::Result<T>) -> T {
        loop {
            match make() {
                Ok(made) => return made,
                Err(error) => self.after(&error).await,
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }

    /// Rests after `error`, unless it is only that a client left before it was taken.
    pub(crate) async fn after(&mut self, error: &io::Error) {
        let gone = Errno::from_io_error(error) == Some(Errno::CONNABORTED);
        if gone || error.kind() == io::ErrorKind::InvalidData {
            consume_budget().await;
            return;
        }
        if self.0.is_zero() {
            tracing::warn!(%error, "what arrives at a socket cannot be taken; trying again");
        }
        self.0 = (self.0 * 2).clamp(Self::SHORTEST, PAUSE_MAX);
        tokio::time::sleep(self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_their_limit_and_begin_anew() {
        let mut pause = Pause::default();
        let full = io::Error::from(Errno::MFILE);
        let begin = tokio::time::Instant::now();
        pause.after(&full).await;
        assert_eq!(begin.elapsed(), Pause::SHORTEST);
        for _ in 0..20 {
            pause.after(&full).await;
        }
        assert_eq!(pause.0, PAUSE_MAX);
        pause.reset();
        pause.after(&io::Error::from(Errno::CONNABORTED)).await;
        assert!(pause.0.is_zero());
    }
}
