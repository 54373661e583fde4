//! What tests stand on: a kernel that keeps the kernel's rules without being one, generated networks, and
//! scratch hosts in network namespaces. Never part of the program.

pub mod fake;
pub mod netns;
pub mod node;
pub mod scene;

pub use fake::{Died, FakeKernel, Fault};
pub use node::Node;
pub use scene::Scene;
