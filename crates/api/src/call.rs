//! The calls: a closed set of operations, what each is given and what each answers.
//!
//! The table of operations is read by the client, by the server and by the OpenAPI description, so that
//! the three cannot differ.

mod decode;
mod encode;
mod query;

use hyper::Method;
use serde::Serialize;

pub use encode::EncodedRequest;

use crate::types::{
    DnsAnswer, DnsName, DnsNameFilter, DnsQuestion, Endpoint, EndpointCreate, EndpointFilter,
    EndpointJoin, Explanation, FindingReport, Info, Network, NetworkConnect, NetworkCreate,
    NetworkDisconnect, NetworkFilter, Operations, PlanRequest, Pruned, Publication,
    PublicationsAdd, PublicationsRemove, RepairReport, Sandbox, SandboxCreate, SandboxFilter,
    Version,
};

/// Where an operation is found, and the shapes of what goes in and out.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, in which `{reference}` stands for a name or id.
    pub path: &'static str,
    /// The words that its query takes.
    pub query: &'static [&'static str],
    /// Name of the schema of its body, if it takes one.
    pub body: Option<&'static str>,
    /// What it answers.
    pub reply: Reply,
    /// What it does.
    pub summary: &'static str,
}

/// What an operation answers when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Status 200 and a value with a schema of this name.
    Value(&'static str),
    /// Status 201 and a value with a schema of this name.
    Created(&'static str),
    /// Status 200 and an array of values with a schema of this name.
    List(&'static str),
    /// Status 204 and nothing.
    Done,
}

impl Reply {
    /// The HTTP status that it travels with.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Value(_) | Self::List(_) => 200,
            Self::Created(_) => 201,
            Self::Done => 204,
        }
    }
}

macro_rules! some_name {
    () => {
        None
    };
    ($body:literal) => {
        Some($body)
    };
}

/// Declares the operations: what each does, its name, its method and path, the words of its query, the
/// schema of its body and its reply.
macro_rules! operations {
    ($($name:ident: $summary:literal, $method:ident $path:literal $query:tt ($($body:literal)?)
        => $reply:expr;)+) => {
        /// One of the things that the API does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Operation {
            $(#[doc = $summary] $name,)+
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Where it is found, and the shapes of what goes in and out.
            #[must_use]
            pub fn route(self) -> Route {
                match self {
                    $(Self::$name => Route {
                        method: Method::$method,
                        path: $path,
                        query: &$query,
                        body: some_name!($($body)?),
                        reply: $reply,
                        summary: $summary,
                    },)+
                }
            }

            /// Its name in CamelCase.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

operations! {
    Version: "Tells which program answers.",
        GET "/v1/version" [] () => Reply::Value("Version");
    Info: "Tells how the daemon is set up and what it holds.",
        GET "/v1/info" [] () => Reply::Value("Info");
    NetworkCreate: "Makes a network.",
        POST "/v1/networks" [] ("NetworkCreate") => Reply::Created("Network");
    NetworkList: "Lists networks.",
        GET "/v1/networks" ["name", "driver", "label"] () => Reply::List("Network");
    NetworkPrune: "Removes the networks without endpoints, except those that always exist.",
        POST "/v1/networks/prune" [] () => Reply::Value("Pruned");
    NetworkInspect: "Shows a network.",
        GET "/v1/networks/{reference}" [] () => Reply::Value("Network");
    NetworkDelete: "Removes a network without endpoints.",
        DELETE "/v1/networks/{reference}" [] () => Reply::Done;
    NetworkConnect: "Ties a sandbox to a network with a new endpoint.",
        POST "/v1/networks/{reference}/connect" [] ("NetworkConnect") => Reply::Created("Endpoint");
    NetworkDisconnect: "Unties a sandbox from a network and removes the endpoint.",
        POST "/v1/networks/{reference}/disconnect" [] ("NetworkDisconnect") => Reply::Done;
    EndpointCreate: "Makes an endpoint, and joins it to a sandbox when one is named.",
        POST "/v1/endpoints" [] ("EndpointCreate") => Reply::Created("Endpoint");
    EndpointList: "Lists endpoints.",
        GET "/v1/endpoints" ["network", "sandbox"] () => Reply::List("Endpoint");
    EndpointInspect: "Shows an endpoint.",
        GET "/v1/endpoints/{reference}" [] () => Reply::Value("Endpoint");
    EndpointDelete: "Removes an endpoint, joined or not.",
        DELETE "/v1/endpoints/{reference}" [] () => Reply::Done;
    EndpointJoin: "Joins an endpoint to a sandbox.",
        POST "/v1/endpoints/{reference}/join" [] ("EndpointJoin") => Reply::Value("Endpoint");
    EndpointLeave: "Takes an endpoint out of its sandbox; it keeps its addresses.",
        POST "/v1/endpoints/{reference}/leave" [] () => Reply::Value("Endpoint");
    SandboxCreate: "Makes a sandbox with all its networks, or nothing.",
        POST "/v1/sandboxes" [] ("SandboxCreate") => Reply::Created("Sandbox");
    SandboxList: "Lists sandboxes.",
        GET "/v1/sandboxes" ["name", "label"] () => Reply::List("Sandbox");
    SandboxInspect: "Shows a sandbox.",
        GET "/v1/sandboxes/{reference}" [] () => Reply::Value("Sandbox");
    SandboxDelete: "Removes a sandbox, and its endpoints unless they are to be kept.",
        DELETE "/v1/sandboxes/{reference}" ["keep_endpoints"] () => Reply::Done;
    SandboxStop: "Gives up a sandbox's network namespace; its endpoints keep their addresses.",
        POST "/v1/sandboxes/{reference}/stop" [] () => Reply::Value("Sandbox");
    SandboxStart: "Gives a stopped sandbox a network namespace and joins its endpoints again.",
        POST "/v1/sandboxes/{reference}/start" [] () => Reply::Value("Sandbox");
    SandboxPublications: "Lists the published ports of a sandbox.",
        GET "/v1/sandboxes/{reference}/publications" [] () => Reply::List("Publication");
    PublicationsAdd: "Publishes ports of a sandbox, running or not, or changes who may use them.",
        POST "/v1/sandboxes/{reference}/publications" [] ("PublicationsAdd")
        => Reply::List("Publication");
    PublicationsRemove: "Withdraws published ports of a sandbox, all that are named or none.",
        POST "/v1/sandboxes/{reference}/publications/remove" [] ("PublicationsRemove")
        => Reply::Done;
    PublicationList: "Lists the published ports of the host.",
        GET "/v1/publications" [] () => Reply::List("Publication");
    DnsNames: "Lists the names of running sandboxes on their networks.",
        GET "/v1/dns/names" ["network"] () => Reply::List("DnsName");
    DnsResolve: "Asks the resolver for a name, as a sandbox would.",
        GET "/v1/dns/resolve" ["name", "type", "sandbox"] () => Reply::Value("DnsAnswer");
    Plan: "Tells what a command would do, without doing it.",
        POST "/v1/plan" [] ("PlanRequest") => Reply::Value("Operations");
    Explain: "Tells which kernel objects are behind an endpoint, and how they stand.",
        GET "/v1/explain/{reference}" [] () => Reply::Value("Explanation");
    Drift: "Compares the kernel with what should be, and tells the difference.",
        GET "/v1/drift" [] () => Reply::Value("Operations");
    Repair: "Compares the kernel with what should be, and removes the difference.",
        POST "/v1/repair" [] () => Reply::Value("RepairReport");
    Doctor: "Looks for what keeps networks on this host from working.",
        GET "/v1/doctor" [] () => Reply::Value("FindingReport");
    Prune: "Removes stopped sandboxes, endpoints joined to nothing and networks without endpoints.",
        POST "/v1/prune" [] () => Reply::Value("Pruned");
}

/// A call with everything that it is given. A `reference` is a name, an id or an unambiguous start of
/// an id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the operations of the same names say what each is"
)]
pub enum Request {
    Version,
    Info,
    NetworkCreate(NetworkCreate),
    NetworkList(NetworkFilter),
    NetworkPrune,
    NetworkInspect {
        reference: String,
    },
    NetworkDelete {
        reference: String,
    },
    NetworkConnect {
        reference: String,
        connect: NetworkConnect,
    },
    NetworkDisconnect {
        reference: String,
        disconnect: NetworkDisconnect,
    },
    EndpointCreate(EndpointCreate),
    EndpointList(EndpointFilter),
    EndpointInspect {
        reference: String,
    },
    EndpointDelete {
        reference: String,
    },
    EndpointJoin {
        reference: String,
        join: EndpointJoin,
    },
    EndpointLeave {
        reference: String,
    },
    SandboxCreate(SandboxCreate),
    SandboxList(SandboxFilter),
    SandboxInspect {
        reference: String,
    },
    SandboxDelete {
        reference: String,
        keep_endpoints: bool,
    },
    SandboxStop {
        reference: String,
    },
    SandboxStart {
        reference: String,
    },
    SandboxPublications {
        reference: String,
    },
    PublicationsAdd {
        reference: String,
        add: PublicationsAdd,
    },
    PublicationsRemove {
        reference: String,
        remove: PublicationsRemove,
    },
    PublicationList,
    DnsNames(DnsNameFilter),
    DnsResolve(DnsQuestion),
    Plan(PlanRequest),
    Explain {
        reference: String,
    },
    Drift,
    Repair,
    Doctor,
    Prune,
}

impl Request {
    /// The operation that it calls.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Version => Operation::Version,
            Self::Info => Operation::Info,
            Self::NetworkCreate(_) => Operation::NetworkCreate,
            Self::NetworkList(_) => Operation::NetworkList,
            Self::NetworkPrune => Operation::NetworkPrune,
            Self::NetworkInspect { .. } => Operation::NetworkInspect,
            Self::NetworkDelete { .. } => Operation::NetworkDelete,
            Self::NetworkConnect { .. } => Operation::NetworkConnect,
            Self::NetworkDisconnect { .. } => Operation::NetworkDisconnect,
            Self::EndpointCreate(_) => Operation::EndpointCreate,
            Self::EndpointList(_) => Operation::EndpointList,
            Self::EndpointInspect { .. } => Operation::EndpointInspect,
            Self::EndpointDelete { .. } => Operation::EndpointDelete,
            Self::EndpointJoin { .. } => Operation::EndpointJoin,
            Self::EndpointLeave { .. } => Operation::EndpointLeave,
            Self::SandboxCreate(_) => Operation::SandboxCreate,
            Self::SandboxList(_) => Operation::SandboxList,
            Self::SandboxInspect { .. } => Operation::SandboxInspect,
            Self::SandboxDelete { .. } => Operation::SandboxDelete,
            Self::SandboxStop { .. } => Operation::SandboxStop,
            Self::SandboxStart { .. } => Operation::SandboxStart,
            Self::SandboxPublications { .. } => Operation::SandboxPublications,
            Self::PublicationsAdd { .. } => Operation::PublicationsAdd,
            Self::PublicationsRemove { .. } => Operation::PublicationsRemove,
            Self::PublicationList => Operation::PublicationList,
            Self::DnsNames(_) => Operation::DnsNames,
            Self::DnsResolve(_) => Operation::DnsResolve,
            Self::Plan(_) => Operation::Plan,
            Self::Explain { .. } => Operation::Explain,
            Self::Drift => Operation::Drift,
            Self::Repair => Operation::Repair,
            Self::Doctor => Operation::Doctor,
            Self::Prune => Operation::Prune,
        }
    }
}

/// The answer to a call that succeeded. Which one a call gets stands in the table of operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each is the type that it holds")]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each call, and it is not kept"
)]
pub enum Response {
    Version(Version),
    Info(Info),
    Network(Network),
    Networks(Vec<Network>),
    Endpoint(Endpoint),
    Endpoints(Vec<Endpoint>),
    Sandbox(Sandbox),
    Sandboxes(Vec<Sandbox>),
    Publications(Vec<Publication>),
    DnsNames(Vec<DnsName>),
    DnsAnswer(DnsAnswer),
    Pruned(Pruned),
    Operations(Operations),
    Explanation(Explanation),
    RepairReport(RepairReport),
    FindingReport(FindingReport),
    Done,
}

impl Response {
    /// Whether an operation answers with this.
    #[must_use]
    pub fn answers(&self, operation: Operation) -> bool {
        let expected = match operation.route().reply {
            Reply::Value(name) | Reply::Created(name) => (name, false),
            Reply::List(name) => (name, true),
            Reply::Done => ("", false),
        };
        expected == self.schema()
    }

    /// Name of the schema of what it holds, and whether it is an array of that.
    fn schema(&self) -> (&'static str, bool) {
        match self {
            Self::Version(_) => ("Version", false),
            Self::Info(_) => ("Info", false),
            Self::Network(_) => ("Network", false),
            Self::Networks(_) => ("Network", true),
            Self::Endpoint(_) => ("Endpoint", false),
            Self::Endpoints(_) => ("Endpoint", true),
            Self::Sandbox(_) => ("Sandbox", false),
            Self::Sandboxes(_) => ("Sandbox", true),
            Self::Publications(_) => ("Publication", true),
            Self::DnsNames(_) => ("DnsName", true),
            Self::DnsAnswer(_) => ("DnsAnswer", false),
            Self::Pruned(_) => ("Pruned", false),
            Self::Operations(_) => ("Operations", false),
            Self::Explanation(_) => ("Explanation", false),
            Self::RepairReport(_) => ("RepairReport", false),
            Self::FindingReport(_) => ("FindingReport", false),
            Self::Done => ("", false),
        }
    }
}

#[cfg(test)]
mod tests;
