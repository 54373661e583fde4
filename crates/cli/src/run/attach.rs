//! A client of a shim: the caller's terminal, or only somebody who waits for the end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::control::SignalError;
use super::frame::{Frame, Interest};
use super::limits;
use super::spec::ProcessSpec;
use super::state::{StateDir, StateError, Status};
use super::terminal::{RawTerminal, SignalStream, terminal_size};

/// Why a process cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The process is not known, or its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// It does not run.
    #[error("process {0} is not running")]
    NotRunning(String),
    /// The shim does not answer.
    #[error("cannot reach the shim of process {id}")]
    Connect {
        /// The process.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The caller's terminal or signals cannot be taken over.
    #[error("cannot take over the terminal")]
    Terminal(#[source] io::Error),
    /// The streams broke.
    #[error("the connection to the process broke")]
    Stream(#[source] io::Error),
    /// A signal cannot be passed on.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The shim was killed, so the exit code is lost.
    #[error("the exit code of process {0} is unknown: its shim was killed")]
    Lost(String),
}

/// A connection to a shim with the caller's streams on this end.
pub(super) struct Attachment<'a> {
    states: &'a StateDir,
    spec: &'a ProcessSpec,
    socket: UnixStream,
    signals: SignalStream,
    received: Vec<u8>,
    pending: Vec<u8>,
    reads_input: bool,
    closed: [bool; 2],
    /// Held, not used: the terminal is as before when this goes.
    _raw: Option<RawTerminal>,
}

impl StateDir {
    /// Shows the output of a running process from now on, feeds it the caller's input if it takes any, and returns its
    /// exit code.
    pub fn attach(&self, id: &str) -> Result<i32, AttachError> {
        let entry = self.entry(id)?;
        if entry.state.status != Status::Running {
            return Err(AttachError::NotRunning(id.to_owned()));
        }
        Attachment::open(self, &entry.spec)?.follow()
    }
}

impl<'a> Attachment<'a> {
    /// Connects and says hello; from here on no output is missed.
    pub(super) fn open(states: &'a StateDir, spec: &'a ProcessSpec) -> Result<Self, AttachError> {
        let signals = SignalStream::open().map_err(AttachError::Terminal)?;
        let takes_keys = spec.tty && spec.stdin_open;
        let raw = if takes_keys {
            RawTerminal::enter()
        } else {
            Ok(None)
        };
        let raw = raw.map_err(AttachError::Terminal)?;
        let reads_input = spec.stdin_open;
        let interest = if reads_input {
            Interest::Input
        } else {
            Interest::Output
        };
        let connect = || -> io::Result<UnixStream> {
            let mut socket = connect(&states.dir(&spec.id))?;
            let mut hello = Vec::new();
            let size = if spec.tty { terminal_size() } else { None };
            Frame::Hello(interest, size).encode(&mut hello);
            socket.write_all(&hello)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let failed = |source| AttachError::Connect {
            id: spec.id.clone(),
            source,
        };
        let socket = connect().map_err(failed)?;
        Ok(Self {
            states,
            spec,
            socket,
            signals,
            received: Vec::new(),
            pending: Vec::new(),
            reads_input,
            closed: [false; 2],
            _raw: raw,
        })
    }

    /// Copies until the process has ended, and returns its exit code.
    pub(super) fn follow(mut self) -> Result<i32, AttachError> {
        loop {
            let [signal, input, socket] = self.wait().map_err(AttachError::Stream)?;
            if signal {
                self.pass_signal()?;
            }
            if input {
                self.read_input();
            }
            if socket && !self.receive().map_err(AttachError::Stream)? {
                return self.recorded_code();
            }
            self.flush().map_err(AttachError::Stream)?;
            while let Some(frame) =
                Frame::decode(&mut self.received).map_err(AttachError::Stream)?
            {
                match frame {
                    Frame::Stdout(bytes) => {
                        self.show(&bytes, false).map_err(AttachError::Stream)?
                    }
                    Frame::Stderr(bytes) => self.show(&bytes, true).map_err(AttachError::Stream)?,
                    Frame::Exit(Some(code)) => return Ok(code),
                    Frame::Exit(None) => return Err(AttachError::Lost(self.spec.id.clone())),
                    _ => {}
                }
            }
        }
    }

    /// Which of signals, input and socket has something.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let stdin = rustix::stdio::stdin();
        let reads = self.reads_input && self.pending.len() < limits::FRAME_BYTES;
        let mut to_socket = PollFlags::IN;
        to_socket.set(PollFlags::OUT, !self.pending.is_empty());
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.socket, to_socket),
        ];
        if reads {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok([ready(0), ready(2), ready(1)])
    }

    fn pass_signal(&mut self) -> Result<(), AttachError> {
        match self.signals.next().map_err(AttachError::Terminal)? {
            Some(Signal::SIGWINCH) => {
                if let Some(size) = terminal_size().filter(|_| self.spec.tty) {
                    Frame::Resize(size).encode(&mut self.pending);
                }
                Ok(())
            }
            Some(signal) => match self.states.kill(&self.spec.id, signal) {
                // It has just ended: the exit code is on its way.
                Ok(())
                | Err(SignalError::NotRunning(_) | SignalError::State(StateError::Unknown(_))) => {
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }

    fn read_input(&mut self) {
        let mut chunk = [0; 16 << 10];
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(count) if count > 0 => {
                Frame::Stdin(chunk[..count].to_vec()).encode(&mut self.pending)
            }
            // A terminal that was hung up or a stream that was never there ends like a file.
            Ok(_) | Err(_) => {
                self.reads_input = false;
                Frame::StdinEnd.encode(&mut self.pending);
            }
        }
    }

    /// `false` when the shim has gone.
    fn receive(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 64 << 10];
        match self.socket.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.received.extend(&chunk[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.socket.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The shim is at its end: what it still had to say is read next.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pending.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8], is_error: bool) -> io::Result<()> {
        if self.closed[usize::from(is_error)] {
            return Ok(());
        }
        let written = if is_error {
            io::stderr().write_all(bytes)
        } else {
            io::stdout()
                .write_all(bytes)
                .and_then(|()| io::stdout().flush())
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.spec.tty => {
                // The process itself shall meet the broken pipe, as if it had written there.
                self.closed[usize::from(is_error)] = true;
                Frame::Close(is_error).encode(&mut self.pending);
                self.flush()
            }
            outcome => outcome,
        }
    }

    fn recorded_code(&self) -> Result<i32, AttachError> {
        let id = &self.spec.id;
        let code = self
            .states
            .entry(id)
            .ok()
            .and_then(|entry| entry.state.exit_code);
        code.ok_or_else(|| AttachError::Lost(id.clone()))
    }
}

/// The exit code as the shim tells it; `None` inside when it does not know, outside when `timeout` passed first.
pub(super) fn await_end(dir: &Path, timeout: Option<Duration>) -> io::Result<Option<Option<i32>>> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    let mut socket = connect(dir)?;
    let mut bytes = Vec::new();
    Frame::Hello(Interest::End, None).encode(&mut bytes);
    socket.write_all(&bytes)?;
    bytes.clear();
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(std::time::Instant::now()));
        if !super::process::wait_readable(socket.as_fd(), left)? {
            return Ok(None);
        }
        let mut chunk = [0; 64];
        let count = socket.read(&mut chunk)?;
        bytes.extend(&chunk[..count]);
        match Frame::decode(&mut bytes)? {
            Some(Frame::Exit(code)) => return Ok(Some(code)),
            _ if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

fn connect(dir: &Path) -> io::Result<UnixStream> {
    let held = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/attach.sock", held.as_raw_fd()))
}
