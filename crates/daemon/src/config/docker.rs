//! The settings for Docker's engine.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::limits::{DOCKER_ENGINES_MAX, SOCKET_PATH_BYTES_MAX};

/// What a flag says in place of a path where there is to be none.
const NONE: &str = "none";

/// Flags for Docker's engine.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DockerFlags {
    /// Unix socket at which Docker's engine finds this daemon as a plugin; `none` for no plugin.
    #[arg(long = "docker-plugin", value_name = "PATH")]
    pub plugin_socket: Option<PathBuf>,
    /// Unix socket of an engine that may use the plugin (repeatable); `none` for no engine.
    #[arg(long = "docker-engine", value_name = "PATH")]
    pub engines: Vec<PathBuf>,
    /// This daemon is a managed plugin: its own view of /proc/sys, which the engine made read-only, becomes writable.
    #[arg(long = "docker-managed")]
    pub managed: bool,
}

/// Whether this daemon is a plugin of Docker's engine, and of which engines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Docker {
    /// Unix socket of the plugin; without it there is no plugin.
    pub plugin_socket: Option<PathBuf>,
    /// Unix sockets of the engines' own APIs, which are asked what plugins are not told.
    pub engines: Vec<PathBuf>,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            plugin_socket: None,
            engines: vec!["/run/docker.sock".into()],
        }
    }
}

impl Docker {
    pub(super) fn override_with(&mut self, flags: &DockerFlags) {
        let named = |path: &&PathBuf| *path != Path::new(NONE);
        if let Some(path) = &flags.plugin_socket {
            self.plugin_socket = Some(path).filter(named).cloned();
        }
        if !flags.engines.is_empty() {
            self.engines = flags.engines.iter().filter(named).cloned().collect();
        }
    }

    /// Refuses what cannot be; `api` is the socket of this daemon's own API.
    pub(super) fn check(&self, api: &Path) -> Result<(), ConfigError> {
        let value = |setting, reason: String| Err(ConfigError::Value { setting, reason });
        let plugin = self.plugin_socket.iter();
        let sockets = plugin.map(|path| ("docker.plugin-socket", path));
        let engines = self.engines.iter().map(|path| ("docker.engines", path));
        for (setting, path) in sockets.chain(engines) {
            if let Some(reason) = obstacle(path) {
                return value(setting, reason);
            }
            if path == api {
                let reason = format!("{} is the socket of the API", path.display());
                return value(setting, reason);
            }
        }
        if self.engines.len() > DOCKER_ENGINES_MAX {
            return value("docker.engines", format!("at most {DOCKER_ENGINES_MAX}"));
        }
        let mut sorted: Vec<&PathBuf> = self.engines.iter().chain(&self.plugin_socket).collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let reason = format!("{} is given twice", twice[0].display());
            return value("docker.engines", reason);
        }
        Ok(())
    }
}

/// Why no Unix socket can be at this path.
fn obstacle(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    if !path.is_absolute() {
        return Some(format!("{} is not an absolute path", path.display()));
    }
    if bytes.len() > SOCKET_PATH_BYTES_MAX || bytes.contains(&0) {
        return Some(format!(
            "{} is no path of a Unix socket: at most {SOCKET_PATH_BYTES_MAX} bytes, none of them zero",
            path.display()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(plugin: Option<&str>, engines: &[&str]) -> Result<(), String> {
        let docker = Docker {
            plugin_socket: plugin.map(PathBuf::from),
            engines: engines.iter().map(PathBuf::from).collect(),
        };
        let checked = docker.check(Path::new("/run/tombolo/tombolo.sock"));
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn engines_and_paths_have_limits() {
        let engine = |n: usize| format!("/run/{n}.sock");
        let engines: Vec<String> = (0..=DOCKER_ENGINES_MAX).map(engine).collect();
        let engines: Vec<&str> = engines.iter().map(String::as_str).collect();
        check(None, &engines[1..]).unwrap();
        let refused = check(None, &engines).unwrap_err();
        assert!(refused.contains("at most 8"), "{refused}");
        let longest = format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX - 1));
        check(Some(&longest), &[]).unwrap();
        let refused = check(Some(&format!("{longest}x")), &[]).unwrap_err();
        assert!(refused.contains("docker.plugin-socket"), "{refused}");
    }

    #[test]
    fn paths_that_cannot_be_are_refused_with_their_setting() {
        for (plugin, engines, setting, word) in [
            (Some("a.sock"), &[][..], "docker.plugin-socket", "absolute"),
            (Some("/a\0b"), &[], "docker.plugin-socket", "zero"),
            (None, &["a.sock"], "docker.engines", "absolute"),
            (None, &["/a", "/b", "/a"], "docker.engines", "twice"),
            (Some("/a"), &["/a"], "docker.engines", "twice"),
            (
                Some("/run/tombolo/tombolo.sock"),
                &[],
                "docker.plugin-socket",
                "the API",
            ),
        ] {
            let refused = check(plugin, engines).unwrap_err();
            let is_told = refused.contains(setting) && refused.contains(word);
            assert!(is_told, "{plugin:?} {engines:?}: {refused}");
        }
        check(Some("/a"), &["/b", "/c"]).unwrap();
    }
}
