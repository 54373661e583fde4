//! The command line as it is written.

pub(crate) mod flags;
pub(crate) mod time;
pub(crate) mod value;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    dns, docker, drift, endpoint, exec, exited, explain, info, inspect, kill, logs, network, plan,
    port, ps, publish, restart, rm, run, sandbox, start, stop, system, topology, wait,
};

/// Container networking in one program
#[derive(Debug, Parser)]
#[command(
    name = "tombolo",
    version,
    propagate_version = false,
    after_help = "The daemon is `tombolo daemon`; see `tombolo daemon --help`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the daemon and the state of processes are found.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct GlobalFlags {
    /// Address of the daemon, unix:///path or tcp://host:port [default: tombolo.sock in the run directory]
    #[arg(
        short = 'H',
        long,
        value_name = "ADDRESS",
        env = "TOMBOLO_HOST",
        hide_env_values = true
    )]
    pub(crate) host: Option<String>,
    /// Certificates of the authority that has signed the daemon's
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Our certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of our certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Directory of the socket and of the state of processes
    #[arg(long, value_name = "DIR", default_value = "/run/tombolo")]
    pub(crate) run_dir: PathBuf,
    /// Fail when no daemon answers, in place of starting one
    #[arg(long)]
    pub(crate) no_autostart: bool,
}

/// Everything that can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, list, show and remove networks, and tie sandboxes to them
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Make, list, show and remove endpoints, and join them to sandboxes
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Make, list, show and remove sandboxes
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Run a program of this host in namespaces of its own, on networks
    Run(Box<run::RunArgs>),
    /// Run a program beside a running process, in its namespaces
    Exec(exec::ExecArgs),
    /// Show where the published ports of a process or sandbox are
    Port(port::PortArgs),
    /// Publish ports of running sandboxes, withdraw and list them
    #[command(subcommand)]
    Publish(publish::PublishCommand),
    /// List the names of sandboxes, and ask the resolver for one
    #[command(subcommand)]
    Dns(dns::DnsCommand),
    /// Be a plugin of Docker's engine
    #[command(subcommand)]
    Docker(docker::DockerCommand),
    /// List processes
    Ps(ps::PsArgs),
    /// Show what a process has written
    Logs(logs::LogsArgs),
    /// Stop processes; their addresses are kept
    Stop(stop::StopArgs),
    /// Start stopped processes again
    Start(start::StartArgs),
    /// Stop processes and start them again
    Restart(restart::RestartArgs),
    /// Send a signal to processes
    Kill(kill::KillArgs),
    /// Remove processes with their sandboxes
    Rm(rm::RmArgs),
    /// Wait until processes end, and print their exit codes
    Wait(wait::WaitArgs),
    /// Show a sandbox, process, network or endpoint as JSON
    Inspect(inspect::InspectArgs),
    /// Tell what a command would do, without doing it
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Tell which kernel objects are behind an endpoint or sandbox, and how they stand
    Explain(explain::ExplainArgs),
    /// Compare the kernel with what should be
    Drift(drift::SeeingArgs),
    /// Make the kernel what it should be
    Repair(drift::SeeingArgs),
    /// Look for what keeps networks on this host from working
    Doctor(drift::SeeingArgs),
    /// Show networks, their endpoints and sandboxes as a tree
    Topology(topology::TopologyArgs),
    /// Show how the daemon is set up and what it holds
    Info(info::InfoArgs),
    /// Show the versions of this program and of the daemon
    Version(info::InfoArgs),
    /// Tidy up
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Tell the daemon that the process of a sandbox has ended
    #[command(hide = true)]
    SandboxExited(exited::ExitedArgs),
}

impl Command {
    /// Whether its exit code is that of a program that it runs.
    pub(crate) fn runs_program(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Exec(_))
    }
}
