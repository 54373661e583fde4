//! Behaviour of the process runtime, as root and in network namespaces of its own.

mod attached;
mod life;
mod sight;
mod world;
