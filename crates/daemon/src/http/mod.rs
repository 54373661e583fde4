//! The HTTP front end: reads calls, hands them to a [`Service`] and writes what it answers.
//!
//! It knows paths, bodies and connections, and nothing of networks. Every failure leaves it as an
//! [`ApiError`], those of the HTTP layer included.

pub mod limits;
mod router;
mod server;

use tombolo_api::{ApiError, Request, Response};

pub use router::router;
pub use server::Server;

/// What answers calls.
pub trait Service: Clone + Send + Sync + 'static {
    /// Carries out a call. The future is dropped when the caller goes away: what was begun must be finished
    /// or withdrawn without it.
    fn call(&self, request: Request) -> impl Future<Output = Result<Response, ApiError>> + Send;
}

#[cfg(test)]
mod tests;
