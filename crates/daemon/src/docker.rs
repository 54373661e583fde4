//! Docker's engine as a front end: we are its plugin for networks and for addresses.
//!
//! `translate` turns the engine's words into commands; `network`, `endpoint` and `ipam` answer the methods; `server`
//! is the socket. `engine` asks the engine in turn for what plugins are not told. Every method may come again, since an
//! engine that lost the answer asks again: with the same words, or with none, where it has sent its words already, and
//! then it is refused. None waits for the engine itself, which may be waiting for us.

mod described;
mod endpoint;
mod engine;
mod forgotten;
mod inquiries;
mod ipam;
mod network;
mod server;
mod translate;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use tombolo_core::{Command, EngineCommand, Reject, Reply};

use crate::config;
use crate::listen::{self, ListenError, Listener};
use crate::run::Shared;

/// The plugin at its socket.
pub(crate) struct Plugin {
    listener: Option<Listener>,
    calls: Calls,
    engines: engine::Engines,
}

/// What answers the engines, and how many of them there are.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Shared, Arc<Mutex<ipam::Rounds>>, usize);

impl Plugin {
    /// Takes the socket, if there is to be one.
    pub(crate) fn open(config: &config::Docker, shared: &Shared) -> Result<Self, ListenError> {
        let path = config.plugin_socket.as_deref();
        let calls = Calls(shared.clone(), Arc::default(), config.engines.len());
        Ok(Self {
            listener: path.map(|path| listen::unix(path, None)).transpose()?,
            engines: engine::Engines::new(&config.engines, &calls),
            calls,
        })
    }

    /// Answers until `shutdown` is ready; the socket is gone thereafter, so that the engine is refused at once.
    pub(crate) async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Some(listener) = self.listener else {
            return;
        };
        let server = crate::http::Server::new(server::router(self.calls));
        let follower = tokio::spawn(self.engines.follow());
        server.serve(vec![listener], shutdown).await;
        follower.abort();
    }
}

impl Calls {
    async fn order(&self, command: EngineCommand, seed: Option<u128>) -> Result<Reply, Reject> {
        self.0.order(Command::Engine(command), seed).await
    }

    fn has_several_engines(&self) -> bool {
        self.2 > 1
    }
}
