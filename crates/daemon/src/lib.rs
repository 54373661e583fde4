//! The daemon: one loop in which the API, the store and the kernel meet.

mod config;
mod crash;
mod doctor;
mod engine;
mod facts;
mod files;
pub mod http;
mod limits;
pub mod listen;
mod queries;
mod run;
mod start;
mod translate;

pub use run::main_with;
