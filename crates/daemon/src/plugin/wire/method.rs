//! What can be asked of a plugin.

use std::fmt;

/// A part of the protocol, which a plugin has whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subsystem {
    /// What every plugin has.
    Plugin,
    /// Networks and endpoints.
    NetworkDriver,
    /// Pools and addresses.
    IpamDriver,
}

impl Subsystem {
    /// Its name on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "Plugin",
            Self::NetworkDriver => "NetworkDriver",
            Self::IpamDriver => "IpamDriver",
        }
    }
}

impl fmt::Display for Subsystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares the methods: subsystem and name on the wire.
macro_rules! methods {
    ($($(#[$about:meta])+ $variant:ident = $subsystem:ident $name:literal,)+) => {
        /// A method of a plugin.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Method {
            $($(#[$about])+ $variant,)+
        }

        impl Method {
            /// Every method.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// The subsystem that it belongs to.
            pub(crate) const fn subsystem(self) -> Subsystem {
                match self {
                    $(Self::$variant => Subsystem::$subsystem,)+
                }
            }

            /// Its name within the subsystem.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The path at which it is asked.
            pub(crate) const fn path(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("/", stringify!($subsystem), ".", $name),)+
                }
            }
        }
    };
}

methods! {
    /// Asks which subsystems a plugin has.
    Activate = Plugin "Activate",
    /// Asks how far a network of the driver reaches.
    GetCapabilities = NetworkDriver "GetCapabilities",
    /// Asks whether a network to be made needs addresses of gateways; only of drivers that announce it.
    GwAllocCheck = NetworkDriver "GwAllocCheck",
    /// Reserves a network of a cluster.
    AllocateNetwork = NetworkDriver "AllocateNetwork",
    /// Gives a reserved network up.
    FreeNetwork = NetworkDriver "FreeNetwork",
    /// Makes a network.
    CreateNetwork = NetworkDriver "CreateNetwork",
    /// Removes a network.
    DeleteNetwork = NetworkDriver "DeleteNetwork",
    /// Makes an endpoint.
    CreateEndpoint = NetworkDriver "CreateEndpoint",
    /// Asks what there is to tell about an endpoint.
    EndpointOperInfo = NetworkDriver "EndpointOperInfo",
    /// Removes an endpoint.
    DeleteEndpoint = NetworkDriver "DeleteEndpoint",
    /// Joins an endpoint to a sandbox.
    Join = NetworkDriver "Join",
    /// Takes an endpoint out of its sandbox.
    Leave = NetworkDriver "Leave",
    /// Publishes the ports of an endpoint that became a gateway; drivers may do without.
    ProgramExternalConnectivity = NetworkDriver "ProgramExternalConnectivity",
    /// Withdraws the ports of an endpoint; drivers may do without.
    RevokeExternalConnectivity = NetworkDriver "RevokeExternalConnectivity",
    /// Tells of a new node.
    DiscoverNew = NetworkDriver "DiscoverNew",
    /// Tells that a node is gone.
    DiscoverDelete = NetworkDriver "DiscoverDelete",
    /// Asks what the allocator must be told.
    GetIpamCapabilities = IpamDriver "GetCapabilities",
    /// Asks for the names of the address spaces that are used when none is named.
    GetDefaultAddressSpaces = IpamDriver "GetDefaultAddressSpaces",
    /// Takes a pool.
    RequestPool = IpamDriver "RequestPool",
    /// Gives a pool back.
    ReleasePool = IpamDriver "ReleasePool",
    /// Takes an address of a pool.
    RequestAddress = IpamDriver "RequestAddress",
    /// Gives an address back.
    ReleaseAddress = IpamDriver "ReleaseAddress",
}

impl Method {
    /// The method that is asked at a path.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|method| method.path() == path)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.subsystem(), self.name())
    }
}
