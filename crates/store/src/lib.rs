//! Keys with compare-and-swap and watch.
//!
//! [`Store`] is what the daemon sees: atomic commits of several keys, each with its own
//! expectation, listings at a revision, and watches that go on from there. [`Embedded`] keeps
//! the keys of one host in memory and in one append-only log; it needs no server and no thread.

mod embedded;
mod error;
mod key;
pub mod limits;
mod model;
mod watch;

pub use embedded::{Embedded, OpenError, RecordFault, Recovery, ReplayError, Torn};
pub use error::{CommitError, FlushError, LogError, ReadError, Unavailable, WatchError};
pub use key::{Key, KeyError, Prefix};
pub use model::{Change, Durability, Expect, Revision, Versioned, Write};
pub use watch::{Watch, WatchEnd};

/// A set of keys shared by everyone who opens the same store.
///
/// Commits are totally ordered and numbered by [`Revision`]. Every call may block for as long as
/// the disk or the network takes, except `get` and `list` of the embedded store, which never wait for the disk.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The value of `key` and the revision that wrote it, or `None` when it is absent.
    ///
    /// # Errors
    /// When the store cannot answer.
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError>;

    /// All keys under `prefix` in order, and the revision at which this was the truth. A watch
    /// from that revision misses nothing and repeats nothing.
    ///
    /// # Errors
    /// When the store cannot answer.
    fn list(&self, prefix: &Prefix) -> Result<(Vec<(Key, Versioned)>, Revision), ReadError>;

    /// Does all writes or none, and returns the revision they got. Deleting a key that is absent
    /// changes nothing; a commit that changes nothing returns the present revision.
    ///
    /// # Errors
    /// When an expectation does not hold, a limit is passed, or the writes cannot be kept as
    /// durably as asked. The visible state is then unchanged.
    fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<Revision, CommitError>;

    /// Sees to it that commits of so many bytes together will not be refused for want of space: what is begun
    /// must be able to say how it ended. A store that cannot know says that there is room.
    fn make_room(&self, bytes: u64) -> Result<(), CommitError>;

    /// The changes under `prefix` in commits after `from`, oldest first. A watch ends with
    /// [`WatchEnd::Lagged`] when changes were lost to it: list again and start a new one.
    ///
    /// # Errors
    /// When too many watches are open or the store cannot answer.
    fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Watch, WatchError>;

    /// Makes every earlier commit survive a loss of power.
    ///
    /// # Errors
    /// When the disk refuses; the store goes on, and the next flush tries again.
    fn flush(&self) -> Result<(), FlushError>;

    /// Whether some commit would not survive a loss of power now.
    fn needs_flush(&self) -> bool;
}
