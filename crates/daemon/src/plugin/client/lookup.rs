//! Addresses of plugins' hosts. The system's resolver blocks, for as long as it likes, and cannot be interrupted: each
//! question has a thread of its own, so that nothing else waits, and there are few.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use tokio::sync::{Semaphore, oneshot};

use crate::limits::PLUGIN_LOOKUPS_MAX;

static LOOKUPS: Semaphore = Semaphore::const_new(PLUGIN_LOOKUPS_MAX);

/// The addresses of a host, which may be written as an address.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let slot = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let host = host.to_owned();
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("lookup".to_owned());
    thread.spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        drop(slot);
        // Nobody listens any more when the time for the call is over.
        drop(tell.send(found.map(Iterator::collect)));
    })?;
    told.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime whose only thread for what blocks is taken.
    fn busy_runtime() -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        drop(runtime.spawn_blocking(std::thread::park));
        runtime
    }

    #[test]
    fn a_name_is_looked_up_while_nothing_else_that_blocks_can_run() {
        let runtime = busy_runtime();
        let limit = std::time::Duration::from_secs(20);
        let found = runtime
            .block_on(async { tokio::time::timeout(limit, addresses("localhost", 7)).await });
        let found = found.unwrap().unwrap();
        assert!(
            found
                .iter()
                .all(|at| at.port() == 7 && at.ip().is_loopback())
        );
        assert!(!found.is_empty());
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let found = addresses("fd00::1", 9).await.unwrap();
        assert_eq!(found, ["[fd00::1]:9".parse().unwrap()]);
    }

    #[tokio::test]
    async fn lookups_have_a_limit() {
        let all = u32::try_from(PLUGIN_LOOKUPS_MAX).unwrap();
        let taken = LOOKUPS.acquire_many(all).await.unwrap();
        let limit = std::time::Duration::from_millis(50);
        let waits = tokio::time::timeout(limit, addresses("localhost", 7)).await;
        assert!(waits.is_err());
        drop(taken);
        assert!(addresses("localhost", 7).await.is_ok());
    }
}
