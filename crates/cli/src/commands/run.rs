//! `tombolo run`.

mod process;

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use tombolo_api::{NetnsChoice, NetworkAttachment, SandboxCreate};

use super::world::World;
use crate::args::flags::{EnvFlags, LabelFlags, NameFlags, NetworkFlags, PortFlags};
use crate::args::value::{KeyValue, key_with_value};
use crate::context::Context;
use crate::error::{self, CommandError};
use crate::run::{ProcessSpec, StartError};
use crate::translate::mode::{Companions, NetworkMode, network_mode};

/// A program to run, and the world that it should see.
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the id and return as soon as the program runs
    #[arg(short, long)]
    detach: bool,
    /// Remove the process when it has ended
    #[arg(long)]
    rm: bool,
    /// Its name; chosen when left out
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: LabelFlags,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    program: ProgramArgs,
    #[command(flatten)]
    network: NetworkArgs,
}

/// How the program runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Program")]
struct ProgramArgs {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    env: EnvFlags,
    /// User, and group if given, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Show a host path to it, read-only with :ro; may be repeated
    #[arg(short, long = "volume", value_name = "HOST:PATH[:ro]", value_parser = process::volume)]
    volumes: Vec<process::Volume>,
    /// Directory that it sees as /
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Run a small init as process 1, which reaps orphans and passes signals on
    #[arg(long)]
    init: bool,
    /// Add a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Give it all capabilities, and a writable /proc/sys and /sys
    #[arg(long)]
    privileged: bool,
    /// Sysctl of its network namespace, such as net.ipv4.ip_forward=1
    #[arg(long = "sysctl", value_name = "KEY=VALUE", value_parser = key_with_value)]
    sysctls: Vec<KeyValue>,
}

/// What it sees of the network.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Its host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    #[command(flatten)]
    networks: NetworkFlags,
    #[command(flatten)]
    names: NameFlags,
    #[command(flatten)]
    ports: PortFlags,
}

/// Runs a program; the exit code is its own unless it is detached.
pub(crate) fn execute(args: RunArgs, context: &mut Context<'_>) -> Result<u8, CommandError> {
    let mode = args.mode()?;
    let mut spec = args.process_spec()?;
    // What can never work is refused before anything is made.
    spec.validate()?;
    let world = args.world(mode, context)?;
    let dir = context.states.dir(&world.id);
    world.apply(&mut spec, &dir);
    if world.owner.is_none() {
        spec.on_exit = exit_hook(&args, &world, context);
    }
    match start(&args, &spec, &world, context) {
        Err(error) if is_undone(&error) => {
            discard(&world, context);
            Err(error)
        }
        outcome => outcome,
    }
}

fn start(
    args: &RunArgs,
    spec: &ProcessSpec,
    world: &World,
    context: &mut Context<'_>,
) -> Result<u8, CommandError> {
    context.states.create(spec)?;
    world.link(&context.states.dir(&spec.id))?;
    context.hang_up();
    if args.detach {
        context.states.start(&spec.id)?;
        writeln!(context.out, "{}", spec.id)?;
        return Ok(0);
    }
    context.out.flush()?;
    let code = context.states.run_foreground(&spec.id)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Whether the program does not run, so that nothing of it should remain.
fn is_undone(error: &CommandError) -> bool {
    !matches!(
        error,
        CommandError::Start(StartError::Attach(_)) | CommandError::Output(_)
    )
}

/// Removes what was made for a program that does not run.
fn discard(world: &World, context: &mut Context<'_>) {
    // The record goes first, because its exit hook needs the sandbox.
    let is_recorded = context.states.entry(&world.id).is_ok();
    if is_recorded && let Err(failure) = context.states.remove(&world.id, true) {
        error::write(&failure.into(), context.err);
    }
    if world.owner.is_some() {
        return;
    }
    let deleted = context
        .client()
        .and_then(|client| Ok(client.sandbox_delete(&world.id, false)?));
    match deleted {
        Err(failure) if !failure.is_unknown() => error::write(&failure, context.err),
        Ok(()) | Err(_) => {}
    }
}

/// The command that tells the daemon of the end of the process.
fn exit_hook(args: &RunArgs, world: &World, context: &Context<'_>) -> Vec<String> {
    let mut words = context.place.flags();
    words.extend(["--no-autostart", "sandbox-exited"].map(ToOwned::to_owned));
    words.extend(args.rm.then(|| "--remove".to_owned()));
    words.push(world.id.clone());
    words
}

impl RunArgs {
    /// The program and its arguments.
    #[cfg(test)]
    pub(crate) fn command(&self) -> &[String] {
        &self.command
    }

    fn mode(&self) -> Result<NetworkMode, CommandError> {
        let companions = Companions {
            hostname: self.network.hostname.is_some(),
            names: &self.network.names,
            ports: &self.network.ports,
            sysctl: !self.program.sysctls.is_empty(),
        };
        Ok(network_mode(&self.network.networks, companions)?)
    }

    /// The network side of the program, which the daemon makes as a whole or not at all.
    fn world(&self, mode: NetworkMode, context: &mut Context<'_>) -> Result<World, CommandError> {
        let (netns, networks) = match mode {
            NetworkMode::Own(networks) => (NetnsChoice::New, networks),
            NetworkMode::Host(host) => (NetnsChoice::Host, vec![host]),
            NetworkMode::Shared(owner) => return World::shared(&owner, self.name.clone(), context),
        };
        let is_host = netns == NetnsChoice::Host;
        let request = self.sandbox(netns, networks);
        let sandbox = context.client()?.sandbox_create(request)?;
        let mut world = World::of_sandbox(&sandbox, is_host);
        if is_host && self.network.hostname.is_none() {
            process::host_name().clone_into(&mut world.hostname);
        }
        Ok(world)
    }

    fn sandbox(&self, netns: NetnsChoice, networks: Vec<NetworkAttachment>) -> SandboxCreate {
        let ports = self.network.ports.clone();
        SandboxCreate {
            name: self.name.clone(),
            hostname: self.network.hostname.clone(),
            netns,
            networks,
            dns: self.network.names.dns(),
            extra_hosts: self.network.names.hosts.clone(),
            publish: ports.publish,
            publish_all: ports.publish_all,
            expose: ports.expose,
            links: ports.links,
            labels: self.labels.clone().into_map(),
        }
    }

    /// The program side, with a placeholder for what only the daemon knows.
    fn process_spec(&self) -> Result<ProcessSpec, CommandError> {
        let program = &self.program;
        let mut spec = ProcessSpec::new("unnamed", self.command.clone());
        // Where it will be: only a process in the host's namespace has none, and that refuses sysctls by itself.
        spec.netns = Some(Path::new("/proc/self/ns/net").to_owned());
        spec.env = program.env.resolve()?;
        spec.user.clone_from(&program.user);
        spec.cwd.clone_from(&program.workdir);
        spec.tty = program.tty;
        spec.stdin_open = program.interactive;
        spec.init = program.init;
        spec.rootfs = program
            .rootfs
            .as_deref()
            .map(process::directory)
            .transpose()?;
        spec.binds = program
            .volumes
            .iter()
            .map(process::Volume::resolve)
            .collect::<Result<_, _>>()?;
        spec.sysctls = crate::args::value::into_map(program.sysctls.clone());
        spec.cap_add.clone_from(&program.cap_add);
        spec.cap_drop.clone_from(&program.cap_drop);
        spec.privileged = program.privileged;
        spec.labels = self.labels.clone().into_map();
        spec.auto_remove = self.rm;
        Ok(spec)
    }
}
