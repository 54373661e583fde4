//! What follows from the records outside of the kernel's objects: the files of sandboxes, what the relay carries
//! for them, what the resolver knows of them, and the bridges that firewalld is to know.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::sync::watch;
use tombolo_core::Controller;
use tombolo_core::controller::RelayTask;
use tombolo_core::id::SandboxId;
use tombolo_core::model::Driver;
use tombolo_kernel::Kernel;
use tombolo_netstate::object::port::PortKey;

use crate::files::Files;
use crate::firewalld::{Firewalld, Zoning};
use crate::relay::{Counts, Entrance, Relay, Route};
use crate::resolution::Resolution;
use crate::resolver::{self, Resolver};

/// Everything that is kept in line with the records besides the kernel.
#[derive(Debug)]
pub(crate) struct Outside {
    files: Files,
    relay: Relay,
    resolution: Resolution,
    resolver: Resolver,
    firewalld: Firewalld,
    bridges: watch::Sender<BTreeSet<String>>,
}

impl Outside {
    /// Must be made within a runtime: the task that speaks to firewalld runs there.
    pub(crate) fn new(
        files: Files,
        relay: Relay,
        (resolution, resolver): (Resolution, Resolver),
    ) -> Self {
        let (bridges, seen) = watch::channel(BTreeSet::new());
        Self {
            files,
            relay,
            resolution,
            resolver,
            firewalld: Firewalld::spawn(seen),
            bridges,
        }
    }

    /// The folder that holds the folders of sandboxes.
    pub(crate) fn files(&self) -> &Path {
        self.files.directory()
    }

    /// What firewalld knows of our bridges.
    pub(crate) fn zoning(&self) -> Zoning {
        self.firewalld.zoning()
    }

    /// What the relay has done and does.
    pub(crate) fn relayed(&self) -> Counts {
        self.relay.counts()
    }

    /// The resolver of names.
    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Looks whether the host's settings for names have changed; if so, the files of all sandboxes are to be
    /// refreshed.
    pub(crate) fn follow_host(&mut self) -> bool {
        let changed = self.resolution.refresh();
        if changed {
            let upstreams = resolver::shared_upstreams(&self.resolution.shared());
            self.resolver.set_upstreams(upstreams);
        }
        changed
    }

    /// Brings the files, names and routes of a sandbox up to date. What fails is told in the log: the records
    /// stand.
    pub(crate) fn refresh(&mut self, controller: &Controller, kernel: &Kernel, id: SandboxId) {
        if let Some(sandbox) = controller.sandbox(id) {
            let names = self.resolution.of(controller, sandbox);
            // The engine writes those of its sandboxes.
            if !sandbox.is_engines()
                && let Err(error) = self.files.write(controller, sandbox, &names)
            {
                tracing::warn!(sandbox = %id, %error, "files cannot be written");
            }
            let entry = resolver::entry(controller, sandbox, &names);
            self.resolver.set(id, entry);
        }
        let tasks = controller.relay_tasks(id);
        let listeners = tasks.iter().filter_map(|task| task.listen.as_ref());
        let listeners = listeners.flat_map(|key| listeners_of(kernel, key));
        let routes = tasks.iter().map(route).collect();
        if let Err(error) = self.relay.set(&id.to_string(), routes, listeners.collect()) {
            let error = crate::engine::with_sources(&error);
            tracing::error!(sandbox = %id, error, "ports cannot be relayed");
        }
    }

    /// Removes the files, names and routes of a sandbox.
    pub(crate) fn remove(&mut self, id: SandboxId) {
        self.resolver.remove(id);
        if let Err(error) = self.files.remove(id) {
            tracing::warn!(sandbox = %id, %error, "files cannot be removed");
        }
        if let Err(error) = self.relay.remove(&id.to_string()) {
            tracing::warn!(sandbox = %id, %error, "its relayed ports cannot be closed");
        }
    }

    /// Removes the files of sandboxes that do not exist.
    pub(crate) fn sweep(&mut self, controller: &Controller) -> io::Result<()> {
        self.files.sweep(controller)
    }

    /// Tells firewalld which bridges there are, the relay which networks are internal, and the resolver what the
    /// networks are called.
    pub(crate) fn tell_networks(&self, controller: &Controller) {
        self.resolver.set_zones(resolver::zones(controller));
        let internal = controller
            .networks()
            .filter(|network| network.spec.internal);
        let subnets = internal.flat_map(|network| network.pools.iter().map(|pool| pool.subnet));
        self.relay.keep_in(subnets.collect());
        let networks = controller.networks();
        let own = networks.filter(|n| n.spec.driver == Driver::Bridge && !n.existing);
        let bridges: BTreeSet<String> = own.map(|network| network.device.clone()).collect();
        self.bridges.send_if_modified(|known| {
            let changed = *known != bridges;
            *known = bridges;
            changed
        });
    }
}

/// What the relay carries for every sandbox, as the records stand.
pub(crate) fn routes(controller: &Controller) -> Vec<(String, Vec<Route>)> {
    let sandboxes = controller.sandboxes();
    let routes = sandboxes.map(|sandbox| {
        let tasks = controller.relay_tasks(sandbox.id);
        let at_host = tasks
            .iter()
            .filter(|task| task.publication.socket.is_none());
        (sandbox.id.to_string(), at_host.map(route).collect())
    });
    routes.collect()
}

fn listeners_of(kernel: &Kernel, key: &PortKey) -> Vec<(PortKey, u16, OwnedFd)> {
    let ports = key.ports.first()..=key.ports.last();
    let found = ports.filter_map(|port| {
        let socket = kernel.ports().listener(key, port);
        if socket.is_none() {
            tracing::warn!(%key, port, "the port is not held and cannot be relayed");
        }
        Some((key.clone(), port, socket?))
    });
    found.collect()
}

fn route(task: &RelayTask) -> Route {
    let publication = &task.publication;
    let entrance = match &publication.socket {
        Some(path) => Entrance::Unix(path.clone()),
        None => Entrance::Ports {
            address: task.address,
            ports: task.ports,
        },
    };
    let mut route = Route {
        protocol: publication.protocol,
        entrance,
        from: publication.from.clone(),
        target_v4: None,
        target_v6: None,
        first: publication.container.first(),
    };
    for target in task.targets.iter().flatten() {
        match target {
            IpAddr::V4(ip) => route.target_v4 = Some(*ip),
            IpAddr::V6(ip) => route.target_v6 = Some(*ip),
        }
    }
    route
}
