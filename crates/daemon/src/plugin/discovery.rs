//! Where a plugin is, by its name: a socket in a directory, or a file that says where.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::wire::{self, messages};
use crate::limits::{PLUGIN_FILE_BYTES_MAX, PLUGIN_NAME_BYTES_MAX};

/// The directories in which plugins are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Of sockets, such as `NAME.sock`.
    pub(crate) sockets: PathBuf,
    /// Of files that say where a plugin is, `NAME.spec` and `NAME.json`; the first that has one counts.
    pub(crate) files: Vec<PathBuf>,
}

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a TCP port, in the clear.
    Tcp {
        /// Host name or IP address, the latter without brackets.
        host: String,
        /// Port number.
        port: u16,
    },
    /// At a TCP port, with TLS.
    Tls {
        /// Host name or IP address, the latter without brackets.
        host: String,
        /// Port number.
        port: u16,
        /// What is checked and shown.
        tls: Tls,
    },
}

/// What is checked of a plugin that speaks TLS, and what it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The certificates of those whose word on the plugin is taken, in PEM; without it anyone is believed to be the
    /// plugin, which the file must ask for.
    pub(crate) authority: Option<PathBuf>,
    /// Our certificate and its key, in PEM, if the plugin asks for them.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Why a plugin cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// The name could lead anywhere.
    #[error(
        "{name:?} is no name of a plugin: it needs 1 to {PLUGIN_NAME_BYTES_MAX} bytes without a slash or \
         control characters, and not dots alone"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is nothing of that name.
    #[error("no plugin {name} in {}", list(looked))]
    NotFound {
        /// The name.
        name: String,
        /// The directories.
        looked: Vec<PathBuf>,
    },
    /// A place cannot be looked at, or its file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The place.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is larger than such a file is.
    #[error("{} has more than {PLUGIN_FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file is not in the form that its ending says.
    #[error("cannot understand {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// A file holds no address of a plugin.
    #[error(
        "{} holds {text:?}, which is no address of a plugin: write unix:///path, tcp://host:port, \
         http://host:port or https://host:port",
        path.display()
    )]
    Address {
        /// The file.
        path: PathBuf,
        /// What is in the place of the address.
        text: String,
    },
    /// Nobody says who the plugin is.
    #[error(
        "{} asks for TLS without `CAFile`: name the certificates to check the plugin against, as those of the \
         system are not used, or set `InsecureSkipVerify` to take anyone for the plugin",
        path.display()
    )]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The plugin is to be checked and not to be checked.
    #[error("{} sets both `CAFile` and `InsecureSkipVerify`: remove one of them", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
    },
    /// A certificate without its key, or the reverse.
    #[error("{} sets one of `CertFile` and `KeyFile`: set both or none", path.display())]
    HalfIdentity {
        /// The file.
        path: PathBuf,
    },
}

messages! {
    /// A file in JSON that says where a plugin is. It may name the plugin, but the file's own name counts.
    Definition {
        address: String = "Addr",
        tls: Option<TlsDefinition> = "TLSConfig",
    }

    /// The same for TLS.
    TlsDefinition {
        skip_verify: bool = "InsecureSkipVerify",
        authority: PathBuf = "CAFile",
        certificate: PathBuf = "CertFile",
        key: PathBuf = "KeyFile",
    }
}

impl Default for Places {
    /// Those of Docker's engine, from where plugins put themselves.
    fn default() -> Self {
        Self {
            sockets: "/run/docker/plugins".into(),
            files: vec![
                "/etc/docker/plugins".into(),
                "/usr/lib/docker/plugins".into(),
            ],
        }
    }
}

impl Places {
    /// Where the plugin of a name listens: at a socket of its name, else where the first file of its name says, in
    /// the order of Docker's engine. Reads files; blocks.
    pub(crate) fn find(&self, name: &str) -> Result<Address, FindError> {
        check_name(name)?;
        for path in candidates(&self.sockets, name, "sock") {
            if kind(&path)?.is_some_and(|kind| kind.is_socket()) {
                return Ok(Address::Unix(path));
            }
        }
        for directory in &self.files {
            for ending in ["spec", "json"] {
                for path in candidates(directory, name, ending) {
                    // Anything but a file is passed over: to read a pipe could take forever.
                    if kind(&path)?.is_some_and(|kind| kind.is_file()) {
                        return read(&path, ending == "json");
                    }
                }
            }
        }
        let looked = [&self.sockets].into_iter().chain(&self.files);
        Err(FindError::NotFound {
            name: name.to_owned(),
            looked: looked.cloned().collect(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Unix(path) => return write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => ("http", host, port),
            Self::Tls { host, port, .. } => ("https", host, port),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// Whether paths can be made of the name that stay in their directory.
fn check_name(name: &str) -> Result<(), FindError> {
    let fits = (1..=PLUGIN_NAME_BYTES_MAX).contains(&name.len());
    let plain = !name.contains(|c: char| c == '/' || c.is_control());
    if fits && plain && !name.chars().all(|c| c == '.') {
        return Ok(());
    }
    Err(FindError::Name {
        name: name.to_owned(),
    })
}

/// The two places of a file in a directory: by itself, or in a directory of the plugin.
fn candidates(directory: &Path, name: &str, ending: &str) -> [PathBuf; 2] {
    let file = format!("{name}.{ending}");
    [directory.join(&file), directory.join(name).join(&file)]
}

/// What is at a path; none if nothing is.
fn kind(path: &Path) -> Result<Option<fs::FileType>, FindError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(source) => Err(FindError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn read(path: &Path, is_json: bool) -> Result<Address, FindError> {
    let text = read_text(path)?;
    let definition = if is_json {
        wire::read::<Definition>(text.as_bytes()).map_err(|source| FindError::Json {
            path: path.to_owned(),
            source,
        })?
    } else {
        Definition {
            address: text,
            tls: None,
        }
    };
    let text = definition.address.trim();
    let unknown = || FindError::Address {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
    if scheme == "unix" {
        let plain = rest.starts_with('/') && !rest.contains(char::is_control);
        // A socket is of this host: engines speak no TLS there either, whatever the file says.
        return plain
            .then(|| Address::Unix(rest.into()))
            .ok_or_else(unknown);
    }
    let default_port = match scheme {
        "tcp" => None,
        "http" => Some(80),
        "https" => Some(443),
        _ => return Err(unknown()),
    };
    let (host, port) = host_and_port(rest, default_port).ok_or_else(unknown)?;
    match definition.tls {
        Some(tls) => {
            let tls = trust(tls, path)?;
            Ok(Address::Tls { host, port, tls })
        }
        None if scheme == "https" => Err(FindError::NoAuthority {
            path: path.to_owned(),
        }),
        None => Ok(Address::Tcp { host, port }),
    }
}

fn read_text(path: &Path) -> Result<String, FindError> {
    let error = |source| FindError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(error)?;
    let mut content = Vec::new();
    let mut limited = file.take(PLUGIN_FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut content).map_err(error)?;
    if content.len() as u64 > PLUGIN_FILE_BYTES_MAX {
        return Err(FindError::TooLong {
            path: path.to_owned(),
        });
    }
    String::from_utf8(content).map_err(|source| error(io::Error::other(source)))
}

/// Host and port of what follows a scheme; a path behind them is dropped, as engines do.
fn host_and_port(rest: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let mut text = format!("tcp://{authority}");
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    if let (false, Some(port)) = (has_port, default_port) {
        text = format!("{text}:{port}");
    }
    match text.parse().ok()? {
        tombolo_api::Address::Tcp { host, port, .. } => Some((host, port)),
        tombolo_api::Address::Unix(_) => None,
    }
}

/// Unlike in engines, which check nobody when no authority is named, that must be asked for.
fn trust(tls: TlsDefinition, path: &Path) -> Result<Tls, FindError> {
    let path = || path.to_owned();
    let given = |file: PathBuf| (!file.as_os_str().is_empty()).then_some(file);
    let authority = given(tls.authority);
    match (&authority, tls.skip_verify) {
        (None, false) => return Err(FindError::NoAuthority { path: path() }),
        (Some(_), true) => return Err(FindError::Contradiction { path: path() }),
        (Some(_), false) | (None, true) => {}
    }
    let identity = match (given(tls.certificate), given(tls.key)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(FindError::HalfIdentity { path: path() }),
    };
    Ok(Tls {
        authority,
        identity,
    })
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}
