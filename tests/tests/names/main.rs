//! Names: what clients in sandboxes are answered.

mod multicast;
