//! Behaviour of the whole program in network namespaces.
