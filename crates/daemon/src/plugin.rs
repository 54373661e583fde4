//! The plugin protocol of Docker's engine (libnetwork): JSON over HTTP, by which an engine asks a network driver or an
//! address allocator that runs as a program of its own. Here is the protocol as such: the words of it, how a plugin is
//! found by its name, and how one is called.

pub(crate) mod client;
pub(crate) mod discovery;
pub(crate) mod wire;
