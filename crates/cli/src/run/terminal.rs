//! The caller's side: its terminal, its signals and its input.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use nix::sys::signal::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::iterator::{Handle, Signals};

use super::frame::TerminalSize;

/// Signals passed on to a process in the foreground.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The size of the terminal on standard output or input, if there is one.
pub(super) fn terminal_size() -> Option<TerminalSize> {
    [rustix::stdio::stdout(), rustix::stdio::stdin()]
        .into_iter()
        .find_map(|stream| {
            let size = tcgetwinsize(stream).ok()?;
            (size.ws_row > 0).then_some(TerminalSize {
                rows: size.ws_row,
                columns: size.ws_col,
            })
        })
}

/// Passes keys on as they are typed until dropped, when the terminal is as it was.
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` when standard input is no terminal.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The signals of this program as a readable stream, instead of their effects, until dropped.
pub(super) struct SignalStream {
    numbers: UnixStream,
    handle: Handle,
    forwarder: Option<thread::JoinHandle<()>>,
}

impl SignalStream {
    /// Takes over the forwarded signals and the terminal's changes of size.
    pub(super) fn open() -> io::Result<Self> {
        let wanted = FORWARDED
            .into_iter()
            .chain([Signal::SIGWINCH])
            .map(|signal| signal as i32);
        let mut signals = Signals::new(wanted)?;
        let handle = signals.handle();
        let (numbers, mut from) = UnixStream::pair()?;
        let forwarder = thread::spawn(move || {
            for number in signals.forever() {
                let byte = [u8::try_from(number).unwrap_or(0)];
                if io::Write::write_all(&mut from, &byte).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            numbers,
            handle,
            forwarder: Some(forwarder),
        })
    }

    /// Takes the next signal; call it when [`SignalStream::as_fd`] is readable.
    pub(super) fn next(&mut self) -> io::Result<Option<Signal>> {
        let mut byte = [0];
        io::Read::read_exact(&mut self.numbers, &mut byte)?;
        Ok(Signal::try_from(i32::from(byte[0])).ok())
    }
}

impl AsFd for SignalStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.numbers.as_fd()
    }
}

impl Drop for SignalStream {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(forwarder) = self.forwarder.take() {
            // It ends as soon as the handle is closed.
            let _ = forwarder.join();
        }
    }
}
