//! The daemon: one loop in which the API, the store and the kernel meet.

mod adopted;
mod config;
mod crash;
mod docker;
mod doctor;
mod engine;
mod facts;
mod files;
mod firewalld;
pub mod http;
mod limits;
pub mod listen;
mod outside;
mod pause;
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the words of the protocol are all there, also those that nobody here says"
    )
)]
mod plugin;
mod publish;
mod queries;
mod relay;
mod remote;
mod resolution;
mod resolver;
mod run;
mod start;
mod translate;
mod user_rules;

pub use run::{keep_ports, main_with};
