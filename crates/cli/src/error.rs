//! Why a command fails, what to do about it, and the exit code that stands for it.

use std::io::{self, Write};
use std::path::PathBuf;

use tombolo_api::{ClientError, ErrorCode, ErrorKind, address::AddressError};

use crate::args::value::EnvError;
use crate::commands::docker::install::InstallError;
use crate::commands::docker::plugin::PluginError;
use crate::daemon::LaunchError;
use crate::output::printable;
use crate::run::{
    AttachError, CreateError, ExecError, LogError, RemoveError, SETUP_FAILED, SignalError,
    SpecError, StartError, StateError,
};
use crate::translate::filter::FilterError;
use crate::translate::mode::ModeError;
use crate::translate::subnets::PairError;

/// Exit code of `run` and `exec` when what they need cannot be made, as in Docker.
pub(crate) const SETUP_EXIT_CODE: u8 = 125;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The address of the daemon is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Some TLS files are given and some are not, or there is nothing to use them on.
    #[error("--tls-ca, --tls-cert and --tls-key go together, and with a tcp:// address")]
    TlsFlags,
    /// The daemon cannot be asked, or says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A daemon was to be started, and is not there.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Network flags contradict each other.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// Addresses belong to no subnet.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A filter does not exist.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The environment cannot be put together.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// What was asked of a process cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A process cannot be recorded.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A process cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A program cannot be run beside a process.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A process cannot be followed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A process cannot be signalled.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// A process cannot be forgotten.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// A log cannot be shown.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state of processes cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A host path of a volume cannot be used.
    #[error("cannot use host path {path} of a volume", path = path.display())]
    Volume {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory cannot be found.
    #[error("cannot use {path} as a directory", path = path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The way to the network of a process cannot be recorded.
    #[error("cannot record the network of process {id}")]
    Link {
        /// The process.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// Randomness for an id is not there.
    #[error("cannot make an id: the kernel gives no random bytes")]
    Random,
    /// The network of something that does not run cannot be shared.
    #[error("{0} is not running, so its network cannot be shared; start it first")]
    OwnerStopped(String),
    /// The networks of a process are another's.
    #[error("{name} has no networks of its own: it shares those of {owner}, so change them there")]
    Sharer {
        /// The process.
        name: String,
        /// Whose networks they are.
        owner: String,
    },
    /// A sandbox is made with a namespace of its own, not with another's.
    #[error(
        "a sandbox cannot share with container:{0}; connect it to the same network, or use `tombolo run`"
    )]
    SandboxShares(String),
    /// A host namespace is asked for in two ways that differ.
    #[error("--network host needs the host's namespace, but another one is given")]
    HostNamespace,
    /// Nothing has this name or id.
    #[error("nothing is called {0}: no sandbox, process, network or endpoint")]
    Nothing(String),
    /// No port of the host leads there.
    #[error(
        "no port of the host leads to {port} of {name} now; `tombolo publish ls {name}` lists what is published"
    )]
    NotPublished {
        /// The port, with its protocol.
        port: String,
        /// The process or sandbox.
        name: String,
    },
    /// The question before something is removed was not answered with yes.
    #[error("nothing was removed; answer with y, or use --force")]
    Unconfirmed,
    /// What Docker's engine needs cannot be installed or removed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A managed plugin cannot be written.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Whether the reader of the output had enough, which is no failure.
    pub(crate) fn is_closed_output(&self) -> bool {
        let (Self::Output(error) | Self::Log(LogError::Write(error))) = self else {
            return false;
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }

    /// Whether the daemon says that there is no such object.
    pub(crate) fn is_unknown(&self) -> bool {
        let Self::Client(error) = self else {
            return false;
        };
        let unknown = [
            ErrorCode::UnknownNetwork,
            ErrorCode::UnknownEndpoint,
            ErrorCode::UnknownSandbox,
        ];
        error
            .api()
            .is_some_and(|error| unknown.contains(&error.code))
    }

    /// Whether no daemon answers.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.exit_code() == ErrorKind::Unavailable.exit_code()
    }

    /// The exit code of a command, by the table of the API.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_code(),
            Self::Nothing(_) | Self::NotPublished { .. } => tombolo_api::error::EXIT_NOT_FOUND,
            _ if self.is_unknown_process() => tombolo_api::error::EXIT_NOT_FOUND,
            _ => self.kind().exit_code(),
        }
    }

    /// The exit code of a command whose exit code is otherwise that of a program.
    pub(crate) fn program_exit_code(&self) -> u8 {
        let code = match self {
            Self::Start(error) => error.code(),
            Self::Exec(error) => error.code(),
            _ => SETUP_FAILED,
        };
        u8::try_from(code).unwrap_or(SETUP_EXIT_CODE)
    }

    fn is_unknown_process(&self) -> bool {
        let (Self::State(error)
        | Self::Start(StartError::State(error))
        | Self::Exec(ExecError::State(error))
        | Self::Attach(AttachError::State(error))
        | Self::Signal(SignalError::State(error))
        | Self::Remove(RemoveError::State(error))
        | Self::Log(LogError::State(error))) = self
        else {
            return false;
        };
        matches!(error, StateError::Unknown(_))
    }

    /// Who can do something about it.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Client(error) => error.kind(),
            Self::Launch(_) => ErrorKind::Unavailable,
            Self::Address(_)
            | Self::TlsFlags
            | Self::Mode(_)
            | Self::Pair(_)
            | Self::Filter(_)
            | Self::Env(_)
            | Self::Spec(_)
            | Self::Create(CreateError::Spec(_))
            | Self::Volume { .. }
            | Self::Directory { .. }
            | Self::SandboxShares(_)
            | Self::HostNamespace
            | Self::Install(InstallError::Root { .. })
            | Self::State(StateError::Ambiguous(_))
            | Self::Nothing(_)
            | Self::NotPublished { .. } => ErrorKind::Invalid,
            Self::Create(CreateError::Taken { .. })
            | Self::Start(StartError::Running(_))
            | Self::Signal(SignalError::NotRunning(_))
            | Self::Attach(AttachError::NotRunning(_))
            | Self::Exec(ExecError::NotRunning(_))
            | Self::Remove(RemoveError::Running(_))
            | Self::OwnerStopped(_)
            | Self::Sharer { .. }
            | Self::Install(InstallError::Foreign { .. })
            | Self::Plugin(PluginError::NotEmpty { .. })
            | Self::Unconfirmed => ErrorKind::Conflict,
            Self::Create(_)
            | Self::Start(_)
            | Self::Exec(_)
            | Self::Attach(_)
            | Self::Signal(_)
            | Self::Remove(_)
            | Self::Log(_)
            | Self::State(_)
            | Self::Link { .. }
            | Self::Random
            | Self::Install(_)
            | Self::Plugin(_)
            | Self::Output(_) => ErrorKind::Internal,
        }
    }

    /// What to do about it, where something can be done.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            _ if self.is_unknown_process() => {
                Some("`tombolo ps --all` lists the processes".to_owned())
            }
            _ => None,
        }
    }
}

/// Writes an error with its causes, and what to do about it.
pub(crate) fn write(error: &CommandError, err: &mut dyn Write) {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(err, "tombolo: {}", printable(&text));
    if let Some(hint) = error.hint() {
        let _ = writeln!(err, "  hint: {}", printable(&hint));
    }
}
