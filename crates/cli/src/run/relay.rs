//! The shim's loop: between the process, its log and the attached clients.
//!
//! Output goes to the log and to every client that wants it. A client that does not read stops the process' output, as a
//! full pipe would, until it reads or goes; the data left after the process has ended is bounded and always taken.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::frame::{Frame, Interest, TerminalSize};
use super::logs::{Lines, LogWriter, Stream};
use super::process::timespec;
use super::{console, limits};

/// What the process' streams end in.
#[derive(Debug)]
pub(super) struct Streams {
    /// Readable ends.
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    /// Writable end of its input.
    pub(super) input: Option<OwnedFd>,
    /// Controlling end of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// The loop and all it holds.
#[derive(Debug)]
pub(super) struct Relay {
    listener: UnixListener,
    clients: Vec<Client>,
    outputs: Vec<Output>,
    input: Option<OwnedFd>,
    input_queue: Vec<u8>,
    input_ends: bool,
    terminal: Option<OwnedFd>,
    log: LogWriter,
    log_failed: bool,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: OwnedFd,
    lines: Lines,
    open: bool,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    interest: Option<Interest>,
    received: Vec<u8>,
    pending: Vec<u8>,
    gone: bool,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    End,
    Listener,
    Client(usize),
    Output(usize),
    Input,
}

impl Relay {
    /// A relay without a process yet.
    pub(super) fn new(listener: UnixListener, log: LogWriter) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: Vec::new(),
            outputs: Vec::new(),
            input: None,
            input_queue: Vec::new(),
            input_ends: false,
            terminal: None,
            log,
            log_failed: false,
        })
    }

    /// Waits for the first client and its terminal size; `TimedOut` when none comes.
    pub(super) fn await_client(&mut self) -> io::Result<Option<TerminalSize>> {
        let wait = Some(limits::ATTACH_WAIT);
        if !super::process::wait_readable(&self.listener, wait)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (mut socket, _) = self.listener.accept()?;
        socket.set_read_timeout(wait)?;
        let mut received = Vec::new();
        let mut chunk = [0; 64];
        loop {
            if let Some(frame) = Frame::decode(&mut received)? {
                let Frame::Hello(interest, size) = frame else {
                    return Err(io::Error::other("a client did not say hello"));
                };
                socket.set_nonblocking(true)?;
                let interest = Some(interest);
                let client = Client {
                    socket,
                    interest,
                    received,
                    pending: Vec::new(),
                    gone: false,
                };
                self.clients.push(client);
                return Ok(size);
            }
            match socket.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received.extend(&chunk[..count]),
            }
        }
    }

    /// Relays until the process behind `ended` has ended and its output is read.
    pub(super) fn run(&mut self, streams: Streams, ended: &OwnedFd) -> io::Result<()> {
        for (stream, fd) in streams.outputs {
            self.outputs.push(Output {
                stream,
                fd,
                lines: Lines::default(),
                open: true,
            });
        }
        self.input = streams.input;
        self.terminal = streams.terminal;
        if let Some(input) = &self.input {
            rustix::fs::fcntl_setfl(input, rustix::fs::OFlags::NONBLOCK)?;
        }
        for client in 0..self.clients.len() {
            self.take_frames(client);
        }
        let mut has_ended = false;
        while !has_ended || !self.outputs.is_empty() {
            let idle = has_ended.then_some(limits::DRAIN_IDLE);
            let ready = self.wait(if has_ended { None } else { Some(ended) }, idle)?;
            let drained = has_ended
                && !ready
                    .iter()
                    .any(|(source, _)| matches!(source, Source::Output(_)));
            if drained {
                break;
            }
            for (source, flags) in ready {
                match source {
                    Source::End => has_ended = true,
                    Source::Listener => self.accept(),
                    Source::Client(index) => self.serve(index, flags),
                    Source::Output(index) => self.read_output(index),
                    Source::Input => self.write_input(),
                }
            }
            self.sweep();
        }
        self.outputs
            .iter_mut()
            .for_each(|output| output.open = false);
        self.sweep();
        Ok(())
    }

    /// Tells every client the exit code, and waits until each has read all or has gone.
    pub(super) fn finish(mut self, code: Option<i32>) {
        self.accept();
        for client in &mut self.clients {
            Frame::Exit(code).encode(&mut client.pending);
            client.flush();
        }
        loop {
            self.clients
                .retain(|client| !client.gone && !client.pending.is_empty());
            if self.clients.is_empty() {
                return;
            }
            let sockets = self.clients.iter().map(|client| &client.socket);
            let mut fds: Vec<_> = sockets
                .map(|socket| PollFd::new(socket, PollFlags::OUT))
                .collect();
            if matches!(poll(&mut fds, None), Err(error) if error != Errno::INTR) {
                return;
            }
            drop(fds);
            self.clients.iter_mut().for_each(Client::flush);
        }
    }

    fn wait(
        &self,
        ended: Option<&OwnedFd>,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut watch = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(ended) = ended {
            watch(Source::End, ended.as_fd(), PollFlags::IN);
        }
        if self.clients.len() < limits::ATTACHED_CLIENTS {
            watch(Source::Listener, self.listener.as_fd(), PollFlags::IN);
        }
        let heard = self.input_queue.len() < limits::STDIN_BYTES;
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, heard);
            flags.set(PollFlags::OUT, !client.pending.is_empty());
            if !flags.is_empty() {
                watch(Source::Client(index), client.socket.as_fd(), flags);
            }
        }
        let full = |client: &Client| client.pending.len() > limits::FRAME_BYTES;
        if ended.is_none() || !self.clients.iter().any(full) {
            for (index, output) in self.outputs.iter().enumerate() {
                watch(Source::Output(index), output.fd.as_fd(), PollFlags::IN);
            }
        }
        if let Some(input) = self.input.as_ref().filter(|_| !self.input_queue.is_empty()) {
            watch(Source::Input, input.as_fd(), PollFlags::OUT);
        }
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let flags: Vec<_> = fds.iter().map(PollFd::revents).collect();
        Ok(sources
            .into_iter()
            .zip(flags)
            .filter(|(_, flags)| !flags.is_empty())
            .collect())
    }

    fn accept(&mut self) {
        while self.clients.len() < limits::ATTACHED_CLIENTS {
            let Ok((socket, _)) = self.listener.accept() else {
                return;
            };
            let gone = socket.set_nonblocking(true).is_err();
            let (received, pending) = (Vec::new(), Vec::new());
            self.clients.push(Client {
                socket,
                interest: None,
                received,
                pending,
                gone,
            });
        }
    }

    fn serve(&mut self, index: usize, flags: PollFlags) {
        let client = &mut self.clients[index];
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let mut chunk = [0; 16 << 10];
        match client.socket.read(&mut chunk) {
            Ok(0) => client.gone = true,
            Ok(count) => client.received.extend(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => client.gone = true,
        }
        self.take_frames(index);
    }

    fn take_frames(&mut self, index: usize) {
        loop {
            let client = &mut self.clients[index];
            match Frame::decode(&mut client.received) {
                Ok(Some(frame)) => self.obey(index, frame),
                Ok(None) => break,
                Err(_) => {
                    client.gone = true;
                    break;
                }
            }
        }
    }

    fn obey(&mut self, index: usize, frame: Frame) {
        let client = &mut self.clients[index];
        let has_input = client.interest == Some(Interest::Input);
        match frame {
            Frame::Hello(interest, size) => {
                client.interest = Some(interest);
                size.into_iter().for_each(|size| self.resize(size));
            }
            Frame::Stdin(bytes) if has_input && self.input.is_some() => {
                self.input_queue.extend(bytes);
                self.write_input();
            }
            Frame::StdinEnd if has_input && self.terminal.is_some() => {
                // What a person would type at a terminal to end the input: ^D.
                self.input_queue.push(4);
                self.write_input();
            }
            Frame::StdinEnd if has_input => self.end_input(),
            Frame::Resize(size) => self.resize(size),
            Frame::Close(error_output) => {
                let stream = if error_output {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                };
                let closed = self
                    .outputs
                    .iter_mut()
                    .filter(|output| output.stream == stream);
                closed.for_each(|output| output.open = false);
            }
            Frame::Stdin(_) | Frame::StdinEnd => {}
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) => client.gone = true,
        }
    }

    fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            // A terminal that is already hung up has no size to lose.
            let _ = console::resize(terminal, size);
        }
    }

    fn end_input(&mut self) {
        if self.terminal.is_none() {
            self.input_ends = true;
            self.write_input();
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &self.input else { return };
        while !self.input_queue.is_empty() {
            match rustix::io::write(input, &self.input_queue) {
                Ok(count) => drop(self.input_queue.drain(..count)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.input_queue.clear();
                    self.input_ends = true;
                }
            }
        }
        if self.input_ends {
            self.input = None;
        }
    }

    fn read_output(&mut self, index: usize) {
        let output = &mut self.outputs[index];
        let mut chunk = [0; 16 << 10];
        let bytes = match rustix::io::read(&output.fd, &mut chunk) {
            // A terminal reports EIO once nobody holds its other side.
            Ok(0) | Err(Errno::IO) => {
                output.open = false;
                return;
            }
            Ok(count) => &chunk[..count],
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {
                output.open = false;
                return;
            }
        };
        let stream = output.stream;
        let (log, failed) = (&mut self.log, &mut self.log_failed);
        output
            .lines
            .push(bytes, |line| note(log.append(stream, line), failed));
        let frame = match stream {
            Stream::Stdout => Frame::Stdout(bytes.to_vec()),
            Stream::Stderr => Frame::Stderr(bytes.to_vec()),
        };
        let wants = |client: &&mut Client| {
            matches!(client.interest, Some(Interest::Output | Interest::Input))
        };
        for client in self.clients.iter_mut().filter(wants) {
            frame.encode(&mut client.pending);
            client.flush();
        }
    }

    /// Lets go of ended clients and closed outputs.
    fn sweep(&mut self) {
        let fed = |client: &Client| client.gone && client.interest == Some(Interest::Input);
        if self.clients.iter().any(fed) {
            self.end_input();
        }
        self.clients.retain(|client| !client.gone);
        for output in self.outputs.iter_mut().filter(|output| !output.open) {
            if let Some(rest) = output.lines.finish() {
                note(self.log.append(output.stream, &rest), &mut self.log_failed);
            }
        }
        self.outputs.retain(|output| output.open);
    }
}

impl Client {
    fn flush(&mut self) {
        while !self.pending.is_empty() && !self.gone {
            match self.socket.write(&self.pending) {
                Ok(0) => self.gone = true,
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }
}

/// Mentions in the shim's own log, once, that the process' log is incomplete.
fn note(outcome: io::Result<()>, failed: &mut bool) {
    if let (Err(error), false) = (outcome, *failed) {
        *failed = true;
        let _ = writeln!(io::stderr(), "the log is incomplete: {error}");
    }
}
