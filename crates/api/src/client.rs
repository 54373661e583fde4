//! The typed client, in a blocking and in an async form.

mod connection;
mod error;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::rustls::ClientConfig;

pub use error::ClientError;

use self::connection::Connection;
use crate::address::Address;
use crate::call::{EncodedRequest, Request};
use crate::error::{ApiError, ErrorCode};
use crate::limits;
use crate::types::{
    DnsAnswer, DnsName, DnsNameFilter, DnsQuestion, Endpoint, EndpointCreate, EndpointFilter,
    EndpointJoin, Explanation, FindingReport, Info, Network, NetworkConnect, NetworkCreate,
    NetworkDisconnect, NetworkFilter, Operations, PlanRequest, Pruned, Publication,
    PublicationSpec, PublicationsAdd, PublicationsRemove, RepairReport, Sandbox, SandboxCreate,
    SandboxFilter, Version,
};

/// A client for async callers. It keeps one connection open and makes one call at a time.
pub struct AsyncClient {
    address: Address,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
    used: Instant,
}

/// A client whose calls block. It must not be used inside an async runtime.
#[derive(Debug)]
pub struct Client {
    inner: AsyncClient,
    runtime: Runtime,
}

impl fmt::Debug for AsyncClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncClient")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to a daemon. Fails at once when none listens, or when calls would travel in the clear over
    /// a network.
    pub fn connect(address: Address) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ClientError::Runtime { source })?;
        let inner = runtime.block_on(AsyncClient::connect(address))?;
        Ok(Self { inner, runtime })
    }

    /// Where the daemon is.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.inner.address()
    }
}

impl AsyncClient {
    /// Connects to a daemon. Fails at once when none listens, or when calls would travel in the clear over
    /// a network.
    pub async fn connect(address: Address) -> Result<Self, ClientError> {
        if address.is_exposed() {
            return Err(ClientError::PlainTcp { address });
        }
        let tls = match &address {
            Address::Tcp {
                tls: Some(files), ..
            } => Some(
                files
                    .client_config()
                    .map_err(|source| ClientError::TlsFiles {
                        source: Box::new(source),
                    })?,
            ),
            Address::Unix(_) | Address::Tcp { tls: None, .. } => None,
        };
        let connection = Some(Connection::open(&address, tls.clone()).await?);
        Ok(Self {
            address,
            tls,
            connection,
            used: Instant::now(),
        })
    }

    /// Where the daemon is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Makes a call and reads its answer; nothing is read as `()`.
    async fn exchange<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, ClientError> {
        let encoded = request
            .encode()
            .map_err(|error| ClientError::Api(Box::new(error)))?;
        let is_read = encoded.operation.route().method == Method::GET;
        let request = http_request(encoded)?;
        let mut connection = self.usable_connection().await?;
        let answer = match connection.send(request.clone()).await {
            // A kept connection may be closed just when the next request arrives. What only reads may then be
            // asked again (RFC 9110, section 9.2.2).
            Err(error)
                if error.is_unsent() || is_read && connection.has_served() && error.is_broken() =>
            {
                connection = Connection::open(&self.address, self.tls.clone()).await?;
                connection.send(request).await
            }
            answer => answer,
        };
        let (status, body) = answer.map_err(|error| error.into_client(&self.address))?;
        self.used = Instant::now();
        self.connection = Some(connection);
        if status >= 400 {
            return Err(refusal(status, &body));
        }
        let body = if body.is_empty() {
            b"null".as_slice()
        } else {
            &body
        };
        serde_json::from_slice(body).map_err(|source| ClientError::Answer { status, source })
    }

    /// The open connection if the daemon still holds it, else a new one.
    async fn usable_connection(&mut self) -> Result<Connection, ClientError> {
        if let Some(connection) = self.connection.take()
            && self.used.elapsed() < limits::CLIENT_IDLE
            && connection.is_open().await
        {
            return Ok(connection);
        }
        Connection::open(&self.address, self.tls.clone()).await
    }
}

fn http_request(encoded: EncodedRequest) -> Result<hyper::Request<Bytes>, ClientError> {
    let mut builder = hyper::Request::builder()
        .method(encoded.operation.route().method)
        .uri(&encoded.target)
        .header(HOST, "tombolo")
        .header(ACCEPT, "application/json");
    if encoded.body.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    let body = encoded.body.map(Bytes::from).unwrap_or_default();
    if body.len() > limits::REQUEST_BYTES_MAX {
        let message = format!(
            "the request has more than {} bytes",
            limits::REQUEST_BYTES_MAX
        );
        return Err(ClientError::Api(Box::new(ApiError::new(
            ErrorCode::BodyTooLarge,
            message,
        ))));
    }
    builder
        .body(body)
        .map_err(|source| ClientError::Request { source })
}

/// The error in an answer, or what can be said of an answer that holds none.
fn refusal(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(error) => ClientError::Api(Box::new(error)),
        Err(_) => ClientError::Status { status },
    }
}

/// Declares the calls of both clients: name, arguments, request and answer.
macro_rules! calls {
    ($($(#[$doc:meta])+ $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty = $request:expr;)+) => {
        impl AsyncClient {
            $($(#[$doc])+
            pub async fn $name(&mut self, $($argument: $kind),*) -> Result<$answer, ClientError> {
                self.exchange($request).await
            })+
        }

        impl Client {
            $($(#[$doc])+
            pub fn $name(&mut self, $($argument: $kind),*) -> Result<$answer, ClientError> {
                self.runtime.block_on(self.inner.exchange($request))
            })+
        }
    };
}

calls! {
    /// Asks which program answers.
    version() -> Version = Request::Version;
    /// Asks how the daemon is set up and what it holds.
    info() -> Info = Request::Info;
    /// Makes a network.
    network_create(create: NetworkCreate) -> Network = Request::NetworkCreate(create);
    /// Lists networks.
    network_list(filter: NetworkFilter) -> Vec<Network> = Request::NetworkList(filter);
    /// Removes the networks without endpoints, except those that always exist.
    network_prune() -> Pruned = Request::NetworkPrune;
    /// Shows a network.
    network_inspect(reference: &str) -> Network =
        Request::NetworkInspect { reference: reference.to_owned() };
    /// Removes a network without endpoints.
    network_delete(reference: &str) -> () =
        Request::NetworkDelete { reference: reference.to_owned() };
    /// Ties a sandbox to a network with a new endpoint.
    network_connect(reference: &str, connect: NetworkConnect) -> Endpoint =
        Request::NetworkConnect { reference: reference.to_owned(), connect };
    /// Unties a sandbox from a network and removes the endpoint.
    network_disconnect(reference: &str, disconnect: NetworkDisconnect) -> () =
        Request::NetworkDisconnect { reference: reference.to_owned(), disconnect };
    /// Makes an endpoint, and joins it to a sandbox when one is named.
    endpoint_create(create: EndpointCreate) -> Endpoint = Request::EndpointCreate(create);
    /// Lists endpoints.
    endpoint_list(filter: EndpointFilter) -> Vec<Endpoint> = Request::EndpointList(filter);
    /// Shows an endpoint.
    endpoint_inspect(reference: &str) -> Endpoint =
        Request::EndpointInspect { reference: reference.to_owned() };
    /// Removes an endpoint, joined or not.
    endpoint_delete(reference: &str) -> () =
        Request::EndpointDelete { reference: reference.to_owned() };
    /// Joins an endpoint to a sandbox.
    endpoint_join(reference: &str, sandbox: &str) -> Endpoint = Request::EndpointJoin {
        reference: reference.to_owned(),
        join: EndpointJoin { sandbox: sandbox.to_owned() },
    };
    /// Takes an endpoint out of its sandbox; it keeps its addresses.
    endpoint_leave(reference: &str) -> Endpoint =
        Request::EndpointLeave { reference: reference.to_owned() };
    /// Makes a sandbox with all its networks, or nothing.
    sandbox_create(create: SandboxCreate) -> Sandbox = Request::SandboxCreate(create);
    /// Lists sandboxes.
    sandbox_list(filter: SandboxFilter) -> Vec<Sandbox> = Request::SandboxList(filter);
    /// Shows a sandbox.
    sandbox_inspect(reference: &str) -> Sandbox =
        Request::SandboxInspect { reference: reference.to_owned() };
    /// Removes a sandbox, and its endpoints unless they are to be kept.
    sandbox_delete(reference: &str, keep_endpoints: bool) -> () =
        Request::SandboxDelete { reference: reference.to_owned(), keep_endpoints };
    /// Gives up a sandbox's network namespace; its endpoints keep their addresses.
    sandbox_stop(reference: &str) -> Sandbox =
        Request::SandboxStop { reference: reference.to_owned() };
    /// Gives a stopped sandbox a network namespace and joins its endpoints again.
    sandbox_start(reference: &str) -> Sandbox =
        Request::SandboxStart { reference: reference.to_owned() };
    /// Lists the published ports of a sandbox.
    sandbox_publications(reference: &str) -> Vec<Publication> =
        Request::SandboxPublications { reference: reference.to_owned() };
    /// Publishes ports of a sandbox, all or none, or changes who may use them; answers with those that were
    /// named.
    publications_add(reference: &str, publications: Vec<PublicationSpec>) -> Vec<Publication> =
        Request::PublicationsAdd {
            reference: reference.to_owned(),
            add: PublicationsAdd { publications },
        };
    /// Withdraws published ports of a sandbox, all that are named or none.
    publications_remove(reference: &str, publications: Vec<String>) -> () =
        Request::PublicationsRemove {
            reference: reference.to_owned(),
            remove: PublicationsRemove { publications },
        };
    /// Lists the published ports of the host.
    publication_list() -> Vec<Publication> = Request::PublicationList;
    /// Lists the names of running sandboxes on their networks.
    dns_names(filter: DnsNameFilter) -> Vec<DnsName> = Request::DnsNames(filter);
    /// Asks the resolver for a name, as a sandbox would.
    dns_resolve(question: DnsQuestion) -> DnsAnswer = Request::DnsResolve(question);
    /// Asks what a command would do, without doing it.
    plan(plan: PlanRequest) -> Operations = Request::Plan(plan);
    /// Asks which kernel objects are behind an endpoint, and how they stand.
    explain(reference: &str) -> Explanation = Request::Explain { reference: reference.to_owned() };
    /// Compares the kernel with what should be, and tells the difference.
    drift() -> Operations = Request::Drift;
    /// Compares the kernel with what should be, and removes the difference.
    repair() -> RepairReport = Request::Repair;
    /// Looks for what keeps networks on this host from working.
    doctor() -> FindingReport = Request::Doctor;
    /// Removes stopped sandboxes, endpoints joined to nothing and networks without endpoints.
    prune() -> Pruned = Request::Prune;
}

#[cfg(test)]
mod tests;
