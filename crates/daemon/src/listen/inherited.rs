//! Sockets that the service manager listens on for us (sd_listen_fds(3)).

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};
use tombolo_api::tls::TlsFiles;

use super::{Kind, ListenError, Listener, acceptor};

/// Number of the first file descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST_DESCRIPTOR: usize = 3;

/// Takes the sockets that the service manager hands over in `LISTEN_FDS`; none when it hands over none. TCP
/// sockets follow the same rule as [`super::tcp`]. Takes the variables away, so that children do not see
/// them: must be called once, before other threads read the environment, and inside a runtime.
pub fn inherited(tls: Option<&TlsFiles>) -> Result<Vec<Listener>, ListenError> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        if let Some(kind) = take(&mut handed, index, tls)? {
            listeners.push(Listener(kind));
        }
    }
    Ok(listeners)
}

fn take(
    handed: &mut ListenFd,
    index: usize,
    tls: Option<&TlsFiles>,
) -> Result<Option<Kind>, ListenError> {
    let failed = |source| ListenError::Inherited {
        descriptor: FIRST_DESCRIPTOR + index,
        source,
    };
    if let Ok(Some(listener)) = handed.take_unix_listener(index) {
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        return Ok(Some(Kind::Unix {
            listener,
            file: None,
        }));
    }
    let Some(listener) = handed.take_tcp_listener(index).map_err(failed)? else {
        return Ok(None);
    };
    let tls = acceptor(listener.local_addr().map_err(failed)?, tls)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    Ok(Some(Kind::Tcp { listener, tls }))
}
