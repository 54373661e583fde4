//! What a list is narrowed to. Every given condition must hold.

/// Which networks to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkFilter {
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Only those of this driver.
    pub driver: Option<String>,
    /// Only those with all these labels, each `key` or `key=value`.
    pub labels: Vec<String>,
}

/// Which endpoints to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointFilter {
    /// Only those of this network.
    pub network: Option<String>,
    /// Only those joined to this sandbox.
    pub sandbox: Option<String>,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Only those with all these labels, each `key` or `key=value`.
    pub labels: Vec<String>,
}

/// Which names to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsNameFilter {
    /// Only those of this network.
    pub network: Option<String>,
}

/// What to ask the resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsQuestion {
    /// The name.
    pub name: String,
    /// The type of record, such as `AAAA`; `A` when left out.
    pub kind: Option<String>,
    /// The running sandbox that is to ask; the host itself when left out.
    pub sandbox: Option<String>,
}
