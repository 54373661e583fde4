//! What `run` asks of the host for a program: paths, and the host's own name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::CommandError;
use crate::run::Bind;

/// One `--volume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    host: PathBuf,
    container: PathBuf,
    read_only: bool,
}

impl Volume {
    /// The same with an absolute host path, which must exist.
    pub(super) fn resolve(&self) -> Result<Bind, CommandError> {
        let host = fs::canonicalize(&self.host).map_err(|source| CommandError::Volume {
            path: self.host.clone(),
            source,
        })?;
        Ok(Bind {
            host,
            container: self.container.clone(),
            read_only: self.read_only,
        })
    }
}

/// Reads `HOST:PATH` or `HOST:PATH:ro`.
pub(super) fn volume(text: &str) -> Result<Volume, String> {
    let mut parts = text.split(':');
    let (host, container) = match (parts.next(), parts.next()) {
        (Some(host), Some(container)) if !host.is_empty() && !container.is_empty() => {
            (host, container)
        }
        _ => return Err("write it as HOST:PATH or HOST:PATH:ro".to_owned()),
    };
    let read_only = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        (Some(mode), None) => return Err(format!("`{mode}` is neither ro nor rw")),
        _ => return Err("it has more than three parts".to_owned()),
    };
    // As Docker does: a bare word would be the name of a managed volume, and there are none here.
    if !host.starts_with(['/', '.']) {
        return Err(format!("`{host}` is not a path: begin it with / or ./"));
    }
    if !container.starts_with('/') {
        return Err(format!("`{container}` is not an absolute path"));
    }
    Ok(Volume {
        host: host.into(),
        container: container.into(),
        read_only,
    })
}

/// A directory by its absolute path.
pub(super) fn directory(path: &Path) -> Result<PathBuf, CommandError> {
    let failed = |source| CommandError::Directory {
        path: path.to_owned(),
        source,
    };
    let absolute = fs::canonicalize(path).map_err(failed)?;
    if absolute.is_dir() {
        Ok(absolute)
    } else {
        Err(failed(io::ErrorKind::NotADirectory.into()))
    }
}

/// The name of this host, without characters that a process could not be given.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let name: String = name
        .to_string_lossy()
        .chars()
        .filter(kept)
        .take(64)
        .collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_in_docker() {
        let read = |host: &str, container: &str, read_only| {
            Ok(Volume {
                host: host.into(),
                container: container.into(),
                read_only,
            })
        };
        assert_eq!(volume("/a:/b"), read("/a", "/b", false));
        assert_eq!(volume("/a:/b:ro"), read("/a", "/b", true));
        assert_eq!(volume("./a:/b:rw"), read("./a", "/b", false));
        for wrong in [
            "/a",
            "/a:",
            ":/b",
            "data:/b",
            "/a:b",
            "/a:/b:z",
            "/a:/b:ro:x",
            "",
        ] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_paths_are_resolved_and_must_exist() {
        let temp = tempfile::tempdir().unwrap();
        let inside = temp.path().join("x/../.");
        fs::create_dir(temp.path().join("x")).unwrap();
        let bind = volume(&format!("{}:/b", inside.display()))
            .unwrap()
            .resolve()
            .unwrap();
        assert_eq!(bind.host, temp.path().canonicalize().unwrap());
        assert!(volume("/no/such/path:/b").unwrap().resolve().is_err());
        assert!(directory(Path::new("/etc/hostname")).is_err());
        assert!(!host_name().is_empty());
    }
}
