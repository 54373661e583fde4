//! Limits of what travels, shared by both ends.

use std::time::Duration;

/// Largest body of a request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Largest body of an answer that the client reads, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Longest name or id in a path, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 255;

/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server keeps a connection open without a request. The client gives one up sooner.
pub const SERVER_IDLE: Duration = Duration::from_secs(60);

/// How long the client trusts a connection without a request.
pub const CLIENT_IDLE: Duration = Duration::from_secs(30);
