//! Requests to address allocators, and their answers.

use std::collections::BTreeMap;

use super::messages;

/// Key of a pool's data: the gateway that the allocator chose, with its prefix length. No address is asked for it then.
pub(crate) const DATA_GATEWAY: &str = "com.docker.network.gateway";

/// Option of a request for an address: what the address is for.
pub(crate) const REQUEST_ADDRESS_TYPE: &str = "RequestAddressType";

/// Value of [`REQUEST_ADDRESS_TYPE`] for the address of a gateway.
pub(crate) const ADDRESS_TYPE_GATEWAY: &str = "com.docker.network.gateway";

/// Option of a request for an address: the name of the endpoint that will have it.
pub(crate) const ENDPOINT_NAME: &str = "com.docker.network.endpoint.name";

messages! {
    /// What an allocator must be told.
    IpamCapabilities {
        /// Requests for addresses must name the MAC address.
        requires_mac_address: bool = "RequiresMACAddress",
        /// What is in use must be asked for again when the engine starts.
        requires_request_replay: bool = "RequiresRequestReplay",
    }

    /// The address spaces that are used when none is named.
    AddressSpaces {
        /// For networks of one host.
        local: String = "LocalDefaultAddressSpace",
        /// For networks of a cluster.
        global: String = "GlobalDefaultAddressSpace",
    }

    /// Takes a pool.
    RequestPoolRequest {
        /// The name of the address space.
        address_space: String = "AddressSpace",
        /// The prefix; empty for any.
        pool: String = "Pool",
        /// The part of it that addresses come from; empty for all.
        sub_pool: String = "SubPool",
        /// What the user wrote for the allocator.
        options: BTreeMap<String, String> = "Options",
        /// Whether it is of IPv6.
        v6: bool = "V6",
    }

    /// The pool that was taken.
    RequestPoolResponse {
        /// What it is called from now on.
        pool_id: String = "PoolID",
        /// Its prefix.
        pool: String = "Pool",
        /// More about it, such as [`DATA_GATEWAY`].
        data: BTreeMap<String, String> = "Data",
    }

    /// Gives a pool back.
    ReleasePoolRequest {
        /// What the allocator called it.
        pool_id: String = "PoolID",
    }

    /// Takes an address.
    RequestAddressRequest {
        /// What the allocator called the pool.
        pool_id: String = "PoolID",
        /// The address without a prefix length; empty for any.
        address: String = "Address",
        /// What it is for: [`REQUEST_ADDRESS_TYPE`], [`ENDPOINT_NAME`] and the MAC address.
        options: BTreeMap<String, String> = "Options",
    }

    /// The address that was taken.
    RequestAddressResponse {
        /// With its prefix length.
        address: String = "Address",
        /// More about it.
        data: BTreeMap<String, String> = "Data",
    }

    /// Gives an address back.
    ReleaseAddressRequest {
        /// What the allocator called the pool.
        pool_id: String = "PoolID",
        /// The address without a prefix length.
        address: String = "Address",
    }
}
