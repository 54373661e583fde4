//! firewalld: it refuses what comes from an interface that it does not know, whatever our own rules accept.
//! So our bridges are put into its zone `trusted`, at run time only, and again whenever it has forgotten them.
//!
//! Nothing of this is waited for, and a host without a system bus or without firewalld is none the worse.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

mod bus;
#[cfg(test)]
mod tests;

use bus::{Added, Bus, BusError, News};

/// The zone whose packets firewalld lets through.
pub(crate) const ZONE: &str = "trusted";
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after something failed for the first time; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause, and how often a bus that is not there is looked for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is known of firewalld.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Zoning {
    /// It does not run, or was not looked for yet because there is no bridge.
    #[default]
    Absent,
    /// It runs.
    Present {
        /// Bridges in the zone.
        trusted: BTreeSet<String>,
        /// Bridges that firewalld did not take into it, and why.
        refused: BTreeMap<String, String>,
    },
}

/// The task that keeps our bridges in the zone.
#[derive(Debug)]
pub(crate) struct Firewalld {
    zoning: watch::Receiver<Zoning>,
}

impl Firewalld {
    /// Starts the task on the current runtime. It keeps what `bridges` holds in the zone, takes out what leaves
    /// it, and ends with its sender; what is in the zone then stays there.
    pub(crate) fn spawn(bridges: watch::Receiver<BTreeSet<String>>) -> Self {
        Self::spawn_at(system_bus(), bridges)
    }

    fn spawn_at(address: BusAddress, bridges: watch::Receiver<BTreeSet<String>>) -> Self {
        let (zoning, seen) = watch::channel(Zoning::Absent);
        tokio::spawn(keep(address, bridges, zoning));
        Self { zoning: seen }
    }

    /// What is known of firewalld now.
    pub(crate) fn zoning(&self) -> Zoning {
        self.zoning.borrow().clone()
    }
}

/// Where the system bus is.
#[derive(Debug, Clone)]
struct BusAddress {
    address: String,
    /// The socket, when it is one in the file system.
    socket: Option<PathBuf>,
}

/// The address as every client of D-Bus finds it (D-Bus specification, "Well-known Message Bus Instances").
fn system_bus() -> BusAddress {
    let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS");
    bus_at(address.unwrap_or_else(|_| "unix:path=/run/dbus/system_bus_socket".to_owned()))
}

fn bus_at(address: String) -> BusAddress {
    let path = address.strip_prefix("unix:path=").map(|rest| {
        let end = rest.find([',', ';']).unwrap_or(rest.len());
        PathBuf::from(&rest[..end])
    });
    BusAddress {
        address,
        socket: path,
    }
}

/// Connects whenever there is a bridge and a bus, and stays connected.
async fn keep(
    address: BusAddress,
    mut bridges: watch::Receiver<BTreeSet<String>>,
    zoning: watch::Sender<Zoning>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        if bridges.wait_for(|names| !names.is_empty()).await.is_err() {
            return;
        }
        if address.socket.as_ref().is_none_or(|path| path.exists()) {
            match serve(&address, &mut bridges, &zoning).await {
                Ok(()) => return,
                Err(Lost { error, served }) => {
                    tracing::debug!(%error, "the system bus is not available");
                    if served {
                        pause = PAUSE_MIN;
                    }
                }
            }
            zoning.send_replace(Zoning::Absent);
        } else {
            pause = PAUSE_MAX;
        }
        tokio::select! {
            () = sleep(pause) => {}
            // New bridges do not make the bus appear; only the end is of interest.
            () = closed(&mut bridges) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn closed(bridges: &mut watch::Receiver<BTreeSet<String>>) {
    while bridges.changed().await.is_ok() {}
}

/// A connection that ended.
struct Lost {
    error: BusError,
    /// Whether it had been of use.
    served: bool,
}

/// Serves on one connection, until there is nothing to be done any more.
async fn serve(
    address: &BusAddress,
    bridges: &mut watch::Receiver<BTreeSet<String>>,
    zoning: &watch::Sender<Zoning>,
) -> Result<(), Lost> {
    let lost = |served| move |error| Lost { error, served };
    let connecting = timeout(CALL_TIMEOUT, Bus::connect(&address.address, CALL_TIMEOUT)).await;
    let mut bus = connecting
        .unwrap_or(Err(BusError::Timeout))
        .map_err(lost(false))?;
    let mut running = bus.is_firewalld_there().await.map_err(lost(false))?;
    let mut zone = Zone::default();
    let mut pause = PAUSE_MIN;
    loop {
        let mut settled = true;
        if running {
            let wanted = bridges.borrow_and_update().clone();
            settled = zone.settle(&bus, &wanted).await;
            zoning.send_replace(zone.told());
        } else {
            bridges.mark_unchanged();
            zone = Zone::default();
            zoning.send_replace(Zoning::Absent);
        }
        if settled {
            pause = PAUSE_MIN;
        }
        tokio::select! {
            changed = bridges.changed() => if changed.is_err() {
                return Ok(());
            },
            news = bus.news() => match news.map_err(lost(true))? {
                News::Owner(there) => {
                    running = there;
                    zone.forget();
                }
                News::Reloaded => zone.forget(),
            },
            () = sleep(pause), if !settled => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// What is in the zone, as far as we know.
#[derive(Debug, Default)]
struct Zone {
    /// Known to be in it.
    trusted: BTreeSet<String>,
    /// Put into it by us and not taken out again.
    placed: BTreeSet<String>,
    refused: BTreeMap<String, String>,
}

impl Zone {
    /// firewalld may have forgotten everything. What we put there before is still ours to remove.
    fn forget(&mut self) {
        self.trusted.clear();
        self.refused.clear();
    }

    fn told(&self) -> Zoning {
        Zoning::Present {
            trusted: self.trusted.clone(),
            refused: self.refused.clone(),
        }
    }

    /// Brings the zone in line with what is wanted; whether nothing is left to be tried again.
    async fn settle(&mut self, bus: &Bus, wanted: &BTreeSet<String>) -> bool {
        let mut settled = true;
        self.refused.retain(|bridge, _| wanted.contains(bridge));
        for bridge in self.placed.difference(wanted).cloned().collect::<Vec<_>>() {
            match bus.remove(ZONE, &bridge).await {
                Ok(()) => {
                    self.trusted.remove(&bridge);
                    self.placed.remove(&bridge);
                }
                Err(error) => {
                    settled = false;
                    tracing::debug!(bridge, %error, "firewalld keeps a bridge that is gone");
                }
            }
        }
        for bridge in wanted
            .difference(&self.trusted)
            .cloned()
            .collect::<Vec<_>>()
        {
            match bus.add(ZONE, &bridge).await {
                Ok(Added::Trusted) => {
                    tracing::debug!(bridge, zone = ZONE, "firewalld lets a bridge through");
                    self.refused.remove(&bridge);
                    self.trusted.insert(bridge.clone());
                    self.placed.insert(bridge);
                }
                Ok(Added::Elsewhere) => self.refuse(bridge, "it is in another zone"),
                Err(error) => {
                    settled = false;
                    self.refuse(bridge, &error.to_string());
                }
            }
        }
        settled
    }

    /// Told in the log once, however often it is tried.
    fn refuse(&mut self, bridge: String, reason: &str) {
        if self
            .refused
            .get(&bridge)
            .is_none_or(|known| known != reason)
        {
            tracing::warn!(bridge, reason, "firewalld does not let a bridge through");
            self.refused.insert(bridge, reason.to_owned());
        }
    }
}
