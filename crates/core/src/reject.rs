//! Refusals: what was refused, on which object, why, and what to do.

use std::fmt;

/// A refusal or failure, as it is told to the one who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Stable name of the reason.
    pub code: Code,
    /// The object concerned, by the name that was used.
    pub object: String,
    /// What failed and why.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// What decides retry, HTTP status, exit code and CNI code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request can never succeed as it stands.
    Invalid,
    /// The request contradicts what exists; it may succeed once that changes.
    Conflict,
    /// Something that is needed is not there now; the same request may succeed later.
    Unavailable,
    /// We, or the kernel, failed.
    Internal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $kind:ident;)*) => {
        /// Stable names of all reasons.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name, as in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The kind that the reason belongs to.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

codes! {
    /// A subnet overlaps another network's, a route of the host or a resolver.
    OverlappingSubnet "overlapping_subnet" Conflict;
    /// A gateway lies outside its subnet.
    GatewayOutsideSubnet "gateway_outside_subnet" Invalid;
    /// A subnet has bits set beyond its prefix.
    HostBitsSet "host_bits_set" Invalid;
    /// An address, subnet or range cannot be used for another reason.
    InvalidAddress "invalid_address" Invalid;
    /// The address belongs to someone.
    AddressInUse "address_in_use" Conflict;
    /// No address or default subnet is free.
    PoolExhausted "pool_exhausted" Conflict;
    /// The name belongs to another object.
    NameTaken "name_taken" Conflict;
    /// A malformed name.
    InvalidName "invalid_name" Invalid;
    /// No such network.
    UnknownNetwork "unknown_network" Invalid;
    /// No such endpoint.
    UnknownEndpoint "unknown_endpoint" Invalid;
    /// No such sandbox.
    UnknownSandbox "unknown_sandbox" Invalid;
    /// An id prefix or endpoint name that fits several objects.
    AmbiguousReference "ambiguous_reference" Invalid;
    /// The network has endpoints.
    NetworkInUse "network_in_use" Conflict;
    /// The network is made by the daemon and cannot be made or removed by hand.
    PredefinedNetwork "predefined_network" Invalid;
    /// The endpoint or sandbox is already joined.
    AlreadyJoined "already_joined" Conflict;
    /// The endpoint is not joined, or not to that network.
    NotJoined "not_joined" Conflict;
    /// The sandbox is not running.
    NotRunning "not_running" Conflict;
    /// The sandbox is running.
    Running "running" Conflict;
    /// The namespace is not there.
    MissingNamespace "missing_namespace" Invalid;
    /// The namespace belongs to another sandbox.
    NamespaceTaken "namespace_taken" Conflict;
    /// A malformed interface name.
    InterfaceName "interface_name" Invalid;
    /// The interface name is used by someone.
    InterfaceNameTaken "interface_name_taken" Conflict;
    /// The MTU is outside what links and families take.
    MtuRange "mtu_range" Invalid;
    /// The kernel has no IPv6.
    Ipv6Disabled "ipv6_disabled" Unavailable;
    /// The kernel, or a capability of ours, lacks something.
    MissingFeature "missing_feature" Unavailable;
    /// An option that nobody knows, or with a value that it does not take.
    UnknownOption "unknown_option" Invalid;
    /// A combination that makes no sense.
    InvalidCombination "invalid_combination" Invalid;
    /// A port or range of ports that cannot be.
    InvalidPort "invalid_port" Invalid;
    /// The port of the host belongs to someone.
    PortTaken "port_taken" Conflict;
    /// No such publication.
    UnknownPublication "unknown_publication" Invalid;
    /// No such link, or to something that cannot be linked.
    UnknownLink "unknown_link" Invalid;
    /// Links that lead back to where they begin.
    LinkLoop "link_loop" Invalid;
    /// Nothing of the sandbox can be reached through the host.
    NotPublishable "not_publishable" Invalid;
    /// The address is not one of this host.
    AddressNotHere "address_not_here" Invalid;
    /// Another engine has made it and decides about it.
    EngineOwned "engine_owned" Conflict;
    /// A plugin of others is not there, or does not answer.
    PluginUnavailable "plugin_unavailable" Unavailable;
    /// A plugin of others said no, or nothing that makes sense.
    PluginRefused "plugin_refused" Conflict;
    /// A count or size beyond its limit.
    LimitReached "limit_reached" Conflict;
    /// Too many requests wait.
    Busy "busy" Unavailable;
    /// The store did not take the intent.
    Store "store_unavailable" Unavailable;
    /// The kernel refused an operation.
    Kernel "kernel_refused" Internal;
}

impl Reject {
    /// A refusal without a hint.
    pub fn new(code: Code, object: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            code,
            object: object.to_string(),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// A refusal whose text ends with what to do, after the last colon.
    pub fn advised(code: Code, object: impl fmt::Display, text: &str) -> Self {
        match text.rsplit_once(": ") {
            Some((message, hint)) => Self::new(code, object, message).hint(hint),
            None => Self::new(code, object, text),
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Reject {}
