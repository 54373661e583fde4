//! What every command needs: its streams, the daemon, and the state of processes.

use std::io::Write;
use std::path::{Path, PathBuf};

use tombolo_api::tls::TlsFiles;
use tombolo_api::{Address, Client, ClientError};

use crate::args::GlobalFlags;
use crate::daemon;
use crate::error::CommandError;
use crate::run::StateDir;

/// Where the daemon and the state of processes are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the daemon listens.
    pub(crate) address: Address,
    /// Directory of what lasts until the next boot.
    pub(crate) run_dir: PathBuf,
    /// Whether a daemon may be started when none answers.
    pub(crate) autostart: bool,
}

impl Place {
    /// Reads the flags. Paths become absolute, so that another program may be given them.
    pub(crate) fn resolve(flags: &GlobalFlags) -> Result<Self, CommandError> {
        let run_dir = absolute(&flags.run_dir)?;
        let own = Address::Unix(run_dir.join("tombolo.sock"));
        let mut address = match &flags.host {
            Some(text) => text.parse()?,
            None => own.clone(),
        };
        match (&flags.tls_ca, &flags.tls_cert, &flags.tls_key, &address) {
            (None, None, None, _) => {}
            (Some(ca), Some(cert), Some(key), Address::Tcp { .. }) => {
                address = address.with_tls(TlsFiles {
                    authority: absolute(ca)?,
                    certificate: absolute(cert)?,
                    key: absolute(key)?,
                });
            }
            _ => return Err(CommandError::TlsFlags),
        }
        // A daemon of another run directory would share the state directory with the usual one.
        let is_usual = address == Address::default() && address == own;
        let autostart = !flags.no_autostart && is_usual && nix::unistd::geteuid().is_root();
        Ok(Self {
            address,
            run_dir,
            autostart,
        })
    }

    /// The flags by which a command started elsewhere finds the same daemon and state.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut words = vec![
            "--run-dir".to_owned(),
            self.run_dir.display().to_string(),
            "--host".to_owned(),
            self.address.to_string(),
        ];
        if let Address::Tcp {
            tls: Some(files), ..
        } = &self.address
        {
            let files = [
                ("--tls-ca", &files.authority),
                ("--tls-cert", &files.certificate),
                ("--tls-key", &files.key),
            ];
            for (flag, path) in files {
                words.extend([flag.to_owned(), path.display().to_string()]);
            }
        }
        words
    }
}

/// What a command works with.
pub(crate) struct Context<'a> {
    /// Where data goes.
    pub(crate) out: &'a mut dyn Write,
    /// Where messages go.
    pub(crate) err: &'a mut dyn Write,
    /// Where everything is found.
    pub(crate) place: Place,
    /// The processes that `run` has started.
    pub(crate) states: StateDir,
    client: Option<Client>,
}

impl<'a> Context<'a> {
    /// A context that has not talked to the daemon yet.
    pub(crate) fn new(
        flags: &GlobalFlags,
        out: &'a mut dyn Write,
        err: &'a mut dyn Write,
    ) -> Result<Self, CommandError> {
        let place = Place::resolve(flags)?;
        let states = StateDir::new(place.run_dir.join("run"));
        Ok(Self {
            out,
            err,
            place,
            states,
            client: None,
        })
    }

    /// The daemon, which is connected to at the first call and started if it may be.
    pub(crate) fn client(&mut self) -> Result<&mut Client, CommandError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => match Client::connect(self.place.address.clone()) {
                Ok(client) => client,
                Err(ClientError::NoDaemon { .. }) if self.place.autostart => {
                    daemon::launch(&self.place, Path::new("/proc/self/exe"), self.err)?
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(self.client.insert(client))
    }

    /// The daemon if one answers, which is never started for this.
    pub(crate) fn running_client(&mut self) -> Result<&mut Client, CommandError> {
        let autostart = std::mem::replace(&mut self.place.autostart, false);
        let connected = self.client().map(drop);
        self.place.autostart = autostart;
        connected?;
        self.client()
    }

    /// Hangs up, so that a long wait does not hold a connection of the daemon.
    pub(crate) fn hang_up(&mut self) {
        self.client = None;
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|source| CommandError::Directory {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn place(words: &[&str]) -> Result<Place, CommandError> {
        let words = ["tombolo"].iter().chain(words).chain(&["version"]);
        Place::resolve(&Cli::try_parse_from(words).unwrap().global)
    }

    #[test]
    fn the_run_directory_moves_socket_and_state() {
        let moved = place(&["--run-dir", "/tmp/x"]).unwrap();
        assert_eq!(moved.address, Address::Unix("/tmp/x/tombolo.sock".into()));
        let elsewhere = place(&["--run-dir", "/tmp/x", "-H", "tcp://127.0.0.1:7"]).unwrap();
        assert!(!elsewhere.autostart && !moved.autostart);
        assert_eq!(elsewhere.address.to_string(), "tcp://127.0.0.1:7");
    }

    #[test]
    fn tls_files_go_together_and_with_tcp() {
        let all = ["--tls-ca", "ca", "--tls-cert", "/c", "--tls-key", "/k"];
        let tcp = ["-H", "tcp://192.0.2.1:7"];
        let secure = place(&[&tcp[..], &all].concat()).unwrap();
        let flags = secure.flags();
        assert!(
            flags[5].starts_with('/') && flags[5].ends_with("/ca"),
            "{flags:?}"
        );
        assert_eq!(
            place(&flags.iter().map(String::as_str).collect::<Vec<_>>()).unwrap(),
            secure
        );
        for wrong in [&all[..], &[&tcp[..], &all[..4]].concat()] {
            assert!(
                matches!(place(wrong), Err(CommandError::TlsFlags)),
                "{wrong:?}"
            );
        }
        assert!(matches!(
            place(&["-H", "nowhere"]),
            Err(CommandError::Address(_))
        ));
    }
}
