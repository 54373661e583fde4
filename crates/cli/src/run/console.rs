//! A pseudo terminal made inside the process' world and watched from outside: pty(7).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::termios::{Winsize, tcsetwinsize};

use super::frame::TerminalSize;

/// Opens a terminal, hands its controlling end out over standard input, and makes it standard input, output and error.
///
/// The caller must lead a session that has no terminal yet: this becomes its controlling terminal. Returns the path
/// of the terminal once the other side has set its size.
pub(super) fn take_console() -> io::Result<PathBuf> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes()));
    // Opening without O_NOCTTY is what makes it the controlling terminal.
    let terminal = OpenOptions::new().read(true).write(true).open(&path)?;
    let handover = rustix::stdio::stdin().try_clone_to_owned()?;
    send_fd(&handover, &master)?;
    drop(master);
    File::from(handover).read_exact(&mut [0])?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    rustix::stdio::dup2_stderr(&terminal)?;
    Ok(path)
}

/// Receives the controlling end of a terminal and sets its size; `None` when the other side ended first.
pub(super) fn receive_console(
    mut socket: UnixStream,
    size: Option<TerminalSize>,
) -> io::Result<Option<OwnedFd>> {
    let Some(master) = receive_fd(&socket)? else {
        return Ok(None);
    };
    if let Some(size) = size {
        resize(&master, size)?;
    }
    socket.write_all(&[0])?;
    Ok(Some(master))
}

/// Sets the size of a terminal by its controlling end; the programs in it get `SIGWINCH`.
pub(super) fn resize(master: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(master, size)?)
}

fn send_fd(socket: &OwnedFd, fd: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        socket,
        &[IoSlice::new(&[0])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive_fd(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(received)
}
