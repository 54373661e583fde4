//! From the command line to a serving daemon.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rustix::mount::MountFlags;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tombolo_api::tls::TlsFiles;
use tombolo_api::{ApiError, ErrorCode, Request, Response, types};
use tombolo_core::{Code, Command, Controller, EngineCommand, Event, Reject, Reply};
use tombolo_kernel::{KeeperCommand, Kernel, KernelConfig, PortsConfig};
use tombolo_store::{Embedded, Store};

use crate::config::{Config, Flags};
use crate::engine::{Engine, Input, Namespaces, now_ms};
use crate::files::Files;
use crate::http::{self, Service};
use crate::limits::{ADDRESS_PAUSE, ADDRESS_WAIT, INPUTS_MAX};
use crate::listen;
use crate::listen::notify::{Progress, notify};
use crate::outside::Outside;
use crate::queries::Show;
use crate::remote::Remote;
use crate::remote::replay::Replays;
use crate::remote::turns::Turns;
use crate::{docker, facts, relay, remote, start, translate, user_rules};

/// How long news of the host is gathered before the facts are read again.
const FACTS_PAUSE: Duration = Duration::from_millis(200);
/// How long after news the facts are read once more: what counts as there for a while after it vanished, such as
/// a firewall under reload, is then known to be gone.
const FACTS_AGAIN: Duration = Duration::from_secs(11);
/// How often it is looked for what the kernel does not tell of.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what was stored quickly is made to survive a power cut.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// Runs `tombolo daemon` with the words after it.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let words = std::iter::once(OsString::from("tombolo daemon")).chain(args);
    let flags = match Flags::try_parse_from(words) {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are no errors; clap knows where each goes.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the keeper of published ports, which the daemon starts with its own run directory. Nobody reads what it
/// would say: the daemon sees that it does not answer.
pub fn keep_ports(directory: &Path) -> ExitCode {
    match tombolo_kernel::keep_sockets(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the log may not be up yet, and somebody waits for the reason"
)]
fn report(error: &anyhow::Error) {
    eprintln!("tombolo daemon: {error:#}");
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(refused) {
        eprintln!("  hint: run it as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the resolved configuration is what was asked for"
)]
fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    if flags.check_config {
        print!(
            "{}",
            toml::to_string(&config).context("the configuration cannot be shown")?
        );
        return Ok(());
    }
    log_to_stderr(&config.log_level);
    if flags.docker.managed {
        // A mount namespace of our own is what makes this harmless to others.
        let flags = MountFlags::BIND;
        rustix::mount::mount_remount("/proc/sys", flags, "")
            .context("/proc/sys cannot be made writable; it needs CAP_SYS_ADMIN")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(serve(&config))
}

fn log_to_stderr(level: &str) {
    let filter = tracing_subscriber::EnvFilter::new(level);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only if a log was set up before, which is then used.
    drop(subscriber.with_ansi(false).try_init());
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let _only = only_daemon_here()?;
    let store = Arc::new(Embedded::open(&config.state_dir).with_context(|| {
        format!(
            "the store in {} cannot be opened",
            config.state_dir.display()
        )
    })?);
    let node = start::node(&*store)?;
    let kernel_config = KernelConfig {
        run_dir: config.run_dir.clone(),
        instance: node.instance(),
        pool: config.prepared_namespaces,
        ports: Some(ports(config)),
    };
    std::fs::create_dir_all(&config.run_dir)
        .with_context(|| format!("{} cannot be made", config.run_dir.display()))?;
    let kernel = Arc::new(Kernel::open(kernel_config).context("the kernel cannot be used")?);
    let (inputs, mut arriving) = mpsc::channel(INPUTS_MAX);
    watch_kernel(&kernel, &inputs)?;
    user_rules::recall(&*store, &kernel)?;
    user_rules::learn(&*store, &kernel);
    let sockets = start::relay_sockets(&kernel)?;
    let relay_port = sockets.as_ref().map(relay::Sockets::port).transpose()?;
    let controller = start::controller(config, &node, (&*store, &kernel), relay_port)?;
    let relay = start::relay(&kernel, sockets, &controller)?;
    let domain = config.dns.domain.as_ref();
    let domain = domain.and_then(|domain| domain.parse().ok());
    let files = Files::new(config.run_dir.join("sandboxes"), domain);
    let names = start::resolver(&kernel, config)?;
    let outside = Outside::new(files, relay, names);
    let mut engine = Engine::new(controller, store, kernel, (config, outside), inputs);
    start::settle(&mut engine, &mut arriving, config).await?;
    start::answer_names(&engine, config);
    let listeners = listeners(config).await?;
    let replays = Arc::new(Replays::of(&engine.controller));
    let shared = Shared {
        engine: Arc::new(Mutex::new(engine)),
        reading: Arc::default(),
        turns: Arc::default(),
        replays,
    };
    let server = http::Server::new(http::router(shared.clone()));
    let docker = docker::Plugin::open(&config.docker, &shared)?;
    notify(Progress::Ready).context("the service manager cannot be told")?;
    tracing::info!(socket = %config.socket_path().display(), "ready");
    let (stop, stopped) = watch::channel(());
    let work = tokio::spawn(work(shared.clone(), arriving));
    let sweep = tokio::spawn(remote::sweep::run(shared.remote()));
    let serving = server.serve(listeners, until_stopped(stopped.clone()));
    let docker = docker.serve(until_stopped(stopped));
    let ending = async {
        signal().await;
        drop(notify(Progress::Stopping));
        drop(stop);
    };
    tokio::join!(serving, docker, ending);
    work.abort();
    sweep.abort();
    let store = Arc::clone(&shared.lock().store);
    store.flush().context("the store cannot be flushed")?;
    tracing::info!("stopped; the networks stay as they are");
    Ok(())
}

/// Ready when the sending half is gone.
async fn until_stopped(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// Published ports are held by this same program in another process.
fn ports(config: &Config) -> PortsConfig {
    PortsConfig {
        directory: config.run_dir.clone(),
        keeper: Some(KeeperCommand {
            program: "/proc/self/exe".into(),
            arguments: vec!["keeper".into(), config.run_dir.clone().into()],
        }),
    }
}

/// Holds a name that exists once in a network namespace: two daemons would undo each other's work.
fn only_daemon_here() -> anyhow::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name("tombolo-daemon")?;
    UnixListener::bind_addr(&address)
        .context("another tombolo daemon owns the networks of this network namespace")
}

async fn listeners(config: &Config) -> anyhow::Result<Vec<listen::Listener>> {
    let tls = match &config.tcp {
        Some(tcp) => match (&tcp.ca, &tcp.cert, &tcp.key) {
            (Some(ca), Some(cert), Some(key)) => Some(TlsFiles {
                authority: ca.clone(),
                certificate: cert.clone(),
                key: key.clone(),
            }),
            (None, None, None) => None,
            _ => bail!("TLS needs all three of tls-ca, tls-cert and tls-key"),
        },
        None => None,
    };
    let mut listeners = listen::inherited(tls.as_ref())?;
    if listeners.is_empty() {
        listeners.push(listen::unix(
            &config.socket_path(),
            config.group.as_deref(),
        )?);
    }
    if let Some(tcp) = &config.tcp {
        let address = tcp
            .listen
            .parse()
            .with_context(|| format!("`{}` is not an address and port", tcp.listen))?;
        listeners.push(listen::tcp(address, tls.as_ref()).await?);
    }
    Ok(listeners)
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be waited for");
            std::future::pending().await
        }
    }
}

/// The engine, shared by the connections, the front ends and the worker.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    engine: Arc<Mutex<Engine>>,
    /// Held while the facts are read, so that older ones never replace newer ones.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// Who works on what while plugins are asked.
    turns: Arc<Turns>,
    replays: Arc<Replays>,
}

impl Shared {
    /// Carries out a command for a front end. The first id that it needs is made of `seed`, if there is one.
    pub(crate) async fn order(
        &self,
        command: Command,
        seed: Option<u128>,
    ) -> Result<Reply, Reject> {
        // Subnets are compared with the routes that the host has now.
        let asks_for_subnet = matches!(
            command,
            Command::CreateNetwork { .. } | Command::Engine(EngineCommand::RequestPool { .. })
        );
        if asks_for_subnet {
            read_facts(self).await;
        }
        let (reply, answer) = oneshot::channel();
        self.lock().order(command, seed, reply);
        answer.await.unwrap_or_else(|_| {
            Err(Reject::new(
                Code::Busy,
                "daemon",
                "the daemon ends before the request is done",
            ))
        })
    }

    /// The same for one that takes an address: another endpoint may be giving it up this moment.
    pub(crate) async fn order_when_free(
        &self,
        command: Command,
        seed: Option<u128>,
    ) -> Result<Reply, Reject> {
        let until = Instant::now() + ADDRESS_WAIT;
        loop {
            match self.order(command.clone(), seed).await {
                Err(reject) if reject.code == Code::AddressInUse && Instant::now() < until => {
                    sleep(ADDRESS_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What a look at the records says.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Controller) -> T) -> T {
        look(&self.lock().controller)
    }

    /// The command that a request stands for, which is known to change something.
    pub(crate) fn understood(&self, request: Request) -> Result<Command, Reject> {
        let command = translate::command(request, &Namespaces)?;
        command.ok_or_else(|| {
            let message = "this command changes nothing";
            Reject::new(Code::InvalidCombination, "request", message)
        })
    }

    /// How the outcome of a command is shown.
    pub(crate) fn shown(&self, show: &Show, reply: Reply) -> Result<Response, ApiError> {
        self.lock().shown(show, reply)
    }

    /// What serves requests about networks of plugins.
    fn remote(&self) -> Remote {
        let engine = self.lock();
        let (plugins, netns) = (engine.daemon().plugins(), engine.daemon().netns_dir());
        let shared = (Arc::clone(&self.turns), Arc::clone(&self.replays));
        Remote::new(self.clone(), Arc::clone(plugins), shared, netns.to_owned())
    }

    /// Asks the plugins of all networks whether they are there.
    async fn probe_plugins(&self) {
        let (plugins, mut names) = {
            let engine = self.lock();
            let specs = engine.controller.networks().map(|network| &network.spec);
            let names = specs.flat_map(|spec| spec.plugins().map(str::to_owned));
            (
                Arc::clone(engine.daemon().plugins()),
                names.collect::<Vec<_>>(),
            )
        };
        names.sort_unstable();
        names.dedup();
        plugins.probe(names).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Engine> {
        // After a panic the engine's records may not fit its plans, and a repair would mend the wrong way. A
        // release build ends with the panic itself.
        self.engine.lock().unwrap_or_else(|_| std::process::abort())
    }
}

impl Service for Shared {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        if depends_on_host(&request) {
            read_facts(self).await;
        }
        if let Request::Doctor = request {
            self.probe_plugins().await;
        }
        let remote = self.remote();
        if self.look(|records| remote.concerns(records, &request)) {
            // It goes on when the one who asked goes away: a plugin was asked already.
            let carried_out = tokio::spawn(remote.call(request)).await;
            return carried_out.unwrap_or_else(|error| {
                Err(ApiError::new(ErrorCode::Internal, error.to_string()))
            });
        }
        let (reply, answer) = oneshot::channel();
        self.lock().submit(request, reply);
        answer.await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorCode::ShuttingDown,
                "the daemon ends before the request is done",
            ))
        })
    }
}

/// Whether a request is judged by the host's links and routes, which may have changed a moment ago.
fn depends_on_host(request: &Request) -> bool {
    match request {
        Request::NetworkCreate(_) => true,
        Request::Plan(plan) => matches!(plan.command, types::Command::NetworkCreate(_)),
        _ => false,
    }
}

/// Handles what other threads send and what the clock asks for.
async fn work(shared: Shared, mut arriving: mpsc::Receiver<Input>) {
    // What changed while the daemon started was not heard of.
    let mut facts_at: Option<Instant> = Some(Instant::now());
    let mut again_at: Option<Instant> = None;
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let wake = shared.lock().wake_at.map(instant_of);
        tokio::select! {
            input = arriving.recv() => match input {
                Some(Input::Event(event)) => shared.lock().arrived(*event),
                Some(Input::HostChanged) => {
                    facts_at.get_or_insert(Instant::now() + FACTS_PAUSE);
                    again_at = Some(Instant::now() + FACTS_AGAIN);
                }
                None => return,
            },
            () = until(wake) => shared.lock().run(Event::Tick),
            () = until(again_at) => {
                again_at = None;
                read_facts(&shared).await;
            }
            () = until(facts_at) => {
                facts_at = None;
                read_facts(&shared).await;
                tell_overlaps(&shared);
            }
            _ = look.tick() => shared.lock().look_around(),
            _ = flush.tick() => {
                shared.lock().save_outcomes();
                let store = Arc::clone(&shared.lock().store);
                if store.needs_flush() {
                    flush_store(store).await;
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn instant_of(at_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(at_ms.saturating_sub(now_ms()))
}

async fn read_facts(shared: &Shared) {
    let _alone = shared.reading.lock().await;
    let (kernel, known) = {
        let engine = shared.lock();
        let facts = engine.controller.facts();
        let known = facts::Known {
            node: facts.node,
            relay_port: facts.relay_port,
            settings_changed: engine.controller.settings_changed(),
        };
        (Arc::clone(&engine.kernel), known)
    };
    match tokio::task::spawn_blocking(move || facts::read(&kernel, known)).await {
        Ok(Ok(facts)) => shared.lock().run(Event::Facts(Box::new(facts))),
        Ok(Err(error)) => tracing::warn!(error, "the host cannot be looked at"),
        Err(error) => tracing::warn!(%error, "the host cannot be looked at"),
    }
}

fn tell_overlaps(shared: &Shared) {
    for (network, route) in shared.lock().controller.overlaps() {
        let name = &network.spec.name;
        tracing::warn!(network = %name, %route, "a route of the host now overlaps the network");
    }
}

async fn flush_store(store: Arc<Embedded>) {
    match tokio::task::spawn_blocking(move || store.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the store cannot be flushed"),
        Err(error) => tracing::error!(%error, "the store cannot be flushed"),
    }
}

/// Starts the threads that bring news of the kernel.
fn watch_kernel(kernel: &Arc<Kernel>, inputs: &mpsc::Sender<Input>) -> anyhow::Result<()> {
    let watch = kernel.watch().context("the kernel cannot be watched")?;
    let sender = inputs.clone();
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            for change in watch {
                let (notice, host) = facts::notice(&change);
                if host && sender.blocking_send(Input::HostChanged).is_err() {
                    return;
                }
                let event = notice.map(Event::KernelChanged);
                if event.is_some_and(|e| sender.blocking_send(Input::Event(Box::new(e))).is_err()) {
                    return;
                }
            }
        })?;
    if let Some(gone) = kernel.gone() {
        let sender = inputs.clone();
        std::thread::Builder::new()
            .name("gone".to_owned())
            .spawn(move || {
                for keys in gone {
                    if sender
                        .blocking_send(Input::Event(Box::new(Event::Gone(keys))))
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
    }
    Ok(())
}
