//! Errors as they travel, and the one table that says what each of them means to HTTP, to a shell and
//! to a CNI runtime.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Who can do something about it.
    pub kind: ErrorKind,
    /// Which error it is, for programs; one word that never changes.
    #[schema(value_type = String, example = "overlapping_subnet")]
    pub code: ErrorCode,
    /// Name or id of what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What failed, on what and why, for people.
    pub message: String,
    /// What to do about it, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error of this code, of the kind that the table gives it.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            kind: code.kind(),
            code,
            object: None,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error about an object.
    #[must_use]
    pub fn on(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// The same error with a word on what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The HTTP status that it travels with.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.code.http_status(self.kind)
    }

    /// The exit code of a command that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.http_status() == 404 {
            EXIT_NOT_FOUND
        } else {
            self.kind.exit_code()
        }
    }

    /// The code of a CNI error result (CNI specification 1.1, section 5, "Error").
    #[must_use]
    pub fn cni_code(&self) -> u32 {
        self.code.cni_code(self.kind)
    }
}

/// Exit code of a command whose object does not exist.
pub const EXIT_NOT_FOUND: u8 = 5;

/// The four kinds of error. They decide on retries, HTTP status, exit code and CNI code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request can never work as it is: the caller changes it.
    Invalid,
    /// The request cannot work as things are: the caller changes them, or the request.
    Conflict,
    /// Something needed is not there now: trying again may work.
    Unavailable,
    /// The daemon or the kernel failed: somebody reads the log.
    Internal,
}

impl ErrorKind {
    /// The HTTP status, where the code has none of its own.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Conflict => 409,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// The exit code of a command.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::Conflict => 3,
            Self::Unavailable => 4,
        }
    }

    /// The code of a CNI error result, where the code has none of its own; from 100 on they are ours.
    #[must_use]
    pub fn cni_code(self) -> u32 {
        match self {
            Self::Invalid => 7,
            Self::Unavailable => 11,
            Self::Internal => 100,
            Self::Conflict => 101,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares the codes: each with its meaning, its word on the wire and its kind.
macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident $word:literal $kind:ident;)+) => {
        /// Which error it is. Words are added, never changed or taken away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])+ #[serde(rename = $word)] $name,)+
            /// A word that this version does not know.
            #[serde(other, rename = "unrecognised")]
            Unrecognised,
        }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                    Self::Unrecognised => "unrecognised",
                }
            }

            /// The kind of the errors with this code.
            #[must_use]
            pub fn kind(self) -> ErrorKind {
                match self {
                    $(Self::$name => ErrorKind::$kind,)+
                    Self::Unrecognised => ErrorKind::Internal,
                }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not JSON of the shape that the call takes.
    MalformedJson "malformed_json" Invalid;
    /// The body is larger than the daemon reads.
    BodyTooLarge "body_too_large" Invalid;
    /// The body did not arrive whole.
    IncompleteBody "incomplete_body" Invalid;
    /// The request comes from a web page, which has no business here.
    ForeignOrigin "foreign_origin" Invalid;
    /// No call has this path.
    UnknownPath "unknown_path" Invalid;
    /// No call has this path with this method.
    MethodNotAllowed "method_not_allowed" Invalid;
    /// The query holds a word that the call does not take, or takes once only.
    UnknownParameter "unknown_parameter" Invalid;
    /// A word of the query has a value that it cannot have.
    InvalidParameter "invalid_parameter" Invalid;
    /// The name or id of an object cannot be one.
    InvalidReference "invalid_reference" Invalid;
    /// A name holds characters that it must not, is empty or too long.
    InvalidName "invalid_name" Invalid;
    /// An address cannot be read, or is not of the right family or scope.
    InvalidAddress "invalid_address" Invalid;
    /// An option of a network is not known.
    UnknownOption "unknown_option" Invalid;
    /// Objects or settings do not go together.
    InvalidCombination "invalid_combination" Invalid;
    /// A subnet is written with host bits set.
    HostBitsSet "host_bits_set" Invalid;
    /// A gateway is outside its subnet.
    GatewayOutsideSubnet "gateway_outside_subnet" Invalid;
    /// An interface name cannot be one.
    InterfaceName "interface_name" Invalid;
    /// An MTU is out of range.
    MtuRange "mtu_range" Invalid;
    /// No network has this name or id.
    UnknownNetwork "unknown_network" Invalid;
    /// No endpoint has this name or id.
    UnknownEndpoint "unknown_endpoint" Invalid;
    /// No sandbox has this name or id.
    UnknownSandbox "unknown_sandbox" Invalid;
    /// Several objects have ids that start like this, or this name.
    AmbiguousReference "ambiguous_reference" Invalid;
    /// IPv6 is switched off on this host.
    Ipv6Disabled "ipv6_disabled" Unavailable;
    /// A subnet overlaps with another network or with a route of the host.
    OverlappingSubnet "overlapping_subnet" Conflict;
    /// An address is leased or reserved already.
    AddressInUse "address_in_use" Conflict;
    /// No address or no subnet is left.
    PoolExhausted "pool_exhausted" Conflict;
    /// The name is taken.
    NameTaken "name_taken" Conflict;
    /// The network has endpoints.
    NetworkInUse "network_in_use" Conflict;
    /// The network is one of those that always exist.
    PredefinedNetwork "predefined_network" Invalid;
    /// The endpoint is joined to a sandbox, or the sandbox to the network, already.
    AlreadyJoined "already_joined" Conflict;
    /// The endpoint is joined to no sandbox, or the sandbox not to the network.
    NotJoined "not_joined" Conflict;
    /// The sandbox is not running.
    NotRunning "not_running" Conflict;
    /// The sandbox is running.
    Running "running" Conflict;
    /// The network namespace belongs to another sandbox.
    NamespaceTaken "namespace_taken" Conflict;
    /// Another engine has made it and decides about it.
    EngineOwned "engine_owned" Conflict;
    /// A plugin of others is not there, or does not answer.
    PluginUnavailable "plugin_unavailable" Unavailable;
    /// A plugin of others said no, or nothing that makes sense.
    PluginRefused "plugin_refused" Conflict;
    /// An object is at its limit already.
    LimitReached "limit_reached" Conflict;
    /// The network namespace does not exist, or is not one.
    MissingNamespace "missing_namespace" Invalid;
    /// An interface of this name exists.
    InterfaceNameTaken "interface_name_taken" Conflict;
    /// A port of the host is taken, by another publication or another program.
    PortTaken "port_taken" Conflict;
    /// A port or range of ports is malformed, out of range, or of another length than its other side.
    InvalidPort "invalid_port" Invalid;
    /// The sandbox has no such publication.
    UnknownPublication "unknown_publication" Invalid;
    /// The sandbox has no such link.
    UnknownLink "unknown_link" Invalid;
    /// A sandbox would be linked to itself, by itself or by others.
    LinkLoop "link_loop" Invalid;
    /// No network of the sandbox takes published ports.
    NotPublishable "not_publishable" Invalid;
    /// The address is none of this host.
    AddressNotHere "address_not_here" Invalid;
    /// The kernel lacks something that this needs.
    MissingFeature "missing_feature" Unavailable;
    /// The resolver does not run.
    NoResolver "no_resolver" Unavailable;
    /// No daemon answers.
    NoDaemon "no_daemon" Unavailable;
    /// The daemon is ending.
    ShuttingDown "shutting_down" Unavailable;
    /// The daemon has more to do than it takes on at once.
    Busy "busy" Unavailable;
    /// The store cannot be reached or written.
    StoreUnavailable "store_unavailable" Unavailable;
    /// The kernel refused an operation.
    KernelRefused "kernel_refused" Internal;
    /// What should never happen happened.
    Internal "internal" Internal;
}

impl ErrorCode {
    /// The HTTP status of an error with this code and of this kind.
    fn http_status(self, kind: ErrorKind) -> u16 {
        match self {
            Self::UnknownNetwork
            | Self::UnknownEndpoint
            | Self::UnknownSandbox
            | Self::UnknownPublication
            | Self::UnknownLink
            | Self::UnknownPath => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTooLarge => 413,
            _ => kind.http_status(),
        }
    }

    /// The CNI code of an error with this code and of this kind.
    fn cni_code(self, kind: ErrorKind) -> u32 {
        match self {
            Self::UnknownSandbox => 3,
            Self::MalformedJson => 6,
            _ => kind.cni_code(),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
