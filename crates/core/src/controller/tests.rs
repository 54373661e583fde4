//! The engine on a kernel in memory: scenarios, crashes at every operation, properties, limits.

mod scenario;
mod script;
mod world;
