//! The HTTP+JSON API of the daemon: what travels over the wire, the table of its errors, the closed
//! set of its calls, its description in OpenAPI, and a typed client.

pub mod address;
pub mod call;
pub mod client;
pub mod error;
pub mod limits;
pub mod openapi;
pub mod tls;
pub mod types;

pub use address::Address;
pub use call::{Operation, Request, Response};
pub use client::{AsyncClient, Client, ClientError};
pub use error::{ApiError, ErrorCode, ErrorKind};
pub use types::*;
