//! What users want, and what follows from it: the container network model, addresses, drivers as planners,
//! and the controller that turns requests into plans. Pure: time, randomness and everything about the host
//! come in as arguments.

pub mod command;
pub mod controller;
pub mod driver;
pub mod event;
pub mod facts;
pub mod id;
pub mod ipam;
pub mod limits;
pub mod model;
pub mod record;
pub mod reject;
pub mod subject;

pub use command::{Command, Described, EngineCommand, PluginCommand, Reference};
pub use controller::Controller;
pub use event::{Decision, Effect, Event, JobId, Notice, Reply, RequestId, Write};
pub use facts::{Facts, ForwardChain, LinkFact, Obedience, Settings, Uplink};
pub use reject::{Code, Kind, Reject};
pub use subject::Subject;
