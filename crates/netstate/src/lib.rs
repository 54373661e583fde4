//! What a kernel can hold: objects with keys and specs, the difference between two sets of them, and the
//! ordered plan that turns one into the other. Pure: no I/O, no clock, no randomness.
//!
//! The crate knows links, addresses and set elements; it does not know networks, endpoints or sandboxes.

pub mod desired;
pub mod diff;
pub mod limits;
pub mod name;
pub mod object;
pub mod plan;
pub mod report;

pub use desired::{Clash, Desired, Owner};
pub use diff::diff;
pub use name::{IfName, Mac, NameError, Netns};
pub use object::{Key, Objects, Spec};
pub use plan::{Action, Edge, Op, Plan};
pub use report::{Outcome, Report};
