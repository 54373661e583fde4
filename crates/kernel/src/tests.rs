//! The whole crate against the running kernel, each test in a host of its own: a thread in new network and
//! mount namespaces, which end with it.

mod conntrack;
mod direct;
mod drift;
mod failures;
mod foreign;
mod forwarding;
mod lent;
mod lifecycle;
mod publish;
mod rules;
pub(crate) mod scenery;
mod taken;
mod watching;
