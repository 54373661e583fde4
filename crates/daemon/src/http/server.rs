//! Connections: taken, served and ended.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tombolo_api::limits::SERVER_IDLE;

use super::limits;
use crate::listen::{Listener, Stream};

/// Serves a router on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    /// What answers requests.
    pub router: Router,
    /// Most connections at a time, over all listeners.
    pub connections_max: usize,
    /// How long a connection without a call stays open.
    pub idle_timeout: Duration,
    /// How long calls may take to end once the server is ending.
    pub drain_timeout: Duration,
}

/// What every connection is served with.
#[derive(Clone)]
struct Setting {
    router: Router,
    idle_timeout: Duration,
    /// Its sending half goes when the server is ending.
    stopped: watch::Receiver<()>,
}

impl Server {
    /// A server with the limits of [`limits`].
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self {
            router,
            connections_max: limits::CONNECTIONS_MAX,
            idle_timeout: SERVER_IDLE,
            drain_timeout: limits::DRAIN_TIMEOUT,
        }
    }

    /// Serves until `shutdown` is ready. Then takes no more connections, closes those without a call, and
    /// returns when the last call has ended or the drain timeout is over.
    pub async fn serve(self, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(self.connections_max));
        let (stop, stopped) = watch::channel(());
        let mut loops = JoinSet::new();
        let setting = Setting {
            router: self.router,
            idle_timeout: self.idle_timeout,
            stopped,
        };
        let drain_timeout = self.drain_timeout;
        for listener in listeners {
            let (slots, setting) = (slots.clone(), setting.clone());
            loops.spawn(async move {
                let mut connections = JoinSet::new();
                take_connections(&listener, &mut connections, slots, setting).await;
                drop(listener);
                let drained = async { while connections.join_next().await.is_some() {} };
                if timeout(drain_timeout, drained).await.is_err() {
                    tracing::warn!("connections were cut off because calls did not end in time");
                }
            });
        }
        shutdown.await;
        drop(stop);
        while loops.join_next().await.is_some() {}
    }
}

/// Takes connections until told to stop.
async fn take_connections(
    listener: &Listener,
    connections: &mut JoinSet<()>,
    slots: Arc<Semaphore>,
    setting: Setting,
) {
    let mut stop = pin!(told_to_stop(setting.stopped.clone()));
    loop {
        let taken = tokio::select! {
            () = &mut stop => return,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a connection ended in a panic");
                }
                continue;
            }
            taken = take_one(listener, &slots) => taken,
        };
        match taken {
            Ok((stream, slot)) => {
                connections.spawn(serve_connection(stream, slot, setting.clone()));
            }
            Err(error) => {
                tracing::warn!(%listener, %error, "a connection could not be taken");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for a free slot and then for a connection.
async fn take_one(
    listener: &Listener,
    slots: &Arc<Semaphore>,
) -> io::Result<(Stream, OwnedSemaphorePermit)> {
    let Ok(slot) = slots.clone().acquire_owned().await else {
        // The semaphore is never closed.
        return pending().await;
    };
    Ok((listener.accept().await?, slot))
}

/// Ready when the sending half is gone.
async fn told_to_stop(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

async fn serve_connection(stream: Stream, _slot: OwnedSemaphorePermit, setting: Setting) {
    match stream {
        Stream::Unix(stream) => serve_http(stream, setting).await,
        Stream::Tcp(stream) => serve_http(stream, setting).await,
        Stream::Tls { stream, acceptor } => {
            let handshake = timeout(limits::HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let outcome = tokio::select! {
                outcome = handshake => outcome,
                () = told_to_stop(setting.stopped.clone()) => return,
            };
            match outcome {
                Ok(Ok(stream)) => serve_http(stream, setting).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS client was turned away"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    }
}

async fn serve_http<S>(stream: S, setting: Setting)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(setting.idle_timeout)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(setting.router),
        );
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = told_to_stop(setting.stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}
