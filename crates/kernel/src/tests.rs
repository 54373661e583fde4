//! The whole crate against the running kernel, each test in a host of its own: a thread in new network and
//! mount namespaces, which end with it.

mod drift;
mod failures;
mod lifecycle;
mod rules;
mod scenery;
mod watching;
