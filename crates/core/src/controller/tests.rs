//! The engine on a kernel in memory: scenarios, crashes at every operation, properties, limits.

mod crash;
mod engine;
mod limits;
mod plugin;
mod property;
mod race;
mod refusal;
mod scenario;
mod script;
mod world;
