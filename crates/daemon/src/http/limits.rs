//! Limits of the HTTP front end.

use std::time::Duration;

/// Most connections at a time; more wait in the kernel's queue until one of these ends.
pub const CONNECTIONS_MAX: usize = 1024;

/// Most headers in a request.
pub const HEADERS_MAX: usize = 64;

/// Largest head of a request, in bytes: request line and headers.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long the body of a request may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long calls may take to end once the daemon is ending.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a connection could not be taken, such as for want of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
